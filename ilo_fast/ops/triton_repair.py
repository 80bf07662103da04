# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator,misc"
"""Repair: rows the first pass could not prove, from their bins.

For an unproved row the bar is known (or nothing is, then it is -inf). Every bin entry that may
reach it is scored in float64; of a bin whose second entry may reach it every point is scored, for
it may hide more. What is left out is proved to lie beyond the bar, so every repaired row is exact,
and in the worst case (all points equal) the repair is the full float64 computation. A row whose
k nearest by value may share a tier with points beyond them is scored a second time, for its tiers
(ops.triton_order). Rows of both kinds are found and worked off on the device: no synchronisation,
and next to nothing where there are none.
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from ilo_fast.ops.triton_config import RowConfig
from ilo_fast.ops.triton_filter import Bins
from ilo_fast.ops.triton_frame import METRIC_CODES
from ilo_fast.ops.triton_order import led, merge_nearest
from ilo_fast.ops.triton_prepare import Operands
from ilo_fast.ops.triton_rescore import (
    Lists,
    Unproved,
    pair_value,
    tie_depth,
    value_error,
)
from ilo_fast.ops.triton_select import upper_bound

__all__ = ["repair"]

_PARTIAL_ENTRIES = 256  # partial list entries kept a row, whatever k
_SCANNED_BINS = 256  # looked at together; no kernel depends on how many there are


@dataclass(frozen=True)
class _Partial:
    """Lists of each part of a row's bins, ``[rows, parts, KP]``; of each part how many were scored
    and the lowest value that a point dropped could share a tier with, ``[rows, parts, 1]``."""

    value: torch.Tensor
    error: torch.Tensor
    index: torch.Tensor
    scored: torch.Tensor
    reach: torch.Tensor


@triton.jit(do_not_specialize=["n", "n_bins", "k", "per_part", "programs"])
def _repair_kernel(
    x, factor, order, held, best, second, bar, todo, n_todo,
    first_value, first_error,
    value_out, error_out, index_out, scored_out, reach_out,
    n, d, x_layer, x_row, n_bins, rows, first_row, k, per_part, programs,
    DEPTH: tl.constexpr, METRIC: tl.constexpr, BITS: tl.constexpr, WIDTH: tl.constexpr,
    KP: tl.constexpr, PARTS: tl.constexpr, SCAN: tl.constexpr, TILE: tl.constexpr,
    DIMS: tl.constexpr, EXCLUDE_SELF: tl.constexpr, TIERS: tl.constexpr,
):  # fmt: skip
    total = tl.load(n_todo) * PARTS
    slot = tl.arange(0, KP)
    item = tl.program_id(0).to(tl.int64)
    while item < total:
        part = (item % PARTS).to(tl.int32)
        code = tl.load(todo + item // PARTS)  # layer * rows + row, int64
        layer = code // rows
        row = code % rows
        point = tl.load(order + first_row + row)
        own_bar = tl.load(bar + layer * n + point)
        points = x + layer * x_layer
        factors = factor + layer * n
        own_factor = tl.load(factors + point)
        table = layer * n_bins * rows + row
        values = tl.full((KP,), float("inf"), tl.float64)
        errors = tl.zeros((KP,), tl.float64)
        indices = tl.full((KP,), 2147483647, tl.int32)
        scored = tl.zeros((TILE,), tl.int32)
        reach = tl.full((), float("inf"), tl.float64)
        first = (layer * n + point) * k + slot
        if TIERS:
            heads = tl.load(first_value + first, mask=slot < k, other=float("inf"))
            head_errors = tl.load(first_error + first, mask=slot < k, other=0.0)

        first_bin = part * per_part
        end_bin = tl.minimum(first_bin + per_part, n_bins)
        any_reach = tl.zeros((SCAN,), tl.int32)
        start = first_bin
        while start < end_bin:
            scan = start + tl.arange(0, SCAN)
            at = table + scan.to(tl.int64) * rows
            highest = tl.load(best + at, mask=scan < end_bin, other=-3e38)
            reaches = (upper_bound(highest, BITS) >= own_bar) & (scan < end_bin)
            any_reach = tl.maximum(any_reach, reaches.to(tl.int32))
            start += SCAN
        if tl.max(any_reach, axis=0) > 0:
            start = first_bin * WIDTH
            while start < end_bin * WIDTH:
                place = start + tl.arange(0, TILE)
                inside = place < end_bin * WIDTH
                other = tl.load(held + place, mask=inside, other=-1)
                inside = inside & (other >= 0)
                at = table + (place // WIDTH).to(tl.int64) * rows
                top = tl.load(best + at, mask=inside, other=-3e38)
                may_count = upper_bound(top, BITS) >= own_bar
                # The best entry names its place in the low bits; only that point is scored ...
                named = (top.to(tl.int32, bitcast=True) ^ place) & (WIDTH - 1) == 0
                # ... unless the second reaches as well: then the bin may hide more.
                then = tl.load(second + at, mask=inside, other=-3e38)
                opened = upper_bound(then, BITS) >= own_bar
                wanted = inside & ((may_count & named) | opened)
                if EXCLUDE_SELF:
                    wanted = wanted & (other != point)
                if tl.max(wanted.to(tl.int32), axis=0) > 0:
                    other_row = points + tl.maximum(other, 0).to(tl.int64) * x_row
                    own_row = points + (other * 0 + point).to(tl.int64) * x_row
                    other_factor = tl.load(factors + other, mask=wanted, other=0.0)
                    value, size = pair_value(
                        own_row, other_row, other_factor * 0.0 + own_factor, other_factor,
                        wanted, d, DEPTH, METRIC, TILE, DIMS,
                    )  # fmt: skip
                    error = value_error(value, size, DEPTH, METRIC)
                    value = tl.where(wanted, value, float("inf"))
                    if TIERS:
                        value, error = led(value, error, heads, head_errors, k)
                    values, errors, indices, dropped = merge_nearest(
                        values, errors, indices, value, error, other, k, KP
                    )
                    reach = tl.minimum(reach, dropped)
                    scored += wanted.to(tl.int32)
                start += TILE
        own_list = item * KP + slot
        tl.store(value_out + own_list, values)
        tl.store(error_out + own_list, errors)
        tl.store(index_out + own_list, indices)
        tl.store(scored_out + item, tl.sum(scored, axis=0))
        tl.store(reach_out + item, reach)
        item += programs


@triton.jit(
    do_not_specialize=["n", "k", "programs"],
    do_not_specialize_on_alignment=["proved_out", "scored_out", "repaired_out"],
)
def _join_kernel(
    order, todo, n_todo, value_in, error_in, index_in, scored_in, reach_in,
    value_out, error_out, index_out, proved_out, scored_out, repaired_out, level, n_level,
    n, rows, first_row, k, programs,
    KP: tl.constexpr, PARTS: tl.constexpr, TIERS: tl.constexpr,
):  # fmt: skip
    total = tl.load(n_todo)
    slot = tl.arange(0, KP)
    item = tl.program_id(0).to(tl.int64)
    while item < total:
        code = tl.load(todo + item)
        point = tl.load(order + first_row + code % rows)
        at = item * PARTS * KP + slot
        values = tl.load(value_in + at)
        errors = tl.load(error_in + at)
        indices = tl.load(index_in + at)
        scored = tl.load(scored_in + item * PARTS)
        reach = tl.load(reach_in + item * PARTS)
        if PARTS > 1:  # Triton 3.6 ends on a loop that it knows to be empty
            part = 1
            while part < PARTS:
                at += KP
                more = tl.load(value_in + at)
                if tl.min(more, axis=0) < float("inf"):
                    values, errors, indices, dropped = merge_nearest(
                        values, errors, indices, more, tl.load(error_in + at),
                        tl.load(index_in + at), k, KP,
                    )  # fmt: skip
                    reach = tl.minimum(reach, dropped)
                scored += tl.load(scored_in + item * PARTS + part)
                reach = tl.minimum(reach, tl.load(reach_in + item * PARTS + part))
                part += 1
        layer = code // rows
        out = layer * n + point
        tl.store(value_out + out * k + slot, values, mask=slot < k)
        tl.store(error_out + out * k + slot, errors, mask=slot < k)
        tl.store(index_out + out * k + slot, indices, mask=slot < k)
        if TIERS == 0:
            tl.store(proved_out + out, True)
            tl.atomic_add(scored_out + layer, scored.to(tl.int64), sem="relaxed")
            tl.atomic_add(repaired_out + layer, tl.full((), 1, tl.int64), sem="relaxed")
            farthest = tl.max(tl.where(slot < k, values, -float("inf")), axis=0)
            if reach <= farthest:
                free = tl.atomic_add(n_level, tl.full((), 1, tl.int64), sem="relaxed")
                tl.store(level + free, code)
        item += programs


def repair(
    x: torch.Tensor,
    operands: Operands,
    bins: Bins,
    lists: Lists,
    unproved: Unproved,
    *,
    first_row: int,
    exclude_self: bool,
    config: RowConfig,
) -> None:
    """Make every row of the strip exact."""
    layers, n, d = x.shape
    _, n_bins, rows = bins.best.shape
    k, device = lists.index.shape[2], x.device
    slots = triton.next_power_of_2(k)
    here = min(rows, n - first_row)
    parts = min(max(1, _PARTIAL_ENTRIES // slots), config.repair_parts)
    per_part = triton.cdiv(n_bins, parts)
    items = layers * here * parts

    def partial(dtype: torch.dtype, columns: int) -> torch.Tensor:
        return torch.empty(items, columns, dtype=dtype, device=device)

    kept = _Partial(
        value=partial(torch.float64, slots),
        error=partial(torch.float64, slots),
        index=partial(torch.int32, slots),
        scored=partial(torch.int32, 1),
        reach=partial(torch.float64, 1),
    )
    level = Unproved(rows=torch.empty_like(unproved.rows), count=unproved.count[1:])
    programs = min(config.repair_programs, items)
    joins = min(config.repair_programs, layers * here)
    tile = max(bins.width, config.repair_points)
    # as in rescore
    dims = config.repair_dims // 2 if operands.metric == "inner_product" else config.repair_dims
    for todo, tiers in ((unproved, False), (level, True)):
        _repair_kernel[(programs,)](
            x, operands.factor, operands.order, bins.held, bins.best, bins.second, lists.bar,
            todo.rows, todo.count, lists.value, lists.error,
            kept.value, kept.error, kept.index, kept.scored, kept.reach,
            n, d, x.stride(0), x.stride(1), n_bins, rows, first_row, k, per_part, programs,
            DEPTH=tie_depth(d, operands.metric), METRIC=METRIC_CODES[operands.metric],
            BITS=bins.width.bit_length() - 1, WIDTH=bins.width,
            KP=slots, PARTS=parts, SCAN=_SCANNED_BINS, TILE=tile,
            DIMS=dims, EXCLUDE_SELF=exclude_self, TIERS=tiers, num_warps=4,
            enable_fp_fusion=False,  # as in rescore: the same values
        )  # fmt: skip
        _join_kernel[(joins,)](
            operands.order, todo.rows, todo.count,
            kept.value, kept.error, kept.index, kept.scored, kept.reach,
            lists.value, lists.error, lists.index, lists.proved, lists.counts[1], lists.counts[0],
            level.rows, level.count, n, rows, first_row, k, joins,
            KP=slots, PARTS=parts, TIERS=tiers, num_warps=1, enable_fp_fusion=False,
        )  # fmt: skip
