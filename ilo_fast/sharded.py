"""Neighbours of a point set too large for one device: rows spread over processes.

Every process holds its own rows and gives their lists. Blocks of points travel round the ring of
processes, so that none ever holds more than two of them, and each is filtered in float32 and
compared in float64 as on one device. The exact stage's values depend on the two points alone
(``ops/exact.py``), so the lists are the same, bit for bit, however the rows are spread.
"""

from dataclasses import replace

import torch
import torch.distributed as dist

from ilo_fast.errors import HiddenStateError, InputError
from ilo_fast.neighbors import Neighbors, NeighborStats
from ilo_fast.ops.centred import (
    LARGEST_EXPONENT,
    MASKED,
    Centred,
    Operands,
    centre,
    filter_operands,
)
from ilo_fast.ops.exact import empty_lists, expand, pair_values, rank_values, tie_error
from ilo_fast.ops.points import Points, prepare_points
from ilo_fast.ops.precision import ieee_products
from ilo_fast.ops.products import multiplied
from ilo_fast.ops.workers import row_runs
from ilo_fast.ring import Ring, join
from ilo_fast.vectors import magnitudes

__all__ = ["gather_neighbors", "knn_sharded"]

_STRIP_BYTES = 64 << 20
_PAIRS = 1 << 20  # compared at once
_TILE = 1 << 15  # columns of one product
_FRESH = 1 << 22  # candidates added before copies are dropped again


def knn_sharded(
    x: torch.Tensor,
    k: int = 5,
    *,
    metric: str = "cosine",
    exclude_self: bool = True,
    group: dist.ProcessGroup | None = None,
) -> Neighbors:
    """The k nearest neighbours, among the rows of all processes, of this process's rows.

    Called by every process of the group at once, under ``torchrun`` or after
    ``torch.distributed.init_process_group``. Points are numbered process by process: row i of
    process r is point ``(rows of the processes before r) + i``.

    Args:
        x: this process's rows, ``[n_local, d]`` or ``[layers, n_local, d]``; float16, bfloat16,
            float32 or float64; of equal layers, d and dtype everywhere; n_local may differ and
            must be at least 1. On a device that the group's backend serves (gloo: CPU, nccl: CUDA).
        k: neighbours a point, less than the number of all points (self excluded).
        metric: ``"cosine"``, ``"euclidean"`` or ``"inner_product"``; see `ilo_fast.knn`.
        exclude_self: leave a point out of its own list, by index.
        group: None is all processes.

    Returns:
        `Neighbors` of the local rows, indices among all points; equal to those rows of
        `ilo_fast.knn` on all points, bit for bit.

    Raises:
        ValueError: (in every process) on arguments that are out of range or differ between
            processes. HiddenStateError: on NaN or infinity, naming layer and point.
        TypeError: on something other than a dense floating-point tensor.

    >>> import torch, torch.distributed as dist
    >>> from ilo_fast.sharded import knn_sharded
    >>> dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    >>> knn_sharded(torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]]), k=1).indices.tolist()
    [[1], [0], [1]]
    >>> dist.destroy_process_group()
    """
    if not dist.is_initialized():
        raise InputError("knn_sharded needs torch.distributed.init_process_group first")
    ring, states, k = join(x, k, metric, exclude_self, group)
    layers, n, _ = states.shape
    compared = []
    with ieee_products(x.device):
        indices = torch.empty(layers, n, k, dtype=torch.int64, device=x.device)
        distances = torch.empty(layers, n, k, dtype=torch.float32, device=x.device)
        for layer in range(layers):
            search = _Search(ring, states[layer], layer, k, metric, exclude_self)
            indices[layer], distances[layer] = search.run()
            compared.append(search.compared / n)
    stats = NeighborStats(("filter",) * layers, (0.0,) * layers, tuple(compared), (0,) * layers)
    certified = torch.ones(layers, n, dtype=torch.bool, device=x.device)
    if x.ndim == 2:
        indices, distances, certified = indices[0], distances[0], certified[0]
    return Neighbors(indices, distances, certified, metric, "torch", True, stats)


def gather_neighbors(found: Neighbors, group: dist.ProcessGroup | None = None) -> Neighbors:
    """The lists of all processes together, in every process: what `ilo_scores` takes.

    The lists are small beside the points: 40 bytes of indices a point and layer at k = 5.

    Args:
        found: this process's rows, as `knn_sharded` gave them.
        group: the processes of that search; all when None. Each of them must call this.

    Returns:
        `Neighbors` of all points ``[n, k]`` or ``[layers, n, k]``, in the order of the processes.

    Raises:
        ValueError, RuntimeError: torch's own, where ``torch.distributed`` is not initialised.

    >>> found = knn_sharded(x, 5)  # doctest: +SKIP
    >>> scores = ilo_scores(gather_neighbors(found), languages)  # doctest: +SKIP
    """
    arrays = [_gather_rows(a, group) for a in (found.indices, found.distances)]
    certified = _gather_rows(found.certified[..., None], group)[..., 0]
    return replace(found, indices=arrays[0], distances=arrays[1], certified=certified)


def _gather_rows(local: torch.Tensor, group: dist.ProcessGroup | None) -> torch.Tensor:
    """Concatenate ``[..., n_local, m]`` over processes along the rows."""
    rows = torch.tensor([local.shape[-2]], device=local.device)
    sizes = [torch.empty_like(rows) for _ in range(dist.get_world_size(group))]
    dist.all_gather(sizes, rows, group=group)
    counts = [int(size) for size in sizes]
    padded = local.new_zeros(*local.shape[:-2], max(counts), local.shape[-1])
    padded[..., : local.shape[-2], :] = local
    parts = [torch.empty_like(padded) for _ in counts]
    dist.all_gather(parts, padded, group=group)
    kept = [part[..., :count, :] for part, count in zip(parts, counts, strict=True)]
    return torch.cat(kept, dim=-2)


class _Search:
    """One layer: this process's rows against every block."""

    def __init__(
        self, ring: Ring, x: torch.Tensor, layer: int, k: int, metric: str, exclude_self: bool
    ) -> None:
        self.ring, self.x, self.k, self.metric = ring, x, k, metric
        self.exclude_self = exclude_self
        row_max = magnitudes(x)
        self._check_finite(row_max, layer)
        # One scale for all but cosine, whose rows have their own: the largest row decides it.
        self.unit = ring.largest(torch.where(row_max.isfinite(), row_max, 0.0).amax())
        self.own = self._prepare(x, row_max)
        self.form = self._common_form(self.own)
        self.operands = self._operands(self.own, self.form)
        u = self.own.u
        self.best = torch.full((u, k), -torch.inf, dtype=torch.float32, device=x.device)
        self.kept: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]] = []
        self.fresh = 0
        self.compared = 0

    def run(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Indices and distances ``[n_local, k]``."""
        for owner, rows in self.ring.blocks(self.x):
            if owner == self.ring.rank:
                self._search(self.own, self.operands, self.own, owner)
                continue
            block = self._prepare(rows, magnitudes(rows))
            operands = self._operands(block, centre(block, self.form))
            self._search(_joined(self.own, block), operands, block, owner)
        if not self.exclude_self:
            every = torch.arange(self.own.u, device=self.x.device)
            self._keep(self.own, every, every, every + self.ring.start(self.ring.rank))
        everyone = replace(self.own, n=self.ring.n)
        lists = empty_lists(everyone, self.k, self.exclude_self)
        rank_values(everyone, *self._settle(), lists)
        return expand(everyone, lists, self.k)

    def _search(self, pairs: Points, right: Operands, block: Points, owner: int) -> None:
        """Compare with one block: what the float32 bounds leave open is kept with its value.

        ``pairs`` holds this process's points, then (unless they are the block) the block's.
        """
        own = owner == self.ring.rank
        shift, offset = (0 if own else self.own.u), self.ring.start(owner)
        rows = torch.arange(self.own.u, device=self.x.device)
        for first in range(0, block.u, _TILE):
            tile = slice(first, min(first + _TILE, block.u))
            columns, slack = right.right[:, tile], right.slack[tile]
            for some in torch.split(rows, max(1, _STRIP_BYTES // (4 * slack.shape[0]))):
                upper = multiplied(self.operands.left[some], columns.T)
                within = (some >= tile.start) & (some < tile.stop) if own else some < 0
                selves = within.nonzero().squeeze(1), some[within] - first
                upper[selves] = MASKED
                is_open = upper >= self._threshold(some, upper, slack)[:, None]
                is_open[selves] = False
                sizes, _ = row_runs(is_open.sum(dim=1), _PAIRS)
                parts = zip(torch.split(some, sizes), torch.split(is_open, sizes), strict=True)
                for part, marked in parts:
                    row, col = marked.nonzero().unbind(1)
                    col = col + first
                    self._keep(pairs, part[row], col + shift, col + offset)

    def _threshold(
        self, rows: torch.Tensor, upper: torch.Tensor, slack: torch.Tensor
    ) -> torch.Tensor:
        """What a similarity's upper bound must reach, by the lower bounds seen so far."""
        sure = torch.topk(upper - slack, min(self.k, upper.shape[1]), dim=1).values
        best = torch.topk(torch.cat([self.best[rows], sure], dim=1), self.k, dim=1).values
        self.best[rows] = best
        return _below(_below(best[:, -1]) - self.operands.slack[rows])

    def _keep(
        self, pairs: Points, rows: torch.Tensor, cols: torch.Tensor, numbers: torch.Tensor
    ) -> None:
        """Add candidates: columns of ``pairs`` whose numbers among all points are ``numbers``."""
        values = pair_values(pairs, rows, cols)
        errors = tie_error(pairs, values, rows, cols)
        self.compared += rows.shape[0]
        self.fresh += rows.shape[0]
        self.kept.append((rows, numbers, values, errors))
        if self.fresh > _FRESH:
            self._settle()

    def _settle(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Candidates by row, value and number; copies of a point beyond the k lowest are dropped.

        Copies tie at one value, and among equals the lower number wins.
        """
        row, number, value, error = (torch.cat(parts) for parts in zip(*self.kept, strict=True))
        order = torch.argsort(number, stable=True)
        for key in (error, value, row):
            order = order[torch.argsort(key[order], stable=True)]
        row, number, value, error = (part[order] for part in (row, number, value, error))
        same = torch.zeros_like(row, dtype=torch.bool)
        same[1:] = (row[1:] == row[:-1]) & (value[1:] == value[:-1]) & (error[1:] == error[:-1])
        at = torch.arange(row.shape[0], device=row.device)
        few = at - torch.cummax(torch.where(same, 0, at), dim=0).values < self.k
        self.kept, self.fresh = [(row[few], number[few], value[few], error[few])], 0
        return self.kept[0]

    def _prepare(self, x: torch.Tensor, row_max: torch.Tensor) -> Points:
        """Float64 points, copies apart: those of other processes are not seen either."""
        if self.metric != "cosine":
            row_max = row_max.clone()
            row_max[0] = torch.maximum(row_max[0], self.unit)
        points = prepare_points(x, row_max, self.metric)
        return replace(points.with_copies(), duplicates=None)

    def _common_form(self, points: Points) -> Centred:
        """The centred form with the first process's centre and a scale that suits everyone."""
        frame = centre(points)
        frame = replace(frame, middle=self.ring.from_first(frame.middle), scale=1.0)
        farthest = self.ring.largest(centre(points, frame).norm.amax())
        exponent = min(-int(torch.frexp(farthest).exponent), LARGEST_EXPONENT[self.metric])
        return centre(points, replace(frame, scale=2.0**exponent))

    def _operands(self, points: Points, form: Centred) -> Operands:
        order = torch.arange(points.u, device=self.x.device)
        return filter_operands(points, form, order, points.u)

    def _check_finite(self, row_max: torch.Tensor, layer: int) -> None:
        bad = ~row_max.isfinite()
        none = self.ring.n
        number = self.ring.start(self.ring.rank) + bad.to(torch.uint8).argmax()
        first = torch.where(bad.any(), number, none)
        lowest = -self.ring.largest(-first)
        if int(lowest) < none:
            raise HiddenStateError(
                f"x must be finite; found NaN or infinity in layer {layer}, point {int(lowest)}"
            )


def _joined(own: Points, block: Points) -> Points:
    return replace(
        own,
        z=torch.cat([own.z, block.z]),
        zero=torch.cat([own.zero, block.zero]),
        size=torch.cat([own.size, block.size]),
    )


def _below(values: torch.Tensor) -> torch.Tensor:
    """The next smaller float: what rounding may have added comes off."""
    return torch.nextafter(values, torch.full_like(values, -torch.inf))
