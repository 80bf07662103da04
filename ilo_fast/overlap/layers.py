"""Every layer of one neighbour set against every layer of another, with a permutation null."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ilo_fast.arguments import at_least_0, between_0_and_1, check_choice
from ilo_fast.arrays import as_tensor
from ilo_fast.calibration import Calibration, calibrate, draw_permutations
from ilo_fast.errors import InputError
from ilo_fast.lists import index_lists, paired_lists
from ilo_fast.ops.intersect import intersection_sizes
from ilo_fast.overlap.join import LayerJoin
from ilo_fast.overlap.lists import LIST_METRICS, mean_metric
from ilo_fast.shown import Shown

__all__ = ["LayerOverlap", "layer_overlap", "relabel", "scorer"]


@dataclass(frozen=True, eq=False, repr=False)
class LayerOverlap(Shown):
    """How alike each layer of a is to each layer of b.

    Attributes:
        values: float64 ``[layers of a, layers of b]``.
        metric: its name.
        calibration: each entry against its own null, arrays as `values`; None without
            permutations.
        best: the largest entry against the largest entry of each draw (no shape); None without
            permutations. Looking for the best pair among many finds one by chance: this is the
            p value to quote for it.
        n, k, seed: points, neighbours, seed of the draws.
    """

    values: np.ndarray
    metric: str
    calibration: Calibration | None
    best: Calibration | None
    n: int
    k: int
    seed: int


def layer_overlap(
    a: Any,
    b: Any = None,
    *,
    metric: str = "mutual_knn",
    permutations: int = 0,
    alpha: float = 0.05,
    seed: int = 0,
) -> LayerOverlap:
    """The layers × layers matrix of an overlap metric, from stored neighbour lists.

    With permutations, each draw pi breaks the correspondence of the points by relabelling the
    stored lists of b, ``N_pi(i) = pi^-1[N(pi(i))]``, the lists that the permuted points would
    have, and scores all pairs of layers again; the same draw serves every pair (Gröger, Wen,
    Brbić 2026, arXiv 2602.14486, algorithms 1 and 2).

    Args:
        a, b: a `Neighbors` each, or integer indices ``[n, k]`` or ``[layers, n, k]``, of the same
            points and k; b defaults to a.
        metric: "mutual_knn", "jaccard", "rank_similarity", "cycle_knn", "lcs_knn" or
            "edit_distance_knn", as the functions of those names.
        permutations: draws of the null; 0 for none.
        alpha: level of the calibrated score's zero.
        seed: of the draws.

    Returns:
        A `LayerOverlap`. A draw of mutual k-NN costs one lookup per stored neighbour and layer
        (not per pair of layers); of the other metrics as much as the matrix itself.

    Raises:
        InputError, TypeError: on lists, a metric or numbers that cannot be used.

    >>> lists = [[[1, 2], [0, 2], [0, 1], [0, 1]], [[1, 3], [0, 3], [0, 1], [2, 1]]]
    >>> layer_overlap(lists).values
    array([[1.   , 0.625],
           [0.625, 1.   ]])
    """
    check_choice(metric, "metric", LIST_METRICS)
    permutations = at_least_0(permutations, "permutations")
    alpha = between_0_and_1(alpha, "alpha")
    first, second = paired_lists(a, a if b is None else b)  # one and the same where a and b are
    _, n, k = first.shape
    score = scorer(metric, first, second)
    values = score(None)
    calibration = best = None
    if permutations:
        null = np.stack([score(order) for order in draw_permutations(n, permutations, seed)])
        ceiling = float(k) if metric == "lcs_knn" else 1.0
        # The same shares, added in another order: a mean of n of them, each of k² terms at most.
        rounding = 2 * (n + k * k + 8) * 2.0**-53
        calibration, best = (
            calibrate(measured, draws, alpha=alpha, ceiling=ceiling, tolerance=rounding)
            for measured, draws in ((values, null), (values.max(), null.max(axis=(1, 2))))
        )
    return LayerOverlap(values, metric, calibration, best, n, k, seed)


def relabel(neighbors: Any, order: Any) -> Tensor:
    """The neighbour lists that permuted points would have: ``N_pi(i) = pi^-1[N(pi(i))]``.

    Args:
        neighbors: a `Neighbors`, or integer indices ``[n, k]`` or ``[layers, n, k]``.
        order: pi, a permutation of 0 … n - 1: point i becomes what point ``order[i]`` was.

    Returns:
        int64 ``[layers, n, k]``.

    Raises:
        InputError: on lists that cannot be used, or an order that is no permutation.

    >>> relabel([[1], [2], [0]], [2, 0, 1])
    tensor([[[1],
             [2],
             [0]]])
    """
    lists = index_lists(neighbors)
    n = lists.shape[1]
    given = as_tensor(order, "order")
    whole = not (given.is_floating_point() or given.is_complex() or given.dtype == torch.bool)
    pi = given.to(lists.device, torch.int64) if whole else None
    every = torch.arange(n, device=lists.device)
    if pi is None or pi.shape != (n,) or not torch.equal(pi.sort().values, every):
        raise InputError(f"order must be a permutation of 0 … {n - 1}")
    inverse = torch.empty_like(pi)
    inverse[pi] = every
    return inverse[lists[:, pi]]


def scorer(metric: str, a: Tensor, b: Tensor) -> Callable[[np.ndarray | None], np.ndarray]:
    """The layers × layers matrix as a function of a relabelling of b, None for none."""
    entries = a.shape[1] * a.shape[2]
    if metric == "mutual_knn" and a.device.type == "cpu":
        ours = a.numpy()
        join = LayerJoin(ours, ours if b is a else b.numpy())
        return lambda order: join.common(order) / entries
    if metric == "mutual_knn":  # the kernel compares all lists faster than they could be joined
        return lambda order: (
            intersection_sizes(a, _moved(b, order)).cpu().numpy().astype(np.float64) / entries
        )
    point_metric = LIST_METRICS[metric]
    return lambda order: np.array(
        [[float(mean_metric(point_metric, one, two)) for two in _moved(b, order)] for one in a]
    )


def _moved(lists: Tensor, order: np.ndarray | None) -> Tensor:
    return lists if order is None else relabel(lists, order)
