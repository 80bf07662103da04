"""Bounds of blocks of cosines from one product of matrices.

In the centred form of `ilo_fast.ops.centred` the product t_ij of two points is never below
``unit * (C_ij - 1)``, and less the two points' slacks never above it (docs/exactness.md). The pair
scores need a row's or a column's largest entries, its own, and the best rival under CSLS.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from ilo_fast.alignment.operands import BoundedPoints
from ilo_fast.ops.centred import MASKED

__all__ = ["MOST_KEPT", "Way", "at", "both_ways"]

_BINS = 64  # of a row: its largest entries lie in the bins with the largest maxima
MOST_KEPT = _BINS // 2  # with more, nearly all bins would be looked into


@dataclass(frozen=True)
class Way:
    """One direction: every sentence ``[P, S]`` looks for its translation; float64, in form units.

    high, low ``[P, S, K]``: bounds of its largest entries, by descending high; places: where they
    are. own_high, own_low ``[P, S]``: bounds of its translation's entry.
    """

    high: Tensor
    low: Tensor
    places: Tensor
    own_high: Tensor
    own_low: Tensor

    def means(self, k: int) -> tuple[Tensor, Tensor]:
        """Bounds ``[P, S]`` of the mean of the k largest entries: not below, not above."""
        return self.high[..., :k].mean(dim=2), self.low[..., :k].mean(dim=2)

    def of(self, pairs: Tensor) -> "Way":
        """The same of some pairs."""
        parts = self.high, self.low, self.places, self.own_high, self.own_low
        return Way(*(part[pairs] for part in parts))


def both_ways(
    points: BoundedPoints, own: Tensor, other: Tensor, keep: int, csls_k: int
) -> tuple[tuple[Way, Tensor], tuple[Way, Tensor]]:
    """Bounds for P pairs of languages, their sentences' points ``[P, S]``, in both directions.

    With each direction, float64 ``[P, S]``, no less than ``unit * (C_ij - c_j / 2 - 1 / 2)`` of
    any j but the translation, c_j the mean of the csls_k largest cosines of column j, less what
    ``points.rounding`` allows for. keep: entries kept of a row or column, more than csls_k - 1.
    """
    count, size = own.shape
    slacks = points.slack[own], points.slack[other]
    padding, masked = (0, -size % _BINS), points.left.shape[0] - 1
    own, other = pad(own, padding, value=masked), pad(other, padding, value=masked)
    form, copy = points.two_blocks((count, own.shape[1], own.shape[1]))
    points.products(own, other, form)
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
    """The largest entries of each row of ``[P, R, C]``, descending, and their columns."""
    count, rows, columns = form.shape
    cells = form.view(count, rows, columns // _BINS, _BINS)
    bins = cells.amax(dim=2).topk(keep, dim=2).indices  # [P, R, keep]
    inside = cells.gather(3, bins[:, :, None, :].expand(-1, -1, columns // _BINS, -1))
    return _largest_inside(inside.flatten(2), bins)


def _largest_of_columns(form: Tensor, keep: int) -> tuple[Tensor, Tensor]:
    """The largest entries of each column of ``[P, R, C]``, descending, and their rows."""
    count, rows, columns = form.shape
    cells = form.view(count, rows // _BINS, _BINS, columns)
    maxima = cells.amax(dim=1).transpose(1, 2).contiguous()
    bins = maxima.topk(keep, dim=2).indices  # [P, C, keep]
    asked = bins.transpose(1, 2)[:, None].expand(-1, rows // _BINS, -1, -1)
    inside = cells.gather(2, asked)  # [P, slots, keep, C]
    return _largest_inside(inside.flatten(1, 2).transpose(1, 2).contiguous(), bins)


def _largest_inside(inside: Tensor, bins: Tensor) -> tuple[Tensor, Tensor]:
    """The largest of ``[P, S, slots * keep]`` and where they were before bins were picked."""
    keep = bins.shape[2]
    values, places = inside.topk(keep, dim=2)
    return values, places // keep * _BINS + bins.gather(2, places % keep)


def _way(
    largest: tuple[Tensor, Tensor], own_high: Tensor, own_low: Tensor, own: Tensor, other: Tensor
) -> Way:
    """own, other: the slacks ``[P, S]`` of those who search and those who are found."""
    size = own_high.shape[1]
    high, places = (part[:, :size] for part in largest)
    high = high.double()
    low = high - own[..., None] - at(other, places)
    return Way(high, low, places, own_high, own_low)


def at(values: Tensor, places: Tensor) -> Tensor:
    """``values [P, S]`` at ``places [P, S, K]``."""
    return values.gather(1, places.flatten(1)).view(places.shape)
