"""scikit-learn's checks, and its own estimators as truth."""

import pickle

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="needs scikit-learn: make test-adapters")

from sklearn import neighbors as theirs
from sklearn.base import clone
from sklearn.cluster import DBSCAN, SpectralClustering
from sklearn.datasets import make_blobs
from sklearn.manifold import TSNE
from sklearn.metrics import adjusted_rand_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

from ilo_fast.adapters.sklearn import KNeighborsTransformer, NearestNeighbors, kneighbors_graph

METRICS = ["cosine", "euclidean", "l2", "minkowski"]


@parametrize_with_checks([KNeighborsTransformer(), NearestNeighbors()])
def test_scikit_learns_own_checks(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def blobs():
    points, labels = make_blobs(240, n_features=24, centers=4, cluster_std=3.0, random_state=0)
    return points, labels


def pair(ours, reference, **parameters):
    return ours(**parameters), reference(**parameters)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_kneighbors_agree(blobs, metric, dtype):
    points, _ = blobs
    points = points.astype(dtype)
    mine, reference = pair(NearestNeighbors, theirs.NearestNeighbors, n_neighbors=7, metric=metric)
    mine.fit(points[:200])
    reference.set_params(algorithm="brute").fit(points[:200].astype(np.float64))
    for queries in (None, points[200:], points[:5], points[::-1][:1]):
        distances, indices = mine.kneighbors(queries)
        if queries is None:
            expected = reference.kneighbors()
        else:
            expected = reference.kneighbors(queries.astype(np.float64))
        np.testing.assert_array_equal(indices, expected[1])
        rounded = max(1e-9, np.finfo(distances.dtype).eps)  # to the dtype they come in, once
        np.testing.assert_allclose(distances, expected[0], rtol=rounded, atol=1e-7)
        assert indices.dtype == np.int64
        np.testing.assert_array_equal(mine.kneighbors(queries, return_distance=False), indices)
    assert mine.n_features_in_ == 24
    assert mine.n_samples_fit_ == 200
    assert mine.effective_metric_ == reference.effective_metric_


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("fitted", ["float16", "float32", "float64", "int64"])
@pytest.mark.parametrize("asked", [None, "float32", "float64", "int64"])
def test_dtypes_are_scikit_learns(metric, fitted, asked):
    points = 5 * np.random.default_rng(0).standard_normal((20, 4))
    queries = None if asked is None else points[:6].astype(asked)
    mine, reference = pair(NearestNeighbors, theirs.NearestNeighbors, n_neighbors=3, metric=metric)
    for model in (mine, reference.set_params(algorithm="brute")):
        model.fit(points.astype(fitted))
    for ours, expected in zip(mine.kneighbors(queries), reference.kneighbors(queries), strict=True):
        assert ours.dtype == expected.dtype
    for mode in ("connectivity", "distance"):
        graphs = [model.kneighbors_graph(queries, mode=mode) for model in (mine, reference)]
        assert graphs[0].dtype == graphs[1].dtype


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("mode", ["connectivity", "distance"])
@pytest.mark.parametrize("include_self", [True, False, "auto"])
def test_graph_agrees(blobs, metric, mode, include_self):
    points, _ = blobs
    arguments = {"mode": mode, "metric": metric, "include_self": include_self}
    mine = kneighbors_graph(points, 6, **arguments)
    reference = theirs.kneighbors_graph(points, 6, **arguments)
    assert type(mine) is type(reference)
    np.testing.assert_array_equal(mine.indptr, reference.indptr)
    np.testing.assert_array_equal(mine.indices, reference.indices)
    # scikit-learn expands |x - y|^2, which leaves about 1e-6 between a point and itself
    np.testing.assert_allclose(mine.data, reference.data, rtol=1e-7, atol=1e-5)


@pytest.mark.parametrize("mode", ["connectivity", "distance"])
def test_transformer_agrees(blobs, mode):
    points, _ = blobs
    mine, reference = pair(
        KNeighborsTransformer, theirs.KNeighborsTransformer, n_neighbors=6, mode=mode
    )
    for step in (lambda t: t.fit_transform(points), lambda t: t.fit(points).transform(points[:9])):
        left, right = step(mine), step(reference)
        assert type(left) is type(right)
        np.testing.assert_array_equal(left.indices, right.indices)
        np.testing.assert_allclose(left.data, right.data, rtol=1e-9, atol=1e-5)
    assert list(mine.get_feature_names_out()[:2]) == [
        "kneighborstransformer0",
        "kneighborstransformer1",
    ]


def test_every_point_heads_its_own_row_even_among_copies():
    """scikit-learn's own row of a copy may name the other copies and not the point."""
    points = np.repeat(np.random.default_rng(0).normal(size=(5, 3)), 8, axis=0)
    graph = KNeighborsTransformer(n_neighbors=3).fit_transform(points)
    np.testing.assert_array_equal(np.diff(graph.indptr), 4)
    np.testing.assert_array_equal(graph.indices[::4], np.arange(40))
    assert graph.data.max() == 0
    neighbours = NearestNeighbors(n_neighbors=3).fit(points).kneighbors(return_distance=False)
    np.testing.assert_array_equal(neighbours[0], [1, 2, 3])
    np.testing.assert_array_equal(neighbours[9], [8, 10, 11])


def test_pickle_and_clone_keep_results_and_drop_the_cached_index(blobs):
    points, _ = blobs
    model = NearestNeighbors(n_neighbors=3, metric="cosine").fit(points)
    before = model.kneighbors(points[:4])
    assert model._index is not None
    again = pickle.loads(pickle.dumps(model))
    assert again._index is None
    for left, right in zip(before, again.kneighbors(points[:4]), strict=True):
        np.testing.assert_array_equal(left, right)
    assert clone(model).get_params() == model.get_params()
    assert not hasattr(clone(model), "n_samples_fit_")


def test_classifier_pipeline_agrees(blobs):
    points, labels = blobs
    predictions = []
    for transformer in (KNeighborsTransformer, theirs.KNeighborsTransformer):
        pipeline = make_pipeline(
            transformer(n_neighbors=9, mode="distance"),
            KNeighborsClassifier(n_neighbors=5, metric="precomputed"),
        )
        predictions.append(pipeline.fit(points[::2], labels[::2]).predict(points[1::2]))
    np.testing.assert_array_equal(*predictions)


def test_dbscan_and_spectral_clustering_agree(blobs):
    points, labels = blobs
    radius = 15.0
    found = []
    for transformer in (KNeighborsTransformer, theirs.KNeighborsTransformer):
        graph = transformer(n_neighbors=30, mode="distance").fit_transform(points)
        found.append(DBSCAN(eps=radius, metric="precomputed").fit_predict(graph))
        affinity = transformer(n_neighbors=70, mode="connectivity").fit_transform(points)
        clusters = SpectralClustering(
            4, affinity="precomputed", assign_labels="cluster_qr", random_state=0
        ).fit_predict(0.5 * (affinity + affinity.T))
        assert adjusted_rand_score(labels, clusters) > 0.95
        found.append(clusters)
    np.testing.assert_array_equal(found[0], found[2])
    assert adjusted_rand_score(found[1], found[3]) == 1.0  # clusters may be numbered otherwise


def test_tsne_pipeline_agrees(blobs):
    points, _ = blobs
    embedded = [
        make_pipeline(
            transformer(n_neighbors=25, mode="distance"),
            TSNE(metric="precomputed", init="random", perplexity=6, max_iter=250, random_state=0),
        ).fit_transform(points[:60])
        for transformer in (KNeighborsTransformer, theirs.KNeighborsTransformer)
    ]
    np.testing.assert_allclose(*embedded, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"metric": "manhattan"}, "metric must be cosine"),
        ({"metric": "minkowski", "p": 3}, "metric must be cosine"),
        ({"metric": "euclidean", "metric_params": {"w": [1.0]}}, "metric must be cosine"),
    ],
)
def test_other_metrics_are_refused(blobs, parameters, message):
    with pytest.raises(ValueError, match=message):
        NearestNeighbors(**parameters).fit(blobs[0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"include_self": "no"}, "include_self must be True, False or 'auto'; got 'no'"),
        ({"include_self": None}, "include_self must be"),
        ({"mode": "distances"}, "mode must be one of connectivity, distance; got 'distances'"),
    ],
)
def test_a_graph_with_options_that_mean_nothing(blobs, arguments, message):
    for function in (theirs.kneighbors_graph, kneighbors_graph):
        with pytest.raises(ValueError, match=r"include_self|mode"):
            function(blobs[0], 3, **arguments)
    with pytest.raises(ValueError, match=message):
        kneighbors_graph(blobs[0], 3, **arguments)


def test_a_graph_of_something_fitted_must_be_asked_for_by_its_metric(blobs):
    points, _ = blobs
    expected = kneighbors_graph(points, 3, metric="cosine", mode="distance")
    for kind in (NearestNeighbors, KNeighborsTransformer):
        model = kind(metric="cosine").fit(points)
        found = kneighbors_graph(model, 3, metric="cosine", mode="distance")
        np.testing.assert_array_equal(found.indices, expected.indices)
        np.testing.assert_array_equal(found.data, expected.data)
        with pytest.raises(ValueError, match="metric must be the fitted X's, 'cosine'"):
            kneighbors_graph(model, 3)
    with pytest.raises(TypeError, match=r"got sklearn\..*NearestNeighbors"):
        kneighbors_graph(theirs.NearestNeighbors().fit(points), 3)
    with pytest.raises(ValueError, match="not fitted"):
        kneighbors_graph(NearestNeighbors(), 3)


def test_numbers_longer_than_float64(blobs):
    points = blobs[0].astype(np.longdouble)
    found = NearestNeighbors(n_neighbors=3).fit(points).kneighbors(points[:9] + 0.1)
    expected = NearestNeighbors(n_neighbors=3).fit(blobs[0]).kneighbors(blobs[0][:9] + 0.1)
    for one, two in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, two)


def test_radius_searches_are_scikit_learns(blobs):
    points, _ = blobs
    mine, reference = pair(NearestNeighbors, theirs.NearestNeighbors, radius=12.0)
    left = mine.fit(points).radius_neighbors(points[:3])
    right = reference.fit(points).radius_neighbors(points[:3])
    for a, b in zip(left[1], right[1], strict=True):
        np.testing.assert_array_equal(np.sort(a), np.sort(b))


def test_cosine_of_copies_and_zeros():
    points = np.array([[1.0, 2.0, 3.0], [2.0, 4.0, 6.0], [0.0, 0.0, 0.0], [3.0, 0.1, 0.0]])
    distances, indices = NearestNeighbors(n_neighbors=2, metric="cosine").fit(points).kneighbors()
    np.testing.assert_array_equal(indices, [[1, 3], [0, 3], [0, 1], [0, 1]])
    np.testing.assert_array_equal(distances[[0, 1, 2], 0], [0, 0, 1])
    graph = KNeighborsTransformer(n_neighbors=1, metric="cosine").fit_transform(points)
    np.testing.assert_array_equal(graph.diagonal(), 0)


@pytest.mark.parametrize("scale", [1e-250, 1e200, 1e307])
def test_distances_of_huge_and_tiny_points(scale):
    x = np.random.default_rng(0).uniform(-1, 1, size=(30, 4))
    expected, lists = NearestNeighbors(n_neighbors=3).fit(x).kneighbors()
    distances, indices = NearestNeighbors(n_neighbors=3).fit(x * scale).kneighbors()
    np.testing.assert_array_equal(indices, lists)
    np.testing.assert_allclose(distances, expected * scale, rtol=1e-12)
