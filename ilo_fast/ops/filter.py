"""The float32 filter: tiles of the form, reduced to one maximum per row and bin of columns.

Points are permuted with a fixed seed, so that a point's neighbours fall in different bins, and
laid out in tiles. Bin ``b`` of a tile holds its points ``b, b + bins, b + 2 bins, ...``. A tile of
the upper triangle serves both directions: its maxima over column bins belong to its rows, those
over row bins to its columns. Where the maxima of all rows would not fit the budget, strips of rows
are taken one by one, without the symmetry.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from ilo_fast.ops.centred import MASKED, Operands

__all__ = ["Plan", "bin_maxima", "plan_filter"]

MAXIMA_BYTES = {"cpu": 512 << 20, "cuda": 2 << 30}
_BINS = {"cpu": 32, "cuda": 128}  # a tile; torch reduces strides of 32 and more at full speed
_WIDTHS = range(24, 41)  # entries a bin where nothing forces another choice
_NARROW, _WIDE = 8, 4096


@dataclass(frozen=True)
class Plan:
    """How n points are cut: ``tiles`` tiles of ``bins`` bins of ``width`` points."""

    n: int
    bins: int
    width: int
    tiles: int
    strip: int  # rows a strip, 0 for the symmetric form

    @property
    def tile(self) -> int:
        """Points a tile."""
        return self.bins * self.width

    @property
    def padded(self) -> int:
        """Points with the masked ones that fill the last tile."""
        return self.tile * self.tiles

    @property
    def all_bins(self) -> int:
        """Bins of all tiles."""
        return self.bins * self.tiles

    def locate(self, point: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Bin and slot of points given in the filter's order."""
        inside = point % self.tile
        return point // self.tile * self.bins + inside % self.bins, inside // self.bins

    def member(self, tile_bin: torch.Tensor, slot: torch.Tensor) -> torch.Tensor:
        """Point, in the filter's order, at a slot of a bin."""
        return tile_bin // self.bins * self.tile + tile_bin % self.bins + slot * self.bins

    def slice(self, tile_bin: int) -> slice:
        """A bin's points, in the filter's order."""
        start = tile_bin // self.bins * self.tile
        return slice(start + tile_bin % self.bins, start + self.tile, self.bins)


def plan_filter(n: int, k: int, device: torch.device) -> Plan | None:
    """Choose the cut, or None where bins would not narrow anything down (small n, large k)."""
    bins = _BINS.get(device.type, _BINS["cuda"])
    budget = MAXIMA_BYTES.get(device.type, MAXIMA_BYTES["cuda"])
    most_bins = n // (8 * k)  # per width: n / width bins, at least eight times k
    if n < 8 * bins * _NARROW or most_bins < _NARROW:
        return None
    widest = min(most_bins, n // (8 * bins))
    needed = -(-4 * n * n // budget)  # narrowest bin whose maxima fit the budget
    if needed <= _WIDTHS[0]:
        widths = [w for w in _WIDTHS if w <= widest] or [widest]
    else:
        widths = [w for w in range(needed, needed + needed // 4 + 1) if w <= min(widest, _WIDE)]
    if widths:
        width = min(widths, key=lambda w: (-(-n // (bins * w)) * bins * w, -w))
        return Plan(n, bins, width, -(-n // (bins * width)), 0)
    width = min(widest, _WIDTHS[-1])
    tiles = -(-n // (bins * width))
    strip = min(bins * width, max(1, budget // (4 * bins * tiles)))
    return Plan(n, bins, width, tiles, strip)


def bin_maxima(operands: Operands, plan: Plan) -> Iterator[tuple[int, torch.Tensor]]:
    """Yield ``(first row, maxima [rows, all_bins])`` for all rows in order.

    Self pairs are masked. The tensor is reused: the caller is done with it at the next step.
    """
    return _strips(operands, plan) if plan.strip else _symmetric(operands, plan)


def _symmetric(operands: Operands, plan: Plan) -> Iterator[tuple[int, torch.Tensor]]:
    left, right, size, bins = operands.left, operands.right, plan.tile, plan.bins
    # One slab a tile of columns: every reduction writes contiguous memory.
    maxima = left.new_empty(plan.tiles, plan.padded, bins)
    product = left.new_empty(size, size)
    by_column = product.view(size, plan.width, bins)
    by_row = product.view(plan.width, bins, size)
    for i in range(plan.tiles):
        rows = slice(i * size, (i + 1) * size)
        for j in range(i, plan.tiles):
            cols = slice(j * size, (j + 1) * size)
            torch.mm(left[rows], right[:, cols], out=product)
            if i == j:
                product.fill_diagonal_(MASKED)
            else:
                maxima[i, cols] = by_row.amax(dim=0).T
            torch.amax(by_column, dim=1, out=maxima[j, rows])
    del product, by_column, by_row
    for start in range(0, plan.n, size):
        block = maxima[:, start : min(start + size, plan.n)]
        yield start, block.permute(1, 0, 2).reshape(-1, plan.all_bins)


def _strips(operands: Operands, plan: Plan) -> Iterator[tuple[int, torch.Tensor]]:
    left, right, size, bins = operands.left, operands.right, plan.tile, plan.bins
    maxima = left.new_empty(plan.strip, plan.all_bins)
    products = left.new_empty(plan.strip, size)
    for start in range(0, plan.n, plan.strip):
        stop = min(start + plan.strip, plan.n)
        product, found = products[: stop - start], maxima[: stop - start]
        own = torch.arange(start, stop, device=left.device)
        for j in range(plan.tiles):
            torch.mm(left[start:stop], right[:, j * size : (j + 1) * size], out=product)
            if start < (j + 1) * size and stop > j * size:
                here = (own >= j * size) & (own < (j + 1) * size)
                product[own[here] - start, own[here] - j * size] = MASKED
            blocks = product.view(-1, plan.width, bins)
            found[:, j * bins : (j + 1) * bins] = blocks.amax(dim=1)
        yield start, found
