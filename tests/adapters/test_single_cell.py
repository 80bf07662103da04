"""scanpy takes the scikit-learn transformer; scib-metrics a function."""

import numpy as np
import pytest
from adapter_cases import brute_force, hidden_like

pytestmark = pytest.mark.adapters
K = 15


@pytest.fixture(scope="module")
def cells():
    anndata = pytest.importorskip("anndata", reason="anndata is not installed")
    points, group = hidden_like(400, 30)
    data = anndata.AnnData(points)
    data.obs["label"] = np.array([f"type{g}" for g in group])
    data.obs["batch"] = np.array([f"batch{i % 2}" for i in range(400)])
    data.obs = data.obs.astype("category")
    return data


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_scanpy(cells, metric):
    scanpy = pytest.importorskip("scanpy", reason="scanpy is not installed")
    from ilo_fast.adapters.sklearn import KNeighborsTransformer

    ours, theirs = cells.copy(), cells.copy()
    transformer = KNeighborsTransformer(n_neighbors=K, metric=metric)
    scanpy.pp.neighbors(ours, use_rep="X", transformer=transformer)
    scanpy.pp.neighbors(theirs, n_neighbors=K, use_rep="X", metric=metric, transformer="sklearn")
    assert ours.uns["neighbors"]["params"]["n_neighbors"] == K
    difference = ours.obsp["connectivities"] - theirs.obsp["connectivities"]
    assert abs(difference).max() < 2e-3  # float32 distances in scanpy's own search
    distances = ours.obsp["distances"]
    assert (np.diff(distances.indptr) == K + 1).all()
    # every row: the point itself, then its true neighbours
    rows = distances.indices.reshape(400, K + 1)
    np.testing.assert_array_equal(rows[:, 0], np.arange(400))
    np.testing.assert_array_equal(rows[:, 1:], brute_force(cells.X, K, metric))
    scanpy.tl.leiden(ours, flavor="igraph", n_iterations=2, directed=False)
    assert ours.obs["leiden"].nunique() == 6


def test_scib_metrics(cells):
    pytest.importorskip("scib_metrics", reason="scib-metrics is not installed")
    from scib_metrics.benchmark import Benchmarker, BioConservation
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
    results = []
    for computer in (neighbors, None):
        bench = Benchmarker(
            cells,
            batch_key="batch",
            label_key="label",
            embedding_obsm_keys=["embedding"],
            bio_conservation_metrics=BioConservation(
                isolated_labels=False,
                nmi_ari_cluster_labels_leiden=False,
                silhouette_label=False,
                nmi_ari_cluster_labels_kmeans=False,
                clisi_knn=True,
            ),
            batch_correction_metrics=None,
            pre_integrated_embedding_obsm_key="embedding",
            progress_bar=False,
        )
        bench.prepare(neighbor_computer=computer)
        bench.benchmark()
        results.append(float(bench.get_results(min_max_scale=False)["cLISI"].iloc[0]))
    assert results[0] == pytest.approx(results[1], abs=0.01)
