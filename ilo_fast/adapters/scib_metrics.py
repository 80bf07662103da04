"""Exact neighbours for scib-metrics: ``Benchmarker.prepare(neighbor_computer=neighbors)``."""

from typing import Any

from scib_metrics.nearest_neighbors import NeighborsResults

from ilo_fast.adapters._shared import self_first

__all__ = ["neighbors"]


def neighbors(X: Any, n_neighbors: int) -> NeighborsResults:
    """The nearest neighbours by Euclidean distance, self first and counted, as scib-metrics does.

    Args:
        X: embedding ``[n, d]``, dense.
        n_neighbors: entries a row.

    Raises:
        ValueError: n_neighbors outside 1 … n.
        TypeError: X is no dense array of numbers.
        HiddenStateError: NaN or infinity, naming the row.

    >>> neighbors([[0.0], [3.0], [1.0]], 2).indices.tolist()
    [[0, 2], [1, 2], [2, 0]]
    """
    indices, distances = self_first(X, n_neighbors, "euclidean")
    return NeighborsResults(indices=indices, distances=distances)
