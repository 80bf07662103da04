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
            least = _lower_bound(upper, right.slack, min(self.k, u)) - left.slack[some]
            is_open = upper >= _round_down(least, upper.dtype)[:, None]
            counts = is_open.sum(dim=1)
            narrow = counts <= limit
            left_over.append(some[~narrow])
            for part in _portions(narrow.nonzero().squeeze(1), counts[narrow]):
                row, col = is_open[part].nonzero().unbind(1)
                self.compared += row.shape[0]
                self._rank(some[part], row, col)
        return torch.cat(left_over)

    def _rank(self, rows: torch.Tensor, row: torch.Tensor, col: torch.Tensor) -> None:
        """Rank the pairs ``(rows[row], col)`` on a set of just these queries and columns."""
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
        self.lists.indices[rows] = lists.indices[:count]
        self.lists.values[rows] = lists.values[:count]


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


def _lower_bound(upper: torch.Tensor, slack: torch.Tensor, k: int) -> torch.Tensor:
    """Float64 ``[rows]``: k columns are at least this similar, the row's own slack not yet off.

    Where there are many columns, the best of each bin of 32 stand for them: the k-th best of the
    bins' maxima is at most the k-th best of all.
    """
    u = upper.shape[1]
    whole = u // _BIN * _BIN if u >= 4 * _BIN * k else 0
    sure = upper[:, whole:].to(torch.float64) - slack[whole:]
    if whole:
        highest = upper[:, :whole].view(-1, whole // _BIN, _BIN).amax(dim=2)
        loosest = slack[:whole].view(-1, _BIN).amax(dim=1)
        sure = torch.cat([highest.to(torch.float64) - loosest, sure], dim=1)
    return torch.topk(sure, k, dim=1).values[:, -1]


def _round_down(values: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    rounded = values.to(dtype)
    below = torch.nextafter(rounded, torch.full_like(rounded, -torch.inf))
    return torch.where(rounded.to(torch.float64) > values, below, rounded)


def _portions(rows: torch.Tensor, counts: torch.Tensor) -> Iterator[torch.Tensor]:
    """Rows in runs of about ``_PAIRS`` open pairs (or one row)."""
    run = torch.cumsum(counts, dim=0) // _PAIRS
    _, lengths = torch.unique_consecutive(run, return_counts=True)
    yield from torch.split(rows, lengths.tolist())


def _single(points: Points, form: Centred) -> Operands:
    order = torch.arange(points.u, device=points.z.device)
    return filter_operands(points, form, order, points.u)


def _double(points: Points, form: Centred) -> Operands:
    d = form.rows(points.z)
    lifted = (form.b + form.slack)[:, None]
    one = torch.ones_like(lifted)
    left, right = torch.cat([d, lifted, one], dim=1), torch.cat([d, one, lifted], dim=1).T
    return Operands(left, right, 2.0 * form.slack)
