"""Pair scores decided by products with proven bounds, float64 where those leave a doubt.

Most sentences find or miss their translation by far more than the bounds of `bounded` are wide.
The others are looked at in float64 by `winners`, so that every score is that of the formulas in
`ilo_fast.alignment.similarity`.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ilo_fast.alignment.bounded import MOST_KEPT, Ways, at, both_ways, turned
from ilo_fast.alignment.operands import BoundedPoints
from ilo_fast.alignment.winners import Hits, block_hits, row_hits, scores_of_hits

__all__ = ["bounded_scores", "serves"]

_FEWEST_SENTENCES = 256  # with fewer, float64 costs less than the bookkeeping of bounds
_SPARE = 2  # entries kept beyond those averaged, to see where the averaged ones end
_MARGIN = 16.0  # times the float64 tolerance: covers its own arithmetic, far below any slack
_LEAST_DIVISOR = 1e-3  # of a ratio with useful bounds
_SETTLED_BYTES = 2**29  # what settling doubts may hold: float64 rows of one side, and of cosines
_SETTLED_COPIES = 8  # as many as `winners` makes on its way


def serves(sentences: int, k: int, csls_k: int) -> bool:
    """Whether bounds repay their bookkeeping, and few enough entries are asked for."""
    return sentences >= _FEWEST_SENTENCES and _kept(k, csls_k) <= MOST_KEPT


def bounded_scores(
    points: BoundedPoints, own: Tensor, other: Tensor, k: int, csls_k: int, tolerance: float
) -> dict[str, Tensor]:
    """Every pair score of P pairs of languages, whose sentences are points ``[P, S]`` each.

    Returns name → float64 ``[2, P]``: own to other, then other to own. 1 <= k, csls_k; values
    within `tolerance` count as equal.
    """
    ways = both_ways(points, own, other, _kept(k, csls_k), csls_k)
    decide = _Decision(points, ways, k, csls_k, tolerance)
    hits, doubt = decide()
    pairs, size = own.shape
    counts = doubt.sum(dim=1).tolist()
    whole = {pair for pair in range(pairs) if counts[pair] + counts[pair + pairs] > size / 2}
    for pair in whole:
        cosines = points.exact(own[pair]) @ points.exact(other[pair]).T
        exact = block_hits(cosines[None], k, csls_k, tolerance)
        for way, settled in zip((pair, pair + pairs), exact, strict=True):
            for name, hit in settled.items():
                hits[name][way] = hit[0]
    some = [way for way, count in enumerate(counts) if count and way % pairs not in whole]
    some.sort(key=counts.__getitem__)  # those settled together have about as many doubts
    most = counts[some[-1]] if some else 0
    row_bytes = 8 * (points.rows.shape[1] + _SETTLED_COPIES * most)
    at_once = max(1, _SETTLED_BYTES // (size * row_bytes))
    mine, theirs = torch.cat([own, other]), torch.cat([other, own])
    for start in range(0, len(some), at_once):
        chosen = torch.tensor(some[start : start + at_once], device=own.device)
        rows = _marked(doubt[chosen])
        for name, hit in decide.exactly(chosen, rows, mine[chosen], theirs[chosen]).items():
            hits[name][chosen[:, None], rows] = hit
    there = {name: hit[:pairs] for name, hit in hits.items()}
    back = {name: hit[pairs:] for name, hit in hits.items()}
    return scores_of_hits(there, back)


@dataclass(frozen=True)
class _Decision:
    """Decides the hits of both directions' sentences ``[2P, S]``."""

    points: BoundedPoints
    ways: Ways
    k: int
    csls_k: int
    tolerance: float

    @cached_property
    def xsim_columns(self) -> tuple[Tensor, Tensor]:
        """Bounds ``[2P, S]`` of the mean of the k largest entries of those who are found."""
        high, low = self.ways.means(self.k)
        return turned(high), turned(low)

    @cached_property
    def csls_columns(self) -> tuple[Tensor, Tensor]:
        """The same of the csls_k largest."""
        high, low = self.ways.means(self.csls_k)
        return turned(high), turned(low)

    def __call__(self) -> tuple[Hits, Tensor]:
        """Hits that the bounds prove, and the sentences where they leave one open."""
        way = self.ways
        margin = _MARGIN * self.tolerance * self.points.unit
        is_own = way.places == torch.arange(way.places.shape[1], device=way.places.device)[:, None]
        rival_high = way.high.masked_fill(is_own, -torch.inf)
        rival_low = way.low.masked_fill(is_own, -torch.inf)
        above = way.own_low > rival_high.amax(dim=2) + margin
        doubt = ~above & (way.own_high >= rival_low.amax(dim=2) - margin)

        high, low = (mean / 2 for mean in self.csls_columns)
        lost = margin + self.points.rounding
        csls = way.own_low - high > way.rival + lost
        certainly = (rival_low - at(high, way.places)).amax(dim=2)
        doubt |= ~csls & (way.own_high - low >= certainly - lost)
        hits = {"retrieval": above, "above": above.clone(), "csls": csls}

        # The margins search among the k most similar: the k-th entry lies within these bounds.
        kth_high, kth_low = way.high[..., self.k - 1], way.low[..., : self.k].amin(dim=2)
        own_listed = is_own[..., : self.k].any(dim=2)
        inside = way.own_low >= torch.where(own_listed, way.high[..., self.k], kth_high)
        inside &= way.high[..., -1] < kth_low - margin  # and all that may be inside are listed
        outside = way.own_high < kth_low - margin
        not_rival = is_own | (way.high < (kth_low - margin)[..., None])
        not_surely = is_own | (way.low < kth_high[..., None])
        for name, (own, rivals), extra in (
            ("distance", self._distances(), margin),
            ("ratio", self._ratios(), 0.0),
        ):
            possibly = rivals[0].masked_fill(not_rival, -torch.inf).amax(dim=2)
            certainly = rivals[1].masked_fill(not_surely, -torch.inf).amax(dim=2)
            hits[name] = inside & (own[1] > possibly + extra)
            doubt |= ~(hits[name] | outside | (own[0] < certainly - extra))
        return hits, doubt

    def _distances(self) -> tuple[tuple[Tensor, Tensor], ...]:
        """Bounds, high and low, of ``C - c / 2`` of the own entry and of the listed ones.

        The row's own mean is the same for all of them.
        """
        way = self.ways
        high, low = (mean / 2 for mean in self.xsim_columns)
        own = way.own_high - low, way.own_low - high
        return own, (way.high - at(low, way.places), way.low - at(high, way.places))

    def _ratios(self) -> tuple[tuple[Tensor, Tensor], ...]:
        """Bounds of ``C / b`` of the own entry and of the listed ones, rounding included."""
        way, unit = self.ways, self.points.unit
        row, columns = way.means(self.k), self.xsim_columns

        def bounds(
            high: Tensor, low: Tensor, row: tuple[Tensor, ...], column: tuple[Tensor, ...]
        ) -> tuple[Tensor, Tensor]:
            high, low = 1 + high / unit, 1 + low / unit
            over, under = (1 + (r + c) / (2 * unit) for r, c in zip(row, column, strict=True))
            known = under > _LEAST_DIVISOR
            under = torch.where(known, under, 1.0)
            most = high / torch.where(high > 0, under, over)
            least = low / torch.where(low > 0, over, under)
            error = _MARGIN * self.tolerance * (1 + torch.maximum(most.abs(), least.abs())) / under
            return (
                torch.where(known, most + error, torch.inf),
                torch.where(known, least - error, -torch.inf),
            )

        listed = tuple(at(mean, way.places) for mean in columns)
        of_listed = bounds(way.high, way.low, tuple(mean[..., None] for mean in row), listed)
        return bounds(way.own_high, way.own_low, row, columns), of_listed

    def exactly(self, chosen: Tensor, rows: Tensor, own: Tensor, other: Tensor) -> Hits:
        """The hits of some sentences ``[C, R]`` of C directions, from float64 cosines.

        chosen ``[C]``: which directions; own, other ``[C, S]``: the points of those who search and
        those who are found. Returns name → bool ``[C, R]``.
        """
        k, csls_k, tolerance, unit = self.k, self.csls_k, self.tolerance, self.points.unit
        exact = self.points.exact
        cosines = exact(own.gather(1, rows)) @ exact(other).transpose(1, 2)
        csls, csls_low = (1 + mean[chosen] / unit for mean in self.csls_columns)
        xsim = torch.zeros_like(csls)  # the margins ask for the k most similar's only
        # Columns that may win get their exact means; a bound from above keeps the others losing.
        kth = cosines.topk(k, dim=2).values[..., -1:]
        line = (2 * cosines - csls[:, None]).amax(dim=2, keepdim=True) - _MARGIN * tolerance
        rivals = (cosines >= kth - tolerance) | (2 * cosines - csls_low[:, None] >= line)
        columns = _marked(rivals.any(dim=1))
        of_columns = exact(other.gather(1, columns)) @ exact(own).transpose(1, 2)
        top = of_columns.topk(max(k, csls_k), dim=2).values
        xsim.scatter_(1, columns, top[..., :k].mean(dim=2))
        csls.scatter_(1, columns, top[..., :csls_k].mean(dim=2))
        return row_hits(cosines, rows, xsim, csls, k, csls_k, tolerance)


def _marked(marks: Tensor) -> Tensor:
    """Where each row of bool ``[P, S]`` is marked, int64 ``[P, R]``: at least once each.

    Rows with fewer marks than others repeat their last.
    """
    counts = marks.sum(dim=1, keepdim=True)
    first = marks.byte().argsort(dim=1, descending=True, stable=True)
    slots = torch.arange(int(counts.max()), device=marks.device)
    return first.gather(1, slots.minimum(counts - 1))


def _kept(k: int, csls_k: int) -> int:
    return max(k + _SPARE, csls_k)
