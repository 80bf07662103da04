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
    """
    indices, distances = self_first(X, n_neighbors, "euclidean")
    return NeighborsResults(indices=indices, distances=distances)
