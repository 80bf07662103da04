"""Tools whose numbers are computed from our neighbours, as workloads: theirs and ours agree."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import numpy as np
import torch

from benchmarks.adapter_lists import points
from benchmarks.registry import Contender, Workload
from ilo_fast import ilo_scores, knn

__all__ = [
    "calibrated",
    "dadapy",
    "importable",
    "interlingua",
    "mutual_overlap",
    "platonic",
    "platonic_modules",
    "resi",
    "resi_measures",
    "stand_ins",
    "torchmetrics",
    "value_workload",
]


def value_workload(
    name: str,
    tool: str,
    describe: str,
    theirs: Callable[[], Any],
    ours: Callable[[], Any],
    tolerance: float = 1e-4,
    **facts: Any,
) -> Workload:
    """Two ways to the same numbers; how far apart they are goes into the file, and the facts."""
    expected: list[Any] = []

    def check(contender: Contender, answer: Any) -> dict[str, Any]:
        if contender.ours:
            expected.append(answer)
            return {}
        theirs, ours = (np.asarray(values, dtype=np.float64) for values in (answer, expected[0]))
        apart = float(np.abs(theirs - ours).max())
        if theirs.shape != ours.shape or not apart <= tolerance:
            raise AssertionError(f"{name}: {answer} and {expected[0]}")
        return {"largest_difference": apart}

    contenders = (Contender("ilo_fast", ours, ours=True), Contender(tool, theirs))
    return Workload(name, describe, contenders, check, facts)


@contextmanager
def importable(variable: str) -> Iterator[None]:
    sys.path.insert(0, os.environ[variable])
    try:
        yield
    finally:
        sys.path.remove(os.environ[variable])


@contextmanager
def stand_ins(modules: dict[str, ModuleType]) -> Iterator[None]:
    """Empty modules for what is imported and not used; others imported meanwhile stay."""
    before = {name: sys.modules.get(name) for name in modules}
    sys.modules.update(modules)
    try:
        yield
    finally:
        for name, module in before.items():
            del sys.modules[name]
            if module is not None:
                sys.modules[name] = module


def interlingua(shrink: int, threads: int) -> Workload:
    from ilo_fast.adapters.interlingua import patched

    with importable("ILO_FAST_INTERLINGUA"):
        module = import_module("src.ilo")
    x = points(8000 // shrink, 384)
    by_language = {f"l{i}": part for i, part in enumerate(np.split(x, 10))}

    def run() -> Any:
        bridge, reach = module.compute_bridge_reach(by_language, 5, 3, "cosine", device="cpu")
        return [*bridge.values(), *reach.values()]

    def ours() -> Any:
        with patched(module):
            return run()

    describe = f"compute_bridge_reach, N = {len(x)}, d = 384, k = 5, cosine"
    # one point in float32's favour or against it moves bridge by 1 / 800
    return value_workload(
        "interlingua", "interlingua's public code", describe, run, ours, tolerance=0.02
    )


def platonic_modules() -> tuple[ModuleType, ModuleType]:
    """Their metrics and measure_alignment, with torchaudio's edit distance where it is there."""
    modules = {name: ModuleType(name) for name in ("tasks", "utils")}
    modules["tasks"].get_models = None  # type: ignore[attr-defined]
    if find_spec("torchaudio"):  # its compiled part may want CUDA; the edit distance is Python
        compiled = modules["torchaudio._extension"] = ModuleType("torchaudio._extension")
        vars(compiled).update(_IS_TORCHAUDIO_EXT_AVAILABLE=False, fail_if_no_align=lambda f: f)
    else:
        audio, functional = ModuleType("torchaudio"), ModuleType("torchaudio.functional")
        vars(functional)["edit_distance"] = None
        vars(audio)["functional"] = functional
        modules |= {"torchaudio": audio, "torchaudio.functional": functional}
    with importable("ILO_FAST_PLATONIC"), stand_ins(modules):
        return import_module("metrics"), import_module("measure_alignment")


def platonic(shrink: int, threads: int) -> Workload:
    from ilo_fast.adapters.platonic import patched

    metrics, measure = platonic_modules()
    n, layers = 1024 // shrink, 8
    rng = np.random.default_rng(0)
    base = points(1000 // shrink, 256)
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
    return value_workload("platonic", "platonic-rep", describe, run, ours)


def mutual_overlap(one: torch.Tensor, two: torch.Tensor) -> float:
    """Mutual 10 nearest neighbours as users write it: float32 cosines, topk, a mask each."""
    masks = []
    for z in (one, two):
        unit = torch.nn.functional.normalize(z, dim=1)
        near = (unit @ unit.T).fill_diagonal_(-2).topk(10, dim=1).indices
        masks.append(torch.zeros(len(z), len(z)).scatter_(1, near, 1))
    return float((masks[0] * masks[1]).sum() / (10 * len(one)))


def calibrated(shrink: int, threads: int) -> Workload:
    import calibrated_similarity as package

    from ilo_fast.adapters import calibrated_similarity as adapter

    x = torch.from_numpy(points(1000 // shrink, 64))
    y = x + torch.randn(x.shape, generator=torch.Generator().manual_seed(0))

    def generator() -> torch.Generator:
        return torch.Generator().manual_seed(0)

    describe = f"calibrate, mutual k-NN, 200 permutations, N = {len(x)}, d = 64, k = 10"
    return value_workload(
        "calibrated",
        "calibrated-similarity",
        describe,
        lambda: package.calibrate(x, y, mutual_overlap, K=200, generator=generator()),
        lambda: adapter.calibrate(x, y, "mutual_knn", K=200, generator=generator()),
    )


def resi_measures() -> ModuleType:
    """Their nearest-neighbour measures; the package around them imports every measure's needs."""
    folder = os.environ["ILO_FAST_RESI"]
    for name in ("repsim", "repsim.measures"):
        package = ModuleType(name)
        package.__path__ = [f"{folder}/{name.replace('.', '/')}"]
        sys.modules[name] = package
    return import_module("repsim.measures.nearest_neighbor")


def resi(shrink: int, threads: int) -> Workload:
    from ilo_fast.adapters.resi import patched

    module = resi_measures()
    x = points(4000 // shrink, 384)
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
    return value_workload("resi", "ReSi", describe, run, ours, tolerance=1e-3)


def dadapy(shrink: int, threads: int) -> Workload:
    from dadapy.metric_comparisons import MetricComparisons

    from ilo_fast.adapters.dadapy import information_imbalance
    from ilo_fast.overlap import mutual_knn

    n = 3000 // shrink
    x = points(n, 128).astype(np.float64)
    y = x + np.random.default_rng(0).normal(size=x.shape)

    def theirs() -> Any:
        space = MetricComparisons(x, maxk=30, n_jobs=threads)
        there, back = space.return_information_imbalace(y, k=1, subset_size=n)
        return [space.return_data_overlap(coordinates=y, k=30), there[0], back[0]]

    def ours() -> Any:
        lists = [knn(z, 30, metric="euclidean") for z in (x, y)]
        return [mutual_knn(*lists)[0], *information_imbalance(x, y)]

    describe = f"data overlap (k = 30) and information imbalance, N = {n}, d = 128"
    return value_workload("dadapy", "DADApy", describe, theirs, ours)


def torchmetrics(shrink: int, threads: int) -> Workload:
    """A validation epoch of 125 batches, and the same points at once."""
    from ilo_fast.adapters.torchmetrics import ILO

    x = torch.from_numpy(points(8000 // shrink, 384))
    codes = torch.arange(10).repeat_interleave(len(x) // 10)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    batches = torch.split(order, len(x) // 125)

    def ours() -> Any:
        metric = ILO()
        for batch in batches:
            metric.update(x[batch], codes[batch])
        return [metric.compute()]

    def at_once() -> Any:
        return [ilo_scores(knn(x), codes).ilo.mean()]

    describe = f"{len(batches)} batches, N = {len(x)}, d = 384, k = 5, cosine"
    return value_workload("torchmetrics", "knn and ilo_scores at once", describe, at_once, ours)
