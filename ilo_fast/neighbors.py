"""Exact nearest neighbours: the public edge of the engine."""

from dataclasses import dataclass
from typing import Any, SupportsIndex

from ilo_fast.arguments import true_or_false, whole_number
from ilo_fast.arrays import to_torch
from ilo_fast.errors import InputError
from ilo_fast.ops import dispatch
from ilo_fast.ops.request import NeighborStats, Request, check_metric
from ilo_fast.ops.untraced import untraced
from ilo_fast.shown import Shown, counted
from ilo_fast.vectors import row_max

__all__ = ["NeighborStats", "Neighbors", "knn"]


@dataclass(frozen=True, eq=False, repr=False)
class Neighbors(Shown):
    """The k nearest neighbours of every point.

    Attributes:
        indices: int64 ``[n, k]`` or ``[layers, n, k]``, nearest first, equal ones by index.
        distances: float32, same shape; ``1 - cos``, the L2 norm or ``-<x, y>``. Neighbours that
            are equal to float64 rounding show one distance.
        certified: bool ``[n]`` or ``[layers, n]``, whether the row is proved to be what float64
            arithmetic gives.
        metric, backend, exact: how they were found.
        stats: a :class:`NeighborStats`, one entry a layer.

    The arrays are of the library, and on the device, that the input came in.
    """

    indices: Any
    distances: Any
    certified: Any
    metric: str
    backend: str
    exact: bool
    stats: NeighborStats

    @property
    def k(self) -> int:
        """Neighbours a point."""
        return int(self.indices.shape[-1])


@untraced
def knn(
    x: Any,
    k: SupportsIndex = 5,
    *,
    metric: str = "cosine",
    exact: bool = True,
    exclude_self: bool = True,
    backend: str = "auto",
) -> Neighbors:
    """Find the k nearest neighbours of every point among the others, exactly.

    Args:
        x: points ``[n, d]`` or ``[layers, n, d]`` (layers are searched one by one), float16,
            bfloat16, float32 or float64; a torch tensor, a NumPy or CuPy array, or anything that
            speaks DLPack.
        k: neighbours a point, at most n - 1 (n with ``exclude_self=False``).
        metric: ``"cosine"`` (distance ``1 - cos``; a zero vector is at distance 1 from
            everything), ``"euclidean"`` (L2 norm) or ``"inner_product"`` (``-<x, y>``).
        exact: prove every row, recomputing in float64 what the filter leaves open. False skips
            re-ranking that would be needed for the proof; ``certified`` says which rows have it.
        exclude_self: leave a point out of its own list, by index.
        backend: ``"auto"``, or one to force: ``"torch"``, ``"triton"``, or ``"reference"`` for
            the public research code's float32 arithmetic (``"cuda"`` raises: the CUDA C++ kernels
            count over the lists and search nothing). On a CUDA card ``"auto"`` tries ``"triton"``
            once a process and shape of problem, and takes it; where the trial fails, it warns
            (RuntimeWarning) and takes ``"torch"``.

    Returns:
        :class:`Neighbors`, sorted by distance; candidates whose float64 distances are equal to
        rounding (a proven bound, see docs/exactness.md) count as equal and come by lower index.

    Raises:
        ValueError: an argument out of range, or a forced backend that cannot serve.
        TypeError: an argument of the wrong type.
        HiddenStateError: NaN or infinity in ``x``, naming layer and row.

    >>> import numpy as np
    >>> found = knn(np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]]), k=1)
    >>> found.indices.tolist(), found.certified.all().item()
    ([[1], [0], [1]], True)
    """
    tensor, in_kind = to_torch(x)
    single = tensor.ndim == 2
    if tensor.ndim not in (2, 3):
        raise InputError(f"x must be [n, d] or [layers, n, d]; got shape {list(tensor.shape)}")
    states = tensor.detach()
    states = states[None] if single else states
    layers, n, d = states.shape
    if layers < 1 or n < 2 or d < 1:
        raise InputError(
            f"x must hold at least 1 layer, 2 points and 1 dimension; got {list(tensor.shape)}"
        )
    count = whole_number(k, "k")
    exact, exclude_self = true_or_false(exact, "exact"), true_or_false(exclude_self, "exclude_self")
    most = n - 1 if exclude_self else n
    if not 1 <= count <= most:
        raise InputError(
            f"k must be between 1 and {most} for {counted(n, 'point')} "
            f"({'self excluded' if exclude_self else 'self included'}); got {count}"
        )
    check_metric(metric)
    largest = row_max(states, single)
    request = Request(states, largest, count, metric, exact, exclude_self)
    chosen = dispatch.choose(backend, request)
    result = chosen.load()(request)
    arrays = (result.indices, result.distances, result.certified)
    indices, distances, certified = (in_kind(a[0] if single else a) for a in arrays)
    return Neighbors(
        indices, distances, certified, metric, chosen.name, request.exact, result.stats
    )
