# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator,misc"
"""Select: the candidates of every point, read off its bins.

A first pass takes the largest score of each of a few dozen groups of bins; the k-th largest of
those is reached by at least k points, so the line "that score less twice a typical bound" leaves
few candidates above it. A second pass writes them out. The line is a guess that decides work,
never correctness: the exact stage proves each row against the line it was cut at.
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from ilo_fast.ops.triton_config import RowConfig
from ilo_fast.ops.triton_filter import Bins
from ilo_fast.ops.triton_prepare import FLOOR, Operands

__all__ = ["LAST_KEPT", "Candidates", "select", "upper_bound"]

LAST_KEPT = 1 << 30  # marks a bin's second entry: below it the bin may hide others
_LAST_KEPT = tl.constexpr(LAST_KEPT)
_FLOOR = tl.constexpr(FLOOR)


@dataclass(frozen=True)
class Candidates:
    """score float32, place int32 ``[layers, rows, capacity]``: packed score and position (plus
    ``LAST_KEPT``) of the first ``count`` entries of each row, by bin. count: int32
    ``[layers, rows]``, above the capacity where not all fitted. line: float32 ``[layers, rows]``;
    every entry of the bins that is not listed has a packed score below it."""

    score: torch.Tensor
    place: torch.Tensor
    count: torch.Tensor
    line: torch.Tensor


@triton.jit
def upper_bound(packed, BITS: tl.constexpr):
    """float64 no smaller than the score that was packed into these bits.

    Packing moves a score by less than 2**BITS units in the last place, the float32 sum in the
    filter by half a unit; both are relative to the score, 2**-23 a unit.
    """
    value = packed.to(tl.float64)
    return value + tl.abs(value) * (2.0 ** (BITS - 22)) + 2.0**-100


# Were `rows` known to be a multiple of four, a lane would read four of them at once.
@triton.jit(do_not_specialize=["n_bins", "rows", "k"])
def _select_kernel(
    best, second, slack, score_out, place_out, count_out, line_out,
    n_bins, rows, first_row, n_pad, k,
    WIDTH: tl.constexpr, BITS: tl.constexpr, GROUPS: tl.constexpr, ROWS: tl.constexpr,
    BINS: tl.constexpr, CAPACITY: tl.constexpr,
):  # fmt: skip
    layer = tl.program_id(1).to(tl.int64)
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    group = tl.arange(0, GROUPS)
    inside = row < rows
    table = layer * n_bins * rows + row[:, None]

    top = tl.full((ROWS, GROUPS), _FLOOR * 2.0, tl.float32)
    start = 0
    while start < n_bins:
        bins = start + group
        mask = inside[:, None] & (bins < n_bins)[None, :]
        at = table + bins.to(tl.int64)[None, :] * rows
        top = tl.maximum(top, tl.load(best + at, mask=mask, other=_FLOOR * 2.0))
        start += GROUPS
    kth = tl.max(top, axis=1)
    step = 1
    while step < k:  # the k-th distinct value, at most the k-th largest
        top = tl.where(top >= kth[:, None], _FLOOR * 2.0, top)
        kth = tl.max(top, axis=1)
        step += 1
    around = tl.load(slack + layer * n_pad + first_row + row, mask=inside, other=0.0)
    line = kth - 1.25 * around - tl.abs(kth) * (2.0 ** (BITS - 22))
    line = tl.where(kth > _FLOOR * 0.5, line, _FLOOR * 0.5)  # fewer than k real groups: take all

    found = tl.zeros((ROWS,), tl.int32)
    lists = (layer * rows + row.to(tl.int64)) * CAPACITY
    start = 0
    while start < n_bins:
        entry = tl.arange(0, BINS)
        bins = start + entry
        mask = inside[:, None] & (bins < n_bins)[None, :]
        at = table + bins.to(tl.int64)[None, :] * rows
        for kept in tl.static_range(2):
            if kept == 0:
                score = tl.load(best + at, mask=mask, other=_FLOOR * 2.0)
                mask = score >= line[:, None]  # a second is never above its best
            else:
                score = tl.load(second + at, mask=mask, other=_FLOOR * 2.0)
            bits = score.to(tl.int32, bitcast=True)
            # One bin after another, a row in a lane: no lane asks another where an entry goes.
            for column in tl.static_range(BINS):
                own = tl.sum(tl.where(entry[None, :] == column, bits, 0), axis=1)
                place = (start + column) * WIDTH + (own & (WIDTH - 1))
                if kept == 1:
                    place = place | _LAST_KEPT
                own_score = own.to(tl.float32, bitcast=True)
                take = own_score >= line
                fits = take & (found < CAPACITY)
                tl.store(score_out + lists + found, own_score, mask=fits)
                tl.store(place_out + lists + found, place, mask=fits)
                found += take.to(tl.int32)
        start += BINS
    tl.store(count_out + layer * rows + row, found, mask=inside)
    tl.store(line_out + layer * rows + row, line, mask=inside)


def select(
    operands: Operands, bins: Bins, k: int, *, first_row: int, config: RowConfig
) -> Candidates:
    """List every entry of the bins above each row's line."""
    layers, n_bins, rows = bins.best.shape
    n_pad = operands.rows.shape[1]
    device = bins.best.device
    shape = (layers, rows, config.capacity)
    made = Candidates(
        score=torch.empty(shape, dtype=torch.float32, device=device),
        place=torch.empty(shape, dtype=torch.int32, device=device),
        count=torch.empty(shape[:2], dtype=torch.int32, device=device),
        line=torch.empty(shape[:2], dtype=torch.float32, device=device),
    )
    grid = (triton.cdiv(rows, config.select_rows), layers)
    _select_kernel[grid](
        bins.best, bins.second, operands.slack,
        made.score, made.place, made.count, made.line,
        n_bins, rows, first_row, n_pad, k,
        WIDTH=bins.width, BITS=bins.width.bit_length() - 1, GROUPS=config.select_groups,
        ROWS=config.select_rows, BINS=config.select_bins, CAPACITY=config.capacity,
        num_warps=config.select_warps,
        enable_fp_fusion=True,  # as in the filter
    )  # fmt: skip
    return made
