"""Bounds of blocks of cosines from one product of matrices.

In the centred form of `ilo_fast.ops.centred` the product t_ij of two points is never below
``unit * (C_ij - 1)``, and less the two points' slacks never above it (docs/exactness.md). The pair
scores need a row's or a column's largest entries, its own, and the best rival under CSLS.
"""

from dataclasses import dataclass
from functools import partial

from torch import Tensor
from torch.nn.functional import pad

from ilo_fast.alignment.operands import BoundedPoints
from ilo_fast.ops.centred import MASKED
from ilo_fast.ops.largest import BINS, best_rivals, largest_entries

__all__ = ["MOST_KEPT", "Way", "at", "both_ways"]

MOST_KEPT = BINS // 2  # with more, nearly all bins of a row would be looked into


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
    padding, masked = (0, -size % BINS), points.left.shape[0] - 1
    own, other = pad(own, padding, value=masked), pad(other, padding, value=masked)
    shape = count, own.shape[1], own.shape[1]
    form = points.block("form", shape)
    points.products(own, other, form)
    diagonal = form.diagonal(dim1=1, dim2=2)
    own_high = diagonal[:, :size].double()
    own_low = own_high - slacks[0] - slacks[1]
    there = _way(largest_entries(form, keep, 2), own_high, own_low, *slacks)
    back = _way(largest_entries(form, keep, 1), own_high, own_low, *reversed(slacks))
    diagonal.fill_(MASKED)  # from here on there are rivals only
    scratch = partial(points.block, "scratch", shape)
    shift = pad(back.means(csls_k)[1] / 2, padding).to(form.dtype)
    of_rows = best_rivals(form, shift, 2, scratch)[:, :size]
    shift = pad(there.means(csls_k)[1] / 2, padding).to(form.dtype)
    of_columns = best_rivals(form, shift, 1, scratch)[:, :size]
    return (there, of_rows.double()), (back, of_columns.double())


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
