import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ilo_fast import knn
from ilo_fast.errors import HiddenStateError
from ilo_fast.overlap import information_imbalance, neighbor_ranks, second_order_cosine, states


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


def test_strips_of_any_height_give_the_same(monkeypatch):
    x = np.random.default_rng(0).normal(size=(1, 30, 4))
    lists = lists_of(np.random.default_rng(1).normal(size=(30, 3)), 5)
    ranks = neighbor_ranks(lists, x)
    cosine = second_order_cosine(x, x[:, ::-1].copy(), lists, lists)
    monkeypatch.setattr(states, "_STRIP_ENTRIES", 100)
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
