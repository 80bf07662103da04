"""Comparisons of two spaces that need distances outside the stored lists."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ilo_fast.errors import InputError
from ilo_fast.lists import (
    index_lists,
    one_metric_per_layer,
    paired_lists,
    rounding_tolerance,
    state_layers,
    unit_rows,
)

__all__ = ["information_imbalance", "neighbor_ranks", "second_order_cosine"]

# Similarities or gathered entries held at once, 32 MiB of float64.
_STRIP_ENTRIES = 2**22


def second_order_cosine(x: Any, y: Any, a: Any, b: Any) -> np.ndarray:
    """Second-order cosine: do both spaces put the same neighbours at the same distances?

    ``mean_i cos(d_x[i, U_i], d_y[i, U_i])`` with U_i = A_i ∪ B_i and d the cosine distance
    1 - cos (Hamilton, Leskovec, Jurafsky 2016; as in ReSi, arXiv 2408.00531). Distances are
    recomputed in float64 for the 2 k points of each union only. Where both distance vectors
    are zero the cosine is 1, where one is, 0.

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
        here = _distances(unit_rows(left), union) * once
        there = _distances(unit_rows(right), union) * once
        dot = (here * there).sum(dim=1)
        lengths = here.norm(dim=1) * there.norm(dim=1)
        both_zero = ((here == 0) & (there == 0)).all(dim=1).double()
        cosine = torch.where(lengths > 0, dot / torch.where(lengths > 0, lengths, 1), both_zero)
        results.append(cosine.mean())
    return one_metric_per_layer(results)


def neighbor_ranks(neighbors: Any, states: Any, *, metric: str = "cosine") -> np.ndarray:
    """The rank, in another space, of each stored neighbour: 1 is the nearest other point.

    ``r_ij = 1 + |{m != i, j: m before j as seen from i}|``; m comes before j when it is nearer,
    or as near (to rounding, `lists.rounding_tolerance` for cosines) with the lower index.
    Strips of float64 similarities are counted and dropped; neither they nor ranks are n × n.

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
    if metric not in ("cosine", "euclidean", "inner_product"):
        raise InputError(f"metric must be 'cosine', 'euclidean' or 'inner_product', got {metric!r}")
    lists = index_lists(neighbors)
    own = torch.arange(lists.shape[1], device=lists.device)
    if bool((lists == own[:, None]).any()):
        raise InputError("neighbors must not list a point as its own neighbour")
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


def _distances(unit: Tensor, columns: Tensor) -> Tensor:
    """Cosine distances of each row to its listed points, float64 ``[n, m]``, by blocks of rows."""
    n, m = columns.shape
    step = max(1, _STRIP_ENTRIES // (m * unit.shape[1]))
    parts = [
        torch.einsum("rd,rmd->rm", unit[start : start + step], unit[columns[start : start + step]])
        for start in range(0, n, step)
    ]
    # rounding may leave a point at -1e-16 from its copy
    return (1 - torch.cat(parts)).clamp_min(0)


def _ranks(layer: Tensor, near: Tensor, metric: str) -> Tensor:
    """Ranks ``[n, k]`` of listed points by strips of similarities ``[rows, n]``."""
    n, k = near.shape
    rows = unit_rows(layer) if metric == "cosine" else layer.double()
    if metric == "euclidean":
        rows = rows - rows.mean(dim=0)  # distances stay, and the products below lose less
    bias = (rows * rows).sum(dim=1) / 2 if metric == "euclidean" else torch.zeros_like(rows[:, 0])
    length = rows.norm(dim=1)
    tolerance = rounding_tolerance(rows.shape[1])
    result = torch.empty_like(near)
    index = torch.arange(n, device=near.device)
    step = max(1, _STRIP_ENTRIES // n)
    for start in range(0, n, step):
        strip = slice(start, start + step)
        # larger is nearer: cosine, inner product, or (|x_i|² - |x_i - x_j|²) / 2
        score = rows[strip] @ rows.T - bias
        score[index[: len(score)], index[strip]] = -torch.inf  # not its own neighbour
        # equal to rounding, for a product of lengths |x_i| |x_j| and the bias of euclidean
        slack = tolerance * (length[strip] * length.amax() + bias.amax())
        for column in range(k):
            target = near[strip, column]
            own = score.gather(1, target[:, None])
            nearer = score > own + slack[:, None]
            level = (score >= own - slack[:, None]) & ~nearer & (index < target[:, None])
            result[strip, column] = 1 + nearer.sum(dim=1) + level.sum(dim=1)
    return result
