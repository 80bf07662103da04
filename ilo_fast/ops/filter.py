"""The float32 filter: tiles of the form, reduced to one maximum per row and bin of columns.

Points are permuted with a fixed seed, so that a point's neighbours fall in different bins, and
laid out in slabs of one or more tiles. Bin ``b`` of a slab holds its points ``b, b + bins,
b + 2 bins, ...``. A tile of the upper triangle serves both directions: its maxima over column bins
belong to its rows, those over row bins to its columns. As n grows slabs take more tiles, so that
the maxima of all rows keep to a budget; where bins would become too few for k, strips of rows are
taken one by one, without the symmetry.
"""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import torch

from ilo_fast.ops.centred import MASKED, Operands
from ilo_fast.ops.products import multiplied
from ilo_fast.ops.workers import mapped

__all__ = ["Plan", "bin_maxima", "plan_filter"]

Result = TypeVar("Result")

MAXIMA_BYTES = {"cpu": 512 << 20, "cuda": 2 << 30}
_WIDTHS = range(24, 41)  # points a bin and tile where nothing forces another choice
_NARROWEST = 8
_BINS_PER_K = 8  # fewer bins than this times k, and most of them would be open


@dataclass(frozen=True)
class Plan:
    """How n points are cut: slabs of ``group`` tiles of ``bins`` x ``per_tile`` points."""

    n: int
    bins: int  # of a slab
    per_tile: int  # points of one bin in one tile
    group: int  # tiles a slab
    strip: int  # rows a strip, 0 for the symmetric form

    @property
    def tile(self) -> int:
        """Points a tile."""
        return self.bins * self.per_tile

    @property
    def tiles(self) -> int:
        """Tiles that hold points."""
        return -(-self.n // self.tile)

    @property
    def slabs(self) -> int:
        """Slabs that hold points."""
        return -(-self.tiles // self.group)

    @property
    def width(self) -> int:
        """Points a bin."""
        return self.per_tile * self.group

    @property
    def padded(self) -> int:
        """Points with the masked ones that fill the last slab."""
        return self.slabs * self.group * self.tile

    @property
    def all_bins(self) -> int:
        """Bins of all slabs."""
        return self.bins * self.slabs

    def locate(self, point: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Bin and slot of points given in the filter's order."""
        slab = self.bins * self.width
        inside = point % slab
        return point // slab * self.bins + inside % self.bins, inside // self.bins

    def member(self, number: torch.Tensor, slot: torch.Tensor) -> torch.Tensor:
        """Point, in the filter's order, at a slot of a bin."""
        slab = self.bins * self.width
        return number // self.bins * slab + number % self.bins + slot * self.bins

    def slice(self, number: int) -> slice:
        """A bin's points, in the filter's order."""
        slab = self.bins * self.width
        start = number // self.bins * slab
        return slice(start + number % self.bins, start + slab, self.bins)


def plan_filter(n: int, d: int, k: int, device: torch.device) -> Plan | None:
    """Choose the cut, or None where bins would not narrow anything down (small n, large k)."""
    # torch reduces strides of 32 floats at full speed on a CPU; a GPU wants larger tiles.
    bins = 128 if device.type == "cuda" and n >= 1 << 14 else 32
    budget = max(MAXIMA_BYTES.get(device.type, MAXIMA_BYTES["cuda"]), 4 * n * d)
    widest = min(n // (_BINS_PER_K * k), n // (8 * bins))  # at least 8 tiles
    if widest < _NARROWEST:
        return None
    widths = [width for width in _WIDTHS if width <= widest] or [widest]
    # Least padding first, then the larger tile.
    per_tile = min(widths, key=lambda width: (-(-n // (bins * width)) * width, -width))
    plan = Plan(n, bins, per_tile, 1, 0)
    # maxima bytes: 4 * padded * bins * slabs
    slabs = max(1, budget // (4 * plan.padded * bins))
    if slabs >= plan.tiles:
        return plan
    if slabs * bins >= 2 * _BINS_PER_K * k:
        return Plan(n, bins, per_tile, -(-plan.tiles // slabs), 0)
    strip = min(plan.tile, max(1, budget // (4 * plan.all_bins)))
    return Plan(n, bins, per_tile, 1, strip)


def bin_maxima(
    operands: Operands, plan: Plan, consume: Callable[[int, torch.Tensor], Result]
) -> Iterator[Result]:
    """Yield ``consume(first row, maxima [rows, all_bins])`` over blocks of rows, in order.

    Self pairs are masked. Blocks may be consumed by several threads at once, and the tensor is
    reused: ``consume`` keeps no reference to it.
    """
    return (_strips if plan.strip else _symmetric)(operands, plan, consume)


def _symmetric(
    operands: Operands, plan: Plan, consume: Callable[[int, torch.Tensor], Result]
) -> Iterator[Result]:
    maxima, size = _all_maxima(operands, plan), plan.tile

    def block(start: int) -> Result:
        rows = maxima[:, start : min(start + size, plan.n)]
        return consume(start, rows.permute(1, 0, 2).reshape(-1, plan.all_bins))

    yield from mapped(block, range(0, plan.n, size))


def _all_maxima(operands: Operands, plan: Plan) -> torch.Tensor:
    """Maxima of all rows, ``[slabs, rows, bins]``, from the tiles of the upper triangle."""
    left, right, size, bins = operands.left, operands.right, plan.tile, plan.bins
    # Slab by slab: every reduction writes contiguous memory.
    maxima = left.new_empty(plan.slabs, plan.tiles * size, bins)
    if plan.group > 1:
        maxima.fill_(2.0 * MASKED)
    buffers = threading.local()  # a product a worker
    lock = threading.Lock()

    def tile(place: tuple[int, int]) -> None:
        i, j = place
        rows, cols = slice(i * size, (i + 1) * size), slice(j * size, (j + 1) * size)
        if not hasattr(buffers, "product"):
            buffers.product = left.new_empty(size, size)
        product = multiplied(left[rows], right[:, cols].T, buffers.product)
        if i == j:
            product.fill_diagonal_(MASKED)
        by_column = product.view(size, plan.per_tile, bins)
        by_row = product.view(plan.per_tile, bins, size)
        if plan.group == 1:
            torch.amax(by_column, dim=1, out=maxima[j, rows])
            if i != j:
                maxima[i, cols] = by_row.amax(dim=0).T
            return
        for_rows, for_cols = maxima[j // plan.group, rows], maxima[i // plan.group, cols]
        row_maxima, col_maxima = by_column.amax(dim=1), by_row.amax(dim=0).T
        with lock:  # tiles of one slab meet in the same maxima
            torch.maximum(for_rows, row_maxima, out=for_rows)
            if i != j:
                torch.maximum(for_cols, col_maxima, out=for_cols)

    for _ in mapped(tile, ((i, j) for i in range(plan.tiles) for j in range(i, plan.tiles))):
        pass
    return maxima


def _strips(
    operands: Operands, plan: Plan, consume: Callable[[int, torch.Tensor], Result]
) -> Iterator[Result]:
    left, right, size, bins = operands.left, operands.right, plan.tile, plan.bins
    buffers = threading.local()

    def strip(start: int) -> Result:
        if not hasattr(buffers, "product"):
            buffers.product = left.new_empty(plan.strip, size)
            buffers.maxima = left.new_empty(plan.strip, plan.all_bins)
        stop = min(start + plan.strip, plan.n)
        buffer, found = buffers.product[: stop - start], buffers.maxima[: stop - start]
        own = torch.arange(start, stop, device=left.device)
        for j in range(plan.tiles):
            tile = right[:, j * size : (j + 1) * size].T
            product = multiplied(left[start:stop], tile, buffer)
            if start < (j + 1) * size and stop > j * size:
                here = own[(own >= j * size) & (own < (j + 1) * size)]
                product[here - start, here - j * size] = MASKED
            blocks = product.view(-1, plan.per_tile, bins)
            found[:, j * bins : (j + 1) * bins] = blocks.amax(dim=1)
        return consume(start, found)

    yield from mapped(strip, range(0, plan.n, plan.strip))
