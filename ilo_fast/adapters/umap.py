"""Exact neighbours for umap-learn: the ``precomputed_knn`` of ``umap.UMAP``, transform included."""

from typing import Any

import numpy as np
from pynndescent import NNDescent

from ilo_fast.adapters._shared import float_tensor, self_first
from ilo_fast.flat_index import FlatIndex

__all__ = ["ExactIndex", "precomputed_knn"]


class ExactIndex(NNDescent):  # type: ignore[misc]
    """Stands where UMAP expects an approximate index, so that it can place new points.

    UMAP asks for the class by name; only `query` is served, exactly.
    """

    _angular_trees = False

    def __init__(self, X: Any, metric: str) -> None:
        points = float_tensor(X, "X").cpu()
        self._exact = FlatIndex(points.shape[1], metric)
        self._exact.add(points)

    def __getstate__(self) -> dict[str, Any]:
        return {"_exact": self._exact}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    def query(
        self, query_data: Any, k: int = 10, epsilon: float = 0.1
    ) -> tuple[np.ndarray, np.ndarray]:
        """Indices and distances of the k nearest points of each query; epsilon plays no part."""
        found = self._exact.neighbors(float_tensor(query_data, "X").cpu(), k)
        return found.indices.numpy().astype(np.int32), found.distances.numpy()

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Not served: fit again."""
        raise NotImplementedError("UMAP.update needs umap-learn's own neighbours")

    prepare = update  # UMAP.update calls it first


def precomputed_knn(
    X: Any, n_neighbors: int = 15, metric: str = "euclidean"
) -> tuple[np.ndarray, np.ndarray, ExactIndex]:
    """What ``umap.UMAP(precomputed_knn=...)`` takes: indices, distances, index.

    Args:
        X: points ``[n, d]``, dense; the same that UMAP will be fitted to.
        n_neighbors: that of the UMAP, the point itself counted, as UMAP does; of more columns it
            makes use where there are fewer than 4,096 points.
        metric: ``"euclidean"`` or ``"cosine"``; give UMAP the same.

    Returns:
        int32 and float32 ``[n, n_neighbors]``, self first, and an `ExactIndex` for `transform`.

    Raises:
        ValueError: another metric, or n_neighbors outside 1 … n.
        TypeError: X is no dense array of numbers.
        HiddenStateError: NaN or infinity, naming the row.

    >>> precomputed_knn([[0.0], [3.0], [1.0]], 2)[0].tolist()
    [[0, 2], [1, 2], [2, 0]]
    """
    indices, distances = self_first(X, n_neighbors, metric)
    return indices.astype(np.int32), distances, ExactIndex(X, metric)
