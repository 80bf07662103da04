"""Retrieval scores of every pair of languages, from one S × S block of cosines at a time."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ilo_fast.alignment.decisions import bounded_scores, serves
from ilo_fast.alignment.operands import bounded_points
from ilo_fast.alignment.similarity import check_k
from ilo_fast.alignment.winners import SCORES, block_hits, scores_of_hits
from ilo_fast.arguments import check_choice
from ilo_fast.arrays import real_array
from ilo_fast.errors import InputError
from ilo_fast.lists import Label, label_codes, language_codes
from ilo_fast.ops.points import prepare_points
from ilo_fast.ops.precision import ieee_products
from ilo_fast.ops.workers import mapped, worker_threads
from ilo_fast.shown import Shown
from ilo_fast.vectors import magnitudes, rounding_tolerance, state_layers

__all__ = ["PairScores", "aggregate_layers", "pair_scores"]

# Cosines held at once, by each worker on a CPU: small corpora go many pairs at a time.
_BLOCK_ENTRIES = {"cpu": 2**20, "cuda": 2**26}


@dataclass(frozen=True, eq=False, repr=False)
class PairScores(Shown):
    """Scores per layer and pair of languages, float64 ``[layers, languages, languages]``.

    Entry (a, b) searches, for each sentence of a, its translation among the sentences of b;
    NaN on the diagonal and for pairs not asked for.

    Attributes:
        languages: in order of first appearance.
        sentences: int64 ``[languages, languages]``, sentences that each pair shares.
        retrieval: P@1.
        xsim_ratio, xsim_distance: xSIM error rates, 0 is best.
        csls: P@1 under CSLS.
        mexa: MEXA, the same both ways.
        pivot: the one language that every pair has, or None.
        k, csls_k: neighbours averaged in xSIM and CSLS.
    """

    languages: tuple[Label, ...]
    sentences: np.ndarray
    retrieval: np.ndarray
    xsim_ratio: np.ndarray
    xsim_distance: np.ndarray
    csls: np.ndarray
    mexa: np.ndarray
    pivot: Label | None
    k: int
    csls_k: int

    def mexa_to(self, pivot: Label) -> np.ndarray:
        """MEXA of every language with one pivot, float64 ``[layers, languages]``, NaN at itself."""
        if pivot not in self.languages or self.pivot not in (None, pivot):
            raise InputError(f"pivot must be a language that was scored, got {pivot!r}")
        return np.asarray(self.mexa[:, self.languages.index(pivot)])


def pair_scores(
    states: Any,
    languages: Any,
    sentences: Any,
    *,
    pivot: Label | None = None,
    k: int = 4,
    csls_k: int = 10,
) -> PairScores:
    """Retrieval P@1, xSIM, CSLS and MEXA of language pairs, from hidden states.

    Each pair's cosines are one block S × S; nothing N × N is formed. Scores are those of float64:
    float32, or float16 on a card's matrix units, decides what its proven bounds decide
    (docs/exactness.md), float64 the rest. Values
    that rounding cannot tell apart (`lists.rounding_tolerance`) count as equal: the lower
    sentence wins a search, and MEXA, which is strict, counts a miss. The formulas are in
    `ilo_fast.alignment.similarity`. MEXA as published pools with position weights or the last
    token: extract the states that way, with ``pivot="eng_Latn"`` and 100 sentences.

    Args:
        states: floating ``[n, d]`` or ``[layers, n, d]``, torch, NumPy, CuPy or DLPack.
        languages: n labels (strings or integers), at least two different ones.
        sentences: n labels; a pair is scored on the sentences both languages have, in the
            order these first appear.
        pivot: score only pairs with this language, n_languages - 1 blocks rather than
            n_languages (n_languages - 1) / 2.
        k: neighbours averaged in xSIM, 1 … S.
        csls_k: neighbours averaged in CSLS, 1 … S.

    Returns:
        A `PairScores`. Cost: half of N² d multiply-adds a layer, and on a CPU as long again for
            the largest entries of rows and columns.

    Raises:
        InputError: on states, labels or numbers that cannot be used, a single language, a
            language with one sentence twice, or a pair that shares fewer sentences than k.
        TypeError: a k that is no whole number.
        HiddenStateError: on NaN or infinity.

    >>> states = [[1.0, 0.0], [0.0, 1.0], [1.0, 0.1], [0.1, 1.0]]
    >>> scores = pair_scores(states, ["de", "de", "en", "en"], [0, 1, 0, 1], k=2, csls_k=2)
    >>> scores.retrieval
    array([[[nan,  1.],
            [ 1., nan]]])
    """
    tensor = state_layers(states)
    n = tensor.shape[1]
    names, language = language_codes(languages, n)
    if pivot is not None and pivot not in names:
        raise InputError(f"pivot must be one of {list(names)}, got {pivot!r}")
    table = _point_table(names, language, label_codes(sentences, n, "sentences"))
    shared = ((table >= 0).long() @ (table >= 0).long().T).numpy()
    entries = _BLOCK_ENTRIES.get(tensor.device.type, _BLOCK_ENTRIES["cuda"])
    blocks = _pair_blocks(table, None if pivot is None else names.index(pivot), entries)
    block = min(blocks, key=lambda block: block.sentences.numel())
    fewest = block.sentences.numel()
    if not fewest:
        raise InputError(
            "sentences must name translations alike, "
            f"{names[block.sources[0]]!r} and {names[block.targets[0]]!r} have none in common"
        )
    k, csls_k = check_k(k, fewest), check_k(csls_k, fewest, "csls_k")

    shape = (len(tensor), len(names), len(names))
    scores = {name: np.full(shape, np.nan) for name in SCORES}
    with ieee_products(tensor.device), worker_threads(tensor.device):
        table = table.to(tensor.device)
        for number, layer in enumerate(tensor):
            for block, found in zip(blocks, _scored(layer, table, blocks, k, csls_k), strict=True):
                values = torch.stack([found[name] for name in SCORES]).cpu().numpy()
                for name, (there, back) in zip(SCORES, values, strict=True):
                    scores[name][number, block.sources, block.targets] = there
                    scores[name][number, block.targets, block.sources] = back
    return PairScores(languages=names, sentences=shared, **scores, pivot=pivot, k=k, csls_k=csls_k)


def aggregate_layers(scores: Any, how: str = "mean") -> np.ndarray:
    """One number per language or pair from its layers: MEXA's "mean" or "max" over layers.

    Args:
        scores: float ``[layers, ...]``.
        how: "mean" or "max".

    Returns:
        float64 ``[...]``.

    Raises:
        InputError: on another `how`, scores that are no real numbers or without a layer axis.

    >>> aggregate_layers([[0.2, 0.4], [0.6, 0.0]], "max")
    array([0.6, 0.4])
    """
    values = real_array(scores, "scores")
    check_choice(how, "how", ("mean", "max"))
    if values.ndim < 1 or values.shape[0] == 0:
        raise InputError(f"scores must have a layer axis, got shape {list(values.shape)}")
    return np.asarray(values.mean(axis=0) if how == "mean" else values.max(axis=0))


def _point_table(
    names: tuple[Label, ...], language: Tensor, sentences: tuple[tuple[Label, ...], Tensor]
) -> Tensor:
    """The point of each language and sentence, int64 ``[languages, sentences]``, -1 for none."""
    sentence_names, sentence = sentences
    slot = language * len(sentence_names) + sentence
    counts = torch.bincount(slot, minlength=len(names) * len(sentence_names))
    if int(counts.max()) > 1:
        twice = divmod(int(counts.argmax()), len(sentence_names))
        raise InputError(
            f"sentences must be different within a language, "
            f"{sentence_names[twice[1]]!r} is there {int(counts.max())} times "
            f"in {names[twice[0]]!r}"
        )
    table = torch.full((len(names) * len(sentence_names),), -1, device="cpu")
    table[slot] = torch.arange(slot.numel(), device="cpu")
    return table.view(len(names), len(sentence_names))


@dataclass(frozen=True)
class _PairBlock:
    """Pairs of languages that share the same sentences, the points table's columns ``[S]``."""

    sources: np.ndarray
    targets: np.ndarray
    sentences: Tensor

    def points(self, table: Tensor) -> tuple[Tensor, Tensor]:
        """The sources' and the targets' points, int64 ``[pairs, S]`` on the table's device."""
        own, other = (
            table[torch.from_numpy(side).to(table.device)][:, self.sentences.to(table.device)]
            for side in (self.sources, self.targets)
        )
        return own, other


def _pair_blocks(table: Tensor, pivot: int | None, entries: int) -> list[_PairBlock]:
    """What to multiply: pairs that share the same sentences go together, up to so many cosines."""
    languages = table.shape[0]
    groups: dict[bytes, list[tuple[int, int]]] = {}
    for source in range(languages) if pivot is None else [pivot]:
        for target in range(source + 1, languages) if pivot is None else range(languages):
            if target != source:
                both = (table[source] >= 0) & (table[target] >= 0)
                groups.setdefault(both.numpy().tobytes(), []).append((source, target))
    blocks = []
    for key, pairs in groups.items():
        sentences = torch.from_numpy(np.frombuffer(key, dtype=np.bool_).copy()).nonzero()[:, 0]
        step = max(1, entries // max(1, sentences.numel()) ** 2)
        for start in range(0, len(pairs), step):
            sources, targets = np.array(pairs[start : start + step]).T.copy()
            blocks.append(_PairBlock(sources, targets, sentences))
    return blocks


def _scored(
    layer: Tensor, table: Tensor, blocks: list[_PairBlock], k: int, csls_k: int
) -> Iterator[dict[str, Tensor]]:
    """The scores of each block, name → ``[2, pairs]``, in order."""
    points = prepare_points(layer, magnitudes(layer), "cosine")
    row_of = torch.arange(points.n, device=layer.device)
    if points.duplicates is not None:
        row_of = points.duplicates.group
    tolerance = rounding_tolerance(layer.shape[1])
    bounds_serve = any(serves(block.sentences.numel(), k, csls_k) for block in blocks)
    bounded = bounded_points(points, row_of) if bounds_serve else None

    def score(block: _PairBlock) -> dict[str, Tensor]:
        own, other = block.points(table)
        if bounded is not None and serves(own.shape[1], k, csls_k):
            return bounded_scores(bounded, own, other, k, csls_k, tolerance)
        cosines = points.z[row_of[own]] @ points.z[row_of[other]].transpose(1, 2)
        return scores_of_hits(*block_hits(cosines, k, csls_k, tolerance))

    return mapped(score, blocks)
