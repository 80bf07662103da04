"""Tools that take neighbour lists from us, as workloads: their lists and ours beside float64's."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from benchmarks.data import synthetic_states
from benchmarks.registry import Contender, Workload
from ilo_fast import FlatIndex

__all__ = ["faiss", "metric_learning", "points", "scanpy", "scib", "sklearn", "umap"]


def points(n: int, d: int) -> np.ndarray[Any, Any]:
    """Synthetic states, float32 ``[n, d]``."""
    return synthetic_states(10, n // 10, d)


def _truth(x: np.ndarray[Any, Any], k: int, metric: str) -> tuple[Any, Any]:
    """Some rows and their k nearest others in float64."""
    rows = np.random.default_rng(0).permutation(len(x))[:500]
    z = x.astype(np.float64)
    if metric == "cosine":
        z /= np.linalg.norm(z, axis=1, keepdims=True)
    z -= z.mean(axis=0)
    distance = 0.5 * (z**2).sum(axis=1) - z[rows] @ z.T
    distance[np.arange(len(rows)), rows] = np.inf
    return rows, np.argsort(distance, axis=1)[:, :k]


def _rows_right(lists: Any, rows: Any, truth: Any) -> dict[str, float]:
    """Share of rows whose neighbour set is float64's, by the lists without self."""
    same = np.sort(np.asarray(lists)[rows], axis=1) == np.sort(truth, axis=1)
    return {"rows_right": float(same.all(axis=1).mean())}


def _lists_workload(
    name: str,
    tool: str,
    x: np.ndarray[Any, Any],
    k: int,
    metric: str,
    theirs: Callable[[], Any],
    ours: Callable[[], Any],
) -> Workload:
    """Two ways to the lists ``[n, k]`` without self, checked against float64."""
    rows, truth = _truth(x, k, metric)

    def check(contender: Contender, answer: Any) -> dict[str, Any]:
        facts = _rows_right(answer, rows, truth)
        if contender.ours and facts["rows_right"] < 1:
            raise AssertionError(f"{name}: {facts}")
        return facts

    describe = f"N = {len(x)}, d = {x.shape[1]}, k = {k}, {metric}"
    contenders = (Contender("ilo_fast", ours, ours=True), Contender(tool, theirs))
    return Workload(name, describe, contenders, check)


def sklearn(shrink: int, threads: int) -> Workload:
    from sklearn.neighbors import NearestNeighbors as Theirs
    from threadpoolctl import threadpool_limits

    from ilo_fast.adapters.sklearn import NearestNeighbors

    x = points(8000 // shrink, 384)

    def run(kind: Any, **parameters: Any) -> Any:
        with threadpool_limits(threads):
            model = kind(n_neighbors=5, metric="cosine", **parameters).fit(x)
            return model.kneighbors(return_distance=False)

    return _lists_workload(
        "sklearn",
        "scikit-learn, brute",
        x,
        5,
        "cosine",
        lambda: run(Theirs, algorithm="brute"),
        lambda: run(NearestNeighbors),
    )


def faiss(shrink: int, threads: int) -> Workload:
    import faiss as package

    package.omp_set_num_threads(threads)
    x = points(12_000 // shrink, 384)
    queries = x[::4] + np.float32(0.01)
    z, asked = x.astype(np.float64), queries.astype(np.float64)[:500]
    truth = np.argsort(-asked @ z.T, axis=1)[:, :10]
    rows = np.arange(len(truth))

    def run(kind: Any) -> Any:
        index = kind(384)
        index.add(x)
        return index.search(queries, 10)[1]

    def check(contender: Contender, answer: Any) -> dict[str, Any]:
        facts = _rows_right(answer, rows, truth)
        if contender.ours and facts["rows_right"] < 1:
            raise AssertionError(f"faiss: {facts}")
        return facts

    return Workload(
        "faiss",
        f"{len(queries)} queries among N = {len(x)}, d = 384, k = 10, inner_product",
        (
            Contender("ilo_fast", lambda: run(FlatIndex), ours=True),
            Contender("IndexFlatIP", lambda: run(package.IndexFlatIP)),
        ),
        check,
    )


def umap(shrink: int, threads: int) -> Workload:
    from umap.umap_ import nearest_neighbors

    from ilo_fast.adapters.umap import precomputed_knn

    x = points(8000 // shrink, 384)

    def theirs() -> Any:
        state = np.random.RandomState(0)
        return nearest_neighbors(x, 15, "cosine", {}, True, state, n_jobs=threads)[0][:, 1:]

    return _lists_workload(
        "umap",
        "umap-learn's own (approximate)",
        x,
        14,
        "cosine",
        theirs,
        lambda: precomputed_knn(x, 15, "cosine")[0][:, 1:],
    )


def scib(shrink: int, threads: int) -> Workload:
    from scib_metrics.nearest_neighbors import pynndescent

    from ilo_fast.adapters.scib_metrics import neighbors

    x = points(4000 // shrink, 50)
    return _lists_workload(
        "scib",
        "scib-metrics' pynndescent",
        x,
        89,
        "euclidean",
        lambda: pynndescent(x, 90, random_state=0, n_jobs=threads).indices[:, 1:],
        lambda: neighbors(x, 90).indices[:, 1:],
    )


def metric_learning(shrink: int, threads: int) -> Workload:
    import faiss as package
    from pytorch_metric_learning.utils.inference import FaissKNN

    from ilo_fast.adapters.pytorch_metric_learning import ExactKNN

    package.omp_set_num_threads(threads)
    x = points(8000 // shrink, 384)
    embeddings = torch.from_numpy(x)
    return _lists_workload(
        "metric_learning",
        "FaissKNN",
        x,
        10,
        "euclidean",
        lambda: FaissKNN()(embeddings, 10, embeddings, True)[1].numpy(),
        lambda: ExactKNN()(embeddings, 10, embeddings, True)[1].numpy(),
    )


def scanpy(shrink: int, threads: int) -> Workload:
    """The whole of ``sc.pp.neighbors``, which counts a cell as its own first neighbour."""
    import anndata
    import scanpy as package
    from threadpoolctl import threadpool_limits

    from ilo_fast.adapters.sklearn import KNeighborsTransformer

    k = 15
    x = points(8_000 // shrink, 50)  # above 8,192 cells its default is approximate

    def run(**arguments: Any) -> Any:
        cells = anndata.AnnData(x)
        with threadpool_limits(threads):
            package.pp.neighbors(cells, use_rep="X", random_state=0, **arguments)
        near = cells.obsp["distances"].indices.reshape(len(x), -1)  # each row nearest first
        first = int(near[0, 0] == 0)  # ours begin with the cell itself
        return near[:, first : first + k - 1]

    return _lists_workload(
        "scanpy",
        "scanpy's default",
        x,
        k - 1,
        "euclidean",
        lambda: run(n_neighbors=k),
        lambda: run(transformer=KNeighborsTransformer(n_neighbors=k)),
    )
