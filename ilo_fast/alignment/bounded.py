"""Bounds of blocks of cosines from one product of matrices.

In the centred form of `ilo_fast.ops.centred` the product t_ij of two points is never below
``unit * (C_ij - 1)``, and less the two points' slacks never above it (docs/exactness.md). The pair
scores need a row's or a column's largest entries, its own, and the best rival under CSLS.
"""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import pad

from ilo_fast.alignment.operands import BoundedPoints
from ilo_fast.ops.centred import MASKED
from ilo_fast.ops.largest import BINS, best_rivals, largest_entries

__all__ = ["MOST_KEPT", "Ways", "at", "both_ways", "turned"]

MOST_KEPT = BINS // 2  # with more, nearly all bins of a row would be looked into


@dataclass(frozen=True)
class Ways:
    """Both directions of P pairs; every sentence ``[2P, S]`` looks for its translation.

    First the directions from own to other, then those back; float64, in form units.

    high, low ``[2P, S, K]``: bounds of its largest entries, by descending high; places: where they
    are. own_high, own_low ``[2P, S]``: bounds of its translation's entry. rival ``[2P, S]``: no
    less than ``unit * (C_ij - c_j / 2 - 1 / 2)`` of any j but the translation, c_j the mean of the
    csls_k largest cosines of column j, less what the points' ``rounding`` allows for.
    """

    high: Tensor
    low: Tensor
    places: Tensor
    own_high: Tensor
    own_low: Tensor
    rival: Tensor

    def means(self, k: int) -> tuple[Tensor, Tensor]:
        """Bounds ``[2P, S]`` of the mean of the k largest entries: not below, not above."""
        return _means(self.high, k), _means(self.low, k)


def both_ways(points: BoundedPoints, own: Tensor, other: Tensor, keep: int, csls_k: int) -> Ways:
    """Bounds for P pairs of languages, their sentences' points ``[P, S]``, in both directions.

    keep: entries kept of a row or column, more than csls_k - 1.
    """
    count, size = own.shape
    slack = points.slack[torch.cat([own, other])]
    padding, masked = (0, -size % BINS), points.left.shape[0] - 1
    own, other = pad(own, padding, value=masked), pad(other, padding, value=masked)
    shape = count, own.shape[1], own.shape[1]
    form = points.products(own, other)
    diagonal = form.diagonal(dim1=1, dim2=2)
    own_high = diagonal[:, :size].double().repeat(2, 1)
    own_low = own_high - slack - turned(slack)
    largest = zip(largest_entries(form, keep, 2), largest_entries(form, keep, 1), strict=True)
    high, places = (torch.cat([rows[:, :size], columns[:, :size]]) for rows, columns in largest)
    high = high.double()
    low = high - slack[..., None] - at(turned(slack), places)
    diagonal.fill_(MASKED)  # from here on there are rivals only
    scratch = partial(points.block, "scratch", shape)
    of_rows, of_columns = pad(_means(low, csls_k) / 2, padding).to(form.dtype).chunk(2)
    rivals = best_rivals(form, of_columns, 2, scratch), best_rivals(form, of_rows, 1, scratch)
    rival = torch.cat(rivals)[:, :size].double()
    return Ways(high, low, places, own_high, own_low, rival)


def turned(values: Tensor) -> Tensor:
    """What ``[2P, ...]`` is of the same pairs' other direction."""
    return values.roll(len(values) // 2, 0)


def at(values: Tensor, places: Tensor) -> Tensor:
    """``values [2P, S]`` at ``places [2P, S, K]``."""
    return values.gather(1, places.flatten(1)).view(places.shape)


def _means(entries: Tensor, k: int) -> Tensor:
    return entries[..., :k].mean(dim=2)
