"""The filter, its certificate and its repair, on every cut and on hostile points."""

import numpy as np
import pytest
import torch
from hostile_points import near_ties, one_direction
from hypothesis import given, settings
from hypothesis import strategies as st
from knn_oracle import assert_exact

from ilo_fast import knn
from ilo_fast.ops import filter as filter_module
from ilo_fast.ops import full, knn_torch
from ilo_fast.ops.filter import Plan

METRICS = ("cosine", "euclidean", "inner_product")


@pytest.fixture
def cut(monkeypatch):
    """Make the engine filter small problems, in the cut asked for."""

    def set_plan(bins=4, per_tile=3, group=1, strip=0, pair_bytes=None):
        def plan(n, d, k, device):
            made = Plan(n, bins, per_tile, group, strip)
            return made if made.all_bins >= 2 * k else None

        monkeypatch.setattr(knn_torch, "plan_filter", plan)
        if pair_bytes:
            monkeypatch.setattr(knn_torch, "_PAIR_BYTES", pair_bytes)

    return set_plan


def normal(generator, n, d):
    return generator.normal(size=(n, d)) + 1


def massive_dimension(generator, n, d):
    x = generator.normal(size=(n, d))
    x[:, 0] = 1000 * (1 + 0.01 * generator.normal(size=n))
    return x


def float64_noise(generator, n, d):
    return generator.normal(size=d) * (1 + 1e-15 * generator.normal(size=(n, d)))


def one_exact_direction(generator, n, d):
    return generator.integers(1, 50, size=(n, 1)) * generator.normal(size=d)


def copies(generator, n, d):
    return generator.normal(size=(n // 10 + 2, d))[generator.integers(0, n // 10 + 2, size=n)]


def all_equal(generator, n, d):
    return np.tile(generator.normal(size=d), (n, 1))


def coarse(generator, n, d):
    return generator.integers(-1, 2, size=(n, d)).astype(np.float64)


def outliers(generator, n, d):
    x = generator.normal(size=(n, d))
    x[::50] *= 1e9
    return x


def clusters(generator, n, d):
    centres = 100 * generator.normal(size=(5, d))
    return centres[generator.integers(0, 5, size=n)] + 1e-4 * generator.normal(size=(n, d))


def zeros(generator, n, d):
    x = generator.normal(size=(n, d))
    x[:: n // 4] = 0
    return x


def subnormal(generator, n, d):
    return generator.normal(size=(n, d)) * 1e-310


def huge(generator, n, d):
    return generator.normal(size=(n, d)) * 1e200


CASES = (
    normal,
    massive_dimension,
    near_ties,
    float64_noise,
    one_direction,
    one_exact_direction,
    copies,
    all_equal,
    coarse,
    outliers,
    clusters,
    zeros,
    subnormal,
    huge,
)


def quiet_exact(found, x, metric, **options):
    with np.errstate(over="ignore", invalid="ignore"):
        assert_exact(found, x, metric, **options)


def same(found, expected):
    np.testing.assert_array_equal(found.indices, expected.indices)
    np.testing.assert_array_equal(found.distances, expected.distances)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(
    "plan",
    [{}, {"group": 3}, {"strip": 7}, {"pair_bytes": 600}],
    ids=["tiles", "slabs", "strips", "few"],
)
def test_every_cut_is_exact_on_hostile_points(cut, case, metric, plan):
    x = case(np.random.default_rng(7), 151, 9)
    cut(**plan)
    found = knn(x, 4, metric=metric)
    scaled = x
    if case is huge or case is subnormal:  # distances leave float32: check at a scale that fits
        scaled = np.ldexp(x, 664 if case is huge else 1030) if case is subnormal else x * 2.0**-664
        found = knn(scaled, 4, metric=metric)
        original = knn(x, 4, metric=metric)
        if case is huge:
            np.testing.assert_array_equal(original.indices, found.indices)
    assert_exact(found, scaled, metric)


@pytest.mark.parametrize("case", [normal, copies, coarse, near_ties])
@pytest.mark.parametrize("metric", METRICS)
def test_self_may_stay(cut, case, metric):
    x = case(np.random.default_rng(8), 120, 6)
    cut()
    assert_exact(knn(x, 5, metric=metric, exclude_self=False), x, metric, exclude_self=False)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
@pytest.mark.parametrize("metric", METRICS)
def test_low_precision_input_of_any_size(cut, dtype, scale, metric):
    if dtype is np.float16:
        scale = {1e-30: 1e-6, 1.0: 1.0, 1e30: 1e3}[scale]
    x = (np.random.default_rng(9).normal(size=(130, 11)) * scale).astype(dtype)
    cut()
    with np.errstate(over="ignore"):
        found = knn(x, 3, metric=metric)
    if metric == "inner_product" and scale in (1e-30, 1e30):
        found = knn(x / dtype(scale), 3, metric=metric)
        x = x / dtype(scale)
    assert_exact(found, x, metric)


@settings(max_examples=50, deadline=None)
@given(
    st.integers(2, 90),
    st.integers(1, 8),
    st.one_of(
        st.tuples(st.integers(1, 8), st.integers(1, 5), st.integers(1, 3), st.just(0)),
        st.tuples(st.integers(1, 8), st.integers(1, 5), st.just(1), st.integers(1, 9)),
    ),
    st.sampled_from(METRICS),
    st.sampled_from(CASES[:-2]),
    st.booleans(),
    st.integers(0, 2**32 - 1),
)
def test_property_filter_equals_float64(n, d, shape, metric, case, exclude_self, seed):
    generator = np.random.default_rng(seed)
    x = case(generator, max(n, 4), d)[:n]
    k = int(generator.integers(1, n))
    plain = knn(x, k, metric=metric, exclude_self=exclude_self)
    assert plain.stats.method == ("float64",)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            knn_torch,
            "plan_filter",
            lambda n, d, k, device: p if (p := Plan(n, *shape)).all_bins >= k else None,
        )
        found = knn(x, k, metric=metric, exclude_self=exclude_self)
    same(found, plain)
    assert found.certified.all()


@pytest.fixture
def narrowed(monkeypatch):
    """Small problems go through float32 first, without bins."""
    monkeypatch.setattr(knn_torch, "_FEWEST_NARROWED", 2)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("waiting", [full._WAITING, 0], ids=["at once", "strip by strip"])
def test_narrowing_without_bins_changes_nothing(narrowed, monkeypatch, case, metric, waiting):
    x = case(np.random.default_rng(12), 300, 9)
    monkeypatch.setattr(full, "_WAITING", waiting)
    monkeypatch.setattr(full, "_CPU_ROWS", 64)
    found = knn(x, 4, metric=metric)
    monkeypatch.setattr(knn_torch, "_FEWEST_NARROWED", 10**9)
    plain = knn(x, 4, metric=metric)
    assert plain.stats.method == ("float64",)
    assert found.certified.all()
    same(found, plain)
    if case not in (huge, subnormal):  # whose distances leave float32
        assert_exact(found, x, metric)


@settings(max_examples=50, deadline=None)
@given(
    st.integers(2, 90),
    st.integers(1, 8),
    st.sampled_from(METRICS),
    st.sampled_from(CASES[:-2]),
    st.booleans(),
    st.integers(0, 2**32 - 1),
)
def test_property_narrowing_equals_float64(n, d, metric, case, exclude_self, seed):
    generator = np.random.default_rng(seed)
    x = case(generator, max(n, 4), d)[:n]
    k = int(generator.integers(1, n))
    plain = knn(x, k, metric=metric, exclude_self=exclude_self)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(knn_torch, "_FEWEST_NARROWED", 2)
        patch.setattr(knn_torch, "_most_candidates", lambda k: k + 1)  # leaves rows to float64
        found = knn(x, k, metric=metric, exclude_self=exclude_self)
    same(found, plain)


def test_a_thousand_points_are_narrowed_by_float32():
    x = np.random.default_rng(13).normal(size=(1024, 40)).astype(np.float32) + 2
    found = knn(x, 10)
    assert found.stats.method == ("filter",)
    assert found.stats.rows_repaired == (0.0,)
    assert 10 <= found.stats.open_candidates[0] < 11
    assert_exact(found, x, "cosine")


def test_a_pair_is_open_from_its_rows_threshold_on():
    """The k-th largest lower bound, less the row's own slack; self never is."""
    upper = torch.tensor([[99.0, 10.0, 9.0, 8.5, 8.4], [9.5, 99.0, 10.0, 7.0, 7.5]])
    slack = torch.tensor([1.0, 2.0, 0.5, 0.25, 0.25])
    found = full._open(upper, torch.tensor([0, 1]), slack, 2)
    assert found.int().tolist() == [[0, 1, 1, 1, 1], [1, 0, 1, 1, 1]]
    upper[0, 1:] = torch.tensor([10.0, 9.0, 7.0, 6.9])  # 8 and 8.5 at least: the line is 7
    found = full._open(upper, torch.tensor([0, 1]), slack, 2)
    assert found.int().tolist() == [[0, 1, 1, 1, 0], [1, 0, 1, 1, 1]]


def test_what_float32_cannot_narrow_is_compared_in_float64():
    generator = np.random.default_rng(14)
    # The centre lies in one cloud at most; float32 cannot tell the other's points apart.
    x = np.concatenate([float64_noise(generator, 400, 8), float64_noise(generator, 400, 8)])
    found = knn(x, 10, metric="euclidean")
    assert found.stats.method == ("filter",)
    assert found.stats.rows_repaired[0] >= 0.5
    assert_exact(found, x, "euclidean")


def test_real_cut_at_its_own_size():
    generator = np.random.default_rng(0)
    x = generator.normal(size=(2100, 4)).astype(np.float32)
    x[:, 2] += 30
    x[2000:2050] = x[:50]
    found = knn(x, 5)
    assert found.stats.method == ("filter",)
    assert found.stats.duplicates == (50,)
    assert found.stats.rows_repaired[0] < 0.01
    assert 5 <= found.stats.open_candidates[0] < 7
    assert_exact(found, x, "cosine")


@pytest.mark.parametrize("budget", [1 << 20, 1 << 16])
@pytest.mark.parametrize("k", [1, 9])
def test_strips_and_slabs_give_the_same_bits(monkeypatch, budget, k):
    x = np.random.default_rng(1).normal(size=(2600, 5)) + 2
    expected = knn(x, k)
    monkeypatch.setitem(filter_module.MAXIMA_BYTES, "cpu", budget)
    same(knn(x, k), expected)


def test_crowded_rows_are_repaired_and_counted(cut):
    generator = np.random.default_rng(2)
    # The centre lies in one cloud at most; float32 cannot tell the other's points apart.
    x = np.concatenate([float64_noise(generator, 130, 8), float64_noise(generator, 130, 8)])
    cut(bins=8)
    found = knn(x, 2, metric="euclidean")
    assert found.stats.method == ("filter",)
    assert found.stats.rows_repaired[0] >= 0.5
    assert_exact(found, x, "euclidean")


def test_too_many_candidates_are_repaired(cut, monkeypatch):
    x = np.random.default_rng(3).normal(size=(300, 4))
    cut(bins=8)
    expected = knn(x, 3)

    real = knn_torch._FilteredSearch.__init__

    def strict(self, *arguments):
        real(self, *arguments)
        self.most_candidates = 3

    monkeypatch.setattr(knn_torch._FilteredSearch, "__init__", strict)
    found = knn(x, 3)
    assert found.stats.rows_repaired[0] > 0
    same(found, expected)


def test_thousands_of_copies_are_quick_and_by_index():
    x = np.concatenate([np.ones((3000, 16)), np.random.default_rng(4).normal(size=(2500, 16))])
    found = knn(x, 5)
    assert found.indices[0].tolist() == [1, 2, 3, 4, 5]
    assert found.indices[3].tolist() == [0, 1, 2, 4, 5]
    assert found.indices[2999].tolist() == [0, 1, 2, 3, 4]
    assert (found.distances[:3000] == 0).all()
    assert found.stats.duplicates == (2999,)
    assert found.certified.all()


def test_thousands_of_near_copies_stay_within_bounds(monkeypatch):
    monkeypatch.setattr(full, "_PAIRS", 5000)
    direction = np.random.default_rng(5).normal(size=6)
    x = np.arange(1, 1201)[:, None] * direction  # equal to rounding, not bit for bit
    found = knn(x, 5)
    assert found.indices[0].tolist() == [1, 2, 3, 4, 5]
    assert found.indices[-1].tolist() == [0, 1, 2, 3, 4]


def test_inexact_certifies_only_what_it_proved(cut):
    cut(bins=6)
    shares = {}
    for case in (normal, near_ties, clusters, one_direction):
        x = case(np.random.default_rng(6), 300, 8)
        found, truth = knn(x, 3, exact=False), knn(x, 3)
        agree = (found.indices == truth.indices).all(axis=1)
        assert agree[found.certified].all()
        shares[case] = agree.mean(), found.certified.mean()
    assert min(shares[normal]) > 0.5
    assert min(shares[near_ties]) > 0.5
    assert max(shares[clusters]) < 0.5  # float32 cannot resolve these, and says so


def test_threads_change_nothing():
    x = np.random.default_rng(10).normal(size=(2050, 24)).astype(np.float32) + 3
    before = torch.get_num_threads()
    found = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        try:
            found.append(knn(x, 5))
        finally:
            torch.set_num_threads(before)
    same(*found)


def test_place_and_batch_change_nothing(cut):
    generator = np.random.default_rng(11)
    x = coarse(generator, 200, 5) + 1e-3 * normal(generator, 200, 5).round(1)
    cut()
    single = knn(x, 6)
    order = generator.permutation(200)
    batch = knn(np.stack([normal(generator, 200, 5), x[order]]), 6)
    np.testing.assert_array_equal(batch.distances[1], single.distances[order])


def test_only_cpu_and_cuda_are_served():
    assert knn_torch.cannot_serve(torch.device("cpu")) == ""
    assert knn_torch.cannot_serve(torch.device("cuda")) == ""
    assert "float64" in knn_torch.cannot_serve(torch.device("mps"))
