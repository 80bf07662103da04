# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator,misc"
"""Frame: what a layer's points are taken relative to before they are rounded to float16.

Any centre is correct, and any dimensions may be split in halves: the bound of `triton_prepare`
measures what they give. A centre among the points makes norms small, and the dimensions of
largest variance are those that lose most when rounded.
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from ilo_fast.ops.triton_config import SLOTS

__all__ = [
    "METRIC_CODES",
    "Frame",
    "add_neighbours",
    "add_tile",
    "choose_frame",
    "fold",
    "normalised",
    "row_strides",
    "row_sums",
    "two_product",
    "unit",
]

METRIC_CODES = {"cosine": 0, "euclidean": 1, "inner_product": 2}
_SAMPLE = 1024
# Rows and dimensions of a tile of the sample: a row a program, then all rows a few dimensions.
_SAMPLE_TILE, _CENTRE_TILE = (4, 256), (128, 32)
_SPLIT_DIMS = 64  # 64 × 64 comparisons at a time


@dataclass(frozen=True)
class Frame:
    """What a layer's points are taken relative to.

    centre: float64 ``[layers, d]``; centre_sq: its squared norm, float64 ``[layers]``. split: int32
    ``[layers, SLOTS]``, the dimensions of largest variance, -1 where unused; is_split: int8
    ``[layers, d]``, the same as a mask.
    """

    centre: torch.Tensor
    centre_sq: torch.Tensor
    split: torch.Tensor
    is_split: torch.Tensor


@triton.jit
def unit(largest):
    """The power of two that brings a magnitude >= 0 into [0.5, 1), from its bits; 1 for 0."""
    exponent = largest.to(tl.int64, bitcast=True) >> 52
    unit = ((2045 - exponent) << 52).to(tl.float64, bitcast=True)
    return tl.where(exponent == 0, 1.0, unit)


@triton.jit
def fold(terms, ROWS: tl.constexpr, DIMS: tl.constexpr):
    """Sums of four neighbours ``[ROWS, DIMS // 4]``, in a thread's registers: sums over a row's
    tiles are kept so and brought together once, not once a tile. Pairs first: two roundings."""
    left, right = tl.split(tl.reshape(terms, (ROWS, DIMS // 2, 2)))
    left, right = tl.split(tl.reshape(left + right, (ROWS, DIMS // 4, 2)))
    return left + right


@triton.jit
def two_sum(one, other):
    """A sum, rounded, and what rounding lost (Knuth)."""
    added = one + other
    came = added - one
    return added, (one - (added - came)) + (other - came)


@triton.jit
def add_tile(total, lost, tile):
    """Sums with a tile's added, and what all additions so far have lost, so that a sum over many
    tiles errs as one over a single tile."""
    added, error = two_sum(total, tile)
    return added, lost + error


@triton.jit
def _high_half(numbers):
    """The leading 26 bits, so that products of halves are exact."""
    scaled = numbers * 134217729.0  # 2**27 + 1
    return scaled - (scaled - numbers)


@triton.jit
def two_product(one, other):
    """A product of magnitudes below 1, rounded, and what rounding lost (Dekker)."""
    product = one * other
    one_high = _high_half(one)
    other_high = _high_half(other)
    one_low = one - one_high
    other_low = other - other_high
    lost = (one_high * other_high - product) + one_high * other_low
    return product, (lost + other_high * one_low) + one_low * other_low


@triton.jit
def add_neighbours(terms, lost, ROWS: tl.constexpr, DIMS: tl.constexpr):
    """Sums of two neighbours ``[ROWS, DIMS // 2]``, with what they and their terms have lost."""
    left, right = tl.split(tl.reshape(terms, (ROWS, DIMS // 2, 2)))
    left_lost, right_lost = tl.split(tl.reshape(lost, (ROWS, DIMS // 2, 2)))
    added, error = two_sum(left, right)
    return added, error + (left_lost + right_lost)


@triton.jit
def row_sums(terms, lost, ROWS: tl.constexpr, DIMS: tl.constexpr):
    """Sums ``[ROWS]`` of ``[ROWS, DIMS]``, at most 256, in twice the precision and rounded once."""
    if DIMS >= 256:
        terms, lost = add_neighbours(terms, lost, ROWS, 256)
    if DIMS >= 128:
        terms, lost = add_neighbours(terms, lost, ROWS, 128)
    if DIMS >= 64:
        terms, lost = add_neighbours(terms, lost, ROWS, 64)
    if DIMS >= 32:
        terms, lost = add_neighbours(terms, lost, ROWS, 32)
    if DIMS >= 16:
        terms, lost = add_neighbours(terms, lost, ROWS, 16)
    if DIMS >= 8:
        terms, lost = add_neighbours(terms, lost, ROWS, 8)
    if DIMS >= 4:
        terms, lost = add_neighbours(terms, lost, ROWS, 4)
    if DIMS >= 2:
        terms, lost = add_neighbours(terms, lost, ROWS, 2)
    return tl.sum(terms + lost, axis=1)


@triton.jit
def normalised(base, factor, real, d, ROWS: tl.constexpr, DIMS: tl.constexpr):
    """``factor`` over the norm of ``factor`` times a row; 0 for a zero vector."""
    squares = tl.zeros((ROWS, DIMS // 4), tl.float64)
    lost = tl.zeros((ROWS, DIMS // 4), tl.float64)
    start = 0
    while start < d:
        j = start + tl.arange(0, DIMS)
        inside = real[:, None] & (j < d)[None, :]
        z = tl.load(base[:, None] + j[None, :], mask=inside, other=0.0).to(tl.float64)
        z = z * factor[:, None]
        squares, lost = add_tile(squares, lost, fold(z * z, ROWS, DIMS))
        start += DIMS
    norm = tl.sqrt(tl.sum(squares + lost, axis=1))
    return tl.where(norm > 0, factor / tl.where(norm > 0, norm, 1.0), 0.0)


@triton.jit(
    do_not_specialize=["n", "sampled", "largest_layer", "largest_row"],
    do_not_specialize_on_alignment=["largest"],
)
def _sample_kernel(
    x, largest, factor_out, n, d, sampled, x_layer, x_row, largest_layer, largest_row,
    METRIC: tl.constexpr, ROWS: tl.constexpr, DIMS: tl.constexpr,
):  # fmt: skip
    """Factors of the sampled points: z = factor * x."""
    layer = tl.program_id(1).to(tl.int64)
    place = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    real = place < sampled
    source = place.to(tl.int64) * n // sampled
    most = tl.load(largest + layer * largest_layer + source * largest_row, mask=real, other=0.0)
    factor = unit(most)
    if METRIC == 0:
        base = x + layer * x_layer + source * x_row
        factor = normalised(base, factor, real, d, ROWS, DIMS)
    tl.store(factor_out + layer * sampled + place, factor, mask=real)


@triton.jit(do_not_specialize=["n", "sampled"])
def _centre_kernel(
    x, sample_factor, centre_out, variance_out, n, d, sampled, x_layer, x_row,
    METRIC: tl.constexpr, ROWS: tl.constexpr, DIMS: tl.constexpr,
):  # fmt: skip
    """Mean and variance of the sampled points, a block of dimensions a program."""
    layer = tl.program_id(1).to(tl.int64)
    points = x + layer * x_layer
    factors = sample_factor + layer * sampled
    j = tl.program_id(0) * DIMS + tl.arange(0, DIMS)
    real = j < d
    # Relative to the first point: massive dimensions vary little about a large mean.
    origin = tl.load(points + j, mask=real, other=0.0).to(tl.float64) * tl.load(factors)
    total = tl.zeros((ROWS, DIMS), tl.float64)
    squares = tl.zeros((ROWS, DIMS), tl.float64)
    start = 0
    while start < sampled:
        place = start + tl.arange(0, ROWS)
        source = place.to(tl.int64) * n // sampled
        inside = (place < sampled)[:, None] & real[None, :]
        factor = tl.load(factors + place, mask=place < sampled, other=0.0)
        z = tl.load(points + source[:, None] * x_row + j[None, :], mask=inside, other=0.0)
        apart = tl.where(inside, z.to(tl.float64) * factor[:, None] - origin[None, :], 0.0)
        total += apart
        squares += apart * apart
        start += ROWS
    mean = tl.sum(total, axis=0) / sampled
    variance = tl.sum(squares, axis=0) / sampled - mean * mean
    centre = mean + origin
    if METRIC == 0:  # |m| <= 1 is what the operands' scale relies on: room for rounding
        centre = centre * (1.0 - 2.0**-30)
    tl.store(centre_out + layer * d + j, centre, mask=real)
    # Points that nobody checked may hold NaN; ranks of dimensions must stay in range.
    tl.store(variance_out + layer * d + j, tl.where(variance > 0, variance, 0.0), mask=real)


@triton.jit(do_not_specialize=["used"])
def _split_kernel(
    variance, centre, centre_sq_out, split_out, is_split_out, d, used,
    SLOTS: tl.constexpr, DIMS: tl.constexpr,
):  # fmt: skip
    """The ``used`` dimensions of largest variance, by counting those ahead of each."""
    layer = tl.program_id(1).to(tl.int64)
    own = tl.program_id(0) * DIMS + tl.arange(0, DIMS)
    mine = tl.load(variance + layer * d + own, mask=own < d, other=-1.0)
    rank = tl.zeros((DIMS,), tl.int32)
    square = tl.zeros((DIMS,), tl.float64)
    start = 0
    while start < d:
        other = start + tl.arange(0, DIMS)
        theirs = tl.load(variance + layer * d + other, mask=other < d, other=-1.0)
        m = tl.load(centre + layer * d + other, mask=other < d, other=0.0)
        square += m * m
        equal = (theirs[None, :] == mine[:, None]) & (other[None, :] < own[:, None])
        ahead = (theirs[None, :] > mine[:, None]) | equal
        rank += tl.sum(ahead.to(tl.int32), axis=1)
        start += DIMS
    chosen = (rank < used) & (own < d)
    tl.store(split_out + layer * SLOTS + rank, own, mask=chosen)
    tl.store(is_split_out + layer * d + own, chosen.to(tl.int8), mask=own < d)
    if tl.program_id(0) == 0:
        slot = tl.arange(0, SLOTS)
        tl.store(
            split_out + layer * SLOTS + slot, tl.full((SLOTS,), -1, tl.int32), mask=slot >= used
        )
        tl.store(centre_sq_out + layer, tl.sum(square, axis=0))


def choose_frame(x: torch.Tensor, largest: torch.Tensor, metric: str) -> Frame:
    """Choose each layer's centre and the dimensions to split.

    x: ``[layers, n, d]``; largest: see `prepare`. Any centre is correct, the bound measures what
    it gives; the mean of a fixed sample costs a fraction of a pass. The dimensions of largest
    variance lose most when rounded, so their low halves are carried as well; the two last slots
    hold the bound. Three small launches: in plain torch it takes some thirty, which take longer
    to start than to run.
    """
    layers, n, d = x.shape
    device = x.device
    # Few points and many layers: reading all of them in float64 would cost more than the search.
    sampled = min(n, _SAMPLE, max(_SAMPLE // 4, n // 8))

    def made(*shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
        return torch.empty(layers, *shape, dtype=dtype, device=device)

    factor, variance = made(sampled), made(d)
    frame = Frame(
        centre=made(d),
        centre_sq=made(),
        split=made(SLOTS, dtype=torch.int32),
        is_split=made(d, dtype=torch.int8),
    )
    rows, dims = _SAMPLE_TILE
    _sample_kernel[(triton.cdiv(sampled, rows), layers)](
        x, largest, factor, n, d, sampled, x.stride(0), x.stride(1), *row_strides(largest),
        METRIC=METRIC_CODES[metric], ROWS=rows, DIMS=dims, num_warps=4, enable_fp_fusion=False,
    )  # fmt: skip
    rows, dims = _CENTRE_TILE
    _centre_kernel[(triton.cdiv(d, dims), layers)](
        x, factor, frame.centre, variance, n, d, sampled, x.stride(0), x.stride(1),
        METRIC=METRIC_CODES[metric], ROWS=rows, DIMS=dims, num_warps=4, enable_fp_fusion=False,
    )  # fmt: skip
    _split_kernel[(triton.cdiv(d, _SPLIT_DIMS), layers)](
        variance, frame.centre, frame.centre_sq, frame.split, frame.is_split,
        d, min(SLOTS - 2, d), SLOTS=SLOTS, DIMS=_SPLIT_DIMS, num_warps=4, enable_fp_fusion=False,
    )  # fmt: skip
    return frame


def row_strides(largest: torch.Tensor) -> tuple[int, int]:
    """Of ``[layers, n]``, or of ``[layers, 1]`` read for every row."""
    return largest.stride(0), largest.stride(1) if largest.shape[1] > 1 else 0
