"""Exact neighbours for pytorch-metric-learning: ``AccuracyCalculator(knn_func=ExactKNN())``."""

import torch

from ilo_fast.flat_index import FlatIndex
from ilo_fast.neighbors import knn

__all__ = ["ExactKNN"]


class ExactKNN:
    """A ``knn_func`` in place of the default ``FaissKNN``, on the device of the embeddings.

    Args:
        metric: ``"euclidean"`` (the default's), ``"cosine"`` or ``"inner_product"``.

    >>> values, indices = ExactKNN()(torch.tensor([[1.0]]), 1, torch.tensor([[0.0], [3.0]]))
    >>> values.tolist(), indices.tolist()
    ([[1.0]], [[0]])
    """

    def __init__(self, metric: str = "euclidean") -> None:
        self.metric = metric

    def __call__(
        self,
        query: torch.Tensor,
        k: int,
        reference: torch.Tensor,
        ref_includes_query: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The k nearest references of each query.

        Args:
            query: ``[m, d]``.
            k: how many; the query itself does not count.
            reference: ``[n, d]``.
            ref_includes_query: row i of the queries is row i of the references, and is left out
                of its own list by index.

        Returns:
            ``(values, indices)`` ``[m, k]``; values as FAISS gives them: squared L2 distances, or
            similarities.

        Raises:
            ValueError: another metric, other dimensions or devices, or more neighbours than there
                are references.
            HiddenStateError: NaN or infinity, naming the row.
        """
        if ref_includes_query and query.shape == reference.shape:
            found = knn(reference, k, metric=self.metric)
            return self._values(found.distances), found.indices
        index = FlatIndex(reference.shape[1], self.metric)
        index.add(reference)
        found = index.neighbors(query, k + ref_includes_query)
        indices, distances = found.indices, found.distances
        if ref_includes_query:
            keep = indices != torch.arange(query.shape[0], device=indices.device)[:, None]
            keep[keep.all(dim=1), -1] = False  # among copies the point itself may be further down
            indices = indices[keep].view(-1, k)
            distances = distances[keep].view(-1, k)
        return self._values(distances), indices

    def _values(self, distances: torch.Tensor) -> torch.Tensor:
        if self.metric == "euclidean":
            return distances.square()
        return 1.0 - distances if self.metric == "cosine" else -distances
