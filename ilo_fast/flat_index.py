"""Exact search of queries in another set of points, with FAISS's flat-index interface."""

from typing import Any

import torch

from ilo_fast.arguments import at_least_1, whole_number
from ilo_fast.arrays import to_torch
from ilo_fast.errors import InputError
from ilo_fast.neighbors import Neighbors
from ilo_fast.ops.knn_queries import Base, prepare_base, search_base
from ilo_fast.ops.request import EngineResult, NeighborStats, check_metric
from ilo_fast.ops.untraced import untraced
from ilo_fast.vectors import row_max

__all__ = ["FlatIndex"]


class FlatIndex:
    """All points, compared with every query; each row proved to be what float64 gives.

    The interface is that of ``faiss.IndexFlatIP`` and ``faiss.IndexFlatL2``: ``add`` points,
    ``search`` for queries. Differences: any float dtype, torch, NumPy, CuPy and DLPack arrays with
    results in kind; candidates equal to float64 rounding come by the lower index; a cosine metric.

    Args:
        d: dimensions of a point.
        metric: ``"cosine"``, ``"euclidean"`` or ``"inner_product"``.

    >>> import numpy as np
    >>> index = FlatIndex(2, "inner_product")
    >>> index.add(np.array([[1.0, 0.0], [0.0, 2.0]]))
    >>> similarities, indices = index.search(np.array([[3.0, 1.0]]), 2)
    >>> indices.tolist(), similarities.tolist()
    ([[0, 1]], [[3.0, 2.0]])
    """

    def __init__(self, d: int, metric: str = "inner_product") -> None:
        self.d = at_least_1(d, "d")
        check_metric(metric)
        self.metric = metric
        self.reset()

    def __repr__(self) -> str:
        return f"FlatIndex(d={self.d}, metric={self.metric!r}, ntotal={self.ntotal})"

    def reset(self) -> None:
        """Remove all points."""
        self._added: list[torch.Tensor] = []
        self._largest: list[torch.Tensor] = []  # of each row, its largest magnitude
        self._base: Base | None = None

    @property
    def ntotal(self) -> int:
        """Number of points."""
        return sum(part.shape[0] for part in self._added)

    @untraced
    def add(self, x: Any) -> None:
        """Append points ``[n, d]``; they are numbered in the order they were added.

        The points are copied, so the caller may reuse the memory. They stay on their device, and
        all calls must use the same one.

        Raises:
            ValueError: another number of dimensions or another device.
            HiddenStateError: NaN or infinity, naming the row.
        """
        tensor, _ = _points(x, "x", self.d)
        largest = row_max(tensor[None], single=True)[0]
        if self._added and tensor.device != self._added[0].device:
            raise InputError(
                f"x must be on {self._added[0].device} like the points before; got {tensor.device}"
            )
        self._added.append(tensor.clone())
        self._largest.append(largest)
        self._base = None

    def search(self, queries: Any, k: int) -> tuple[Any, Any]:
        """Find the k best points for each query and return them as FAISS does.

        Args:
            queries: ``[m, d]``, any float dtype, on the points' device.
            k: how many, at least 1. Beyond ``ntotal``, columns are filled with index -1.

        Returns:
            ``(values, indices)``, float32 and int64 ``[m, k]``, of the library and on the device
            of the queries. Values are inner products or cosine similarities, largest first, or
            squared L2 distances, smallest first; filled up with float32's smallest or largest
            number.

        Raises:
            ValueError: another number of dimensions, another device or a k below 1.
            TypeError: a k that is no integer, or queries that are no array of floats.
            HiddenStateError: NaN or infinity, naming the row.

        >>> import torch
        >>> index = FlatIndex(1, "euclidean")
        >>> index.add(torch.tensor([[0.0], [3.0]]))
        >>> index.search(torch.tensor([[1.0]]), 2)
        (tensor([[1., 4.]]), tensor([[0, 1]]))
        """
        count = at_least_1(k, "k")
        found, in_kind = self._search(queries, min(count, self.ntotal), scores=True)
        indices, values = found.indices[0], found.distances[0]
        empty = torch.finfo(torch.float32).max
        if self.metric != "euclidean":
            empty = -empty
        more = (0, count - values.shape[1])
        values = torch.nn.functional.pad(values, more, value=empty)
        return in_kind(values), in_kind(torch.nn.functional.pad(indices, more, value=-1))

    def neighbors(self, queries: Any, k: int) -> Neighbors:
        """The k nearest points of each query as `ilo_fast.knn` gives them.

        Args:
            queries: ``[m, d]``, any float dtype, on the points' device.
            k: neighbours a query, at most ``ntotal``.

        Returns:
            `ilo_fast.Neighbors` with indices and distances ``[m, k]``, certified ``[m]``.

        Raises:
            ValueError: another number of dimensions, another device, or a k outside 1 … ntotal.
            TypeError: a k that is no integer, or queries that are no array of floats.
            HiddenStateError: NaN or infinity, naming the row.

        >>> import torch
        >>> index = FlatIndex(1, "euclidean")
        >>> index.add(torch.tensor([[0.0], [3.0]]))
        >>> index.neighbors(torch.tensor([[1.0]]), 2).distances
        tensor([[1., 2.]])
        """
        count = whole_number(k, "k")
        if not 1 <= count <= self.ntotal:
            raise InputError(f"k must be between 1 and ntotal = {self.ntotal}; got {count}")
        found, in_kind = self._search(queries, count)
        return Neighbors(
            indices=in_kind(found.indices[0]),
            distances=in_kind(found.distances[0]),
            certified=in_kind(found.certified[0]),
            metric=self.metric,
            backend="torch",
            exact=True,
            stats=found.stats,
        )

    @untraced
    def _search(self, queries: Any, k: int, *, scores: bool = False) -> tuple[EngineResult, Any]:
        asked, in_kind = _points(queries, "queries", self.d)
        m = asked.shape[0]
        if self._added and asked.device != self._added[0].device:
            raise InputError(
                f"queries must be on {self._added[0].device} like the points; got {asked.device}"
            )
        if m == 0 or k == 0:
            indices = torch.empty(1, m, k, dtype=torch.int64, device=asked.device)
            certified = torch.ones(1, m, dtype=torch.bool, device=asked.device)
            nothing = NeighborStats(("float64",), (0.0,), (0.0,), (0,))
            return EngineResult(indices, indices.float(), certified, nothing), in_kind
        largest = row_max(asked[None], single=True, name="queries")[0]
        if self._base is None:
            self._added, self._largest = [_joined(self._added)], [torch.cat(self._largest)]
            self._base = prepare_base(self._added[0], self._largest[0], self.metric)
        return search_base(self._base, asked, largest, k, scores=scores), in_kind


def _points(x: Any, name: str, d: int) -> tuple[torch.Tensor, Any]:
    tensor, in_kind = to_torch(x, name)
    if tensor.ndim != 2 or tensor.shape[1] != d:
        raise InputError(f"{name} must be [n, {d}]; got shape {list(tensor.shape)}")
    return tensor.detach(), in_kind


def _joined(parts: list[torch.Tensor]) -> torch.Tensor:
    if len(parts) == 1:
        return parts[0]
    dtype = parts[0].dtype
    for part in parts[1:]:
        dtype = torch.promote_types(dtype, part.dtype)
    return torch.cat([part.to(dtype) for part in parts])
