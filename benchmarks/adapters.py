"""Foreign tools as they come and with our neighbours in them, on the CPU."""

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module, metadata
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch

import click
import numpy as np
import torch
from rich.console import Console

from benchmarks.data import synthetic_states
from benchmarks.registry import Contender, Workload, compare
from benchmarks.report import describe_run, print_workload, write_json
from ilo_fast import FlatIndex, knn

_RESULTS = Path(__file__).parent / "results"
_DISTRIBUTIONS = (
    "scikit-learn",
    "umap-learn",
    "scib-metrics",
    "pytorch-metric-learning",
    "calibrated-similarity",
    "dadapy",
    "faiss-cpu",
)


@click.command()
@click.option("--only", multiple=True, help="Names of workloads; all that can run by default.")
@click.option("--threads", type=int, default=2, show_default=True)
@click.option("--rounds", type=int, default=3, show_default=True)
@click.option("--quick", is_flag=True, help="A quarter of the points, one round.")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="JSON file to write; by default results/adapters.json beside this module.",
)
def command(
    only: tuple[str, ...], threads: int, rounds: int, quick: bool, out: Path | None
) -> None:
    """Time every tool that is installed beside itself with our neighbours.

    ILO_FAST_INTERLINGUA, ILO_FAST_PLATONIC and ILO_FAST_RESI name checkouts of tools without a
    package.
    """
    unknown = set(only) - WORKLOADS.keys()
    if unknown:
        raise click.BadParameter(f"no workload {', '.join(unknown)}", param_hint="--only")
    console = Console()
    torch.set_num_threads(threads)
    path = out or _RESULTS / "adapters.json"
    for name in only or WORKLOADS:
        needs, make = WORKLOADS[name]
        missing = [need for need in needs if not _there(need)]
        if missing:
            console.print(f"[dim]{name}: not run, no {', '.join(missing)}[/dim]")
            continue
        result = compare(make(4 if quick else 1, threads), 1 if quick else rounds)
        print_workload(result, console)
        run = describe_run(threads=threads, rounds=rounds, quick=quick)
        run["versions"] |= _versions()
        _add(path, {**result, "run": run})


def _versions() -> dict[str, str]:
    found = {}
    for package in _DISTRIBUTIONS:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def _add(path: Path, result: dict[str, Any]) -> None:
    """Put a workload in the file, in place of an older run of it: tools need environments apart."""
    content = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"workloads": []}
    kept = [old for old in content["workloads"] if old["name"] != result["name"]]
    order = list(WORKLOADS)
    workloads = sorted([*kept, result], key=lambda workload: order.index(workload["name"]))
    write_json(path, {"workloads": workloads})


def _there(need: str) -> bool:
    return need in os.environ if need.startswith("ILO_FAST") else find_spec(need) is not None


def _points(n: int, d: int, languages: int = 10) -> np.ndarray[Any, Any]:
    return synthetic_states(languages, n // languages, d)


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


def _value_workload(
    name: str,
    tool: str,
    describe: str,
    theirs: Callable[[], Any],
    ours: Callable[[], Any],
    tolerance: float = 1e-4,
) -> Workload:
    """Two ways to the same numbers; how far apart they are goes into the file."""
    expected: list[Any] = []

    def check(contender: Contender, answer: Any) -> dict[str, Any]:
        if contender.ours:
            expected.append(answer)
            return {}
        apart = max(abs(float(a) - float(b)) for a, b in zip(answer, expected[0], strict=True))
        if apart > tolerance:
            raise AssertionError(f"{name}: {answer} and {expected[0]}")
        return {"largest_difference": apart}

    contenders = (Contender("ilo_fast", ours, ours=True), Contender(tool, theirs))
    return Workload(name, describe, contenders, check)


def sklearn(shrink: int, threads: int) -> Workload:
    from sklearn.neighbors import NearestNeighbors as Theirs
    from threadpoolctl import threadpool_limits

    from ilo_fast.adapters.sklearn import NearestNeighbors

    x = _points(8000 // shrink, 384)

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
    x = _points(12_000 // shrink, 384)
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

    x = _points(8000 // shrink, 384)

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

    x = _points(4000 // shrink, 50)
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
    x = _points(8000 // shrink, 384)
    points = torch.from_numpy(x)
    return _lists_workload(
        "metric_learning",
        "FaissKNN",
        x,
        10,
        "euclidean",
        lambda: FaissKNN()(points, 10, points, True)[1].numpy(),
        lambda: ExactKNN()(points, 10, points, True)[1].numpy(),
    )


@contextmanager
def _importable(variable: str) -> Iterator[None]:
    sys.path.insert(0, os.environ[variable])
    try:
        yield
    finally:
        sys.path.remove(os.environ[variable])


def interlingua(shrink: int, threads: int) -> Workload:
    from ilo_fast.adapters.interlingua import patched

    with _importable("ILO_FAST_INTERLINGUA"):
        module = import_module("src.ilo")
    x = _points(8000 // shrink, 384)
    by_language = {f"l{i}": part for i, part in enumerate(np.split(x, 10))}

    def run() -> Any:
        bridge, reach = module.compute_bridge_reach(by_language, 5, 3, "cosine", device="cpu")
        return [*bridge.values(), *reach.values()]

    def ours() -> Any:
        with patched(module):
            return run()

    describe = f"compute_bridge_reach, N = {len(x)}, d = 384, k = 5, cosine"
    # one point in float32's favour or against it moves bridge by 1 / 800
    return _value_workload(
        "interlingua", "interlingua's public code", describe, run, ours, tolerance=0.02
    )


def platonic(shrink: int, threads: int) -> Workload:
    from ilo_fast.adapters.platonic import patched

    stand_ins = {"torchaudio.functional": "edit_distance", "tasks": "get_models", "utils": ""}
    modules = {name: ModuleType(name) for name in ("torchaudio", *stand_ins)}
    for name, attribute in stand_ins.items():
        setattr(modules[name], attribute or "unused", None)
    modules["torchaudio"].functional = modules["torchaudio.functional"]
    with _importable("ILO_FAST_PLATONIC"), patch.dict(sys.modules, modules):
        metrics, measure = import_module("metrics"), import_module("measure_alignment")
    n, layers = 1024 // shrink, 8
    rng = np.random.default_rng(0)
    base = _points(1000 // shrink, 256)
    base = np.concatenate([base, base[: n - len(base)] + np.float32(0.1)])
    x, y = (
        [torch.from_numpy(base + s * rng.normal(size=base.shape).astype("f4")) for s in scale]
        for scale in (np.linspace(0.2, 2, layers), np.linspace(0.5, 3, layers))
    )

    def run() -> Any:
        score, pair = measure.compute_score(x, y, "mutual_knn", 10)
        return [score, *pair]

    def ours() -> Any:
        with patched(metrics, measure):
            return run()

    describe = f"compute_score, mutual_knn, {layers} × {layers} layers, N = {n}, d = 256, k = 10"
    return _value_workload("platonic", "platonic-rep", describe, run, ours)


def calibrated(shrink: int, threads: int) -> Workload:
    import calibrated_similarity as package

    from ilo_fast.adapters import calibrated_similarity as adapter

    x = torch.from_numpy(_points(1000 // shrink, 64))
    y = x + torch.randn(x.shape, generator=torch.Generator().manual_seed(0))

    def mutual(one: torch.Tensor, two: torch.Tensor) -> float:
        """As users write it: float32 cosines, topk, a mask each."""
        masks = []
        for z in (one, two):
            unit = torch.nn.functional.normalize(z, dim=1)
            near = (unit @ unit.T).fill_diagonal_(-2).topk(10, dim=1).indices
            masks.append(torch.zeros(len(z), len(z)).scatter_(1, near, 1))
        return float((masks[0] * masks[1]).sum() / (10 * len(one)))

    def generator() -> torch.Generator:
        return torch.Generator().manual_seed(0)

    describe = f"calibrate, mutual k-NN, 200 permutations, N = {len(x)}, d = 64, k = 10"
    return _value_workload(
        "calibrated",
        "calibrated-similarity",
        describe,
        lambda: package.calibrate(x, y, mutual, K=200, generator=generator()),
        lambda: adapter.calibrate(x, y, "mutual_knn", K=200, generator=generator()),
    )


def resi(shrink: int, threads: int) -> Workload:
    from ilo_fast.adapters.resi import patched

    folder = os.environ["ILO_FAST_RESI"]
    for name in ("repsim", "repsim.measures"):  # their package imports every measure: take one
        package = ModuleType(name)
        package.__path__ = [f"{folder}/{name.replace('.', '/')}"]
        sys.modules[name] = package
    module = import_module("repsim.measures.nearest_neighbor")
    x = _points(4000 // shrink, 384)
    y = x + np.random.default_rng(0).normal(size=x.shape).astype("f4")

    def run() -> Any:
        return [
            module.jaccard_similarity(x, y, "nd", n_jobs=threads),
            module.rank_similarity(x, y, "nd", n_jobs=threads),
        ]

    def ours() -> Any:
        with patched(module):
            return run()

    describe = f"Jaccard and rank similarity, N = {len(x)}, d = 384, k = 10, cosine"
    return _value_workload("resi", "ReSi", describe, run, ours, tolerance=1e-3)


def dadapy(shrink: int, threads: int) -> Workload:
    from dadapy.metric_comparisons import MetricComparisons

    from ilo_fast.adapters.dadapy import information_imbalance
    from ilo_fast.overlap import mutual_knn

    n = 3000 // shrink
    x = _points(n, 128).astype(np.float64)
    y = x + np.random.default_rng(0).normal(size=x.shape)

    def theirs() -> Any:
        space = MetricComparisons(x, maxk=30, n_jobs=threads)
        there, back = space.return_information_imbalace(y, k=1, subset_size=n)
        return [space.return_data_overlap(coordinates=y, k=30), there[0], back[0]]

    def ours() -> Any:
        lists = [knn(z, 30, metric="euclidean") for z in (x, y)]
        return [mutual_knn(*lists)[0], *information_imbalance(x, y)]

    describe = f"data overlap (k = 30) and information imbalance, N = {n}, d = 128"
    return _value_workload("dadapy", "DADApy", describe, theirs, ours)


# name → what it needs (a module, or an environment variable), how it is made
WORKLOADS: dict[str, tuple[tuple[str, ...], Callable[[int, int], Workload]]] = {
    "sklearn": (("sklearn",), sklearn),
    "faiss": (("faiss",), faiss),
    "umap": (("umap",), umap),
    "scib": (("scib_metrics",), scib),
    "metric_learning": (("pytorch_metric_learning", "faiss"), metric_learning),
    "interlingua": (("ILO_FAST_INTERLINGUA",), interlingua),
    "platonic": (("ILO_FAST_PLATONIC",), platonic),
    "calibrated": (("calibrated_similarity",), calibrated),
    "resi": (("ILO_FAST_RESI", "einops", "loguru"), resi),
    "dadapy": (("dadapy",), dadapy),
}
