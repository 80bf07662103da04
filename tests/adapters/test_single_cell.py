"""scanpy takes the scikit-learn transformer; scib-metrics a function."""

import numpy as np
import pytest
from adapter_cases import brute_force, hidden_like

pytestmark = pytest.mark.adapters
K = 15


@pytest.fixture(scope="module")
def cells():
    anndata = pytest.importorskip("anndata", reason="needs anndata: make test-adapters")
    points, group = hidden_like(400, 30)
    data = anndata.AnnData(points)
    data.obs["label"] = np.array([f"type{g}" for g in group])
    data.obs["batch"] = np.array([f"batch{i % 2}" for i in range(400)])
    data.obs = data.obs.astype("category")
    return data


def exact_connectivities(points, metric):
    """UMAP's weights from float64 neighbours and distances."""
    from scipy.sparse import coo_matrix
    from umap.umap_ import fuzzy_simplicial_set

    n = len(points)
    near = np.c_[np.arange(n), brute_force(points, K - 1, metric)]
    z = points.astype(np.float64)
    if metric == "cosine":
        z /= np.linalg.norm(z, axis=1, keepdims=True)
    distances = np.linalg.norm(z[:, None] - z[near], axis=2)
    if metric == "cosine":
        distances = distances**2 / 2
    empty = coo_matrix(([], ([], [])), shape=(n, 1))
    return fuzzy_simplicial_set(
        empty,
        K,
        None,
        None,
        knn_indices=near,
        knn_dists=distances.astype(np.float32),
        set_op_mix_ratio=1.0,
        local_connectivity=1.0,
    )[0]


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_scanpy(cells, metric):
    scanpy = pytest.importorskip("scanpy", reason="needs scanpy: make test-adapters")
    from ilo_fast.adapters.sklearn import KNeighborsTransformer

    ours, theirs = cells.copy(), cells.copy()
    transformer = KNeighborsTransformer(n_neighbors=K, metric=metric)
    scanpy.pp.neighbors(ours, use_rep="X", transformer=transformer)
    scanpy.pp.neighbors(theirs, n_neighbors=K, use_rep="X", metric=metric, transformer="sklearn")
    assert ours.uns["neighbors"]["params"]["n_neighbors"] == K
    expected = exact_connectivities(cells.X, metric)
    assert abs(ours.obsp["connectivities"] - expected).max() < 1e-4
    assert abs(theirs.obsp["connectivities"] - expected).max() < 5e-3  # float32 distances
    distances = ours.obsp["distances"]
    assert (np.diff(distances.indptr) == K + 1).all()
    # every row: the point itself, then its true neighbours
    rows = distances.indices.reshape(400, K + 1)
    np.testing.assert_array_equal(rows[:, 0], np.arange(400))
    np.testing.assert_array_equal(rows[:, 1:], brute_force(cells.X, K, metric))
    scanpy.tl.leiden(ours, flavor="igraph", n_iterations=2, directed=False)
    assert ours.obs["leiden"].nunique() == 6


def test_scib_metrics(cells):
    pytest.importorskip("scib_metrics", reason="needs scib-metrics: make test-adapters")
    from scib_metrics import clisi_knn
    from scib_metrics.benchmark import Benchmarker
    from scib_metrics.nearest_neighbors import pynndescent

    from ilo_fast.adapters.scib_metrics import neighbors

    found, default = neighbors(cells.X, K), pynndescent(cells.X, K, random_state=0)
    truth = brute_force(cells.X, K - 1, "euclidean")
    np.testing.assert_array_equal(found.indices[:, 0], np.arange(400))
    np.testing.assert_array_equal(found.indices[:, 1:], truth)
    assert found.indices.shape == default.indices.shape
    same = found.indices == default.indices
    np.testing.assert_allclose(found.distances[same], default.distances[same], rtol=1e-3, atol=0.05)

    cells = cells.copy()
    cells.obsm["embedding"] = np.asarray(cells.X)
    bench = Benchmarker(
        cells,
        batch_key="batch",
        label_key="label",
        embedding_obsm_keys=["embedding"],
        pre_integrated_embedding_obsm_key="embedding",
        progress_bar=False,
    )
    bench.prepare(neighbor_computer=neighbors)
    prepared = bench._emb_adatas["embedding"].uns["15_neighbor_res"]
    np.testing.assert_array_equal(prepared.indices, found.indices)
    # every cell's neighbours are of its own type here, so the best score, 1
    assert clisi_knn(prepared, cells.obs["label"].cat.codes.to_numpy()) == pytest.approx(
        1, abs=0.01
    )
