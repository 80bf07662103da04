# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator,misc"
"""Order: lists by value, and ops.exact's tiers over them.

A tier is the first value left (of equal ones that of the smallest bound) and all values equal to it
within their proven rounding; in a tier the lower index comes first, and every member has the tier's
first value. Which points share a tier is not known before all are seen, so lists are kept in an
order that does not depend on the visits, (value, bound, index). Its first k hold the first member
of every tier that can count (fewer than k points lie in the tiers before it), so a second look at
the points finds each one's tier from them: ``led``.
"""

import torch
import triton
import triton.language as tl

from ilo_fast.ops.triton_config import RowConfig
from ilo_fast.ops.triton_rescore import Lists

__all__ = ["led", "merge_nearest", "sort_lists"]


@triton.jit
def _lowest_reach(values, errors, kept, kept_errors):
    """Lowest value that one of the points left over could share a tier with, where a kept one is
    that near; inf where none is. One equal to the last kept, value and bound, is in its tiers."""
    last = tl.max(tl.where(kept < float("inf"), kept, -float("inf")), axis=0)
    last_error = tl.max(tl.where(kept == last, kept_errors, 0.0), axis=0)
    is_last = (kept == last) & (kept_errors == last_error)
    before = tl.max(tl.where((kept < float("inf")) & (is_last == 0), kept, -float("inf")), axis=0)
    lowest = tl.where(values < float("inf"), values, 0.0) - 3.0 * errors  # as in keep_nearest
    same = (values == last) & (errors == last_error)
    touched = (before >= lowest) | ((last >= lowest) & (same == 0))
    touched = touched & (values < float("inf"))
    return tl.min(tl.where(touched, lowest, float("inf")), axis=0)


@triton.jit
def merge_nearest(
    values, errors, indices, more_values, more_errors, more_indices, k, KP: tl.constexpr
):
    """The k first by (value, bound, index) of a list and more candidates, and the lowest value that
    a point left over could share a tier with (``keep_nearest`` has the reasons). 1-d tensors."""
    slot = tl.arange(0, KP)
    out_values = tl.full((KP,), float("inf"), tl.float64)
    out_errors = tl.zeros((KP,), tl.float64)
    out_indices = tl.full((KP,), 2147483647, tl.int32)
    step = 0
    while step < k:
        value = tl.minimum(tl.min(values, axis=0), tl.min(more_values, axis=0))
        nearest = values == value
        more_nearest = more_values == value
        error = tl.minimum(
            tl.min(tl.where(nearest, errors, float("inf")), axis=0),
            tl.min(tl.where(more_nearest, more_errors, float("inf")), axis=0),
        )
        nearest = nearest & (errors == error)
        more_nearest = more_nearest & (more_errors == error)
        index = tl.minimum(
            tl.min(tl.where(nearest, indices, 2147483647), axis=0),
            tl.min(tl.where(more_nearest, more_indices, 2147483647), axis=0),
        )
        taken = nearest & (indices == index)
        more_taken = more_nearest & (more_indices == index)
        out_values = tl.where(slot == step, value, out_values)
        out_errors = tl.where(slot == step, error, out_errors)
        out_indices = tl.where(slot == step, index, out_indices)
        values = tl.where(taken, float("inf"), values)
        more_values = tl.where(more_taken, float("inf"), more_values)
        step += 1
    reach = tl.minimum(
        _lowest_reach(values, errors, out_values, out_errors),
        _lowest_reach(more_values, more_errors, out_values, out_errors),
    )
    return out_values, out_errors, out_indices, reach


@triton.jit
def led(values, errors, first_values, first_errors, k):
    """Value and bound of each point's tier's first member, from a row's k first by (value, bound);
    inf for points of no such tier. 1-d tensors."""
    lead = tl.full(values.shape, float("inf"), tl.float64)
    lead_error = tl.zeros(values.shape, tl.float64)
    step = 0
    while step < k:
        head = tl.min(first_values, axis=0)
        head_error = tl.min(tl.where(first_values == head, first_errors, float("inf")), axis=0)
        if head < float("inf"):
            within = values - head <= 2.0 * tl.minimum(errors, head_error)
            within = within & (lead == float("inf"))
            lead = tl.where(within, head, lead)
            lead_error = tl.where(within, head_error, lead_error)
            used = first_values - head <= 2.0 * tl.minimum(first_errors, head_error)
            first_values = tl.where(used, float("inf"), first_values)
            step += 1
        else:
            step = k
    return lead, lead_error


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
        nearest_error = tl.min(tl.where(at_head, errors, float("inf")), axis=1)
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
        KP=triton.next_power_of_2(k), ROWS=rows, num_warps=1, enable_fp_fusion=False,
    )  # fmt: skip
