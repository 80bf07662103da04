"""Which pairs of languages are scored together, and the points of their sentences."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ilo_fast.errors import InputError
from ilo_fast.lists import Label

__all__ = ["PairBlock", "pair_groups", "point_table"]


@dataclass(frozen=True)
class PairBlock:
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

    def cut(self, words: int, dim: int) -> Iterator["PairBlock"]:
        """Parts whose cosines and operands of ``dim`` take at most so many words, or one pair."""
        size = self.sentences.numel()
        step = max(1, words // max(1, size * (size + dim)))
        for start in range(0, len(self.sources), step):
            part = slice(start, start + step)
            yield PairBlock(self.sources[part], self.targets[part], self.sentences)


def pair_groups(table: Tensor, pivot: int | None) -> list[PairBlock]:
    """All pairs, or those with a pivot: a block for each set of sentences that some share."""
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
        sources, targets = np.array(pairs).T.copy()
        blocks.append(PairBlock(sources, targets, sentences))
    return blocks


def point_table(
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
