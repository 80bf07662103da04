"""No pair's similarity exceeds what its bin shows: prepare and filter against float64."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from clouds import CLOUDS, cloud
from matrix_units import aligned_and_cut
from triton.runtime import interpreter

from ilo_fast.ops import triton_filter
from ilo_fast.ops.knn_triton import _scaled
from ilo_fast.ops.request import Request
from ilo_fast.ops.triton_config import (
    Accumulation,
    FilterConfig,
    accumulation,
    filter_config,
    row_config,
)
from ilo_fast.ops.triton_filter import Bins, allocate, filter_bins
from ilo_fast.ops.triton_prepare import Operands, prepare


def _run(
    x: torch.Tensor,
    metric: str,
    config: FilterConfig,
    major: int,
    *,
    strip: int = 0,
    sums: Accumulation | None = None,
) -> tuple[Operands, list[tuple[int, Bins]]]:
    layers, n, d = x.shape
    request = Request(x=x, row_max=x.double().abs().amax(2), k=3, metric=metric)
    scaled, largest = _scaled(request, 0, layers)
    made = prepare(
        scaled, largest, metric,
        row_multiple=config.row_multiple,
        gamma=(sums or accumulation(major)).gamma(-(-d // 64) * 64 + 64),
        config=row_config(major, d, 3),
    )  # fmt: skip
    n_pad = made.rows.shape[1]
    rows = strip or n_pad
    strips = []
    for first in range(0, n, rows):
        bins = allocate(layers, n, n_pad, min(rows, n_pad - first), config, x.device)
        filter_bins(made, bins, config, first_row=first, exclude_self=True)
        strips.append((first, bins))
    return made, strips


def _scores(x: np.ndarray, made: Operands, layer: int) -> np.ndarray:
    """Exact scores [n, n] by position: similarity * scale^2 - row constant, in float64+.

    The row constants are recomputed here from z and the operands' centre-free definition:
    score_ij = d_i.d_j + b_j = s_ij scale^2 - c_i, with s from the points alone.
    """
    order = made.order.cpu().numpy()
    factor = made.factor[layer].cpu().numpy().astype(np.longdouble)
    z = (x.astype(np.longdouble) * factor[:, None])[order]
    if made.metric == "euclidean":
        gram = z @ z.T
        square = np.diag(gram)
        similarity = gram - square[:, None] / 2 - square[None] / 2
    else:
        similarity = z @ z.T
    shift = made.shift[layer].cpu().numpy()[: len(x)].astype(np.longdouble)
    return similarity * made.scale**2 - shift[:, None]  # shift holds a little slack: lower


def _check(x: np.ndarray, made: Operands, strips: list[tuple[int, Bins]], layer: int = 0) -> float:
    """Every score is at most its bin's best, every other one at most the second; -> looseness."""
    scores = _scores(x, made, layer).astype(np.float64)
    n = len(x)
    position = np.full(n + 1, n)  # of each point; the last, for point -1, is none
    position[made.order.cpu().numpy()] = np.arange(n)
    loosest = 0.0
    for first, bins in strips:
        width = bins.width
        bits = width.bit_length() - 1
        best = bins.best[layer].cpu().numpy()
        second = bins.second[layer].cpu().numpy()
        at = position[bins.held.cpu().numpy()]
        assert np.isfinite(best).all()
        assert np.isfinite(second).all()
        assert (second <= best).all()
        here = min(best.shape[1], n - first)
        for row in range(here):
            i = first + row
            own = np.append(scores[i], -1e38)  # the last is nobody's
            own[i] = -1e38
            table = own[at].reshape(-1, width)
            places = best[:, row].view(np.int32) & (width - 1)
            shown = table[np.arange(len(table)), places]
            rest = table.copy()
            rest[np.arange(len(table)), places] = -np.inf
            upper = [v.astype(np.float64) for v in (best[:, row], second[:, row])]
            upper = [v + np.abs(v) * 2.0 ** (bits - 22) + 2.0**-100 for v in upper]
            assert (shown <= upper[0]).all()
            assert (rest.max(axis=1) <= upper[1]).all()
            real = shown > -1e37
            loosest = max(loosest, float((upper[0] - shown)[real].max(initial=0)))
    return loosest


def _config(major: int, **changes: object) -> FilterConfig:
    return replace(filter_config(major, 150, 70, 3), bin_width=16, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "metric"),
    [(name, "cosine") for name in CLOUDS]
    + [(name, ("euclidean", "inner_product")[at % 2]) for at, name in enumerate(CLOUDS)],
)
def test_bound_holds(name: str, metric: str, device: torch.device, major: int) -> None:
    x = cloud(name, 90, 70)
    tensor = torch.tensor(x, dtype=torch.float32, device=device)[None]
    made, strips = _run(tensor, metric, _config(major), major)
    loosest = _check(x, made, strips)
    norm = float(made.rows[0, :, made.main + 62].float().max())
    assert loosest <= 0.02 * norm**2 + 1  # a bound that says nothing would pass the check above


@pytest.mark.parametrize("card", [7, 8, 9])
def test_bound_holds_for_the_sums_of_matrix_units(
    card: int, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Terms of one sign and no rounding of operands: what is cut adds up, nothing else hides it."""
    if device.type == "cuda":
        pytest.skip("a card sums as it does: python -m benchmarks gpu")
    sums = accumulation(card)

    def create_dot(_: object, a: Any, b: Any, so_far: Any, *options: object) -> Any:
        left, right, start = (torch.from_numpy(each.data) for each in (a, b, so_far))
        bits, terms = sums.fraction_bits, sums.terms
        added = aligned_and_cut(left, right.T, bits, terms, so_far=start)
        return interpreter.TensorHandle(added.numpy(), so_far.dtype.scalar)

    monkeypatch.setattr(interpreter.InterpreterBuilder, "create_dot", create_dot)
    rng = np.random.default_rng(0)
    half = 1 + (rng.integers(1, 1022, 700) + rng.integers(-1, 2, (30, 700))) / 1024
    x = np.concatenate([half, -half])
    tensor = torch.tensor(x, dtype=torch.float32)[None]
    _check(x, *_run(tensor, "euclidean", _config(0), 0, sums=sums))
    unbounded = _run(tensor, "euclidean", _config(0), 0, sums=Accumulation(1024, 40, "no loss"))
    with pytest.raises(AssertionError):
        _check(x, *unbounded)


@pytest.mark.parametrize(("n", "d"), [(2, 1), (63, 64), (64, 29), (65, 65), (129, 2)])
def test_odd_shapes(n: int, d: int, device: torch.device, major: int) -> None:
    x = cloud("gauss", n, d, seed=n * d)
    tensor = torch.tensor(x, dtype=torch.float32, device=device)[None]
    made, strips = _run(tensor, "cosine", _config(major), major)
    _check(x, made, strips)


@pytest.mark.parametrize(
    ("width", "tma", "strip", "rows"),
    [
        (8, True, 0, 64),
        (16, False, 128, 64),
        (32, True, 128, 64),
        (32, False, 0, 64),
        (32, True, 0, 128),
        (32, False, 128, 128),
    ],
)
def test_every_mode(
    width: int, tma: bool, strip: int, rows: int, device: torch.device, major: int
) -> None:
    if tma and major not in (0, *range(9, 20)):
        pytest.skip("needs compute capability 9, for tensor descriptors: python -m benchmarks gpu")
    x = np.stack([cloud("massive", 140, 40), cloud("gauss", 140, 40)])
    tensor = torch.tensor(x, dtype=torch.float32, device=device)
    config = replace(_config(major), bin_width=width, tma=tma, block_m=rows, block_n=128, warps=4)
    assert config.pair == (64 if rows == 128 else min(8, width // 2))  # 64 apart: in one warp
    made, strips = _run(tensor, "cosine", config, major, strip=strip)
    assert len(strips) == (2 if strip else 1)
    for layer in range(2):
        _check(x[layer], made, strips, layer)


@pytest.mark.parametrize("strip", [0, 128])
def test_tiles_of_more_rows_than_columns(strip: int, device: torch.device, major: int) -> None:
    x = cloud("massive", 140, 40)
    tensor = torch.tensor(x, dtype=torch.float32, device=device)[None]
    config = replace(_config(major), tma=False, block_m=128, block_n=64)
    _check(x, *_run(tensor, "cosine", config, major, strip=strip))


def test_one_pass_mode_over_narrow_chunks(device: torch.device, major: int) -> None:
    """The interpreter reduces pairs one by one: a small tile."""
    x = cloud("massive", 40, 20)
    tensor = torch.tensor(x, dtype=torch.float32, device=device)[None]
    small = {"block_m": 32, "block_n": 32} if major == 0 else {}
    config = replace(_config(major), one_pass=True, block_k=32, **small)
    made, strips = _run(tensor, "cosine", config, major)
    _check(x, made, strips)


def test_same_bits_on_every_run(device: torch.device, major: int) -> None:
    tensor = torch.tensor(cloud("massive", 90, 70), dtype=torch.float32, device=device)[None]
    first, second = (_run(tensor, "cosine", _config(major), major)[1][0][1] for _ in range(2))
    assert torch.equal(first.best.view(torch.int32), second.best.view(torch.int32))
    assert torch.equal(first.second.view(torch.int32), second.second.view(torch.int32))


@pytest.mark.parametrize(
    ("n_pad", "rows", "block_m", "block_n"),
    [(2560, 2560, 128, 128), (5120, 1280, 64, 256), (2304, 768, 256, 128), (1280, 1280, 256, 64)],
)
def test_tiles_come_super_tile_by_super_tile(
    n_pad: int, rows: int, block_m: int, block_n: int
) -> None:
    square = max(block_m, block_n)
    tiles = [
        (row, col)
        for row in range(rows // block_m)
        for col in range(n_pad // block_n)
        if rows < n_pad or row * block_m // square <= col * block_n // square
    ]
    tiles.sort(key=lambda tile: (tile[0] // 16, tile[1] // 8, *tile))
    found = triton_filter.schedule(n_pad, rows, block_m, block_n, torch.device("cpu"))
    assert found.tolist() == [list(tile) for tile in tiles]


def test_strips_share_a_table(device: torch.device, major: int) -> None:
    triton_filter.schedule.cache_clear()
    x = torch.randn(1, 300, 8, dtype=torch.float32).to(device)
    _run(x, "cosine", _config(major), major, strip=_config(major).row_multiple)
    table = triton_filter.schedule.cache_info()
    assert (table.misses, table.hits) == (1, -(-300 // _config(major).row_multiple) - 1)
