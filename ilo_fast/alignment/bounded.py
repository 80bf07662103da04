"""Bounds of a block of cosines from one float32 product.

In the centred form of `ilo_fast.ops.centred` the product t_ij of two points is never below
``unit * (C_ij - 1)``, and less the two points' slacks never above it (docs/exactness.md). The pair
scores need a row's or a column's largest entries, its own, and the best rival under CSLS.
"""

import threading
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.functional import pad

from ilo_fast.ops.centred import MASKED, centre, lifted_terms
from ilo_fast.ops.points import Points

__all__ = ["MOST_KEPT", "BoundedPoints", "Way", "at", "both_ways", "bounded_points"]

_BINS = 64  # of a row: its largest entries lie in the bins with the largest maxima
MOST_KEPT = _BINS // 2  # with more, nearly all bins would be looked into


@dataclass(frozen=True)
class BoundedPoints:
    """One layer's points by index, and one masked row behind the last.

    left ``[n + 1, d + 2] = (d, b', 1)``, right ``(d, 1, b')``, slack ``[n + 1]``: float32. A
    cosine is at most ``1 + left_i . right_j / unit``, at least that less ``(slack_i + slack_j) /
    unit``. rounding: what one more float32 operation on a product may lose. rows: float64 unit
    rows of points ``[u, d]``; row_of ``[n]``, the row a point has.
    """

    left: Tensor
    right: Tensor
    slack: Tensor
    unit: float
    rounding: float
    rows: Tensor
    row_of: Tensor
    # A worker's two blocks: fresh memory for each would cost as much as the product.
    held: threading.local = field(default_factory=threading.local)

    def two_blocks(self, shape: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
        """Uninitialised float32, the calling worker's own until it asks again."""
        size = 2 * shape[0] * shape[1] * shape[2]
        blocks = getattr(self.held, "blocks", None)
        if blocks is None or blocks.numel() < size:
            blocks = self.held.blocks = self.left.new_empty(size)
        first, second = blocks[:size].view(2, *shape)
        return first, second

    def exact(self, index: Tensor) -> Tensor:
        """float64 unit rows ``[..., d]`` of points."""
        return self.rows[self.row_of[index]]


def bounded_points(points: Points, row_of: Tensor) -> BoundedPoints:
    """The operands of a layer's distinct points under cosine; row_of ``[n]``, each point's own."""
    form = centre(points)
    lifted, slack = lifted_terms(points, form)
    n, dim = row_of.shape[0], points.z.shape[1]
    left = torch.zeros(n + 1, dim + 2, dtype=torch.float32, device=points.z.device)
    left[:n, :dim] = form.rows(points.z).to(torch.float32)[row_of]
    left[:n, dim] = lifted[row_of]
    left[n, dim] = MASKED
    left[:, dim + 1] = 1.0
    right = left.clone()
    right[:, dim], right[:, dim + 1] = left[:, dim + 1], left[:, dim]
    return BoundedPoints(
        left=left,
        right=right,
        slack=pad(slack[row_of], (0, 1)),
        unit=form.scale**2,
        # No product, nor a mean of products, is larger than four times the largest |b|.
        rounding=2.0**-20 * float(lifted.abs().amax()),
        rows=points.z,
        row_of=row_of,
    )


@dataclass(frozen=True)
class Way:
    """One direction: every sentence ``[T, S]`` looks for its translation; float64, in form units.

    high, low ``[T, S, K]``: bounds of its largest entries, by descending high; places: where they
    are. own_high, own_low ``[T, S]``: bounds of its translation's entry.
    """

    high: Tensor
    low: Tensor
    places: Tensor
    own_high: Tensor
    own_low: Tensor

    def means(self, k: int) -> tuple[Tensor, Tensor]:
        """Bounds ``[T, S]`` of the mean of the k largest entries: not below, not above."""
        return self.high[..., :k].mean(dim=2), self.low[..., :k].mean(dim=2)


def both_ways(
    points: BoundedPoints, own: Tensor, other: Tensor, keep: int, csls_k: int
) -> tuple[tuple[Way, Tensor], tuple[Way, Tensor]]:
    """Bounds of a source's points ``[S]`` and those of targets ``[T, S]``, in both directions.

    With each direction, float64 ``[T, S]``, no less than ``unit * (C_ij - c_j / 2 - 1 / 2)`` of
    any j but the translation, c_j the mean of the csls_k largest cosines of column j, less what
    ``points.rounding`` allows for. keep: entries kept of a row or column, more than csls_k - 1.
    """
    size = own.shape[0]
    slacks = points.slack[own].expand(other.shape), points.slack[other]
    padding, masked = (0, -size % _BINS), points.left.shape[0] - 1
    own, other = pad(own, padding, value=masked), pad(other, padding, value=masked)
    form, copy = points.two_blocks((other.shape[0], own.shape[0], own.shape[0]))
    left = points.left[own].expand(other.shape[0], -1, -1)
    torch.bmm(left, points.right[other].transpose(1, 2), out=form)
    diagonal = form.diagonal(dim1=1, dim2=2)
    own_high = diagonal[:, :size].double()
    own_low = own_high - slacks[0] - slacks[1]
    there = _way(_largest_of_rows(form, keep), own_high, own_low, *slacks)
    back = _way(_largest_of_columns(form, keep), own_high, own_low, *reversed(slacks))
    diagonal.fill_(MASKED)  # from here on there are rivals only
    shift = pad(back.means(csls_k)[1] / 2, padding).to(form.dtype)
    of_rows = torch.sub(form, shift[:, None, :], out=copy).amax(dim=2)[:, :size]
    shift = pad(there.means(csls_k)[1] / 2, padding).to(form.dtype)
    of_columns = torch.sub(form, shift[:, :, None], out=copy).amax(dim=1)[:, :size]
    return (there, of_rows.double()), (back, of_columns.double())


def _largest_of_rows(form: Tensor, keep: int) -> tuple[Tensor, Tensor]:
    """The largest entries of each row of ``[T, R, C]``, descending, and their columns."""
    count, rows, columns = form.shape
    cells = form.view(count, rows, columns // _BINS, _BINS)
    bins = cells.amax(dim=2).topk(keep, dim=2).indices  # [T, R, keep]
    inside = cells.gather(3, bins[:, :, None, :].expand(-1, -1, columns // _BINS, -1))
    return _largest_inside(inside.flatten(2), bins)


def _largest_of_columns(form: Tensor, keep: int) -> tuple[Tensor, Tensor]:
    """The largest entries of each column of ``[T, R, C]``, descending, and their rows."""
    count, rows, columns = form.shape
    cells = form.view(count, rows // _BINS, _BINS, columns)
    maxima = cells.amax(dim=1).transpose(1, 2).contiguous()
    bins = maxima.topk(keep, dim=2).indices  # [T, C, keep]
    asked = bins.transpose(1, 2)[:, None].expand(-1, rows // _BINS, -1, -1)
    inside = cells.gather(2, asked)  # [T, slots, keep, C]
    return _largest_inside(inside.flatten(1, 2).transpose(1, 2).contiguous(), bins)


def _largest_inside(inside: Tensor, bins: Tensor) -> tuple[Tensor, Tensor]:
    """The largest of ``[T, S, slots * keep]`` and where they were before bins were picked."""
    keep = bins.shape[2]
    values, places = inside.topk(keep, dim=2)
    return values, places // keep * _BINS + bins.gather(2, places % keep)


def _way(
    largest: tuple[Tensor, Tensor], own_high: Tensor, own_low: Tensor, own: Tensor, other: Tensor
) -> Way:
    """own, other: the slacks ``[T, S]`` of those who search and those who are found."""
    size = own_high.shape[1]
    high, places = (part[:, :size] for part in largest)
    high = high.double()
    low = high - own[..., None] - at(other, places)
    return Way(high, low, places, own_high, own_low)


def at(values: Tensor, places: Tensor) -> Tensor:
    """``values [T, S]`` at ``places [T, S, K]``."""
    return values.gather(1, places.flatten(1)).view(places.shape)
