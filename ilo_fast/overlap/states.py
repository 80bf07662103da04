"""Comparisons of two spaces that need distances outside the stored lists."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ilo_fast.errors import InputError
from ilo_fast.lists import index_lists, no_own_points, one_metric_per_layer, paired_lists
from ilo_fast.ops.centred import Centred, centre
from ilo_fast.ops.exact import pair_values, tie_error
from ilo_fast.ops.points import Points, prepare_points
from ilo_fast.ops.request import check_metric
from ilo_fast.vectors import magnitudes, state_layers

__all__ = ["information_imbalance", "neighbor_ranks", "second_order_cosine"]

# Similarities held at once: a strip stays in the cache (CPU) or fills the device.
_STRIP_ENTRIES = {"cpu": 2**20, "cuda": 2**26}


def second_order_cosine(x: Any, y: Any, a: Any, b: Any) -> np.ndarray:
    """Second-order cosine: do both spaces put the same neighbours at the same distances?

    ``mean_i cos(d_x[i, U_i], d_y[i, U_i])`` with U_i = A_i ∪ B_i and d the cosine distance
    1 - cos (Hamilton, Leskovec, Jurafsky 2016; as in ReSi, arXiv 2408.00531). Distances are
    recomputed in float64 for the 2 k points of each union only, as ``|u - v|² / 2`` of the unit
    vectors, which is 0 for copies. Where both distance vectors are zero the cosine is 1, where
    one is, 0.

    Args:
        x, y: floating hidden states ``[n, d]`` or ``[layers, n, d]`` (d may differ).
        a, b: their neighbours, a `Neighbors` or integer indices, by cosine, of the same k.

    Returns:
        float64 ``[layers]`` in 0 … 1 up to rounding; 1 where y is x. Symmetric in the spaces.

    Raises:
        InputError: on states or lists that cannot be used or do not fit each other.
        HiddenStateError: on NaN or infinity.

    >>> x = [[1.0, 0.0], [0.9, 0.4], [0.0, 1.0]]
    >>> second_order_cosine(x, x, [[1], [0], [1]], [[1], [0], [1]])
    array([1.])
    """
    first, second = paired_lists(a, b)
    one, two = _layers_of(x, first, "x"), _layers_of(y, second, "y")
    if len(one) != len(two):
        raise InputError(f"x and y must have the same layers, got {len(one)} and {len(two)}")
    results = []
    for left, right, near, near_too in zip(one, two, first, second, strict=True):
        union = torch.cat([near, near_too], dim=1)
        # a point of both lists counts once: drop it from the second
        once = torch.ones_like(union, dtype=torch.bool)
        once[:, near.shape[1] :] = ~(near_too[:, :, None] == near[:, None, :]).any(dim=2)
        here = _distances(_points(left, "cosine"), union) * once
        there = _distances(_points(right, "cosine"), union) * once
        dot = (here * there).sum(dim=1)
        lengths = here.norm(dim=1) * there.norm(dim=1)
        both_zero = ((here == 0) & (there == 0)).all(dim=1).double()
        cosine = torch.where(lengths > 0, dot / torch.where(lengths > 0, lengths, 1), both_zero)
        results.append(cosine.mean())
    return one_metric_per_layer(results)


def neighbor_ranks(neighbors: Any, states: Any, *, metric: str = "cosine") -> np.ndarray:
    """The rank, in another space, of each stored neighbour: 1 is the nearest other point.

    ``r_ij = 1 + |{m != i, j: m before j as seen from i}|``; m comes before j when it is nearer,
    or as near with the lower index. Which it is, is decided as by `knn`: float64 products count
    what their proven bounds leave no doubt about, strip by strip; `knn`'s exact stage decides the
    rest, ties to its rounding included (docs/exactness.md, sections 1 and 3). Ties are judged
    pair by pair here; `knn` cuts a chain of them into tiers. Nothing is n × n.

    Args:
        neighbors: a `Neighbors`, or integer indices ``[n, k]`` or ``[layers, n, k]``, none its
            own point's.
        states: floating ``[n, d]`` or ``[layers, n, d]``, the other space.
        metric: "cosine", "euclidean" or "inner_product".

    Returns:
        int64 ``[layers, n, k]`` in 1 … n - 1. Cost: n² d multiply-adds in float64 a layer.

    Raises:
        InputError: on lists, states or a metric that cannot be used, or a point listed as its
            own neighbour.
        HiddenStateError: on NaN or infinity.

    >>> neighbor_ranks([[2], [2], [0]], [[0.0], [1.0], [3.0]], metric="euclidean")
    array([[[2],
            [2],
            [2]]])
    """
    check_metric(metric)
    lists = index_lists(neighbors)
    no_own_points(lists, "neighbors")
    layers = _layers_of(states, lists, "states")
    return one_metric_per_layer(
        [_ranks(layer, near, metric) for layer, near in zip(layers, lists, strict=True)]
    )


def information_imbalance(neighbors: Any, states: Any, *, metric: str = "cosine") -> np.ndarray:
    """Information imbalance Δ(A → B): how far space B puts the nearest points of space A.

    ``Δ(A → B) = (2 / n) mean_{i, j in A_i} r_ij``, r_ij the rank of j among the points around i
    in B, over the k neighbours stored (Glielmo, Zeni, Cheng, Csányi, Laio 2022, PNAS Nexus; as
    in DADApy). Take k = 1 for the published measure: ``indices[..., :1]``.

    Args, Raises: as `neighbor_ranks`: `neighbors` in A, `states` of B.

    Returns:
        float64 ``[layers]``: (k + 1) / n where B keeps all of A's nearest, 1 where A says nothing
        about B, at most 2. Not symmetric.

    >>> x = [[0.0], [1.0], [3.0], [7.0]]
    >>> information_imbalance([[1], [0], [1], [2]], x, metric="euclidean")
    array([0.5])
    """
    ranks = neighbor_ranks(neighbors, states, metric=metric)
    return np.asarray(2 / ranks.shape[1] * ranks.mean(axis=(1, 2)))


def _layers_of(states: Any, lists: Tensor, name: str) -> Tensor:
    """Checked states ``[layers, n, d]`` that fit the lists, on their device."""
    layers = state_layers(states, name)
    if layers.shape[:2] != lists.shape[:2]:
        raise InputError(
            f"{name} must have the neighbours' layers and points {list(lists.shape[:2])}, "
            f"got {list(layers.shape[:2])}"
        )
    return layers.to(lists.device)


def _points(layer: Tensor, metric: str) -> Points:
    """A layer ready for the exact stage, every copy with a row of its own."""
    return prepare_points(layer, magnitudes(layer), metric).with_copies()


def _distances(points: Points, columns: Tensor) -> Tensor:
    """Cosine distances of each row to its listed points, float64 ``[n, m]``; 0 for copies."""
    n, m = columns.shape
    rows = torch.arange(n, device=columns.device).repeat_interleave(m)
    values = pair_values(points, rows, columns.flatten())
    # copies at another scale come out at 1e-32: not to be told from 0
    values[values <= 2 * tie_error(points, values, rows, columns.flatten())] = 0
    return values.view(n, m)


def _ranks(layer: Tensor, near: Tensor, metric: str) -> Tensor:
    """Ranks ``[n, k]`` of listed points by strips of similarities ``[rows, n]``."""
    points = _points(layer, metric)
    form = centre(points)
    centred = form.rows(points.z)
    n, k = near.shape
    result = torch.empty_like(near)
    index = torch.arange(n, device=near.device)
    step = max(1, _STRIP_ENTRIES.get(near.device.type, _STRIP_ENTRIES["cuda"]) // n)
    for start in range(0, n, step):
        rows = index[start : start + step]
        score = centred[rows] @ centred.T  # larger is nearer, to within the points' slack
        score += form.b
        score[index[: len(rows)], rows] = -torch.inf  # not its own neighbour
        for column in range(k):
            before = _before(points, form, score, index, rows, near[rows, column])
            result[rows, column] = 1 + before
    # all are alike to a zero vector
    by_index = near - (near > index[:, None]).long() + 1
    return torch.where(points.zero[:, None], by_index, result)


def _before(
    points: Points, form: Centred, score: Tensor, index: Tensor, rows: Tensor, target: Tensor
) -> Tensor:
    """How many points come before each row's target, int64 ``[rows]``."""
    ahead = score - score.gather(1, target[:, None])
    doubt = form.slack + (2 * form.slack[rows] + form.slack[target])[:, None]
    sure = (ahead > doubt).sum(dim=1)
    doubtful = ahead.abs_() <= doubt
    doubtful &= ~points.zero[rows, None]
    if points.duplicates is None:
        doubtful &= index != target[:, None]
    else:  # copies of the target, itself among them, are level with it: thousands cost nothing
        group = points.duplicates.group
        alike = group == group[target, None]
        doubtful &= ~alike
        alike &= index < target[:, None]
        sure += alike.sum(dim=1)
        sure -= ((group[rows] == group[target]) & (rows < target)).long()  # not the row's own
    row, other = doubtful.nonzero().unbind(1)
    here, there = rows[row], target[row]
    value, own = pair_values(points, here, other), pair_values(points, here, there)
    error = torch.minimum(
        tie_error(points, value, here, other), tie_error(points, own, here, there)
    )
    level = (value - own).abs() <= 2 * error
    first = torch.where(level, other < there, value < own)
    return sure.index_add_(0, row, first.long())
