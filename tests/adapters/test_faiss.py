"""`FlatIndex` beside faiss-cpu, and float64 beside both."""

import numpy as np
import pytest

faiss = pytest.importorskip("faiss", reason="needs faiss-cpu: make test-adapters")

from ilo_fast import FlatIndex  # noqa: E402


def truth(queries, points, metric):
    """Float64 values as FAISS reports them, larger is better."""
    queries, points = queries.astype(np.float64), points.astype(np.float64)
    if metric == "inner_product":
        return queries @ points.T
    return -(((queries[:, None] - points[None]) ** 2).sum(axis=2))


def search_both(points, queries, k, metric):
    kind = {"inner_product": faiss.IndexFlatIP, "euclidean": faiss.IndexFlatL2}[metric]
    theirs, ours = kind(points.shape[1]), FlatIndex(points.shape[1], metric)
    for index in (theirs, ours):
        index.add(points[: len(points) // 3])
        index.add(points[len(points) // 3 :])
    assert theirs.ntotal == ours.ntotal == len(points)
    return theirs.search(queries, k), ours.search(queries, k)


@pytest.mark.parametrize("metric", ["inner_product", "euclidean"])
def test_same_results(metric):
    rng = np.random.default_rng(1)
    points = rng.normal(size=(900, 40)).astype(np.float32)
    queries = rng.normal(size=(130, 40)).astype(np.float32)
    (their_values, their_indices), (values, indices) = search_both(points, queries, 9, metric)
    np.testing.assert_array_equal(indices, their_indices)
    np.testing.assert_allclose(values, their_values, rtol=2e-5, atol=2e-5)
    assert values.dtype == their_values.dtype == np.float32
    assert indices.dtype == their_indices.dtype == np.int64


@pytest.mark.parametrize("metric", ["inner_product", "euclidean"])
def test_where_they_differ_float64_agrees_with_us(metric):
    """One massive dimension, as hidden states have, and FAISS's float32 misorders the rest."""
    rng = np.random.default_rng(2)
    points = rng.normal(size=(1500, 64)).astype(np.float32)
    queries = rng.normal(size=(200, 64)).astype(np.float32)
    points[:, 0], queries[:, 0] = 3000, 3000 if metric == "inner_product" else -3000
    (_, theirs), (_, ours) = search_both(points, queries, 5, metric)
    value = truth(queries, points, metric)
    best = np.sort(value, axis=1)[:, ::-1][:, :5]
    np.testing.assert_allclose(np.take_along_axis(value, ours, axis=1), best, rtol=1e-13)
    lost = best - np.take_along_axis(value, theirs, axis=1)
    wrong = (lost > 1e-10 * np.abs(best)).any(axis=1)
    assert wrong.mean() > 0.05  # provably worse, not merely tied
    same = ours[~wrong] == theirs[~wrong]  # of the rows that FAISS has right, if any
    assert same.sum() >= 0.99 * same.size


def test_equal_points_come_by_index():
    points = np.tile(np.random.default_rng(3).normal(size=(4, 8)), (5, 1)).astype(np.float32)
    index = FlatIndex(8, "euclidean")
    index.add(points)
    _, indices = index.search(points[:4], 5)
    np.testing.assert_array_equal(indices, np.arange(4)[:, None] + np.arange(0, 20, 4))


@pytest.mark.parametrize("metric", ["inner_product", "euclidean"])
def test_more_than_all_is_filled_up(metric):
    points = np.eye(3, dtype=np.float32)
    (their_values, their_indices), (values, indices) = search_both(points, points, 5, metric)
    np.testing.assert_array_equal(indices[:, 3:], their_indices[:, 3:])
    np.testing.assert_array_equal(values[:, 3:], their_values[:, 3:])
