"""The neighbour search as a torch operator: traceable, one schema for every device."""

from typing import Any

import torch

from ilo_fast.errors import InputError
from ilo_fast.ops import dispatch
from ilo_fast.ops.request import Request, check_metric

__all__ = ["knn_op"]


def knn_op(
    x: torch.Tensor, k: int, metric: str = "cosine", exclude_self: bool = True
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Neighbours as ``torch.ops.ilo_fast.knn``, under ``torch.compile`` and ``torch.func``.

    Args:
        x: floating-point, finite, ``[layers, n, d]``.
        k: neighbours a point, at most ``n - 1`` (``n`` with ``exclude_self=False``).
        metric: ``cosine``, ``euclidean`` or ``inner_product``.
        exclude_self: leave a point out of its own list.

    Returns:
        indices int64 and distances float32 ``[layers, n, k]``, certified bool ``[layers, n]``.

    No gradient flows. Values are not looked at, as that would read from a card: where one is NaN or
    infinite, the lists mean nothing. ``ilo_fast.knn`` refuses that, and takes other arrays.

    Raises:
        ValueError: another number of axes, a k out of range or another metric.

    >>> lists, _, proved = knn_op(torch.tensor([[[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]]]), 1)
    >>> lists.flatten().tolist(), bool(proved.all())
    ([1, 0, 1], True)
    """
    check_metric(metric)
    if x.ndim != 3:
        raise InputError(f"x must be [layers, n, d]; got shape {list(x.shape)}")
    most = x.shape[1] - exclude_self
    if not 1 <= k <= most:
        raise InputError(f"k must be between 1 and {most} for {x.shape[1]} points; got {k}")
    return torch.ops.ilo_fast.knn(  # type: ignore[no-any-return]
        x.detach(), k, metric, exclude_self
    )


@torch.library.custom_op("ilo_fast::knn", mutates_args=())
def _knn(
    x: torch.Tensor, k: int, metric: str, exclude_self: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    x = x.detach()
    row_max = torch.linalg.vector_norm(x, ord=torch.inf, dim=2).to(torch.float64)
    request = Request(x=x, row_max=row_max, k=k, metric=metric, exclude_self=exclude_self)
    found = dispatch.choose("auto", request).load()(request)
    return found.indices, found.distances, found.certified


@_knn.register_fake
def _(
    x: torch.Tensor, k: int, metric: str, exclude_self: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    layers, n, _ = x.shape
    return (
        x.new_empty((layers, n, k), dtype=torch.int64),
        x.new_empty((layers, n, k), dtype=torch.float32),
        x.new_empty((layers, n), dtype=torch.bool),
    )


@_knn.register_vmap
def _(
    info: Any, in_dims: tuple[int | None, ...], x: torch.Tensor, k: int, *rest: Any
) -> tuple[tuple[torch.Tensor, ...], tuple[int, int, int]]:
    """A batch of points are more layers of them."""
    many = x.movedim(in_dims[0] or 0, 0)
    found = torch.ops.ilo_fast.knn(many.flatten(0, 1), k, *rest)
    return tuple(each.unflatten(0, many.shape[:2]) for each in found), (0, 0, 0)
