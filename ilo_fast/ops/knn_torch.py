"""The plain-torch engine, CPU and any CUDA card: certified neighbours, layer by layer.

Per layer: float64 points (``points``), a centred form with proven error bounds (``centred``), the
float32 filter (``filter``), then here the certificate: a row's threshold is the k-th largest
proven lower bound over bins, a bin is open when its upper bound reaches it, and what is in open
bins above the threshold goes to the exact stage (``exact``). Rows with too much left open are
recomputed against every point in float64 (``full``). Where bins would not narrow anything down
(few points, many neighbours), the float32 product of a strip is looked at entry by entry.
"""

import torch

from ilo_fast.ops.centred import MASKED, Operands, centre, filter_operands
from ilo_fast.ops.exact import Lists, empty_lists, expand, pair_values, rank
from ilo_fast.ops.filter import Plan, bin_maxima, plan_filter
from ilo_fast.ops.full import rank_narrowed, rank_rows
from ilo_fast.ops.points import Points, prepare_points
from ilo_fast.ops.precision import ieee_products
from ilo_fast.ops.request import EngineResult, NeighborStats, Request
from ilo_fast.ops.workers import mapped, row_runs, worker_threads

__all__ = ["cannot_serve", "search"]

_PAIR_BYTES = 64 << 20  # open (row, bin) pairs re-scored at once
_GROUPS = 16  # bins looked into at a time
_RANKED = {"cpu": 1 << 14, "cuda": 1 << 20}  # pairs ranked at a time
_FEWEST_NARROWED = 256  # points; with fewer, the float32 pass costs what it saves
_SEED = 20250311


def cannot_serve(device: torch.device, request: Request | None = None) -> str:
    """Plain torch needs float64, which Apple's MPS lacks."""
    return "" if device.type in ("cpu", "cuda") else f"no float64 on {device.type}"


def search(request: Request) -> EngineResult:
    """Find certified neighbours of every layer."""
    layers, n, _ = request.shape
    device = request.x.device
    stats: list[tuple[str, float, float, int]] = []
    with ieee_products(device), worker_threads(device):
        indices = torch.empty(layers, n, request.k, dtype=torch.int64, device=device)
        distances = torch.empty(layers, n, request.k, dtype=torch.float32, device=device)
        certified = torch.ones(layers, n, dtype=torch.bool, device=device)
        for layer in range(layers):
            points = prepare_points(request.x[layer], request.row_max[layer], request.metric)
            lists = empty_lists(points, request.k, request.exclude_self)
            plan = plan_filter(points.u, request.x.shape[2], request.k, device)
            if points.u == 1:
                _all_equal(points, lists)
                method, repaired, compared = "float64", 0, 0
            elif plan is None:
                method, repaired, compared = _without_bins(points, request.k, lists)
            else:
                method = "filter"
                layer_search = _FilteredSearch(points, lists, plan, request.k, request.exact)
                repaired, compared = layer_search.run()
                proved = layer_search.proved
                if points.duplicates is not None:
                    proved = proved[points.duplicates.group]
                certified[layer] = proved
            indices[layer], distances[layer] = expand(points, lists, request.k)
            stats.append((method, repaired / points.u, compared / points.u, n - points.u))
    methods, repaired_share, open_mean, copies = zip(*stats, strict=True)
    return EngineResult(
        indices, distances, certified, NeighborStats(methods, repaired_share, open_mean, copies)
    )


def _all_equal(points: Points, lists: Lists) -> None:
    """Every point is a copy of one: the first indices, at the point's value with itself."""
    only = torch.zeros(1, dtype=torch.int64, device=points.z.device)
    lists.indices[0] = torch.arange(lists.length, device=points.z.device)
    lists.values[0] = pair_values(points, only, only)


def _without_bins(points: Points, k: int, lists: Lists) -> tuple[str, int, int]:
    """Every row against all points; return the method, rows repaired and pairs compared."""
    form = centre(points)
    rows = torch.arange(points.u, device=points.z.device)
    if rows.shape[0] < _FEWEST_NARROWED:
        return "float64", 0, rank_rows(points, form, rows, k, lists)
    rows, compared = rank_narrowed(points, form, k, lists, _most_candidates(k))
    if rows.shape[0]:
        compared += rank_rows(points, form, rows, k, lists)
    return "filter", rows.shape[0], compared


def _most_candidates(k: int) -> int:
    """Beyond these a float64 row costs no more than the candidates it would save."""
    return 64 + 8 * k


class _FilteredSearch:
    """One layer's filter, certificate, re-scoring and repair."""

    def __init__(self, points: Points, lists: Lists, plan: Plan, k: int, exact: bool) -> None:
        device = points.z.device
        generator = torch.Generator().manual_seed(_SEED)
        self.points, self.lists, self.plan, self.k, self.exact = points, lists, plan, k, exact
        self.order = torch.randperm(points.u, generator=generator, device="cpu").to(device)
        self.form = centre(points)
        self.threshold = torch.empty(points.u, dtype=torch.float32, device=device)
        self.proved = torch.ones(points.u, dtype=torch.bool, device=device)
        self.repair: list[torch.Tensor] = []
        self.compared = 0
        self.most_bins = max(8 * k, plan.all_bins // 4)
        self.most_candidates = _most_candidates(k)

    def run(self) -> tuple[int, int]:
        """Fill the lists; return rows repaired and pairs compared exactly."""
        operands = filter_operands(self.points, self.form, self.order, self.plan.padded)
        bin_slack = operands.slack.view(self.plan.slabs, self.plan.width, self.plan.bins)
        bin_slack = bin_slack.amax(dim=1).flatten()
        slack = operands.slack
        at_once = max(1, _PAIR_BYTES // (4 * self.plan.width))
        waiting: list[torch.Tensor] = []
        held = 0

        def open_bins(start: int, maxima: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return self._open_bins(start, maxima, bin_slack, slack)

        for pairs, per_row in bin_maxima(operands, self.plan, open_bins):
            for portion in torch.split(pairs, row_runs(per_row, at_once)[1]):
                if waiting and held + portion.shape[0] > at_once:
                    self._rescore(operands, torch.cat(waiting))
                    waiting, held = [], 0
                waiting.append(portion)
                held += portion.shape[0]
        if held:
            self._rescore(operands, torch.cat(waiting))
        del operands
        rows = torch.cat(self.repair) if self.repair else self.order[:0]
        if rows.shape[0]:
            self.compared += rank_rows(self.points, self.form, rows, self.k, self.lists)
        return rows.shape[0], self.compared

    def _open_bins(
        self,
        start: int,
        maxima: torch.Tensor,
        bin_slack: torch.Tensor,
        slack: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Open (row, bin) pairs of a block of rows, sorted by row, and how many each row has."""
        rows = slice(start, start + maxima.shape[0])
        kth = torch.topk(maxima - bin_slack, self.k, dim=1).values[:, -1]
        # Masked values never pass, even where fewer than k bins hold another point.
        threshold = (kth - slack[rows]).clamp_(min=0.5 * MASKED)
        self.threshold[rows] = threshold
        is_open = maxima >= threshold[:, None]
        per_row = is_open.sum(dim=1)
        if not self.exact:
            best = torch.topk(maxima, self.k, dim=1).values[:, -1]
            is_open = maxima >= best[:, None]
            needed, per_row = per_row, is_open.sum(dim=1)
            self.proved[self.order[rows]] = per_row >= needed
        crowded = per_row > self.most_bins
        if bool(crowded.any()):
            self._leave_to_repair(crowded.nonzero().squeeze(1) + start)
            is_open &= ~crowded[:, None]
            per_row = per_row.masked_fill(crowded, 0)
        pairs = is_open.nonzero()
        pairs[:, 0] += start
        return pairs, per_row

    def _rescore(self, operands: Operands, pairs: torch.Tensor) -> None:
        """Look into open bins; rank what reaches the row's threshold. Rows come whole."""
        plan, left = self.plan, operands.left
        right = operands.right.T
        rows, bins = pairs.unbind(1)
        by_bin = torch.argsort(bins, stable=True)
        rows, bins = rows[by_bin], bins[by_bin]
        present, counts = torch.unique_consecutive(bins, return_counts=True)
        stops = torch.cumsum(counts, dim=0).tolist()
        groups = list(zip(present.tolist(), [0, *stops[:-1]], stops, strict=True))

        def look(some: list[tuple[int, int, int]]) -> torch.Tensor:
            first, last = some[0][1], some[-1][2]
            scores = left.new_empty(last - first, plan.width)
            for number, start, stop in some:
                asked = left.index_select(0, rows[start:stop])
                inside = right[plan.slice(number)]
                torch.mm(asked, inside.T, out=scores[start - first : stop - first])
            row, tile_bin = rows[first:last], bins[first:last]
            own_bin, own_slot = plan.locate(row)
            own = (own_bin == tile_bin).nonzero().squeeze(1)
            scores[own, own_slot[own]] = MASKED
            pair, slot = (scores >= self.threshold[row, None]).nonzero().unbind(1)
            return torch.stack([row[pair], plan.member(tile_bin[pair], slot)], dim=1)

        some = (groups[at : at + _GROUPS] for at in range(0, len(groups), _GROUPS))
        found = torch.cat(list(mapped(look, some)))
        per_row = torch.bincount(found[:, 0], minlength=self.points.u)
        crowded = per_row > self.most_candidates
        if bool(crowded.any()):
            self._leave_to_repair(crowded.nonzero().squeeze(1))
            found = found[~crowded[found[:, 0]]]
            per_row.masked_fill_(crowded, 0)
        self.compared += found.shape[0]
        found = found[torch.argsort(found[:, 0], stable=True)]

        def rank_some(portion: torch.Tensor) -> None:
            row, col = self.order[portion].unbind(1)
            rank(self.points, row, col, self.lists)

        at_once = _RANKED.get(left.device.type, _RANKED["cuda"])
        for _ in mapped(rank_some, torch.split(found, row_runs(per_row, at_once)[1])):
            pass

    def _leave_to_repair(self, rows: torch.Tensor) -> None:
        rows = self.order[rows]
        self.repair.append(rows)
        self.proved[rows] = True
