"""Retrieval scores of every pair of languages, from one S × S block of cosines at a time."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ilo_fast.alignment.decisions import bounded_scores, serves
from ilo_fast.alignment.operands import bounded_points
from ilo_fast.alignment.pair_blocks import PairBlock, pair_groups, point_table
from ilo_fast.alignment.similarity import check_k
from ilo_fast.alignment.winners import SCORES, block_hits, scores_of_hits
from ilo_fast.arguments import check_choice
from ilo_fast.arrays import real_array
from ilo_fast.errors import InputError
from ilo_fast.lists import Label, label_codes, language_codes
from ilo_fast.ops.memory import out_of_memory
from ilo_fast.ops.points import prepare_points
from ilo_fast.ops.precision import ieee_products
from ilo_fast.ops.workers import mapped, worker_threads
from ilo_fast.shown import Shown
from ilo_fast.vectors import magnitudes, rounding_tolerance, state_layers

__all__ = ["PairScores", "aggregate_layers", "pair_scores"]

# 4-byte words of cosines and operands held at once, by each worker on a CPU.
_BLOCK_WORDS = {"cpu": 2**21, "cuda": 2**28}


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
    table = point_table(names, language, label_codes(sentences, n, "sentences"))
    shared = ((table >= 0).long() @ (table >= 0).long().T).numpy()
    groups = pair_groups(table, None if pivot is None else names.index(pivot))
    smallest = min(groups, key=lambda group: group.sentences.numel())
    fewest = smallest.sentences.numel()
    if not fewest:
        raise InputError(
            "sentences must name translations alike, "
            f"{names[smallest.sources[0]]!r} and {names[smallest.targets[0]]!r} have none in common"
        )
    k, csls_k = check_k(k, fewest), check_k(csls_k, fewest, "csls_k")

    shape = (len(tensor), len(names), len(names))
    scores = {name: np.full(shape, np.nan) for name in SCORES}
    words = _BLOCK_WORDS.get(tensor.device.type, _BLOCK_WORDS["cuda"])
    with ieee_products(tensor.device), worker_threads(tensor.device):
        table = table.to(tensor.device)
        number = 0
        while number < len(tensor):
            blocks = [part for group in groups for part in group.cut(words, tensor.shape[2])]
            try:
                for block, found in _scored(tensor[number], table, blocks, k, csls_k):
                    for name, (there, back) in zip(SCORES, found, strict=True):
                        scores[name][number, block.sources, block.targets] = there
                        scores[name][number, block.targets, block.sources] = back
            except RuntimeError as error:
                if not out_of_memory(error) or all(len(block.sources) == 1 for block in blocks):
                    raise
                words //= 2  # the layer anew, in smaller blocks
            else:
                number += 1
                continue
            if tensor.is_cuda:
                torch.cuda.empty_cache()
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


def _scored(
    layer: Tensor, table: Tensor, blocks: list[PairBlock], k: int, csls_k: int
) -> Iterator[tuple[PairBlock, np.ndarray]]:
    """Each block and its `SCORES`, float64 ``[scores, 2, pairs]``, in order."""
    points = prepare_points(layer, magnitudes(layer), "cosine")
    row_of = torch.arange(points.n, device=layer.device)
    if points.duplicates is not None:
        row_of = points.duplicates.group
    tolerance = rounding_tolerance(layer.shape[1])
    bounds_serve = any(serves(block.sentences.numel(), k, csls_k) for block in blocks)
    bounded = bounded_points(points, row_of) if bounds_serve else None

    def score(block: PairBlock) -> dict[str, Tensor]:
        own, other = block.points(table)
        if bounded is not None and serves(own.shape[1], k, csls_k):
            return bounded_scores(bounded, own, other, k, csls_k, tolerance)
        cosines = points.z[row_of[own]] @ points.z[row_of[other]].transpose(1, 2)
        return scores_of_hits(*block_hits(cosines, k, csls_k, tolerance))

    for block, found in zip(blocks, mapped(score, blocks), strict=True):
        yield block, torch.stack([found[name] for name in SCORES]).cpu().numpy()
