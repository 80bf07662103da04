"""Queries in another set of points, against brute force in float64."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ilo_fast import FlatIndex, knn
from ilo_fast.errors import HiddenStateError
from ilo_fast.ops import knn_queries

METRICS = ["cosine", "euclidean", "inner_product"]


def distances(queries, points, metric):
    """Brute force in long double."""
    q, p = queries.astype(np.longdouble), points.astype(np.longdouble)
    if metric == "euclidean":
        return np.sqrt(((q[:, None] - p[None]) ** 2).sum(axis=2))
    if metric == "inner_product":
        return -(q @ p.T)
    lengths = np.sqrt((q**2).sum(1))[:, None] * np.sqrt((p**2).sum(1))
    return 1 - np.divide(q @ p.T, lengths, out=np.zeros_like(lengths), where=lengths > 0)


def index_of(points, metric, parts=1):
    index = FlatIndex(points.shape[1], metric)
    for part in np.array_split(points, parts):
        index.add(part)
    return index


def assert_right(found, expected, k):
    """The k smallest of each row in order, up to what float64 cannot tell apart."""
    picked = np.take_along_axis(expected, np.asarray(found.indices), axis=1)
    best = np.sort(expected, axis=1)[:, :k]
    scale = np.abs(expected).max() + 1e-300
    assert np.abs(picked - best).max() <= 1e-13 * scale
    assert np.abs(found.distances - best).max() <= 1e-6 * scale
    assert all(len(set(row)) == k for row in np.asarray(found.indices).tolist())
    assert np.asarray(found.certified).all()


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(("n", "m", "d", "k"), [(1, 3, 1, 1), (40, 7, 5, 40), (2500, 300, 24, 6)])
def test_against_brute_force(metric, n, m, d, k):
    rng = np.random.default_rng(n)
    points = rng.normal(size=(n, d)) + 5 * rng.normal(size=d)
    queries = rng.normal(size=(m, d)) + 4
    found = index_of(points, metric, parts=3 if n > 3 else 1).neighbors(queries, k)
    assert_right(found, distances(queries, points, metric), k)
    assert found.indices.dtype == np.int64
    assert found.distances.dtype == np.float32


@settings(max_examples=60, deadline=None)
@given(
    metric=st.sampled_from(METRICS),
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(1, 60),
    m=st.integers(1, 12),
    d=st.integers(1, 6),
    levels=st.integers(1, 4),
    apart=st.sampled_from([0, 1, 20, 100, -100]),
)
def test_copies_zeros_and_scales(metric, seed, n, m, d, levels, apart):
    """Few distinct values make copies, zero rows and ties; queries far larger or smaller."""
    rng = np.random.default_rng(seed)
    points = rng.integers(-levels, levels + 1, size=(n, d)).astype(np.float64)
    queries = rng.integers(-levels, levels + 1, size=(m, d)) * 2.0**apart
    k = int(rng.integers(1, n + 1))
    found = index_of(points, metric).neighbors(queries, k)
    expected = distances(queries, points, metric)
    assert_right(found, expected, k)
    # equal points come by index
    same = (found.distances[:, 1:] == found.distances[:, :-1]) & (
        points[found.indices[:, 1:]] == points[found.indices[:, :-1]]
    ).all(axis=2)
    assert (found.indices[:, 1:] > found.indices[:, :-1])[same].all()


@pytest.mark.parametrize("metric", METRICS)
def test_one_far_query_spoils_nothing(metric):
    rng = np.random.default_rng(0)
    points, queries = rng.normal(size=(3000, 16)), rng.normal(size=(150, 16))
    queries[7] *= 1e15
    found = index_of(points, metric).neighbors(queries, 4)
    near = np.delete(np.arange(150), 7)
    expected = distances(queries, points, metric)
    for rows in (near, [7]):
        picked = np.take_along_axis(expected[rows], found.indices[rows], axis=1)
        best = np.sort(expected[rows], axis=1)[:, :4]
        assert np.abs(picked - best).max() <= 1e-13 * np.abs(expected[rows]).max()


@pytest.mark.parametrize("metric", METRICS)
def test_agrees_with_knn_on_its_own_points(metric):
    points = np.random.default_rng(0).normal(size=(700, 12)).astype(np.float32)
    points[50:60] = points[40]
    index = index_of(points, metric)
    own = knn(points, 6, metric=metric, exclude_self=False)
    found = index.neighbors(points, 6)
    np.testing.assert_array_equal(found.indices, own.indices)
    np.testing.assert_array_equal(found.distances, own.distances)


@pytest.mark.parametrize("crowd", [1e3, 1e6])
def test_crowded_points_take_the_float64_path(crowd):
    """All similarities nearly equal: float32 decides nothing, the result is right all the same."""
    rng = np.random.default_rng(0)
    points, queries = rng.normal(size=(2000, 32)), rng.normal(size=(64, 32))
    queries[:, 0] += crowd * 1e4
    found = index_of(points, "euclidean").neighbors(queries, 3)
    expected = ((queries[:, None].astype(np.longdouble) - points[None]) ** 2).sum(axis=2)
    picked = np.take_along_axis(expected, found.indices, axis=1)
    best = np.sort(expected, axis=1)[:, :3]
    assert ((picked - best) <= 1e-14 * best).all()
    assert found.stats.rows_repaired[0] > 0


def test_results_come_in_kind():
    points = torch.randn(30, 4)
    index = FlatIndex(4, "cosine")
    index.add(points)
    values, indices = index.search(points[:2], 3)
    assert isinstance(values, torch.Tensor)
    assert isinstance(indices, torch.Tensor)
    values, indices = index.search(points[:2].numpy(), 3)
    assert isinstance(values, np.ndarray)
    np.testing.assert_array_equal(indices[:, 0], [0, 1])
    np.testing.assert_allclose(values[:, 0], 1.0)


def test_adding_copies_and_may_mix_dtypes():
    memory = np.eye(3, dtype=np.float16)
    index = FlatIndex(3, "inner_product")
    index.add(memory)
    memory[:] = 7
    index.add(np.full((1, 3), 0.1))
    values, indices = index.search(np.ones((1, 3)), 4)
    np.testing.assert_array_equal(indices, [[0, 1, 2, 3]])
    np.testing.assert_allclose(values, [[1, 1, 1, 0.3]], rtol=1e-6)
    index.reset()
    assert index.ntotal == 0
    assert index.search(np.ones((1, 3)), 1)[1].tolist() == [[-1]]


def test_squared_distances_are_rounded_once():
    rng = np.random.default_rng(5)
    base, queries = (rng.integers(-50, 50, size=(n, 6)).astype(np.float32) for n in (300, 20))
    index = FlatIndex(6, "euclidean")
    index.add(base)
    values, indices = index.search(queries, 7)
    truth = np.square(base[indices].astype(np.int64) - queries[:, None].astype(np.int64)).sum(2)
    np.testing.assert_array_equal(values, truth)


def test_cosines_near_zero_keep_their_digits():
    index = index_of(np.array([[1.0, 0.0], [3e-9, 3.0], [-1e-12, 1.0], [0.0, 5.0]]), "cosine")
    values, indices = index.search(np.array([[2.0, 0.0]]), 4)
    assert indices.tolist() == [[0, 1, 3, 2]]
    np.testing.assert_allclose(values, [[1.0, 1e-9, 0.0, -1e-12]], atol=2e-16, rtol=0)


@pytest.mark.parametrize("metric", ["cosine", "inner_product"])
def test_orthogonal_points_score_plain_zero(metric):
    values, _ = index_of(np.eye(2), metric).search(np.eye(2), 2)
    assert not np.signbit(values).any()
    distances = index_of(np.eye(2), metric).neighbors(np.eye(2), 2).distances
    assert not np.signbit(distances[:, 1]).any()


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("far", [[1e30], [1e300], [1e100, 1e200, 1e300], [1e-300]])
def test_queries_far_out_change_nothing_for_the_others(metric, far):
    rng = np.random.default_rng(3)
    base, queries = rng.normal(size=(400, 16)), rng.normal(size=(40, 16))
    queries[3 : 3 + len(far)] *= np.array(far)[:, None]
    index = FlatIndex(16, metric)
    index.add(base)
    values, indices = index.search(queries, 5)
    for row, query in enumerate(queries):
        alone = index.search(query[None], 5)
        np.testing.assert_array_equal(indices[row], alone[1][0])
        np.testing.assert_array_equal(values[row], alone[0][0])
        if abs(query).max() < 1e10 or metric != "euclidean":
            if metric != "euclidean":
                query = query / abs(query).max()  # orders nothing; its squares stay in range
            lengths = np.linalg.norm(base, axis=1)
            score = {
                "cosine": base @ query / lengths,
                "inner_product": base @ query,
                "euclidean": -((base - query) ** 2).sum(axis=1),
            }
            np.testing.assert_array_equal(indices[row], np.argsort(-score[metric])[:5])


@pytest.mark.parametrize(("exponent", "order"), [(-480, [2, 1]), (-490, [1, 2])])
def test_where_points_near_a_query_are_told_apart(exponent, order):
    """docs/exactness.md, section 8: down to 2^-484 of the base's largest magnitude."""
    base = np.array([1.0, 2.0**exponent, 2.0 ** (exponent - 1)])[:, None]
    found = index_of(base, "euclidean").neighbors(np.zeros((1, 1)), 2)
    assert found.indices.tolist() == [order]


def test_a_query_of_zeros_is_not_searched_with_the_far_ones():
    index = index_of(np.array([[3e-300], [1e-300], [2e-300]]), "euclidean")
    found = index.neighbors(np.array([[0.0], [1.0]]), 3)
    assert found.indices.tolist() == [[1, 2, 0], [0, 1, 2]]


@pytest.mark.parametrize("scale", [1e-300, 1e-150, 1.0, 1e150])
def test_inner_products_of_small_points_and_large_queries(scale):
    rng = np.random.default_rng(4)
    base, queries = rng.normal(size=(300, 8)), rng.normal(size=(20, 8))
    index = FlatIndex(8, "inner_product")
    index.add(base * scale)
    values, indices = index.search(np.concatenate([queries / scale, 2 * queries / scale]), 4)
    truth = queries @ base.T
    expected = np.argsort(-truth, axis=1)[:, :4]
    np.testing.assert_array_equal(indices, np.concatenate([expected, expected]))
    best = np.take_along_axis(truth, expected, axis=1)
    np.testing.assert_allclose(values, np.concatenate([best, 2 * best]), rtol=1e-6)


@pytest.mark.parametrize("metric", METRICS)
def test_many_queries_are_prepared_in_parts(metric, monkeypatch):
    """Memory beside the results stays bounded, and no list depends on the parts."""
    rng = np.random.default_rng(8)
    index = index_of(rng.normal(size=(500, 12)).astype(np.float32), metric)
    queries = rng.normal(size=(300, 12)).astype(np.float32)
    queries[60] *= np.float32(1e30)
    queries[100:140] = queries[7]
    whole, most = index.neighbors(queries, 5), []
    prepared = knn_queries.prepare_points

    def counted(x, *arguments, **options):
        most.append(len(x))
        return prepared(x, *arguments, **options)

    monkeypatch.setattr(knn_queries, "prepare_points", counted)
    monkeypatch.setitem(knn_queries._TOGETHER, "cpu", 40 * 12)
    parts = index.neighbors(queries, 5)
    asked = [length for length in most if length != index.ntotal]  # the base may be scaled anew
    assert max(asked) <= 40
    assert sum(asked) == 300
    np.testing.assert_array_equal(parts.indices, whole.indices)
    np.testing.assert_array_equal(parts.distances, whole.distances)
    assert parts.stats.rows_repaired == whole.stats.rows_repaired


def test_padding_lies_below_inner_products_of_points_far_from_0():
    """Base points within 2^-60 of each other, many dimensions, a query opposite to their mean."""
    d = 100_000
    base = torch.full((40, d), 0.75, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    base[:, ::2] = torch.randn(40, d // 2, dtype=torch.float64, generator=generator) * 2.0**-70
    queries = base[:3].clone()
    queries[:, 1::2] -= 1.3 * 2.0**-21 / d**0.5
    found = index_of(base, "inner_product").neighbors(queries, 5)
    assert found.indices.tolist() == [[0, 1, 2, 3, 4]] * 3  # all level, to rounding


def test_searches_between_additions():
    index = FlatIndex(1, "euclidean")
    for value in (3.0, 2.0, 1.0):
        index.add(np.array([[value]]))
        assert index.search(np.zeros((1, 1)), 1)[0].tolist() == [[value**2]]
    assert index.search(np.zeros((0, 1)), 2)[1].shape == (0, 2)


def test_adding_no_points_adds_none():
    index = FlatIndex(2)
    index.add(np.zeros((0, 2)))
    index.add(np.eye(2))
    index.add(np.zeros((0, 2)))
    assert index.ntotal == 2
    assert index.search(np.eye(2), 1)[1].tolist() == [[0], [1]]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: FlatIndex(0), ValueError, "d must be at least 1"),
        (lambda: FlatIndex(2.0), TypeError, "d must be an integer"),
        (lambda: FlatIndex(2, "manhattan"), ValueError, "metric must be one of"),
        (lambda: FlatIndex(2).add(np.ones((3, 3))), ValueError, r"x must be \[n, 2\]"),
        (lambda: FlatIndex(2).add(np.full((1, 2), np.nan)), HiddenStateError, "row 0"),
        (lambda: FlatIndex(2).add([[1.0, 2.0]]), TypeError, "x must be a torch tensor"),
        (lambda: FlatIndex(2).search(np.ones(2), 1), ValueError, r"queries must be \[n, 2\]"),
        (lambda: FlatIndex(2).search(np.ones((1, 2)), 0), ValueError, "k must be at least 1"),
        (lambda: FlatIndex(2).search(np.ones((1, 2)), 1.5), TypeError, "k must be an integer"),
        (lambda: FlatIndex(2).neighbors(np.ones((1, 2)), 1), ValueError, "ntotal = 0"),
        (
            lambda: index_of(np.ones((1, 2)), "cosine").search(np.full((1, 2), np.inf), 1),
            HiddenStateError,
            "infinity in row 0",
        ),
    ],
)
def test_hostile_input(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("metric", METRICS)
def test_points_and_queries_of_inference_mode(metric):
    points = torch.from_numpy(np.random.default_rng(0).normal(size=(300, 8)))
    expected = index_of(points, metric).search(points[:20], 4)
    index = FlatIndex(8, metric)
    with torch.inference_mode():
        index.add(points * 1)
        inside = index.search(points[:20] * 1, 4)
    for values, indices in (inside, index.search(points[:20], 4)):
        assert torch.equal(values, expected[0])
        assert torch.equal(indices, expected[1])
