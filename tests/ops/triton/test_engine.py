"""The whole engine against float64 neighbours, over its branches."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import triton
import triton.language as tl
from clouds import cloud, neighbours

from ilo_fast.errors import InputError
from ilo_fast.ops import knn_triton, triton_filter, triton_prepare, triton_repair
from ilo_fast.ops.request import EngineResult, Request
from ilo_fast.ops.triton_config import row_config
from ilo_fast.ops.triton_order import merge_nearest, sort_lists
from ilo_fast.ops.triton_rescore import allocate_lists


def _search(x: Any, k: int, metric: str, device: torch.device, **options: bool) -> EngineResult:
    tensor = torch.as_tensor(x).to(device)
    row_max = tensor.double().abs().amax(2)
    return knn_triton.search(Request(x=tensor, row_max=row_max, k=k, metric=metric, **options))


def _check(x: torch.Tensor, k: int, metric: str, device: torch.device, **options: bool) -> Any:
    found = _search(x, k, metric, device, **options)
    assert bool(found.certified.all())
    for layer, points in enumerate(x.double().numpy()):
        truth = neighbours(points, k, metric, options.get("exclude_self", True))
        np.testing.assert_array_equal(found.indices[layer].cpu().numpy(), truth)
    return found


@pytest.mark.parametrize(
    ("name", "metric", "shape", "k", "dtype"),
    [
        ("massive", "cosine", (2, 150, 40), 3, torch.float32),
        ("mixed_norms", "euclidean", (1, 67, 1), 2, torch.float64),
        ("gauss", "inner_product", (1, 130, 33), 3, torch.float16),
        ("gauss", "cosine", (1, 2, 5), 1, torch.bfloat16),
    ],
)
def test_equals_float64(
    name: str, metric: str, shape: tuple[int, int, int], k: int, dtype: torch.dtype,
    device: torch.device,
) -> None:  # fmt: skip
    layers, n, d = shape
    x = torch.tensor(np.stack([cloud(name, n, d, seed) for seed in range(layers)])).to(dtype)
    found = _check(x, k, metric, device)
    assert found.distances.dtype == torch.float32
    assert len(found.stats.rows_repaired) == layers
    assert all(candidates >= k for candidates in found.stats.open_candidates)


def test_self_counts_when_asked(device: torch.device) -> None:
    x = torch.tensor(cloud("gauss", 40, 20), dtype=torch.float32)[None]
    found = _check(x, 2, "cosine", device, exclude_self=False)
    assert torch.equal(found.indices[0, :, 0].cpu(), torch.arange(40))
    assert bool((found.distances[0, :, 0] == 0).all())


@pytest.mark.parametrize("name", ["equal", "zeros"])
def test_ties_go_to_the_lower_index(name: str, device: torch.device) -> None:
    x = torch.tensor(cloud(name, 36, 12), dtype=torch.float32)[None]
    found = _check(x, 3, "cosine", device)
    if name == "equal":
        assert found.indices[0, 20].tolist() == [0, 1, 2]
        assert found.stats.rows_repaired == (1.0,)


def test_scaled_copies_tie(device: torch.device) -> None:
    rng = np.random.default_rng(0)
    base = rng.standard_normal((8, 30))
    x = np.concatenate([base, base * 3, base * 0.1, base * 7e5]).astype(np.float32)
    x[8:] = x[:8].repeat(3, axis=0) * np.float32([2, 4, 0.5] * 8)[:, None]
    _check(torch.tensor(x)[None], 4, "cosine", device)


def test_a_default_device_changes_nothing(device: torch.device) -> None:
    x = torch.tensor(cloud("gauss", 36, 7), dtype=torch.float32, device=device)[None]
    row_max = x.double().abs().amax(2)
    triton_prepare.permutation.cache_clear()
    triton_filter.schedule.cache_clear()
    with torch.device("meta"):
        found = knn_triton.search(Request(x=x, row_max=row_max, k=2, metric="cosine"))
    truth = neighbours(x[0].double().cpu().numpy(), 2, "cosine")
    np.testing.assert_array_equal(found.indices[0].cpu().numpy(), truth)


@pytest.mark.parametrize("exponent", [-150, -270, -600, -900])
def test_bounds_of_small_points_beside_large_ones(exponent: int, device: torch.device) -> None:
    """One inner product in seven orders, tied within its rounding however small the points."""
    rolled = np.stack([np.roll(np.random.default_rng(1).normal(size=7), i) for i in range(7)])
    small = 2.0**exponent
    for row, others in ((small, 1.0), (small, small)):
        x = np.concatenate([np.full((1, 7), 0.1 * row), others * rolled, -np.ones((1, 7))])
        found = _search(torch.tensor(x)[None], 7, "inner_product", device)
        assert found.indices[0, 0].tolist() == [1, 2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize("d", [4, 300])
@pytest.mark.parametrize(("factor", "far"), [(1.0, 2.0**60), (1 / 3, 2.0**40)])
def test_a_long_point_whose_product_cancels(
    factor: float, far: float, d: int, device: torch.device
) -> None:
    """Its plain sum is off by more than the short point's bound, by which the two would not tie."""
    x = np.zeros((5, d))
    x[:, :4] = [[1, 1, 1, 0], [far, 1, 0, -far], [0, 0.5, 0, 0], [-1] * 4, [0, 1, 0, 0]]
    x[0, 3] = 1
    x = x[:, np.random.default_rng(d).permutation(d)] * factor
    for dtype in (torch.float32, torch.float64):
        points = torch.tensor(x).to(dtype)[None]
        found = _search(points, 3, "inner_product", device)
        assert found.indices[0, 0].tolist() == [1, 4, 2]


def test_a_true_zero_ties_with_a_zero_vector(device: torch.device) -> None:
    """What rounding left of it was more than the zero vector's bound, and its sign the order."""
    generator = np.random.default_rng(0)
    half = generator.standard_normal((24, 17))
    x = np.concatenate([half, half], axis=1)
    x[1::3, 17:] *= -1  # (a, a), (b, -b) and zero vectors are orthogonal to each other
    x[2::3] = 0
    points = torch.tensor(x[:, generator.permutation(34)])[None]
    found = _search(points, 23, "inner_product", device)
    orthogonal = [i for i in range(24) if i % 3]
    for row in range(0, 24, 3):
        indices = found.indices[0, row].cpu().numpy()
        level = np.isin(indices, orthogonal)
        assert indices[level].tolist() == orthogonal
        assert not found.distances[0, row].cpu().numpy()[level].any()


def test_extreme_float64(device: torch.device) -> None:
    x = torch.tensor(cloud("gauss", 40, 8))[None]
    plain = _search(x, 2, "cosine", device)
    for factor in (2.0**1000, 2.0**-1040):
        found = _search(x * factor, 2, "cosine", device)
        assert torch.equal(found.indices, plain.indices)
    tall = _search(x * 2.0**500, 2, "euclidean", device)
    assert bool(torch.isinf(tall.distances).all())


def test_strips_parts_and_memory(
    device: torch.device, major: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Out of memory: strips shrink, the call goes on; rows in several strips and parts."""
    x = torch.tensor(cloud("gauss", 150, 6), dtype=torch.float32)[None]
    plan, allocate = knn_triton.plan, triton_filter.allocate
    rows: list[int] = []
    fail_first = False

    def small(*args: Any, **kwargs: Any) -> knn_triton.Plan:
        made = plan(*args, **kwargs)
        return replace(made, row=replace(made.row, repair_parts=2, repair_points=64))

    def scarce(layers: int, n: int, n_pad: int, strip: int, *rest: Any) -> Any:
        rows.append(strip)
        if fail_first and len(rows) == 1:
            raise RuntimeError("Triton Error [CUDA]: out of memory")
        return allocate(layers, n, n_pad, strip, *rest)

    monkeypatch.setattr(knn_triton, "plan", small)
    monkeypatch.setattr(triton_filter, "allocate", scarce)
    fail_first = True
    _check(x, 2, "euclidean", device)
    assert rows[0] > rows[1]
    if major == 0:
        assert rows == [192, 64]
        fail_first, rows = False, []
        monkeypatch.setattr(knn_triton, "_BUDGET", 800_000)
        _check(x, 2, "euclidean", device)
        assert rows == [128, 64]  # the last strip is shorter

    def none_left(*args: Any) -> Any:
        raise torch.OutOfMemoryError("not enough memory")

    monkeypatch.setattr(triton_filter, "allocate", none_left)
    with pytest.raises(InputError, match="MiB for the smallest strip"):
        _search(x, 2, "euclidean", device)


def test_inexact_says_which_rows_are_proved(device: torch.device) -> None:
    x = torch.tensor(cloud("near_ties", 90, 6), dtype=torch.float32)[None]
    found = _search(x, 2, "cosine", device, exact=False)
    assert not bool(found.certified.all())
    assert found.stats.rows_repaired == (0.0,)
    truth = neighbours(x[0].double().numpy(), 2, "cosine")
    proved = found.certified[0].cpu().numpy()
    np.testing.assert_array_equal(found.indices[0].cpu().numpy()[proved], truth[proved])


def test_inexact_lists_are_never_short(device: torch.device) -> None:
    """Few bins hold fewer entries than half the points: such rows are repaired all the same."""
    x = torch.tensor(cloud("gauss", 40, 8), dtype=torch.float32)[None]
    found = _check(x, 20, "cosine", device, exact=False)
    assert found.stats.rows_repaired == (1.0,)


def test_larger_k(device: torch.device) -> None:
    """Lists longer than a power of two allows, from the repair and from the first pass."""
    few = torch.tensor(cloud("gauss", 14, 9), dtype=torch.float32)[None]
    _check(few, 9, "euclidean", device)
    many = torch.tensor(cloud("massive", 300, 33), dtype=torch.float32)[None]
    found = _search(many, 11, "inner_product", device, exact=False)
    proved = found.certified[0].cpu().numpy()
    truth = neighbours(many[0].double().numpy(), 11, "inner_product")
    assert proved.any()
    np.testing.assert_array_equal(found.indices[0].cpu().numpy()[proved], truth[proved])


def _chains(groups: int) -> np.ndarray:
    """Points of groups: in each, one and others at distances from it a few roundings apart."""
    rng = np.random.default_rng(5)
    rows = []
    for group in range(groups):
        for step in [None, *rng.permutation([0, 4, 8, 12, 16, 20, 28])]:
            row = np.zeros(groups + 1)
            row[group] = 32
            row[groups] = 0 if step is None else 1 + step * 2.0**-52
            rows.append(row)
    return np.array(rows)[rng.permutation(len(rows))]


def _by_the_rule(values: np.ndarray, errors: np.ndarray, k: int) -> list[int]:
    """docs/exactness.md's rule for one row, in its own words."""
    left, out = set(np.flatnonzero(np.isfinite(values))), []
    while len(out) < k:
        head = min(left, key=lambda j: (values[j], errors[j]))
        tier = {j for j in left if values[j] - values[head] <= 2 * min(errors[j], errors[head])}
        out += sorted(tier)
        left -= tier
    return out[:k]


@pytest.mark.parametrize("k", [1, 2, 6])
@pytest.mark.parametrize("parts", [1, 3])
def test_chains_of_near_ties(
    k: int, parts: int, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which points share a tier is not known before the nearest is seen, whenever that is.

    Every value is exact here, so the rule's own tolerances decide; over one part of the bins and
    one merge, and over several.
    """
    plan = knn_triton.plan

    def cut(*args: Any, **kwargs: Any) -> knn_triton.Plan:
        made = plan(*args, **kwargs)
        rows = {"repair_parts": parts, "repair_points": 256 if parts == 1 else 8}
        return replace(made, row=replace(made.row, **rows))

    monkeypatch.setattr(knn_triton, "plan", cut)
    monkeypatch.setattr(triton_repair, "_SCANNED_BINS", 2)  # of 8
    x = _chains(3)
    n, d = x.shape
    found = _search(torch.tensor(x)[None], k, "euclidean", device)
    scale = 2.0 ** np.frexp(np.abs(x).max())[1]
    values = ((x[:, None] - x[None]) ** 2).sum(axis=2) / 2 / scale**2
    np.fill_diagonal(values, np.inf)
    errors = values * (np.ceil(np.log2(d)) + 5) * 2.0**-53 + 2.0**-1000
    for row in range(n):
        expected = _by_the_rule(values[row], errors[row], k)
        assert found.indices[0, row].tolist() == expected
    assert 0.2 < found.stats.rows_repaired[0] <= 1


def test_many_tiles_of_dimensions_round_as_one(
    device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Distances that are equal tie, though one has its large term first and the other last.

    Added tile by tile to the large term, each small one would be lost: 63 half units in all.
    """
    plan = knn_triton.plan

    def narrow(*args: Any, **kwargs: Any) -> knn_triton.Plan:
        made = plan(*args, **kwargs)
        return replace(made, row=replace(made.row, score_dims=16, repair_dims=16, repair_points=8))

    monkeypatch.setattr(knn_triton, "plan", narrow)
    d = 1024
    first = np.full(d, np.sqrt(0.499 * 2.0**-52 / 16), dtype=np.float32)
    first[:16] = 0
    first[0] = 1
    others = [3 * first, -5 * first, 7 * first, -9 * first, 11 * first]
    x = np.stack([np.zeros_like(first), first.reshape(64, 16)[::-1].ravel(), first, *others])
    for points in (x, x[[0, 2, 1, *range(3, 8)]]):
        found = _search(torch.tensor(points)[None], 2, "euclidean", device)
        assert found.indices[0, 0].tolist() == [1, 2]
        assert found.distances[0, 0, 0] == found.distances[0, 0, 1]


def test_a_proved_row_has_its_whole_tiers(device: torch.device) -> None:
    """Without the repair, a row whose last tier may reach beyond its list is not proved."""
    x = torch.tensor(_chains(6))[None]
    truth = _search(x, 2, "euclidean", device).indices
    found = _search(x, 2, "euclidean", device, exact=False)
    assert 0 < found.certified.sum() < found.certified.numel()
    assert torch.equal(found.indices[found.certified], truth[found.certified])


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("order", [[0, 1, 2, 3], [0, 1, 3, 2]])
def test_of_equal_values_the_smallest_bound_leads_its_tier(
    k: int, order: list[int], device: torch.device
) -> None:
    """tests/ops/test_exact.py's case."""
    far = 2.0**20
    x = np.array([[1, 0, 0], [1 - 2**-40, far, 0], [1, 0, 1], [1, far, 0]])[order]
    found = _search(torch.tensor(x)[None], k, "inner_product", device)
    assert found.indices[0, 0].tolist() == [2, 3, 1][:k]


def test_copies_of_a_point_have_the_same_neighbours(device: torch.device) -> None:
    """tests/ops/test_exact.py's case."""
    x = [[1, 0, 0], [1, 2**20, 0], [1, 0, 0], [1 - 2**-40, 0, 2**20], [1 - 2**-50, 0, 0]]
    found = _search(torch.tensor([x], dtype=torch.float64), 3, "inner_product", device)
    assert found.indices[0, [0, 2]].tolist() == [[1, 2, 4], [0, 1, 4]]


@triton.jit
def _merge_kernel(
    values, errors, indices, more_values, more_errors, more_indices,
    out_values, out_errors, out_indices, out_reach, k, KP: tl.constexpr, MORE: tl.constexpr,
):  # fmt: skip
    own, more = tl.arange(0, KP), tl.arange(0, MORE)
    merged, merged_errors, merged_indices, reach = merge_nearest(
        tl.load(values + own), tl.load(errors + own), tl.load(indices + own),
        tl.load(more_values + more), tl.load(more_errors + more), tl.load(more_indices + more),
        k, KP,
    )  # fmt: skip
    tl.store(out_values + own, merged)
    tl.store(out_errors + own, merged_errors)
    tl.store(out_indices + own, merged_indices)
    tl.store(out_reach, reach)


def _merged(
    value: np.ndarray, error: np.ndarray, index: np.ndarray, k: int, device: torch.device
) -> list[np.ndarray]:
    """Two lists of equal length, merged: the first k and the reach of what was left over."""
    slots = len(value) // 2
    given = [
        torch.tensor(part).to(device)
        for half in (slice(0, slots), slice(slots, None))
        for part in (value[half], error[half], index[half].astype(np.int32))
    ]
    out = [torch.empty_like(tensor) for tensor in given[:3]]
    out.append(torch.empty(1, dtype=torch.float64, device=device))
    _merge_kernel[(1,)](*given, *out, k, KP=slots, MORE=slots)
    return [tensor.cpu().numpy() for tensor in out]


@pytest.mark.parametrize(("k", "slots"), [(20, 32), (32, 32)])
def test_merging_long_lists(k: int, slots: int, device: torch.device) -> None:
    """Two lists of a row, equal values in and between them, one of them not full."""
    rng = np.random.default_rng(k)
    points = rng.permutation(3 * slots)[: 2 * slots]
    value = rng.integers(0, 9, 2 * slots).astype(float)
    value[slots - 5 : slots] = np.inf
    index = np.where(np.isinf(value), 2**31 - 1, points)
    error = np.where(np.isinf(value), 0.0, 1e-15)
    values, errors, indices, reach = _merged(value, error, index, k, device)
    order = np.lexsort((index, value))[:k]
    np.testing.assert_array_equal(indices[:k], index[order])
    np.testing.assert_array_equal(values[:k], value[order])
    np.testing.assert_array_equal(errors[:k], error[order])
    assert reach == np.inf  # those left over equal the last, or lie beyond it


@pytest.mark.parametrize(
    ("value", "error", "touched"),
    [
        ([0, 1, 3, 4], [0.1, 0.1, 0.1, 0.1], False),  # far beyond the list
        ([0, 1, 1, 4], [0.1, 0.1, 0.1, 0.1], False),  # equal to the last, with a higher index
        ([0, 1, 1.2, 4], [0.1, 0.1, 0.1, 0.1], True),  # within rounding of the last
        ([0, 1, 1, 4], [0.1, 0.1, 0.2, 0.1], True),  # equal, with another bound
        ([0.9, 1, 1, 4], [0.1, 0.1, 0.1, 0.1], True),  # equal to the last, near the first
    ],
)
def test_a_merge_says_what_was_level(
    value: list[float], error: list[float], touched: bool, device: torch.device
) -> None:
    out = _merged(np.array(value, dtype=float), np.array(error), np.arange(4), 2, device)
    assert (out[3].item() <= max(value[:2])) == touched
    np.testing.assert_array_equal(out[2], [0, 1])


def test_a_merge_takes_equal_values_by_bound_then_index(device: torch.device) -> None:
    error = np.array([0.2, 0.1, 0.1, 0.3])
    _, errors, indices, _ = _merged(np.ones(4), error, np.array([0, 3, 2, 1]), 2, device)
    np.testing.assert_array_equal(indices, [2, 3])
    np.testing.assert_array_equal(errors, [0.1, 0.1])


def test_sorting_the_longest_lists(device: torch.device, major: int) -> None:
    n, k = 9, 128
    rng = np.random.default_rng(1)
    index = np.stack([rng.permutation(1000)[:k] for _ in range(n)])
    value = rng.integers(0, 40, (n, k)).astype(np.float64)
    lists = allocate_lists(1, n, k, torch.empty(1, n, dtype=torch.bool, device=device))
    lists.value.copy_(torch.tensor(value)[None])
    lists.index.copy_(torch.tensor(index)[None])
    lists.error.fill_(1e-9)
    found = torch.empty_like(lists.value)
    order = torch.empty(1, n, k, dtype=torch.int64, device=device)
    sort_lists(lists, row_config(major, 64, k), values=found, indices=order)
    for row in range(n):
        expected = np.lexsort((index[row], value[row]))
        np.testing.assert_array_equal(order[0, row].cpu().numpy(), index[row][expected])
        np.testing.assert_array_equal(found[0, row].cpu().numpy(), value[row][expected])


def test_lists_of_twenty(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the first pass alone, all rows in one program: the interpreter counts operations."""
    plan = knn_triton.plan

    def wide(*args: Any, **kwargs: Any) -> knn_triton.Plan:
        made = plan(*args, **kwargs)
        rows = {"score_rows": 512, "select_rows": 512} if device.type == "cpu" else {}
        return replace(made, row=replace(made.row, **rows))

    monkeypatch.setattr(knn_triton, "plan", wide)
    x = torch.tensor(cloud("gauss", 512, 12), dtype=torch.float32)[None]
    found = _search(x, 20, "cosine", device, exact=False)
    proved = found.certified[0].cpu().numpy()
    assert proved.sum() > 5
    truth = neighbours(x[0].double().numpy(), 20, "cosine")
    np.testing.assert_array_equal(found.indices[0].cpu().numpy()[proved], truth[proved])


@pytest.mark.parametrize(("n", "k"), [(26, 20), (130, 128)])
def test_long_lists_of_few_points(n: int, k: int, device: torch.device) -> None:
    """Nearly every other point is a neighbour: all rows go through the repair."""
    if device.type == "cpu" and k > 100:
        pytest.skip("minutes under the interpreter; on a card: python -m benchmarks gpu")
    x = torch.tensor(cloud("massive", n, 9), dtype=torch.float32)[None]
    assert _check(x, k, "cosine", device).stats.rows_repaired == (1.0,)
