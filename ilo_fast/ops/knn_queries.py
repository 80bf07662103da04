"""Neighbours of queries among other points: the engine's filter and exact stage, not symmetric.

The base is centred once; queries are put in its frame (``ops/centred.py``), so that one product
of ``(d_q, b_q, 1)`` and ``(d_p, 1, b_p)`` bounds every pair's similarity from above and, less the
two slacks, from below. What the bounds leave open is ranked by the exact stage.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch

from ilo_fast.ops.centred import Centred, centre
from ilo_fast.ops.exact import Lists, empty_lists, expand, pair_values, rank_values, tie_error
from ilo_fast.ops.points import Points, prepare_points
from ilo_fast.ops.precision import ieee_products
from ilo_fast.ops.query_filter import Side, base_side, open_pairs, query_side
from ilo_fast.ops.request import EngineResult, NeighborStats
from ilo_fast.ops.workers import mapped, row_runs, worker_threads

__all__ = ["Base", "prepare_base", "search_base", "shared_forms"]

_SMALL = 1 << 22  # multiplications below which the float32 filter saves nothing
_FAR = 2.0**40  # a query further than this in the base's units could leave float32's range
_WAITING = 1 << 20  # open pairs held back to be ranked together
_RANKED = {"cpu": 1 << 14, "cuda": 1 << 20}  # pairs ranked at a time
_FEW = 1 << 24  # multiplications below which worker threads cost more than they give
_ROOM = 2.0**16  # queries may be this much larger than the base before it is scaled anew
_RANGE = 400  # binary orders of magnitude between queries that share a unit: squares stay in range
_LARGEST = 1.75 * 2.0**1023
# Numbers of queries prepared together: their float64 copies and centred forms take some 24 bytes
# each, however many queries there are.
_TOGETHER = {"cpu": 1 << 23, "cuda": 1 << 28}


@dataclass(frozen=True)
class Base:
    """Prepared base points; x and row_max as given, for queries that need another scale."""

    x: torch.Tensor
    row_max: torch.Tensor
    points: Points
    form: Centred
    single: Side


def prepare_base(x: torch.Tensor, row_max: torch.Tensor, metric: str) -> Base:
    """Prepare finite points ``x [n, d]``; ``row_max [n]`` is each row's largest magnitude."""
    with _engine(x.device, x.numel() * 16):
        room = _ROOM if metric == "euclidean" else 1.0
        points = prepare_points(x, (row_max * room).clamp(max=_LARGEST), metric)
        return _framed(x, row_max, points, centre(points))


def search_base(
    base: Base, queries: torch.Tensor, row_max: torch.Tensor, k: int, *, scores: bool = False
) -> EngineResult:
    """The k nearest base points of finite queries ``[m, d]``, m at least 1: one layer's result.

    k is at most the number of base points; ``scores`` is `expand`'s. Every row is what
    float64 arithmetic gives, candidates equal to rounding by the lower index, whatever other
    queries there are.
    """
    m, device = queries.shape[0], queries.device
    distinct = compared = repaired = 0
    with _engine(device, queries.numel() * base.points.u):
        indices = torch.empty(m, k, dtype=torch.int64, device=device)
        distances = torch.empty(m, k, dtype=torch.float32, device=device)
        for rows in _alike(base, row_max):
            search = _searched(base, queries[rows], row_max[rows], k)
            indices[rows], distances[rows] = search.found(scores)
            distinct += search.asked.u
            compared += search.compared
            repaired += search.repaired
    return EngineResult(
        indices=indices[None],
        distances=distances[None],
        certified=torch.ones(1, m, dtype=torch.bool, device=device),
        stats=NeighborStats(
            method=("filter" if repaired < distinct else "float64",),
            rows_repaired=(repaired / distinct,),
            open_candidates=(compared / distinct,),
            duplicates=(base.points.n - base.points.u,),
        ),
    )


def _alike(base: Base, row_max: torch.Tensor) -> list[torch.Tensor]:
    """Rows of queries that can stand in one unit, no more than memory is meant for.

    A few far out take no bits from the others.
    """
    device = row_max.device
    together = _TOGETHER.get(device.type, _TOGETHER["cuda"])
    most = max(1, together // base.x.shape[1])
    if base.points.metric != "euclidean":
        return [*torch.split(torch.arange(row_max.shape[0], device=device), most)]
    above = torch.frexp(row_max).exponent - base.points.exponent
    above.masked_fill_(row_max == 0, 0)  # to frexp 0 is as large as 1
    orders = torch.ceil(above.clamp(min=0) / _RANGE)
    return [
        part
        for order in torch.unique(orders)
        for part in torch.split((orders == order).nonzero()[:, 0], most)
    ]


def _searched(base: Base, queries: torch.Tensor, row_max: torch.Tensor, k: int) -> "_Search":
    """The search of queries that can stand in one unit, done."""
    exponents = None
    if base.points.metric == "euclidean":
        base, row_max = _same_unit(base, row_max)
    elif base.points.metric == "inner_product":
        exponents = torch.frexp(row_max).exponent.to(torch.int64)
    asked = prepare_points(queries, row_max, base.points.metric, by_row=exponents is not None)
    frame, form = shared_forms(base.points, base.form, asked)
    if frame is not base.form:
        base = _framed(base.x, base.row_max, base.points, frame)
    search = _Search(base, asked, form, k, exponents)
    search.run()
    return search


def shared_forms(points: Points, form: Centred, asked: Points) -> tuple[Centred, Centred]:
    """The base's form, with a smaller scale where a query is far away, and the queries' in it."""
    asked_form = centre(asked, form)
    farthest = asked_form.norm.amax()
    if float(farthest) > _FAR:
        smaller = form.scale * 2.0 ** -int(torch.frexp(farthest).exponent)
        form = centre(points, replace(form, scale=smaller))
        asked_form = centre(asked, form)
    return form, asked_form


def _framed(x: torch.Tensor, row_max: torch.Tensor, points: Points, form: Centred) -> Base:
    return Base(x, row_max, points, form, base_side(points, form, torch.float32))


@contextmanager
def _engine(device: torch.device, multiplications: int) -> Iterator[None]:
    """IEEE products, and worker threads where there is enough for them to do."""
    with ieee_products(device):
        if multiplications < _FEW:
            yield
            return
        with worker_threads(device):
            yield


def _same_unit(base: Base, row_max: torch.Tensor) -> tuple[Base, torch.Tensor]:
    """Base and queries' ``row_max`` such that both are scaled by the same power of two."""
    if int(torch.frexp(row_max.amax()).exponent) > base.points.exponent:
        raised = torch.maximum(base.row_max, row_max.amax())
        base = replace(prepare_base(base.x, raised, base.points.metric), row_max=base.row_max)
    unit = 2.0 ** (base.points.exponent - 1)  # its exponent, by frexp, is the base's
    return base, row_max.clamp(min=unit)


class _Search:
    """One batch of distinct queries: float32 where it decides, float64 for the rest."""

    def __init__(
        self, base: Base, asked: Points, form: Centred, k: int, exponents: torch.Tensor | None
    ) -> None:
        self.base, self.asked, self.form, self.k = base, asked, form, k
        self.exponents = exponents  # of the queries' units, where each has its own
        # Self is never among the columns: "excluding" it keeps it from being expanded.
        self.lists = empty_lists(replace(asked, duplicates=None), k, exclude_self=True)
        self.compared = 0
        self.repaired = 0

    def run(self) -> None:
        """Fill the lists."""
        base, asked = self.base, self.asked
        rows = torch.arange(asked.u, device=asked.z.device)
        if asked.u * base.points.u * asked.z.shape[1] > _SMALL:
            # With more open columns than this a float64 product is cheaper.
            rows = self._serve(base.single, rows, 64 + 8 * self.k)
        self.repaired = rows.shape[0]
        if self.repaired:
            double = base_side(base.points, base.form, torch.float64)
            self._serve(double, rows, base.points.u)

    def found(self, scores: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """Indices int64 and distances float32 ``[m, k]`` of all queries, copies among them."""
        lists = self.lists
        if self.asked.duplicates is not None:
            group = self.asked.duplicates.group
            lists = Lists(lists.indices[group], lists.values[group], lists.exclude_self)
        points = replace(self.base.points, duplicates=None)
        return expand(points, lists, self.k, exponents=self.exponents, scores=scores)

    def _serve(self, right: Side, rows: torch.Tensor, limit: int) -> torch.Tensor:
        """Rank rows with at most ``limit`` open columns; return the others."""
        left = query_side(self.asked, self.form, right.rows.dtype)
        left_over = [rows[:0]]
        waiting: list[tuple[torch.Tensor, torch.Tensor]] = []
        held = 0
        for row, col, crowded in open_pairs(
            left, right, rows, min(self.k, self.base.points.u), limit
        ):
            left_over.append(crowded)
            waiting.append((row, col))
            held += row.shape[0]
            if held >= _WAITING:
                self._rank(waiting)
                waiting, held = [], 0
        if held:
            self._rank(waiting)
        return torch.cat(left_over)

    def _rank(self, pairs: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
        """Rank pairs of queries and distinct base points, sorted by query, all of every query."""
        base, asked = self.base.points, self.asked
        rows, cols = (torch.cat(parts) for parts in zip(*pairs, strict=True))
        self.compared += rows.shape[0]

        def rank(part: tuple[torch.Tensor, torch.Tensor]) -> None:
            row, col = part
            values = pair_values(base, row, col, left=asked)
            errors = tie_error(base, values, row, col, left=asked)
            rank_values(base, row, col, values, errors, self.lists)

        at_once = _RANKED.get(rows.device.type, _RANKED["cuda"])
        _, counts = torch.unique_consecutive(rows, return_counts=True)
        sizes = row_runs(counts, at_once)[1]
        parts = zip(torch.split(rows, sizes), torch.split(cols, sizes), strict=True)
        for _ in mapped(rank, parts):
            pass
