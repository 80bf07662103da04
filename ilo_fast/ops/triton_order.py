# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator,misc"
"""Order: the k nearest by ops.exact's tiers, of two lists or of each point's own.

A tier is the nearest value left and all values equal to it within their proven rounding; in a tier
the lower index comes first, and every member has the tier's first value.
"""

import torch
import triton
import triton.language as tl

from ilo_fast.ops.triton_config import RowConfig
from ilo_fast.ops.triton_rescore import Lists, list_slots

__all__ = ["merge_nearest", "sort_lists"]


@triton.jit
def merge_nearest(
    values, errors, indices, more_values, more_errors, more_indices, k, KP: tl.constexpr
):
    """The k nearest of a list and more candidates, by ops.exact's tiers; sorted. 1-d tensors."""
    slot = tl.arange(0, KP)
    out_values = tl.full((KP,), float("inf"), tl.float64)
    out_errors = tl.zeros((KP,), tl.float64)
    out_indices = tl.full((KP,), 2147483647, tl.int32)
    head = tl.full((), -1.0e300, tl.float64)  # no tier yet: nothing is within reach of it
    head_error = tl.full((), 0.0, tl.float64)
    step = 0
    while step < k:
        tier = values - head <= 2.0 * tl.minimum(errors, head_error)
        more_tier = more_values - head <= 2.0 * tl.minimum(more_errors, head_error)
        left = tl.max(tier.to(tl.int32), axis=0) + tl.max(more_tier.to(tl.int32), axis=0)
        if left == 0:  # the tier is used up: open the next
            nearest = tl.minimum(tl.min(values, axis=0), tl.min(more_values, axis=0))
            head = tl.where(nearest < float("inf"), nearest, -1.0e300)
            head_error = tl.maximum(
                tl.max(tl.where(values == nearest, errors, 0.0), axis=0),
                tl.max(tl.where(more_values == nearest, more_errors, 0.0), axis=0),
            )
            tier = values - head <= 2.0 * tl.minimum(errors, head_error)
            more_tier = more_values - head <= 2.0 * tl.minimum(more_errors, head_error)
        index = tl.minimum(
            tl.min(tl.where(tier, indices, 2147483647), axis=0),
            tl.min(tl.where(more_tier, more_indices, 2147483647), axis=0),
        )
        taken = tier & (indices == index)
        more_taken = more_tier & (more_indices == index)
        value = tl.minimum(
            tl.min(tl.where(taken, values, float("inf")), axis=0),
            tl.min(tl.where(more_taken, more_values, float("inf")), axis=0),
        )
        error = tl.maximum(
            tl.max(tl.where(taken, errors, 0.0), axis=0),
            tl.max(tl.where(more_taken, more_errors, 0.0), axis=0),
        )
        out_values = tl.where(slot == step, value, out_values)
        out_errors = tl.where(slot == step, error, out_errors)
        out_indices = tl.where(slot == step, index, out_indices)
        values = tl.where(taken, float("inf"), values)
        more_values = tl.where(more_taken, float("inf"), more_values)
        step += 1
    return out_values, out_errors, out_indices


@triton.jit(
    do_not_specialize=["total", "k"], do_not_specialize_on_alignment=["value_out", "index_out"]
)
def _sort_kernel(
    value_in, error_in, index_in, value_out, index_out, total, k,
    KP: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    slot = tl.arange(0, KP)[None, :]
    at = row[:, None] * k + slot
    mask = (row < total)[:, None] & (slot < k)
    free = tl.load(value_in + at, mask=mask, other=float("inf"))
    errors = tl.load(error_in + at, mask=mask, other=0.0)
    indices = tl.load(index_in + at, mask=mask, other=2147483647)
    out_values = tl.zeros((ROWS, KP), tl.float64)
    out_indices = tl.zeros((ROWS, KP), tl.int32)
    head = tl.full((ROWS,), -1.0e300, tl.float64)
    head_error = tl.zeros((ROWS,), tl.float64)
    step = 0
    while step < k:
        allowed = 2.0 * tl.minimum(errors, head_error[:, None])
        tier = free - head[:, None] <= allowed
        fresh = tl.max(tier.to(tl.int32), axis=1) == 0
        nearest = tl.min(free, axis=1)
        nearest = tl.where(nearest < float("inf"), nearest, -1.0e300)
        at_head = free == nearest[:, None]
        nearest_error = tl.max(tl.where(at_head, errors, 0.0), axis=1)
        head = tl.where(fresh, nearest, head)
        head_error = tl.where(fresh, nearest_error, head_error)
        allowed = 2.0 * tl.minimum(errors, head_error[:, None])
        tier = free - head[:, None] <= allowed
        index = tl.min(tl.where(tier, indices, 2147483647), axis=1)
        out_values = tl.where(slot == step, head[:, None], out_values)
        out_indices = tl.where(slot == step, index[:, None], out_indices)
        free = tl.where(tier & (indices == index[:, None]), float("inf"), free)
        step += 1
    tl.store(value_out + at, tl.where(mask, out_values, 0.0), mask=mask)
    tl.store(index_out + at, out_indices.to(tl.int64), mask=mask)


def sort_lists(
    lists: Lists, config: RowConfig, *, values: torch.Tensor, indices: torch.Tensor
) -> None:
    """Write values, float64 or rounded to float32, and int64 indices in ops.exact's order.

    Both ``[layers, n, k]``, contiguous. Tiers of values equal to within rounding, lower index
    first in a tier; every member has its tier's first value.
    """
    layers, n, k = lists.index.shape
    rows = config.sort_rows
    _sort_kernel[(triton.cdiv(layers * n, rows),)](
        lists.value, lists.error, lists.index, values, indices, layers * n, k,
        KP=list_slots(k), ROWS=rows, num_warps=1,
    )  # fmt: skip
