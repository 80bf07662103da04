# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator,misc"
"""Re-score: float64 values of the candidates a row's bound leaves open, and the row's proof.

A pair's value is the one of ``ops.exact``: half the squared distance of the (normalised) points,
or minus their inner product, in float64. Candidates are visited from the highest upper bound down;
once k are known, only those whose upper bound still reaches the k-th best are scored. A row is
proved when nothing the bins hide, nothing below the line the list was cut at, and nothing that was
scored and dropped can be among its k nearest.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
import triton
import triton.language as tl

from ilo_fast.ops.triton_config import RowConfig
from ilo_fast.ops.triton_filter import Bins
from ilo_fast.ops.triton_frame import (
    METRIC_CODES,
    add_neighbours,
    add_tile,
    fold,
    row_sums,
    two_product,
)
from ilo_fast.ops.triton_prepare import Operands, kept_until_read, permutation
from ilo_fast.ops.triton_select import LAST_KEPT, Candidates, upper_bound

__all__ = [
    "Lists",
    "Unproved",
    "allocate_lists",
    "pair_value",
    "rescore",
    "tie_depth",
    "value_error",
]

_LAST_KEPT = tl.constexpr(LAST_KEPT)


@dataclass(frozen=True)
class Lists:
    """Unordered lists by original index: value and its error bound float64, index int32
    ``[layers, n, k]``; proved bool, bar float64 ``[layers, n]``. bar: the score (in the row's own
    units) that a point must be able to reach to be among the k nearest; ``-inf`` before k are
    known. counts: int64 ``[2, layers]``, rows repaired and candidates scored so far."""

    value: torch.Tensor
    error: torch.Tensor
    index: torch.Tensor
    proved: torch.Tensor
    bar: torch.Tensor
    counts: torch.Tensor


@dataclass(frozen=True)
class Unproved:
    """Rows of a strip that need a repair, in any order: ``layer * rows + row``, int64. ``count``
    int64 ``[2]``: how many there are, and how many of them the repair finds level so far."""

    rows: torch.Tensor
    count: torch.Tensor


def allocate_lists(layers: int, n: int, k: int, proved: torch.Tensor) -> Lists:
    """Uninitialised lists, ``rescore`` writes every row; counts at 0. proved: where it goes."""
    device = proved.device
    return Lists(
        value=torch.empty(layers, n, k, dtype=torch.float64, device=device),
        error=torch.empty(layers, n, k, dtype=torch.float64, device=device),
        index=torch.empty(layers, n, k, dtype=torch.int32, device=device),
        proved=proved,
        bar=torch.empty(layers, n, dtype=torch.float64, device=device),
        counts=torch.zeros(2, layers, dtype=torch.int64, device=device),
    )


@triton.jit
def value_error(value, size_product, DEPTH: tl.constexpr, METRIC: tl.constexpr):
    """Bound of a value's rounding error (ops.exact.tie_error with this kernel's depth)."""
    unit = 2.0**-53
    if METRIC == 0:
        error = 2.0 * DEPTH * unit * value + 3.0 * unit * tl.sqrt(2.0 * tl.abs(value))
        error += DEPTH * DEPTH * unit * unit
    elif METRIC == 1:
        error = tl.abs(value) * (DEPTH * unit) + 2.0**-1000
    else:
        error = size_product * (DEPTH * unit) + 2.0**-1000
    return error


@triton.jit
def pair_value(
    a_row, b_row, a_factor, b_factor, wanted, d,
    DEPTH: tl.constexpr, METRIC: tl.constexpr, ROWS: tl.constexpr, DIMS: tl.constexpr,
):  # fmt: skip
    """float64 values ``[ROWS]`` of pairs of rows, and the product of their norms (metric 2).

    The order of the sums keeps their rounding within ``tie_depth`` (docs/exactness-gpu.md, "Ties"):
    ``tl.sum`` goes through a thread's own terms one by one, so these are few.
    """
    total = tl.zeros((ROWS, DIMS // 4), tl.float64)
    lost = tl.zeros((ROWS, DIMS // 4), tl.float64)
    a_size = tl.zeros((ROWS, DIMS // 4), tl.float64)
    b_size = tl.zeros((ROWS, DIMS // 4), tl.float64)
    start = 0
    while start < d:
        j = start + tl.arange(0, DIMS)
        mask = wanted[:, None] & (j < d)[None, :]
        a_given = tl.load(a_row[:, None] + j[None, :], mask=mask, other=0.0)
        b_given = tl.load(b_row[:, None] + j[None, :], mask=mask, other=0.0)
        a = a_given.to(tl.float64) * a_factor[:, None]
        b = b_given.to(tl.float64) * b_factor[:, None]
        if METRIC == 2:
            if a_given.dtype == tl.float64:
                terms, error = two_product(0.0 - a, b)
            else:  # products of 24 bits are exact
                terms = 0.0 - a * b
                error = terms * 0.0
            terms, error = add_neighbours(terms, error, ROWS, DIMS)
            terms, error = add_neighbours(terms, error, ROWS, DIMS // 2)
            lost += error
            a *= 2.0**480  # elements are at most 1: squares of small ones must not vanish
            b *= 2.0**480
            a_size += fold(a * a, ROWS, DIMS)
            b_size += fold(b * b, ROWS, DIMS)
        else:
            terms = fold((a - b) * (a - b), ROWS, DIMS)
        total, lost = add_tile(total, lost, terms)
        start += DIMS
    if METRIC == 2:
        value = row_sums(total, lost, ROWS, DIMS // 4)
    else:
        value = tl.sum(total + lost, axis=1)
    if METRIC == 0:  # a zero vector has similarity 0 to everything
        value = tl.where((a_factor == 0) | (b_factor == 0), 1.0, value * 0.5)
    elif METRIC == 1:
        value = value * 0.5
    size = tl.sqrt(tl.sum(a_size, axis=1)) * tl.sqrt(tl.sum(b_size, axis=1)) * 2.0**-960
    if METRIC == 2:  # what rounding leaves of a true 0 is 0, the value of a zero vector
        roundings = size * 0.0 + d * 0.0625 + (2.0 * DEPTH - 2.0)  # DEPTH is L + 3
        nothing = tl.abs(value) <= size * (roundings * roundings * 2.0**-107)
        value = tl.where(nothing, 0.0, value)
    return value, size


@triton.jit
def keep_nearest(
    values, errors, indices, filled, reach, value, error, index, wanted, k, KP: tl.constexpr
):
    """Put one candidate a row into lists ``[ROWS, KP]`` of the k first by (value, bound, index).

    That order is the same whatever the order of the visits; the tiers of ops.exact are not known
    before the last one. ``reach [ROWS]``: the lowest value that a point which was dropped could
    share a tier with. A point that equals a kept one, value and bound, is in its tiers and
    comes after it: it takes no part.
    """
    slot = tl.arange(0, KP)[None, :]
    in_list = slot < k
    full = filled >= k
    worst = tl.max(tl.where(in_list, values, -float("inf")), axis=1)
    is_worst = in_list & (values == worst[:, None])
    last_error = tl.max(tl.where(is_worst, errors, 0.0), axis=1)
    is_last = is_worst & (errors == last_error[:, None])
    last = tl.max(tl.where(is_last, indices, -1), axis=1)
    is_last = is_last & (indices == last[:, None])
    before = (error < last_error) | ((error == last_error) & (index < last))
    nearer = (value < worst) | ((value == worst) & before)
    put = wanted & (nearer | (filled < k))
    target = tl.where(full[:, None], is_last, slot == filled[:, None]) & put[:, None]
    values = tl.where(target, value[:, None], values)
    errors = tl.where(target, error[:, None], errors)
    indices = tl.where(target, index[:, None], indices)
    filled = tl.where(wanted & (filled < k), filled + 1, filled)

    dropped = tl.where(nearer, worst, value)
    dropped_error = tl.where(nearer, last_error, error)
    lowest = dropped - 3.0 * dropped_error  # two by the rule, one for this line's rounding
    same = (values == dropped[:, None]) & (errors == dropped_error[:, None])
    level = in_list & (values >= lowest[:, None]) & (same == 0)
    touched = wanted & full & (tl.max(level.to(tl.int32), axis=1) > 0)
    reach = tl.where(touched, tl.minimum(reach, lowest), reach)
    return values, errors, indices, filled, reach


@triton.jit
def bar_of(
    values, errors, filled, k, shift, SCALE_SQ: tl.constexpr, METRIC: tl.constexpr, KP: tl.constexpr
):
    """Score that a point outside the list must be able to reach to change it."""
    in_list = tl.arange(0, KP)[None, :] < k
    far = tl.max(tl.where(in_list, values + 4.0 * errors, -float("inf")), axis=1)
    similarity = -far
    if METRIC == 0:
        similarity = 1.0 - far
    return tl.where(filled >= k, similarity * SCALE_SQ - shift, -float("inf"))


# What lies behind other layers' results is not aligned as they are: one kernel for both.
@triton.jit(
    do_not_specialize=["n", "n_visits", "k", "enough"],
    do_not_specialize_on_alignment=["proved_out", "scored_out"],
)
def _rescore_kernel(
    x, factor, order, visits, held, shift, score, place, count, line,
    value_out, error_out, index_out, proved_out, bar_out, scored_out, todo, n_todo,
    n, n_pad, d, x_layer, x_row, rows, n_visits, first_row, k, enough,
    SCALE: tl.constexpr, DEPTH: tl.constexpr,
    METRIC: tl.constexpr, BITS: tl.constexpr, CAPACITY: tl.constexpr, KP: tl.constexpr,
    ROWS: tl.constexpr, DIMS: tl.constexpr,
):  # fmt: skip
    layer = tl.program_id(1).to(tl.int64)
    visit = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    real = visit < n_visits
    row = tl.load(visits + visit, mask=real, other=0)
    position = first_row + row
    point = tl.load(order + position, mask=real, other=0)
    points = x + layer * x_layer
    factors = factor + layer * n
    own_row = points + point.to(tl.int64) * x_row
    own_factor = tl.load(factors + point, mask=real, other=0.0)
    shifts = tl.load(shift + layer * n_pad + position, mask=real, other=0.0)

    entry = tl.arange(0, CAPACITY)[None, :]
    total = tl.load(count + layer * rows + row, mask=real, other=0)
    at = (layer * rows + row.to(tl.int64))[:, None] * CAPACITY + entry
    listed = entry < total[:, None]
    places = tl.load(place + at, mask=listed, other=0)
    uppers = upper_bound(tl.load(score + at, mask=listed, other=0.0), BITS)
    uppers = tl.where(listed, uppers, -float("inf"))
    last_kept = listed & (places >= _LAST_KEPT)
    places = places & (_LAST_KEPT - 1)

    values = tl.full((ROWS, KP), float("inf"), tl.float64)
    errors = tl.zeros((ROWS, KP), tl.float64)
    indices = tl.full((ROWS, KP), 2147483647, tl.int32)
    filled = tl.zeros((ROWS,), tl.int32)
    scored = tl.zeros((ROWS,), tl.int32)
    reach = tl.full((ROWS,), float("inf"), tl.float64)
    bar = tl.full((ROWS,), -float("inf"), tl.float64)
    rest = uppers
    highest = tl.max(rest, axis=1)
    wanted = (highest > -float("inf")) & (highest >= bar)
    while tl.max(wanted.to(tl.int32), axis=0) > 0:
        here = tl.min(tl.where(rest == highest[:, None], entry, CAPACITY), axis=1)
        chosen = entry == here[:, None]
        other = tl.sum(tl.where(chosen, places, 0), axis=1)
        other = tl.load(held + other, mask=wanted, other=0)
        other_row = points + other.to(tl.int64) * x_row
        other_factor = tl.load(factors + other, mask=wanted, other=0.0)
        value, size = pair_value(
            own_row, other_row, own_factor, other_factor, wanted, d, DEPTH, METRIC, ROWS, DIMS
        )
        error = value_error(value, size, DEPTH, METRIC)
        values, errors, indices, filled, reach = keep_nearest(
            values, errors, indices, filled, reach, value, error, other, wanted, k, KP
        )
        bar = bar_of(values, errors, filled, k, shifts, SCALE * SCALE, METRIC, KP)
        scored += wanted.to(tl.int32)
        rest = tl.where(chosen, -float("inf"), rest)
        highest = tl.max(rest, axis=1)
        wanted = (highest > -float("inf")) & (highest >= bar)

    below = upper_bound(tl.load(line + layer * rows + row, mask=real, other=0.0), BITS)
    hidden = tl.max(tl.where(last_kept, uppers, -float("inf")), axis=1)
    slot = tl.arange(0, KP)[None, :]
    farthest = tl.max(tl.where(slot < k, values, -float("inf")), axis=1)
    proved = (filled >= k) & (total <= CAPACITY) & (below < bar) & (hidden < bar)
    proved = proved & (reach > farthest)  # no dropped point shares a tier with one in the list
    out = layer * n + point
    stored = real[:, None] & (slot < k)
    tl.store(value_out + out[:, None] * k + slot, values, mask=stored)
    tl.store(error_out + out[:, None] * k + slot, errors, mask=stored)
    tl.store(index_out + out[:, None] * k + slot, indices, mask=stored)
    tl.store(proved_out + out, proved, mask=real)
    tl.store(bar_out + out, bar, mask=real)
    # Sums and a set: neither depends on the order in which programs come here, and what a row's
    # list is does not depend on its place among the unproved.
    tl.atomic_add(scored_out + layer, tl.sum(scored, axis=0).to(tl.int64), sem="relaxed")
    unproved = (real & (proved == 0) & (filled < enough)).to(tl.int32)
    many = tl.sum(unproved, axis=0)
    if many > 0:
        first_free = tl.atomic_add(n_todo, many.to(tl.int64), sem="relaxed")
        free = first_free + tl.cumsum(unproved, axis=0) - 1
        tl.store(todo + free, layer * rows + row, mask=unproved > 0)


def rescore(
    x: torch.Tensor,
    operands: Operands,
    bins: Bins,
    candidates: Candidates,
    lists: Lists,
    *,
    first_row: int,
    exact: bool,
    config: RowConfig,
) -> Unproved:
    """Write the lists of the strip's points, proved or not; returns the rows to repair: those
    without a proof, or with ``exact=False`` those that found fewer than k candidates."""
    layers, n, d = x.shape
    rows = candidates.score.shape[1]
    k = lists.index.shape[2]
    visits = kept_until_read(visiting_order(n, first_row, min(rows, n - first_row), x.device))
    grid = (triton.cdiv(visits.shape[0], config.score_rows), layers)
    dims = config.score_dims
    if operands.metric == "inner_product":
        dims = min(dims, 128)  # sums in twice the precision hold more numbers: few, so none spills
    unproved = Unproved(
        rows=torch.empty(layers * rows, dtype=torch.int64, device=x.device),
        count=torch.zeros(2, dtype=torch.int64, device=x.device),
    )
    _rescore_kernel[grid](
        x, operands.factor, operands.order, visits, bins.held, operands.shift,
        candidates.score, candidates.place, candidates.count, candidates.line,
        lists.value, lists.error, lists.index, lists.proved, lists.bar, lists.counts[1],
        unproved.rows, unproved.count,
        n, operands.rows.shape[1], d, x.stride(0), x.stride(1), rows,
        visits.shape[0], first_row, k, k + 1 if exact else k,
        SCALE=operands.scale, DEPTH=tie_depth(d, operands.metric),
        METRIC=METRIC_CODES[operands.metric], BITS=bins.width.bit_length() - 1,
        CAPACITY=config.capacity, KP=triton.next_power_of_2(k),
        ROWS=config.score_rows, DIMS=dims, num_warps=config.score_warps,
        enable_fp_fusion=False,  # copies of a point must have distance 0, and both orders one value
    )  # fmt: skip
    return unproved


@lru_cache(maxsize=16)
def visiting_order(n: int, first_row: int, rows: int, device: torch.device) -> torch.Tensor:
    """Rows of a strip in the order of the points they hold, int32 ``[rows]``.

    Points that lie together in x, those of one language in practice, have many candidates in
    common: visited one after another they find them in the L2 cache. In the filter's random order
    every row would fetch its own from memory.

    >>> device = torch.device("cpu")
    >>> permutation(5, device)[1:4][visiting_order(5, 1, 3, device)].diff().gt(0).all()
    tensor(True)
    """
    held = permutation(n, torch.device("cpu"))[first_row : first_row + rows]
    return torch.argsort(held).to(torch.int32).to(device)


def tie_depth(d: int, metric: str) -> float:
    """The depth in ``ops.exact``'s tie rule, the same on every backend so that lists agree.

    >>> tie_depth(4096, "cosine")
    17.0
    """
    depth = max(1, math.ceil(math.log2(d)))
    return float(depth + (3 if metric == "inner_product" else 5))
