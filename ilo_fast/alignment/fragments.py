"""The interlingual and the fragmented part of a layer, and how each hangs together."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components

from ilo_fast.alignment.seen import seen_languages
from ilo_fast.arguments import at_least_1
from ilo_fast.lists import Label, index_lists, label_codes
from ilo_fast.shown import Shown

__all__ = ["Components", "Fragments", "fragments"]


@dataclass(frozen=True, eq=False, repr=False)
class Components(Shown):
    """Connected components of one part of one layer, the largest first.

    Attributes:
        sizes: int64 ``[components]``, points of each.
        languages: int64 ``[components, languages]``, points of each language in each.
        of_point: int64 ``[n]``, the component of each point, -1 for points of the other part.
    """

    sizes: np.ndarray
    languages: np.ndarray
    of_point: np.ndarray

    @property
    def count(self) -> int:
        """Number of components."""
        return int(self.sizes.size)

    @property
    def language_counts(self) -> np.ndarray:
        """int64 ``[components]``, different languages in each."""
        return np.asarray((self.languages > 0).sum(axis=1))


@dataclass(frozen=True, eq=False, repr=False)
class Fragments(Shown):
    """The two parts of every layer.

    Attributes:
        languages: in order of first appearance.
        bridges: bool ``[layers, n]``, true for the interlingual points.
        interlingual, fragmented: float64 ``[layers, languages]``, shares that add to 1;
            `interlingual` is the bridge B of the ILO score.
        interlingual_components, fragmented_components: one `Components` a layer.
    """

    languages: tuple[Label, ...]
    bridges: np.ndarray
    interlingual: np.ndarray
    fragmented: np.ndarray
    interlingual_components: tuple[Components, ...]
    fragmented_components: tuple[Components, ...]
    threshold: int


def fragments(neighbors: Any, languages: Any, *, threshold: int = 3) -> Fragments:
    """Split each layer's points into those that bridge and those that do not.

    A point is interlingual when its k neighbours are in at least `threshold` languages other
    than its own (Wilie, Cahyawijaya, He, Fung 2025, arXiv 2503.11280); the rest is the
    fragmented part. Each part's neighbour graph keeps the edges i – j, j in N_k(i) or i in
    N_k(j), with both ends in the part; its connected components come from SciPy.

    Args:
        neighbors: a `Neighbors`, or integer indices ``[n, k]`` or ``[layers, n, k]``.
        languages: n labels (strings or integers).
        threshold: other languages a point must see to bridge.

    Returns:
        A `Fragments`.

    Raises:
        InputError: on lists, labels or a threshold that cannot be used.

    >>> parts = fragments([[1, 2], [0, 2], [1, 0], [0, 1]], ["a", "b", "c", "b"], threshold=2)
    >>> parts.bridges.tolist()
    [[True, True, True, False]]
    >>> parts.interlingual_components[0].sizes, parts.fragmented_components[0].sizes
    (array([3]), array([1]))
    """
    threshold = at_least_1(threshold, "threshold")
    indices = index_lists(neighbors)
    names, code = label_codes(languages, indices.shape[1], "languages", indices.device)
    other = torch.stack([seen_languages(one, code, len(names)).sum(dim=1) for one in indices])
    bridges = (other >= threshold).cpu().numpy()
    lists, codes = indices.cpu().numpy(), code.cpu().numpy()
    sizes = np.bincount(codes, minlength=len(names))
    interlingual = np.stack([np.bincount(codes, row, len(names)) / sizes for row in bridges])
    return Fragments(
        languages=names,
        bridges=bridges,
        interlingual=interlingual,
        fragmented=1 - interlingual,
        interlingual_components=tuple(
            _components(layer, row, codes, len(names))
            for layer, row in zip(lists, bridges, strict=True)
        ),
        fragmented_components=tuple(
            _components(layer, ~row, codes, len(names))
            for layer, row in zip(lists, bridges, strict=True)
        ),
        threshold=threshold,
    )


def _components(
    layer: np.ndarray, member: np.ndarray, codes: np.ndarray, languages: int
) -> Components:
    """Components of the neighbour graph among the points where `member` is true."""
    n, k = layer.shape
    points = np.flatnonzero(member)
    of_point = np.full(n, -1, dtype=np.int64)
    if points.size == 0:
        empty = np.zeros(0, dtype=np.int64)
        return Components(empty, np.zeros((0, languages), dtype=np.int64), of_point)
    place = np.full(n, -1, dtype=np.int64)
    place[points] = np.arange(points.size)
    source = np.repeat(np.arange(points.size), k)
    target = place[layer[points].ravel()]
    inside = target >= 0
    graph = csr_matrix(
        (np.ones(int(inside.sum()), dtype=np.int8), (source[inside], target[inside])),
        shape=(points.size, points.size),
    )
    count, label = connected_components(graph, directed=False)
    # number them by size, the largest first, equal sizes by their first point
    sizes = np.bincount(label, minlength=count)
    first = np.full(count, points.size)
    np.minimum.at(first, label, np.arange(points.size))
    order = np.lexsort((first, -sizes))
    rank = np.empty(count, dtype=np.int64)
    rank[order] = np.arange(count)
    of_point[points] = rank[label]
    table = np.bincount(rank[label] * languages + codes[points], minlength=count * languages)
    return Components(sizes[order], table.reshape(count, languages), of_point)
