"""How alike are two sets of neighbour lists over the same points? From the lists alone."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ilo_fast.arguments import true_or_false
from ilo_fast.errors import InputError
from ilo_fast.lists import index_lists, label_codes, one_metric_per_layer, paired_lists

__all__ = [
    "LIST_METRICS",
    "cycle_knn",
    "edit_distance_knn",
    "jaccard",
    "label_overlap",
    "lcs_knn",
    "mean_metric",
    "mutual_knn",
    "neighborhood_overlap",
    "rank_similarity",
]

# Entries of the k × k comparisons held at once: a few MiB whatever n is.
_COMPARE_ENTRIES = 2**22


def mutual_knn(a: Any, b: Any) -> np.ndarray:
    """Mutual k-NN: the mean share of neighbours two spaces have in common.

    ``mean_i |A_i ∩ B_i| / k`` (Huh, Cheung, Wang, Isola 2024, arXiv 2405.07987; the data
    overlap of DADApy). Two random spaces give k / (n - 1).

    Args:
        a, b: a `Neighbors` each, or integer indices ``[n, k]`` or ``[layers, n, k]``, of the same
            points, k and number of layers; layer l of a meets layer l of b (every layer with
            every other: `layer_overlap`). No index may be twice in a list.

    Returns:
        float64 ``[layers]`` in 0 … 1; 1 for equal sets. Symmetric.

    Raises:
        InputError: on lists that cannot be used or do not fit each other.

    >>> mutual_knn([[1, 2], [0, 2], [0, 1], [0, 1]], [[1, 3], [0, 3], [0, 1], [2, 1]])
    array([0.625])
    """
    return _mean_of_points(a, b, _mutual)


def neighborhood_overlap(a: Any, b: Any) -> np.ndarray:
    """DADApy's data overlap, ``mean_i |A_i ∩ B_i| / k``: another name of `mutual_knn`.

    (Doimo, Glielmo, Ansuini, Laio 2020, arXiv 2007.03506.) Args, Returns, Raises: as there.

    >>> neighborhood_overlap([[1], [0]], [[1], [0]])
    array([1.])
    """
    return mutual_knn(a, b)


def jaccard(a: Any, b: Any) -> np.ndarray:
    """Jaccard similarity of the neighbour sets: ``mean_i |A_i ∩ B_i| / |A_i ∪ B_i|``.

    As in ReSi (Klabunde, Wald, Schumacher, Maier-Hein, Strohmaier, Lemmerich 2024,
    arXiv 2408.00531).

    Args, Raises: as `mutual_knn`.

    Returns:
        float64 ``[layers]`` in 0 … 1; 1 for equal sets. Symmetric, at most `mutual_knn`.

    >>> jaccard([[1, 2], [0, 2], [0, 1], [0, 1]], [[1, 3], [0, 3], [0, 1], [2, 1]])
    array([0.5])
    """
    return _mean_of_points(a, b, _jaccard)


def rank_similarity(a: Any, b: Any) -> np.ndarray:
    """Rank similarity of the common neighbours, near ones counting more.

    ``mean_i (1 / H(|I_i|)) sum_{j in I_i} 2 / ((1 + |r - r'|) (r + r'))`` with I_i the
    intersection, r and r' the rank of j in A_i and B_i from 1, and H(m) = 1 + 1/2 + … + 1/m;
    0 where the intersection is empty (as in ReSi, arXiv 2408.00531).

    Args, Raises: as `mutual_knn`.

    Returns:
        float64 ``[layers]`` in 0 … 1; 1 for equal lists. Symmetric.

    >>> rank_similarity([[1, 2], [0, 2], [0, 1]], [[1, 2], [2, 0], [0, 1]]).round(4)
    array([0.8148])
    """
    return _mean_of_points(a, b, _rank_similarity)


def cycle_knn(a: Any, b: Any) -> np.ndarray:
    """Cycle k-NN: how often a point's neighbours in b have it as a neighbour in a.

    ``mean_i 1[exists j in B_i with i in A_j]``, as in Platonic Representation's public code
    with the arguments in this order. Not symmetric.

    Args, Raises: as `mutual_knn`.

    Returns:
        float64 ``[layers]`` in 0 … 1; less than 1 for equal lists whose edges are one-way.

    >>> cycle_knn([[1], [0], [0]], [[1], [2], [0]])
    array([0.33333333])
    """
    return _mean_of_points(a, b, _cycle)


def lcs_knn(a: Any, b: Any) -> np.ndarray:
    """Mean length of the longest common subsequence of the two ordered lists.

    ``mean_i LCS(A_i, B_i)``, as in Platonic Representation's public code: a length, not a
    share.

    Args, Raises: as `mutual_knn`.

    Returns:
        float64 ``[layers]`` in 0 … k; k for equal lists. Symmetric, at most k `mutual_knn`.

    >>> lcs_knn([[1, 2], [0, 2], [0, 1]], [[1, 2], [2, 0], [0, 1]]).round(4)
    array([1.6667])
    """
    return _mean_of_points(a, b, _lcs)


def edit_distance_knn(a: Any, b: Any) -> np.ndarray:
    """One minus the mean edit distance of the two ordered lists over k.

    ``1 - (1 / k) mean_i Levenshtein(A_i, B_i)``, each insertion, deletion or substitution
    counting one, as in Platonic Representation's public code.

    Args, Raises: as `mutual_knn`.

    Returns:
        float64 ``[layers]`` in 0 … 1; 1 for equal lists. Symmetric.

    >>> edit_distance_knn([[1, 2], [0, 2], [0, 1]], [[1, 2], [2, 0], [0, 1]]).round(4)
    array([0.6667])
    """
    return _mean_of_points(a, b, _edit)


def label_overlap(neighbors: Any, labels: Any, *, weighted: bool = True) -> np.ndarray:
    """Share of neighbours with the point's own label, as in DADApy.

    ``sum_i w_i s_i / sum_i w_i`` with s_i the share of the k neighbours of i that have its
    label, and w_i one over the size of i's class (each class counts alike), or 1.

    Args:
        neighbors: a `Neighbors`, or integer indices ``[n, k]`` or ``[layers, n, k]``.
        labels: n labels (strings or integers).
        weighted: whether classes count alike; otherwise points do.

    Returns:
        float64 ``[layers]`` in 0 … 1. `same_language` is the same share, per class.

    Raises:
        InputError: on lists or labels that cannot be used.

    >>> label_overlap([[1, 2], [0, 2], [0, 1]], ["x", "x", "y"])
    array([0.25])
    """
    weighted = true_or_false(weighted, "weighted")
    indices = index_lists(neighbors)
    names, code = label_codes(labels, indices.shape[1], "labels", indices.device)
    weight = torch.ones(len(code), dtype=torch.float64, device=code.device)
    if weighted:
        weight = 1 / torch.bincount(code, minlength=len(names)).double()[code]
    weight = weight / weight.sum()
    return one_metric_per_layer(
        [(code[layer] == code[:, None]).double().mean(dim=1) @ weight for layer in indices]
    )


# What a metric is inside: the value per point, float64 [rows], of some rows of two lists [n, k].
# It gets both lists whole (cycle k-NN follows them) and the rows asked for.
PointMetric = Callable[[Tensor, Tensor, slice], Tensor]


def mean_metric(metric: PointMetric, a: Tensor, b: Tensor) -> Tensor:
    """Mean over points of a metric of two lists ``[n, k]``, float64, a block of rows at a time."""
    n, k = a.shape
    step = max(1, _COMPARE_ENTRIES // (k * k))
    total = torch.zeros((), dtype=torch.float64, device=a.device)
    for start in range(0, n, step):
        total += metric(a, b, slice(start, start + step)).sum()
    return total / n


def _mean_of_points(a: Any, b: Any, metric: PointMetric) -> np.ndarray:
    first, second = paired_lists(a, b)
    if len(first) != len(second):
        raise InputError(
            f"a and b must have the same number of layers, got {len(first)} and {len(second)}"
        )
    return one_metric_per_layer(
        [mean_metric(metric, one, two) for one, two in zip(first, second, strict=True)]
    )


def _matches(a: Tensor, b: Tensor, rows: slice) -> Tensor:
    """Which places hold the same point: bool ``[rows, k, k]``."""
    return a[rows, :, None] == b[rows, None, :]


def _common(a: Tensor, b: Tensor, rows: slice) -> Tensor:
    """|A_i ∩ B_i|, float64 ``[rows]``."""
    return _matches(a, b, rows).sum(dim=(1, 2)).double()


def _mutual(a: Tensor, b: Tensor, rows: slice) -> Tensor:
    return _common(a, b, rows) / a.shape[1]


def _jaccard(a: Tensor, b: Tensor, rows: slice) -> Tensor:
    common = _common(a, b, rows)
    return common / (2 * a.shape[1] - common)


def _rank_similarity(a: Tensor, b: Tensor, rows: slice) -> Tensor:
    k = a.shape[1]
    rank = torch.arange(1, k + 1, dtype=torch.float64, device=a.device)
    apart, together = (rank[:, None] - rank).abs(), rank[:, None] + rank
    weight = 2 / ((1 + apart) * together)
    same = _matches(a, b, rows)
    harmonic = torch.cat([torch.ones_like(rank[:1]), (1 / rank).cumsum(0)])  # H(0) never counts
    return (same * weight).sum(dim=(1, 2)) / harmonic[same.sum(dim=(1, 2))]


def _cycle(a: Tensor, b: Tensor, rows: slice) -> Tensor:
    own = torch.arange(a.shape[0], device=a.device)[rows]
    return (a[b[rows]] == own[:, None, None]).any(dim=(1, 2)).double()


def _lcs(a: Tensor, b: Tensor, rows: slice) -> Tensor:
    """The textbook recurrence, one step for all rows at once."""
    same = _matches(a, b, rows).permute(1, 2, 0).to(torch.int16)
    k, _, count = same.shape
    above = [torch.zeros(count, dtype=torch.int16, device=a.device)] * (k + 1)
    for line in same:
        here = above[:1]
        for column in range(k):
            longer = torch.maximum(above[column + 1], here[column])
            here.append(torch.maximum(longer, above[column] + line[column]))
        above = here
    return above[k].double()


def _edit(a: Tensor, b: Tensor, rows: slice) -> Tensor:
    """One minus the Levenshtein distance over k, by the textbook recurrence."""
    differs = (~_matches(a, b, rows)).permute(1, 2, 0).to(torch.int16)
    k, _, count = differs.shape
    zero = torch.zeros(count, dtype=torch.int16, device=a.device)
    above = [zero + column for column in range(k + 1)]
    for number, line in enumerate(differs):
        here = [zero + number + 1]
        for column in range(k):
            step = torch.minimum(above[column + 1], here[column]) + 1
            here.append(torch.minimum(step, above[column] + line[column]))
        above = here
    return 1 - above[k].double() / k


LIST_METRICS: dict[str, PointMetric] = {
    "mutual_knn": _mutual,
    "jaccard": _jaccard,
    "rank_similarity": _rank_similarity,
    "cycle_knn": _cycle,
    "lcs_knn": _lcs,
    "edit_distance_knn": _edit,
}
