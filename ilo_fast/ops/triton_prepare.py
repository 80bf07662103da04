# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator,misc"
"""Prepare: points to centred float16 operands that carry their own error bound.

For every point i of a layer, z_i is the point scaled by a power of two (and normalised, for
cosine), m the layer's centre, d_i = scale * (z_i - m) and h_i = float16(d_i). The rows written are

    [ h_i | P_i | Q_i | Q_i | P_i ],   P = (high halves of split dimensions, r, w),
                                       Q = (low halves of split dimensions,  A, w)

and a tile multiplies [h|P|Q] of its rows with [h|Q|P] of its columns. (P Q and Q P each are 128
bytes, as a row's chunks are, so that no read straddles two cache lines.) The product of two rows is
then h_i.h_j plus the first-order terms of the split dimensions plus r_i A_j + A_i r_j + 2 w_i w_j,
a proven bound of everything the low precision can lose. So the matrix unit itself returns an
*upper bound* of every pair's similarity. The derivation is in docs/exactness-gpu.md.
"""

from dataclasses import dataclass
from functools import lru_cache

import torch
import triton
import triton.language as tl

from ilo_fast.ops.triton_config import EXTRA, SLOTS, RowConfig, padded_dims
from ilo_fast.ops.triton_frame import (
    METRIC_CODES,
    choose_frame,
    fold,
    normalised,
    row_strides,
    unit,
)

__all__ = [
    "FLOOR",
    "Operands",
    "kept_until_read",
    "operand_scale",
    "permutation",
    "prepare",
]

FLOOR = -1.0e38  # "no such point": far below every score, finite so that packed bits stay a number
_FLOOR = tl.constexpr(FLOOR)


@dataclass(frozen=True)
class Operands:
    """What the filter and the exact stage read; positions are places after the permutation.

    rows: float16 ``[layers, n_pad, padded_dims(d) + EXTRA]``. bias: float32 ``[layers, n_pad]``,
    added per column. shift: float64 ``[layers, n_pad]``; a pair's similarity s has the score
    ``s * scale**2 - shift_i`` in row i, rounding of the exact stage included. slack: float32
    ``[layers, n_pad]``, twice the bound of a typical pair. factor: float64 ``[layers, n]`` by
    original index, ``z = factor * x``. order: int32 ``[n]``, the point at each position.
    """

    rows: torch.Tensor
    bias: torch.Tensor
    shift: torch.Tensor
    slack: torch.Tensor
    factor: torch.Tensor
    order: torch.Tensor
    scale: float
    metric: str

    @property
    def main(self) -> int:
        return self.rows.shape[2] - EXTRA


@lru_cache(maxsize=16)
def permutation(n: int, device: torch.device) -> torch.Tensor:
    """Fixed random order of n points, int32: neighbours of one point then share no bin by design.

    >>> sorted(permutation(5, torch.device("cpu")).tolist())
    [0, 1, 2, 3, 4]
    """
    generator = torch.Generator().manual_seed(0x1107A57)
    return torch.randperm(n, generator=generator, device="cpu").to(torch.int32).to(device)


def kept_until_read(table: torch.Tensor) -> torch.Tensor:
    """A cached table, safe to drop from the cache while the current stream still reads it.

    The tables are made on the host: their copy is done when it returns, so whichever thread finds
    one in the cache may read it on a stream of its own.
    """
    if table.is_cuda:
        table.record_stream(torch.cuda.current_stream(table.device))
    return table


def operand_scale(metric: str, d: int) -> float:
    """Power of two that keeps every scaled norm, hence every operand, below 2**15.

    |z| <= 1 and |m| <= 1 for cosine; elements are at most 1 for the other metrics.

    >>> operand_scale("cosine", 4096), operand_scale("euclidean", 4096)
    (16384.0, 256.0)
    """
    if metric == "cosine":
        return 2.0**14
    half_bits = (max(1, d - 1).bit_length() + 1) // 2  # 2**half_bits >= sqrt(d)
    return 2.0 ** (14 - half_bits)


@triton.jit
def _round_up_half(value):
    """float64 to a float16 not below it (values are >= 0 and below 2**15.9)."""
    return (value * (1.0 + 2.0**-9) + 2.0**-24).to(tl.float32).to(tl.float16)


@triton.jit(
    do_not_specialize=["n", "largest_layer", "largest_row"],
    do_not_specialize_on_alignment=["largest"],
)
def _prepare_kernel(
    x, largest, order, centre, centre_sq, split, is_split,
    rows_out, bias_out, shift_out, slack_out, factor_out,
    n, n_pad, d, x_layer, x_row, largest_layer, largest_row,
    SCALE: tl.constexpr, GAMMA: tl.constexpr, ROUNDING: tl.constexpr,
    METRIC: tl.constexpr, MAIN: tl.constexpr, SLOTS: tl.constexpr,
    ROWS: tl.constexpr, DIMS: tl.constexpr,
):  # fmt: skip
    layer = tl.program_id(1).to(tl.int64)
    place = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    real = place < n
    source = tl.load(order + place, mask=real, other=0).to(tl.int64)
    base = x + layer * x_layer + source * x_row  # [ROWS]
    most = tl.load(largest + layer * largest_layer + source * largest_row, mask=real, other=0.0)
    factor = unit(most)
    if METRIC == 0:
        factor = normalised(base, factor, real, d, ROWS, DIMS)
    tl.store(factor_out + layer * n + source, factor, mask=real)

    out = rows_out + (layer * n_pad + place) * (MAIN + 4 * SLOTS)  # [ROWS]
    sum_d = tl.zeros((ROWS, DIMS // 4), tl.float64)  # |d|^2
    sum_h = tl.zeros((ROWS, DIMS // 4), tl.float64)  # |rounded d|^2
    sum_e = tl.zeros((ROWS, DIMS // 4), tl.float64)  # |what rounding lost|^2
    sum_l = tl.zeros((ROWS, DIMS // 4), tl.float64)  # |low halves|^2
    sum_w = tl.zeros((ROWS, DIMS // 4), tl.float64)  # sum over chunks of |prefix|^2
    sum_m = tl.zeros((ROWS, DIMS // 4), tl.float64)  # centre . d
    for start in range(0, MAIN, DIMS):
        j = start + tl.arange(0, DIMS)
        inside = real[:, None] & (j < d)[None, :]
        z = tl.load(base[:, None] + j[None, :], mask=inside, other=0.0).to(tl.float64)
        m = tl.load(centre + layer * d + j, mask=j < d, other=0.0)
        halved = tl.load(is_split + layer * d + j, mask=j < d, other=0) != 0
        value = tl.where(inside, (z * factor[:, None] - m[None, :]) * SCALE, 0.0)
        half = value.to(tl.float32).to(tl.float16)
        lost = value - half.to(tl.float64)
        low = tl.where(halved[None, :], lost.to(tl.float32).to(tl.float16).to(tl.float64), 0.0)
        lost = lost - low
        kept = half.to(tl.float64) + low
        square = kept * kept
        later = (MAIN // 64 + 1 - j // 64).to(tl.float64)  # chunks that have it in their prefix
        sum_d += fold(value * value, ROWS, DIMS)
        sum_h += fold(square, ROWS, DIMS)
        sum_e += fold(lost * lost, ROWS, DIMS)
        sum_l += fold(low * low, ROWS, DIMS)
        sum_w += fold(square * later[None, :], ROWS, DIMS)
        sum_m += fold(value * m[None, :], ROWS, DIMS)
        inside_row = (place < n_pad)[:, None] & (j < MAIN)[None, :]
        tl.store(out[:, None] + j[None, :], half, mask=inside_row)

    squared_d, squared_h = tl.sum(sum_d, axis=1), tl.sum(sum_h, axis=1)
    squared_e, squared_l = tl.sum(sum_e, axis=1), tl.sum(sum_l, axis=1)
    squared_w, along_m = tl.sum(sum_w, axis=1), tl.sum(sum_m, axis=1)

    # Bounds. `rounding` covers this kernel's own float64 arithmetic.
    m_sq = tl.load(centre_sq + layer)
    m_norm = tl.sqrt(m_sq) * SCALE
    size = tl.sqrt(squared_d)
    own = ROUNDING * size
    if METRIC == 0:
        own += ROUNDING * SCALE
    residual = tl.sqrt(squared_e) + own
    norm_bound = tl.maximum(tl.maximum(size, tl.sqrt(squared_h)), residual) + own
    partial = (squared_w + norm_bound * norm_bound * 5.0) / (MAIN // 64 + 1)
    other = tl.sqrt(0.5 * (GAMMA * partial + squared_l))

    slot = tl.arange(0, SLOTS)
    dim = tl.load(split + layer * SLOTS + slot)
    used = real[:, None] & (dim >= 0)[None, :]
    z = tl.load(base[:, None] + dim[None, :], mask=used, other=0.0).to(tl.float64)
    m = tl.load(centre + layer * d + dim, mask=dim >= 0, other=0.0)
    value = tl.where(used, (z * factor[:, None] - m[None, :]) * SCALE, 0.0)
    high = value.to(tl.float32).to(tl.float16)
    low = (value - high.to(tl.float64)).to(tl.float32).to(tl.float16)
    is_r = (slot == SLOTS - 2)[None, :] & real[:, None]
    is_w = (slot == SLOTS - 1)[None, :] & real[:, None]
    p = tl.where(is_r, _round_up_half(residual)[:, None], high)
    p = tl.where(is_w, _round_up_half(other)[:, None], p)
    q = tl.where(is_r, _round_up_half(norm_bound)[:, None], low)
    q = tl.where(is_w, _round_up_half(other)[:, None], q)
    here = out[:, None] + MAIN + slot[None, :]
    stored = (place < n_pad)[:, None] & (slot >= 0)[None, :]
    tl.store(here, p, mask=stored)
    tl.store(here + SLOTS, q, mask=stored)
    tl.store(here + 2 * SLOTS, q, mask=stored)
    tl.store(here + 3 * SLOTS, p, mask=stored)

    # Column bias b_j and row constant c_i: similarity * scale^2 = d_i.d_j + b_j + c_i.
    if METRIC == 1:
        bias = -0.5 * squared_d
        constant = bias
        reach = norm_bound
        furthest = 32768.0
    else:
        bias = along_m * SCALE
        constant = bias + m_sq * SCALE * SCALE
        reach = norm_bound + m_norm
        furthest = 32768.0 + m_norm
    # float32(bias * (1 + 2^-22)) is not below bias; the last term is float64 rounding of bias.
    raised = bias + tl.abs(bias) * 2.0**-22 + ROUNDING * reach * size
    raised = tl.where(real, raised, _FLOOR)
    at = layer * n_pad + place
    written = place < n_pad
    tl.store(bias_out + at, raised.to(tl.float32), mask=written)
    tl.store(shift_out + at, constant + ROUNDING * 4.0 * reach * furthest, mask=written)
    slack = 2.0 * (2.0 * residual * norm_bound + 2.0 * other * other)
    tl.store(slack_out + at, slack.to(tl.float32), mask=written)


def prepare(
    x: torch.Tensor,
    largest: torch.Tensor,
    metric: str,
    *,
    row_multiple: int,
    gamma: float,
    config: RowConfig,
) -> Operands:
    """Prepare ``x [layers, n, d]`` (last dimension dense) on its device.

    largest: float64 ``[layers, n]``, or ``[layers, 1]`` for all rows of a layer; z is x times the
    power of two that brings this magnitude into [0.5, 1) (and normalised, for cosine). gamma:
    relative accumulation error (``Accumulation.gamma``).
    """
    layers, n, d = x.shape
    device = x.device
    main = padded_dims(d)
    n_pad = -(-n // row_multiple) * row_multiple
    frame = choose_frame(x, largest, metric)
    order = kept_until_read(permutation(n, device))

    def row_array(dtype: torch.dtype, columns: int = n_pad) -> torch.Tensor:
        return torch.empty(layers, columns, dtype=dtype, device=device)

    made = Operands(
        rows=torch.empty(layers, n_pad, main + EXTRA, dtype=torch.float16, device=device),
        bias=row_array(torch.float32),
        shift=row_array(torch.float64),
        slack=row_array(torch.float32),
        factor=row_array(torch.float64, n),
        order=order,
        scale=operand_scale(metric, d),
        metric=metric,
    )
    grid = (triton.cdiv(n_pad, config.prepare_rows), layers)
    _prepare_kernel[grid](
        x, largest, order, frame.centre, frame.centre_sq, frame.split, frame.is_split,
        made.rows, made.bias, made.shift, made.slack, made.factor,
        n, n_pad, d, x.stride(0), x.stride(1), *row_strides(largest),
        SCALE=made.scale, GAMMA=gamma, ROUNDING=rounding(d),
        METRIC=METRIC_CODES[metric], MAIN=main, SLOTS=SLOTS,
        ROWS=config.prepare_rows, DIMS=config.prepare_dims, num_warps=config.prepare_warps,
        enable_fp_fusion=False,  # split dimensions are rounded twice and must round alike
    )  # fmt: skip
    return made


def rounding(d: int) -> float:
    """Bound of the relative rounding of this engine's float64 sums over d dimensions.

    >>> rounding(4096) < 1e-12
    True
    """
    return (d + 16) * 2.0**-52
