"""umap-learn and, through it, BERTopic."""

import pickle
import warnings

import numpy as np
import pytest
from adapter_cases import brute_force, hidden_like, recall

umap = pytest.importorskip("umap", reason="needs umap-learn: make test-adapters")

from ilo_fast.adapters.umap import precomputed_knn  # noqa: E402

pytestmark = pytest.mark.adapters
K = 12


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_neighbours_are_exact_where_the_default_is_not(metric):
    points, _ = hidden_like(5000, 64, massive=200.0)  # above 4,096 points UMAP approximates
    indices, distances, _ = precomputed_knn(points, K, metric)
    default = umap.umap_.nearest_neighbors(
        points, K, metric, {}, metric == "cosine", np.random.RandomState(0), n_jobs=1
    )
    rows = np.arange(0, 5000, 25)
    truth = brute_force(points, K - 1, metric, rows)
    ours, theirs = recall(indices[rows, 1:], truth), recall(default[0][rows, 1:], truth)
    assert ours == 1.0
    assert ours > theirs
    np.testing.assert_array_equal(indices[:, 0], np.arange(5000))
    np.testing.assert_array_equal(distances[:, 0], 0)
    assert indices.dtype == default[0].dtype
    assert distances.dtype == np.float32


def fit(points, metric, **arguments):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        warnings.filterwarnings("ignore", message="n_jobs value")  # of its random_state
        return umap.UMAP(
            n_neighbors=K, metric=metric, random_state=0, n_epochs=80, **arguments
        ).fit(points)


@pytest.mark.parametrize("n", [700, 4300])  # below and above its brute-force limit
def test_fit_and_transform(n):
    points, group = hidden_like(n + 60, 32)
    new, new_group, points, group = points[n:], group[n:], points[:n], group[:n]
    model = fit(points, "cosine", precomputed_knn=precomputed_knn(points, K, "cosine"))
    np.testing.assert_array_equal(
        model._knn_indices[:50, 1:], brute_force(points, K - 1, "cosine", np.arange(50))
    )
    embedded = model.embedding_
    centres = np.stack([embedded[group == g].mean(axis=0) for g in range(6)])
    placed = model.transform(new)
    nearest = ((placed[:, None] - centres) ** 2).sum(axis=2).argmin(axis=1)
    assert (nearest == new_group).mean() > 0.95
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_allclose(again.transform(new), placed, rtol=1e-5)


def test_graph_equals_the_default_where_that_is_exact():
    points, _ = hidden_like(600, 16)
    ours = fit(points, "euclidean", precomputed_knn=precomputed_knn(points, K))
    theirs = fit(points, "euclidean")  # brute force below 4,096 points
    assert abs(ours.graph_ - theirs.graph_).max() < 1e-3


@pytest.mark.parametrize(("n", "forced"), [(4100, False), (300, True), (300, False)])
def test_umap_cuts_longer_lists_but_not_of_few_points(n, forced):
    points, _ = hidden_like(n, 16)
    more, enough = (
        fit(
            points,
            "euclidean",
            precomputed_knn=precomputed_knn(points, k),
            force_approximation_algorithm=forced,
        )
        for k in (K + 5, K)
    )
    same = abs(more.graph_ - enough.graph_).max() == 0
    assert same == (n >= 4096 or forced)


def test_hostile_input():
    points, _ = hidden_like(30, 4)
    with pytest.raises(ValueError, match="metric must be"):
        precomputed_knn(points, 5, "manhattan")
    with pytest.raises(ValueError, match="must be 1 to 30"):
        precomputed_knn(points, 31)
    with pytest.raises(TypeError, match="dense"):
        precomputed_knn(np.array([["a", "b"]]), 1)
    with pytest.raises(NotImplementedError):
        precomputed_knn(points, 5)[2].update()


def test_update_is_refused():
    points, _ = hidden_like(300, 8)
    model = umap.UMAP(
        n_neighbors=5, n_epochs=1, init="random", precomputed_knn=precomputed_knn(points, 5)
    ).fit(points)
    with pytest.raises(NotImplementedError, match=r"UMAP\.update needs"):
        model.update(points[:40] + 0.5)


def test_bertopic():
    bertopic = pytest.importorskip("bertopic", reason="needs bertopic: make test-adapters")
    points, group = hidden_like(420, 32)
    texts = [f"topic{g} word{g} number{i % 7}" for i, g in enumerate(group)]
    model = bertopic.BERTopic(
        embedding_model=None,
        umap_model=umap.UMAP(
            n_neighbors=15,
            n_components=5,
            min_dist=0.0,
            metric="cosine",
            random_state=0,
            precomputed_knn=precomputed_knn(points, 15, "cosine"),
        ),
    )
    topics, _ = model.fit_transform(texts, embeddings=points)
    topics = np.array(topics)
    assert len(set(topics)) == 6
    for g in range(6):
        assert len(set(topics[group == g])) == 1
    placed, _ = model.transform(texts[:20], embeddings=points[:20])
    np.testing.assert_array_equal(placed, topics[:20])
