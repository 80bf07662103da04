# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator,misc"
"""Filter: the two largest upper bounds of every bin of points, for every point.

One program computes a tile of the product of all points with all points and keeps, of every bin of
columns, each row's best two scores; a tile of the upper triangle also keeps each column's best two
of every bin of rows, so half of the product serves all of it. A point's place inside its bin
replaces the low bits of its score's mantissa. Every (bin, point) is written exactly once: no
atomics, no initialisation, the same bits on every run.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
import triton
import triton.language as tl

from ilo_fast.ops.triton_config import SLOTS, FilterConfig
from ilo_fast.ops.triton_prepare import FLOOR, Operands, kept_until_read, permutation

__all__ = ["Bins", "allocate", "filter_bins", "held_points", "schedule"]

_FLOOR = tl.constexpr(FLOOR)
_SUPER_ROWS, _SUPER_COLS = 16, 8  # tiles; both operands of a super-tile stay in the L2 cache


@dataclass(frozen=True)
class Bins:
    """best, second: float32 ``[layers, bins, rows]``, packed scores of the strip's points. held:
    int32 ``[bins * width]``, the point at each place of each bin, -1 for none."""

    best: torch.Tensor
    second: torch.Tensor
    held: torch.Tensor
    width: int


def allocate(
    layers: int, n: int, n_pad: int, rows: int, config: FilterConfig, device: torch.device
) -> Bins:
    """Uninitialised tables for a strip of ``rows`` points: the filter writes every entry."""
    shape = (layers, n_pad // config.bin_width, rows)
    return Bins(
        best=torch.empty(shape, dtype=torch.float32, device=device),
        second=torch.empty(shape, dtype=torch.float32, device=device),
        held=kept_until_read(held_points(n, n_pad, config.bin_width, config.pair, device)),
        width=config.bin_width,
    )


@lru_cache(maxsize=16)
def held_points(n: int, n_pad: int, width: int, pair: int, device: torch.device) -> torch.Tensor:
    """The point at each place, int32 ``[n_pad]``, -1 for none.

    Positions p and p + pair are the two halves of a bin: place ``p // pair % 2 * width / 2``
    onwards, counting what remains of the positions, ``width / 2`` a bin.

    >>> order = permutation(8, torch.device("cpu"))
    >>> held = held_points(8, 8, 4, 4, torch.device("cpu"))
    >>> torch.equal(held, order[[0, 1, 4, 5, 2, 3, 6, 7]])
    True
    """
    position = torch.full((n_pad,), -1, dtype=torch.int32, device="cpu")
    position[:n] = permutation(n, torch.device("cpu"))
    halves = position.view(-1, 2, pair).transpose(1, 2)  # [.., pair, 2]
    return halves.reshape(-1, width // 2, 2).transpose(1, 2).reshape(-1).to(device)


@lru_cache(maxsize=16)
def schedule(
    n_pad: int, rows: int, block_m: int, block_n: int, device: torch.device
) -> torch.Tensor:
    """Row and column block of every tile, int32 ``[tiles, 2]``, super-tile by super-tile.

    A strip that holds all rows takes the upper triangle: tiles right of the diagonal block, a
    square of the longer side, serve both directions. All other strips of a length share one table,
    every tile of their rows; row blocks count from the strip's first row.

    >>> schedule(256, 256, 128, 128, torch.device("cpu")).tolist()
    [[0, 0], [0, 1], [1, 1]]
    """
    row_blocks, col_blocks = rows // block_m, n_pad // block_n
    # Super-tiles at the edges are smaller: a tile's place follows from the sizes of those before.
    tile = torch.arange(row_blocks * col_blocks, dtype=torch.int32, device="cpu")
    band = tile // (_SUPER_ROWS * col_blocks)
    height = (row_blocks - band * _SUPER_ROWS).clamp(max=_SUPER_ROWS)
    tile -= band * (_SUPER_ROWS * col_blocks)
    stack = tile // (height * _SUPER_COLS)
    width = (col_blocks - stack * _SUPER_COLS).clamp(max=_SUPER_COLS)
    tile -= stack * height * _SUPER_COLS
    row, col = band * _SUPER_ROWS + tile // width, stack * _SUPER_COLS + tile % width
    tiles = torch.stack([row, col], dim=1)
    if rows == n_pad:
        square = max(block_m, block_n)
        tiles = tiles[row * block_m // square <= col * block_n // square]
    return tiles.to(device)


@triton.jit
def _merge_two(best_a, second_a, best_b, second_b):
    best = tl.maximum(best_a, best_b)
    second = tl.maximum(tl.minimum(best_a, best_b), tl.maximum(second_a, second_b))
    return best, second


@triton.jit
def _best_two(best, second, AXIS: tl.constexpr, ONE_PASS: tl.constexpr):
    """Largest and second largest of pairs along an axis; packed scores of a bin all differ."""
    if ONE_PASS:
        best, second = tl.reduce((best, second), AXIS, _merge_two)
    else:
        top = tl.max(best, axis=AXIS)
        rest = tl.where(best == tl.expand_dims(top, AXIS), second, best)
        best, second = top, tl.max(rest, axis=AXIS)
    return best, second


@triton.jit
def _place_in_bin(position, WIDTH: tl.constexpr, PAIR: tl.constexpr):
    """The low bits of `held_points`' place of a position."""
    pair = position // (2 * PAIR) * PAIR + position % PAIR
    return position // PAIR % 2 * (WIDTH // 2) + pair % (WIDTH // 2)


@triton.jit
def _pack(score, position, WIDTH: tl.constexpr):
    bits = score.to(tl.int32, bitcast=True) & (-WIDTH)
    return (bits | position).to(tl.float32, bitcast=True)


@triton.jit(do_not_specialize=["n_tiles"])
def _filter_kernel(
    left, right, bias, tiles, best_out, second_out,
    n_pad, rows, first_row, n_tiles,
    MAIN: tl.constexpr, SLOTS: tl.constexpr, WIDTH: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
    PAIR: tl.constexpr, TMA: tl.constexpr, ONE_PASS: tl.constexpr, MASK_SELF: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0)
    layer = program // n_tiles
    tile = tiles + (program % n_tiles) * 2
    row = first_row + tl.load(tile) * BM  # position of the tile's first row
    col = tl.load(tile + 1) * BN
    square: tl.constexpr = BM if BM > BN else BN
    diagonal = row // square == col // square
    row_at = layer * n_pad + row
    col_at = layer * n_pad + col
    row_ids = tl.arange(0, BM)
    col_ids = tl.arange(0, BN)

    acc = tl.zeros((BM, BN), tl.float32)
    if TMA:
        for k in range(0, MAIN + 2 * SLOTS, BK):
            a = left.load([row_at, k])
            b = right.load([col_at, k + (k // MAIN) * (2 * SLOTS)])
            acc = tl.dot(a, b.T, acc)
    else:
        stride: tl.constexpr = MAIN + 4 * SLOTS
        k_ids = tl.arange(0, BK)
        a_rows = left + (row_at + row_ids).to(tl.int64)[:, None] * stride + k_ids[None, :]
        b_rows = right + (col_at + col_ids).to(tl.int64)[None, :] * stride + k_ids[:, None]
        for k in range(0, MAIN + 2 * SLOTS, BK):
            a = tl.load(a_rows + k)
            b = tl.load(b_rows + k + (k // MAIN) * (2 * SLOTS))
            acc = tl.dot(a, b, acc)

    bins = (n_pad // WIDTH).to(tl.int64)
    scores = acc + tl.load(bias + col_at + col_ids)[None, :]
    if MASK_SELF:  # noqa: SIM102  (one is a compile-time condition)
        if diagonal:
            own = (row + row_ids)[:, None] == (col + col_ids)[None, :]
            scores = tl.where(own, _FLOOR, scores)
    packed = _pack(scores, _place_in_bin(col_ids, WIDTH, PAIR)[None, :], WIDTH)
    pairs = tl.reshape(packed, (BM, BN // (2 * PAIR), 2, PAIR))
    higher = tl.reshape(tl.max(pairs, axis=2), (BM, BN // WIDTH, WIDTH // 2))
    lower = tl.reshape(tl.min(pairs, axis=2), (BM, BN // WIDTH, WIDTH // 2))
    best, second = _best_two(higher, lower, 2, ONE_PASS)
    bin_ids = col // WIDTH + tl.arange(0, BN // WIDTH)
    at = (layer * bins + bin_ids)[None, :] * rows + (row - first_row + row_ids)[:, None]
    tl.store(best_out + at, best)
    tl.store(second_out + at, second)

    if (rows == n_pad) & (diagonal == 0):  # the tile's columns see its rows, too
        scores_c = acc + tl.load(bias + row_at + row_ids)[:, None]
        packed_c = _pack(scores_c, _place_in_bin(row_ids, WIDTH, PAIR)[:, None], WIDTH)
        pairs_c = tl.reshape(packed_c, (BM // (2 * PAIR), 2, PAIR, BN))
        higher_c = tl.reshape(tl.max(pairs_c, axis=1), (BM // WIDTH, WIDTH // 2, BN))
        lower_c = tl.reshape(tl.min(pairs_c, axis=1), (BM // WIDTH, WIDTH // 2, BN))
        best_c, second_c = _best_two(higher_c, lower_c, 1, ONE_PASS)
        bin_ids_c = row // WIDTH + tl.arange(0, BM // WIDTH)
        at_c = (layer * bins + bin_ids_c)[:, None] * rows + (col + col_ids)[None, :]
        tl.store(best_out + at_c, best_c)
        tl.store(second_out + at_c, second_c)


def filter_bins(
    operands: Operands,
    bins: Bins,
    config: FilterConfig,
    *,
    first_row: int,
    exclude_self: bool,
) -> Any:
    """Fill ``bins`` for the strip of points that starts at position ``first_row``.

    The strip's length is the tables' last dimension, a multiple of the tile; a strip of all
    points uses the product's symmetry. Returns the compiled kernel, as Triton does.
    """
    layers, n_pad, stride = operands.rows.shape
    rows = bins.best.shape[2]
    device = operands.rows.device
    tiles = kept_until_read(schedule(n_pad, rows, config.block_m, config.block_n, device))
    left: Any = operands.rows
    right: Any = operands.rows
    if config.tma:
        from triton.tools.tensor_descriptor import TensorDescriptor

        flat = operands.rows.view(layers * n_pad, stride)
        left = TensorDescriptor.from_tensor(flat, [config.block_m, config.block_k])
        right = TensorDescriptor.from_tensor(flat, [config.block_n, config.block_k])
    return _filter_kernel[(tiles.shape[0] * layers,)](
        left, right, operands.bias, tiles, bins.best, bins.second,
        n_pad, rows, first_row, tiles.shape[0],
        MAIN=operands.main, SLOTS=SLOTS, WIDTH=config.bin_width,
        BM=config.block_m, BN=config.block_n, BK=config.block_k,
        PAIR=config.pair, TMA=config.tma, ONE_PASS=config.one_pass, MASK_SELF=exclude_self,
        num_warps=config.warps, num_stages=config.stages,
        enable_fp_fusion=True,  # said, as defaults differ: the bound holds for either
    )  # fmt: skip
