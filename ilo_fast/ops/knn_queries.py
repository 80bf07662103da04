"""Neighbours of queries among other points: the engine's filter and exact stage, not symmetric.

The base is centred once; queries are put in its frame (``ops/centred.py``), so that one product
of ``(d_q, b_q, 1)`` and ``(d_p, 1, b_p)`` bounds every pair's similarity from above and, less the
two slacks, from below. What the bounds leave open is ranked by the exact stage.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch

from ilo_fast.ops.centred import Centred, Operands, centre, filter_operands
from ilo_fast.ops.exact import Lists, empty_lists, expand, rank
from ilo_fast.ops.points import Duplicates, Points, prepare_points
from ilo_fast.ops.precision import ieee_products
from ilo_fast.ops.request import EngineResult, NeighborStats

__all__ = ["Base", "prepare_base", "search_base"]

_STRIP_BYTES = 64 << 20
_SMALL = 1 << 22  # multiplications below which the float32 filter saves nothing
_BIN = 32
_FAR = 2.0**40  # a query further than this in the base's units could leave float32's range
_PAIRS = 1 << 20
_ROOM = 2.0**16  # queries may be this much larger than the base before it is scaled anew
_LARGEST = 1.75 * 2.0**1023


@dataclass(frozen=True)
class Base:
    """Prepared base points; x and row_max as given, for queries that need another scale."""

    x: torch.Tensor
    row_max: torch.Tensor
    points: Points
    form: Centred
    single: Operands


def prepare_base(x: torch.Tensor, row_max: torch.Tensor, metric: str) -> Base:
    """Prepare finite points ``x [n, d]``; ``row_max [n]`` is each row's largest magnitude."""
    with ieee_products(x.device):
        room = 1.0 if metric == "cosine" else _ROOM
        points = prepare_points(x, (row_max * room).clamp(max=_LARGEST), metric)
        return _framed(x, row_max, points, centre(points))


def search_base(base: Base, queries: torch.Tensor, row_max: torch.Tensor, k: int) -> EngineResult:
    """The k nearest base points of finite queries ``[m, d]``, m at least 1: one layer's result.

    k is at most the number of base points. Every row is what float64 arithmetic gives,
    candidates equal to rounding by the lower index.
    """
    with ieee_products(queries.device):
        if base.points.metric != "cosine":
            base, row_max = _same_unit(base, row_max)
        asked = prepare_points(queries, row_max, base.points.metric)
        form = centre(asked, base.form)
        farthest = form.norm.amax()
        if float(farthest) > _FAR:
            smaller = base.form.scale * 2.0 ** -int(torch.frexp(farthest).exponent)
            frame = centre(base.points, replace(base.form, scale=smaller))
            base = _framed(base.x, base.row_max, base.points, frame)
            form = centre(asked, frame)
        search = _Search(base, asked, form, k)
        search.run()
        lists = search.lists
        if asked.duplicates is not None:
            group = asked.duplicates.group
            lists = Lists(lists.indices[group], lists.values[group], lists.exclude_self)
        indices, distances = expand(replace(base.points, duplicates=None), lists, k)
    return EngineResult(
        indices=indices[None],
        distances=distances[None],
        certified=torch.ones(1, asked.n, dtype=torch.bool, device=indices.device),
        stats=NeighborStats(
            method=("filter" if search.repaired < asked.u else "float64",),
            rows_repaired=(search.repaired / asked.u,),
            open_candidates=(search.compared / asked.u,),
            duplicates=(base.points.n - base.points.u,),
        ),
    )


def _framed(x: torch.Tensor, row_max: torch.Tensor, points: Points, form: Centred) -> Base:
    operands = _single(points, form)
    # The base is never on the left of the product.
    return Base(x, row_max, points, form, replace(operands, left=operands.left[:0].clone()))


def _same_unit(base: Base, row_max: torch.Tensor) -> tuple[Base, torch.Tensor]:
    """Base and queries' ``row_max`` such that both are scaled by the same power of two."""
    if int(torch.frexp(row_max.amax()).exponent) > base.points.exponent:
        raised = torch.maximum(base.row_max, row_max.amax())
        base = replace(prepare_base(base.x, raised, base.points.metric), row_max=base.row_max)
    unit = 2.0 ** (base.points.exponent - 1)  # its exponent, by frexp, is the base's
    return base, row_max.clamp(min=unit)


class _Search:
    """One batch of distinct queries: float32 where it decides, float64 for the rest."""

    def __init__(self, base: Base, asked: Points, form: Centred, k: int) -> None:
        self.base, self.asked, self.form, self.k = base, asked, form, k
        # Self is never among the columns: "excluding" it keeps `rank` from adding it.
        self.lists = empty_lists(replace(asked, duplicates=None), k, exclude_self=True)
        self.compared = 0
        self.repaired = 0

    def run(self) -> None:
        """Fill the lists."""
        base, asked = self.base, self.asked
        rows = torch.arange(asked.u, device=asked.z.device)
        if asked.u * base.points.u * asked.z.shape[1] > _SMALL:
            # With more open columns than this a float64 product is cheaper.
            rows = self._serve(_single(asked, self.form), base.single, rows, 64 + 8 * self.k)
        self.repaired = rows.shape[0]
        if self.repaired:
            right = _double(base.points, base.form)
            self._serve(_double(asked, self.form), right, rows, base.points.u)

    def _serve(
        self, left: Operands, right: Operands, rows: torch.Tensor, limit: int
    ) -> torch.Tensor:
        """Rank rows with at most ``limit`` open columns; return the others."""
        u = self.base.points.u
        step = max(1, _STRIP_BYTES // (right.slack.element_size() * u))
        left_over = [rows[:0]]
        for some in torch.split(rows, step):
            upper = left.left[some] @ right.right
            row, col = _open_pairs(upper, left.slack[some], right.slack, min(self.k, u))
            counts = torch.bincount(row, minlength=some.shape[0])
            narrow = counts <= limit
            if not bool(narrow.all()):
                left_over.append(some[~narrow])
                kept = narrow[row]
                row, col, counts = row[kept], col[kept], counts * narrow
            for low, high, start, stop in _portions(counts):
                self.compared += stop - start
                self._rank(some[low:high], row[start:stop] - low, col[start:stop], narrow[low:high])
        return torch.cat(left_over)

    def _rank(
        self, rows: torch.Tensor, row: torch.Tensor, col: torch.Tensor, narrow: torch.Tensor
    ) -> None:
        """Rank the pairs ``(rows[row], col)`` on a set of just these queries and columns.

        Every row where ``narrow`` is true has pairs; the others have none and are left alone.
        """
        base, asked, count = self.base.points, self.asked, rows.shape[0]
        columns, place = torch.unique(col, return_inverse=True)
        together = Points(
            metric=base.metric,
            z=torch.cat([asked.z[rows], base.z[columns]]),
            zero=torch.cat([asked.zero[rows], base.zero[columns]]),
            size=torch.cat([asked.size[rows], base.size[columns]]),
            exponent=base.exponent,
            n=base.n,
            duplicates=_copies(base, columns, count),
        )
        lists = empty_lists(replace(together, duplicates=None), self.k, exclude_self=True)
        rank(together, row, place + count, lists)
        self.lists.indices[rows[narrow]] = lists.indices[:count][narrow]
        self.lists.values[rows[narrow]] = lists.values[:count][narrow]


def _copies(base: Points, columns: torch.Tensor, queries: int) -> Duplicates:
    """The original base points each of the columns stands for; the queries stand for none."""
    none = torch.zeros(queries, dtype=torch.int64, device=columns.device)
    if base.duplicates is None:
        members, starts = columns, torch.arange(columns.shape[0], device=columns.device)
        counts = torch.ones_like(columns)
    else:
        members = base.duplicates.members
        starts, counts = base.duplicates.starts[columns], base.duplicates.counts[columns]
    return Duplicates(
        group=none,
        members=members,
        starts=torch.cat([none, starts]),
        counts=torch.cat([none, counts]),
    )


def _open_pairs(
    upper: torch.Tensor, slack_row: torch.Tensor, slack: torch.Tensor, k: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows and columns that may be among the row's k best or tie with them, sorted by row.

    A row's threshold is a proven lower bound of its k-th best. Where there are many columns, the
    best of each bin of 32 stand for them: the k-th best of the bins' maxima is at most the k-th
    best of all, and only bins whose maximum reaches the threshold are looked into.
    """
    rows, u = upper.shape
    whole = u // _BIN * _BIN if u >= 4 * _BIN * k else 0
    tail = upper[:, whole:]
    sure = tail.to(torch.float64) - slack[whole:]
    if whole:
        bins = upper[:, :whole].view(rows, -1, _BIN)
        highest = bins.amax(dim=2)
        loosest = slack[:whole].view(-1, _BIN).amax(dim=1)
        sure = torch.cat([highest.to(torch.float64) - loosest, sure], dim=1)
    kth = torch.topk(sure, k, dim=1).values[:, -1]
    threshold = _round_down(kth - slack_row, upper.dtype)[:, None]
    row, col = (tail >= threshold).nonzero().unbind(1)
    if not whole:
        return row, col
    bin_row, bin_col = (highest >= threshold).nonzero().unbind(1)
    inside, slot = (bins[bin_row, bin_col] >= threshold[bin_row]).nonzero().unbind(1)
    row = torch.cat([bin_row[inside], row])
    col = torch.cat([bin_col[inside] * _BIN + slot, col + whole])
    order = torch.argsort(row, stable=True)
    return row[order], col[order]


def _round_down(values: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    rounded = values.to(dtype)
    below = torch.nextafter(rounded, torch.full_like(rounded, -torch.inf))
    return torch.where(rounded.to(torch.float64) > values, below, rounded)


def _portions(counts: torch.Tensor) -> Iterator[tuple[int, int, int, int]]:
    """Runs of rows with about ``_PAIRS`` open pairs (or one row): rows from, to, pairs from, to."""
    ends = torch.cumsum(counts, dim=0)
    _, lengths = torch.unique_consecutive(ends // _PAIRS, return_counts=True)
    low = start = 0
    for high in torch.cumsum(lengths, dim=0).tolist():
        stop = int(ends[high - 1])
        if stop > start:
            yield low, high, start, stop
        low, start = high, stop


def _single(points: Points, form: Centred) -> Operands:
    order = torch.arange(points.u, device=points.z.device)
    return filter_operands(points, form, order, points.u)


def _double(points: Points, form: Centred) -> Operands:
    d = form.rows(points.z)
    lifted = (form.b + form.slack)[:, None]
    one = torch.ones_like(lifted)
    left, right = torch.cat([d, lifted, one], dim=1), torch.cat([d, one, lifted], dim=1).T
    return Operands(left, right, 2.0 * form.slack)
