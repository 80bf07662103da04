import numpy as np
import pytest
import torch
from hostile_points import CASES, antipodes
from hypothesis import given, settings
from hypothesis import strategies as st

from ilo_fast import knn
from ilo_fast.errors import HiddenStateError
from ilo_fast.ops.exact import pair_values, tie_error
from ilo_fast.ops.points import prepare_points
from ilo_fast.overlap import information_imbalance, neighbor_ranks, second_order_cosine, states
from ilo_fast.vectors import magnitudes


def cosine_distances(x):
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    return 1 - unit @ unit.T


def distances(x, metric):
    if metric == "cosine":
        return cosine_distances(x)
    if metric == "euclidean":
        return np.linalg.norm(x[:, None] - x, axis=2)
    return -x @ x.T


def lists_of(x, k, metric="cosine"):
    d = distances(x, metric)
    np.fill_diagonal(d, np.inf)
    return np.argsort(d, axis=1, kind="stable")[:, :k]


def test_ranks_by_hand():
    # points on a line at 0 1 3 7: from 0: 1 2 3, from 1: 0 2 3, from 2 (3): 1 0 3, from 3: 2 1 0
    x = [[0.0], [1.0], [3.0], [7.0]]
    ranks = neighbor_ranks([[1, 3], [2, 0], [0, 1], [0, 2]], x, metric="euclidean")
    np.testing.assert_array_equal(ranks, [[[1, 3], [2, 1], [2, 1], [3, 1]]])
    # Δ: nearest in A at ranks 1 2 2 3 in B: 2 / 4 · 8 / 4 = 1
    value = information_imbalance([[1], [2], [0], [0]], x, metric="euclidean")
    np.testing.assert_allclose(value, [1.0])


@settings(max_examples=40, deadline=None)
@given(
    st.integers(4, 30),
    st.integers(1, 5),
    st.sampled_from(["cosine", "euclidean", "inner_product"]),
    st.integers(0, 2**32 - 1),
)
def test_ranks_against_a_full_sort(n, d, metric, seed):
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(n, d)) + 2
    k = int(generator.integers(1, n))
    order = lists_of(x, n - 1, metric)
    expected = np.empty((n, n), dtype=int)
    np.put_along_axis(expected, order, np.arange(1, n)[None].repeat(n, 0), axis=1)
    chosen = np.stack([generator.choice(np.delete(np.arange(n), i), k, False) for i in range(n)])
    if d == 1 and metric != "euclidean":
        return  # on a line through 0 all cosines are 1 or -1: ties, tested below
    got = neighbor_ranks(chosen, x, metric=metric)
    np.testing.assert_array_equal(got[0], np.take_along_axis(expected, chosen, axis=1))


def test_ties_rank_by_index_however_the_product_rounds():
    generator = np.random.default_rng(0)
    row = generator.normal(size=300)
    lengths = generator.uniform(0.1, 9, size=20)
    x = np.concatenate([row * lengths[:, None], generator.normal(size=(5, 300))])
    everyone = np.stack([np.delete(np.arange(25), i) for i in range(25)])
    ranks = neighbor_ranks(everyone, x)[0]
    for i in range(20):  # the 19 other copies come first, by index
        np.testing.assert_array_equal(ranks[i, :19], np.arange(1, 20))


@pytest.mark.parametrize("metric", ["cosine", "euclidean", "inner_product"])
def test_a_space_keeps_its_own_neighbours(metric):
    x = np.random.default_rng(0).normal(size=(2, 40, 6))
    found = knn(x, 4, metric=metric)
    expected = np.arange(1, 5)[None, None].repeat(40, 1).repeat(2, 0)
    np.testing.assert_array_equal(neighbor_ranks(found, x, metric=metric), expected)
    np.testing.assert_allclose(information_imbalance(found, x, metric=metric), [5 / 40] * 2)


def pair_by_pair(x, metric):
    """Whether m comes before j as seen from i, bool [i, m, j], and rows without chains of ties."""
    n = len(x)
    tensor = torch.from_numpy(x)
    points = prepare_points(tensor, magnitudes(tensor), metric)
    assert points.duplicates is None
    rows, cols = torch.cartesian_prod(torch.arange(n), torch.arange(n)).unbind(1)
    value = pair_values(points, rows, cols)
    error = tie_error(points, value, rows, cols).view(n, n).numpy()
    value = value.view(n, n).numpy()
    apart = value[:, :, None] - value[:, None, :]
    level = np.abs(apart) <= 2 * np.minimum(error[:, :, None], error[:, None, :])
    index = np.arange(n)
    before = np.where(level, index[:, None] < index, apart < 0)
    before[index, index] = False  # not its own neighbour
    return before, ~(level & (apart != 0)).any(axis=(1, 2))


@pytest.mark.parametrize("metric", ["cosine", "euclidean", "inner_product"])
@pytest.mark.parametrize("points", [case for case in CASES if case is not antipodes])  # has copies
def test_a_hostile_space_is_ranked_pair_by_pair(points, metric):
    x = points(np.random.default_rng(1), 80, 7)
    before, whole = pair_by_pair(x, metric)
    found = knn(x, 79, metric=metric)
    ranks = neighbor_ranks(found, x, metric=metric)[0]
    expected = 1 + np.take_along_axis(before.sum(axis=1), found.indices, axis=1)
    np.testing.assert_array_equal(ranks, expected)
    # and as knn orders them, where no chain of ties is to be cut
    np.testing.assert_array_equal(ranks[whole], np.arange(1, 80)[None].repeat(whole.sum(), 0))
    assert whole.any() or points.__name__ == "float64_noise"


@pytest.mark.parametrize("metric", ["cosine", "euclidean", "inner_product"])
@pytest.mark.parametrize("share", [0.3, 0.7, 1.0])
def test_copies_rank_by_index(metric, share):
    generator = np.random.default_rng(2)
    x = generator.normal(size=(90, 6))
    x[generator.random(90) < share] = x[0]
    x[40:44] = 0
    x[50:60] = x[45]
    found = knn(x, 89, metric=metric)
    ranks = neighbor_ranks(found, x, metric=metric)[0]
    np.testing.assert_array_equal(ranks, np.arange(1, 90)[None].repeat(90, 0))


def test_an_outlier_leaves_the_ranks_of_the_others_alone():
    generator = np.random.default_rng(0)
    x = generator.normal(size=(60, 5))
    everyone = np.stack([np.delete(np.arange(60), i) for i in range(60)])
    far = np.concatenate([x, np.full((1, 5), 1e9)])
    with_it = np.concatenate([everyone, np.full((60, 1), 60)], axis=1)
    with_it = np.concatenate([with_it, np.arange(60)[None]])
    ranks = neighbor_ranks(with_it, far, metric="euclidean")[0]
    np.testing.assert_array_equal(
        ranks[:60, :59], neighbor_ranks(everyone, x, metric="euclidean")[0]
    )
    np.testing.assert_array_equal(ranks[:60, 59], 60)


def test_a_zero_vector_ranks_by_index():
    x = np.array([[1.0, 0.0], [0.0, 0.0], [0.5, 0.5], [0.0, 0.0]])
    lists = [[1, 2, 3], [3, 2, 0], [0, 1, 3], [1, 0, 2]]
    np.testing.assert_array_equal(
        neighbor_ranks(lists, x)[0], [[2, 1, 3], [3, 2, 1], [1, 2, 3], [2, 1, 3]]
    )


def test_strips_of_any_height_give_the_same(monkeypatch):
    x = np.random.default_rng(0).normal(size=(1, 30, 4))
    lists = lists_of(np.random.default_rng(1).normal(size=(30, 3)), 5)
    ranks = neighbor_ranks(lists, x)
    cosine = second_order_cosine(x, x[:, ::-1].copy(), lists, lists)
    monkeypatch.setitem(states._STRIP_ENTRIES, "cpu", 100)
    np.testing.assert_array_equal(neighbor_ranks(lists, x), ranks)
    again = second_order_cosine(x, x[:, ::-1].copy(), lists, lists)
    np.testing.assert_allclose(again, cosine, rtol=1e-13)


def test_unrelated_spaces_are_at_imbalance_one():
    generator = np.random.default_rng(0)
    lists = lists_of(generator.normal(size=(400, 3)), 1)
    value = information_imbalance(lists, generator.normal(size=(400, 3)))
    assert abs(value[0] - 1) < 5 * 2 / 400 * (400 / 12**0.5) / 400**0.5


@settings(max_examples=40, deadline=None)
@given(st.integers(4, 20), st.integers(1, 3), st.integers(0, 2**32 - 1))
def test_second_order_cosine_against_the_full_distances(n, k, seed):
    generator = np.random.default_rng(seed)
    x, y = generator.normal(size=(n, 3)), generator.normal(size=(n, 5))
    a, b = lists_of(x, k), lists_of(y, k)
    left, right = cosine_distances(x), cosine_distances(y)
    expected = []
    for i in range(n):
        union = sorted({*a[i], *b[i]})
        u, v = left[i, union], right[i, union]
        expected.append(u @ v / np.linalg.norm(u) / np.linalg.norm(v))
    value = second_order_cosine(x, y, a, b)
    np.testing.assert_allclose(value, [np.mean(expected)], rtol=1e-10)
    np.testing.assert_allclose(second_order_cosine(y, x, b, a), value, rtol=1e-10)
    np.testing.assert_allclose(second_order_cosine(x, x, a, a), [1], rtol=1e-12)


def test_second_order_cosine_of_copies():
    # all neighbours at distance 0 in x: cosine 1 with itself, 0 with a space that sets them apart
    x = [[1.0, 0.0]] * 3
    y = [[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]
    lists = [[1, 2], [0, 2], [0, 1]]
    np.testing.assert_array_equal(second_order_cosine(x, x, lists, lists), [1])
    np.testing.assert_array_equal(second_order_cosine(x, y, lists, lists), [0])
    # copies at other scales too, however their normalisation rounds
    row = np.random.default_rng(0).normal(size=50)
    scaled = np.stack([row, 3 * row, 0.7 * row])
    np.testing.assert_array_equal(second_order_cosine(x, scaled, lists, lists), [1])


X = np.random.default_rng(0).normal(size=(4, 3))
GOOD = [[1], [0], [3], [2]]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: neighbor_ranks(GOOD, X, metric="manhattan"), "metric"),
        (lambda: neighbor_ranks([[0], [0], [3], [2]], X), "its own neighbour"),
        (lambda: neighbor_ranks(GOOD, X[:3]), "layers and points"),
        (lambda: information_imbalance([GOOD] * 2, X), "layers and points"),
        (lambda: neighbor_ranks(GOOD, np.ones((4, 3), dtype=int)), "floating"),
        (lambda: second_order_cosine(X, X, GOOD, [[1, 2]] * 4), "same points and k"),
        (lambda: second_order_cosine(X, X[:3], GOOD, GOOD), "y must have"),
        (lambda: second_order_cosine([X, X], X, [GOOD] * 2, GOOD), "same layers"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_nan_names_its_row():
    bad = X.copy()
    bad[2, 1] = np.nan
    with pytest.raises(HiddenStateError, match="layer 0, row 2"):
        neighbor_ranks(GOOD, bad)
