"""Exact neighbours for DADApy: ``Data(distances=distances(X, maxk))``, and its imbalance."""

from typing import Any

import numpy as np

from ilo_fast.adapters._shared import float_tensor, self_first
from ilo_fast.arguments import whole_number
from ilo_fast.neighbors import knn
from ilo_fast.overlap import information_imbalance as imbalance

__all__ = ["distances", "information_imbalance"]


def distances(X: Any, maxk: int = 100, metric: str = "euclidean") -> tuple[np.ndarray, np.ndarray]:
    """What DADApy's classes take as ``distances=``: distances and indices, self first.

    Args:
        X: points ``[n, d]``.
        maxk: neighbours a point, itself not counted; pass the same ``maxk=`` to DADApy.
        metric: ``"euclidean"`` or ``"cosine"``.

    Returns:
        float64 and int64 ``[n, maxk + 1]``. ``distances(X, k)[1]`` is what its methods call
        ``dist_indices``.

    Raises:
        ValueError: another metric, or a maxk outside 0 … n - 1.
        TypeError: X is no dense array of numbers, or maxk no whole number.
        HiddenStateError: NaN or infinity, naming the row.

    >>> near, indices = distances([[0.0], [3.0], [1.0]], maxk=1)
    >>> near.tolist(), indices.tolist()
    ([[0.0, 1.0], [0.0, 2.0], [0.0, 1.0]], [[0, 2], [1, 2], [2, 0]])
    """
    points, count = float_tensor(X, "X"), whole_number(maxk, "maxk")
    if not 0 <= count < len(points):
        raise ValueError(f"maxk must be 0 to {len(points) - 1}; got {count}")
    indices, near = self_first(points, count + 1, metric)
    return near.astype(np.float64), indices


def information_imbalance(
    X: Any, Y: Any, k: int = 1, metric: str = "euclidean"
) -> tuple[float, float]:
    """Information imbalance from X to Y and back, over all points, without rank matrices.

    What ``MetricComparisons(X).return_information_imbalace(Y, k, subset_size=n)`` computes from
    two full sortings.

    Args:
        X, Y: the same n points in two spaces.
        k: nearest neighbours of the one space whose ranks in the other are averaged.
        metric: of both spaces, one of `ilo_fast.knn`'s.

    Raises:
        ValueError: another metric, another number of points, or a k outside 1 … n - 1.
        TypeError: X or Y is no dense array of numbers.
        HiddenStateError: NaN or infinity, naming the row.

    >>> x = [[0.0], [1.0], [3.0], [7.0]]
    >>> information_imbalance(x, x)
    (0.5, 0.5)
    """
    x, y = float_tensor(X, "X"), float_tensor(Y, "Y")
    there = imbalance(knn(x, k, metric=metric), y, metric=metric)
    back = imbalance(knn(y, k, metric=metric), x, metric=metric)
    return float(there[0]), float(back[0])
