"""The tools' own published examples, as workloads: their sizes, seeds and calls, on their data.

An example without a seed gets seed 0. Examples are as small as their authors made them: ``--quick``
only takes fewer of ReSi's models. What each leaves out is said in its docstring and on the tool's
page.
"""

import itertools
import os
import re
import warnings
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import replace
from importlib import import_module, metadata
from io import StringIO
from types import ModuleType
from typing import Any

import numpy as np
import torch

from benchmarks.adapter_values import (
    importable,
    mutual_overlap,
    platonic_modules,
    resi_measures,
    stand_ins,
    value_workload,
)
from benchmarks.registry import Contender, Workload

__all__ = [
    "calibrated_example",
    "calibrated_knn_example",
    "dadapy_example",
    "dadapy_notebook",
    "platonic_example",
    "resi_example",
]


def platonic_example(shrink: int, threads: int) -> Workload:
    """What running their metrics.py does, for the metrics that read neighbours.

    edit_distance_knn is among them where torchaudio is installed, whose function it calls.
    """
    from ilo_fast.adapters.platonic import patched

    metrics, _ = platonic_modules()
    torch.manual_seed(0)
    a, b = (torch.nn.functional.normalize(torch.randn(64, 8192), dim=-1) for _ in range(2))
    names = ["cycle_knn", "mutual_knn", "lcs_knn", "cknna"]
    names += ["edit_distance_knn"] if metrics.TAF.edit_distance else []
    measure, trials = metrics.AlignmentMetrics.measure, 10

    def run() -> Any:
        return [
            np.mean([float(measure(name, a, b, topk=10)) for _ in range(trials)]) for name in names
        ]

    def ours() -> Any:
        with patched(metrics):
            return run()

    return value_workload(
        "platonic_example",
        "platonic-rep",
        f"{', '.join(names)}, {trials} trials each, N = 64, d = 8192, k = 10",
        run,
        ours,
        tolerance=1e-6,
        example="the one at the end of their metrics.py, seed 0 as there",
    )


def calibrated_example(shrink: int, threads: int) -> Workload:
    """The package's Quick Start, run from its own description: 200 permutations of CKA."""
    return _quick_start(
        "calibrated_example",
        "cka",
        lambda example: example["cka"],
        "linear CKA",
        "the Quick Start of its description, seed 0",
    )


def calibrated_knn_example(shrink: int, threads: int) -> Workload:
    """The same points and call with a similarity of neighbours in CKA's place."""
    return _quick_start(
        "calibrated_knn_example",
        "mutual_knn",
        lambda example: mutual_overlap,
        "mutual k-NN, k = 10",
        "the Quick Start of its description, seed 0, with mutual k-NN for its CKA",
    )


def _quick_start(
    name: str, ours: str, theirs: Callable[[dict[str, Any]], Any], similarity: str, example: str
) -> Workload:
    import calibrated_similarity as package

    from ilo_fast.adapters import calibrated_similarity as adapter

    about = metadata.metadata("calibrated-similarity")
    text = about.get_payload() or about["Description"]
    code = re.search(r"## Quick Start\s+```python\n(.*?)```", str(text), re.S)
    if code is None:
        raise RuntimeError("the description of calibrated-similarity has no Quick Start")
    shown: dict[str, Any] = {}
    torch.manual_seed(0)
    with redirect_stdout(StringIO()):
        exec(code[1], shown)
    x, y, sim = shown["X"], shown["Y"], theirs(shown)

    def generator() -> torch.Generator:
        return torch.Generator().manual_seed(0)

    return value_workload(
        name,
        "calibrated-similarity",
        f"calibrate, {similarity}, 200 permutations, N = {len(x)}, d = {x.shape[1]}",
        lambda: package.calibrate(x, y, sim, generator=generator()),
        lambda: adapter.calibrate(x, y, ours, generator=generator()),
        tolerance=1e-6,
        example=example,
    )


def dadapy_example(shrink: int, threads: int) -> Workload:
    """The neighbours of the README's Quick Example: distances, data overlap, label overlap.

    Its label overlap names no k, which the package refuses: 30 here, its data overlap's default.
    """
    from dadapy.data import Data

    from ilo_fast.adapters.dadapy import distances

    rng = np.random.RandomState(0)
    x, other = rng.normal(0, 1, (1000, 3)), rng.normal(0, 1, (1000, 5))
    labels = np.repeat(np.arange(10), 100)

    def answer(data: Any, overlap: float) -> Any:
        return np.append(data.dist_indices, [overlap, data.return_label_overlap(labels, k=30)])

    def theirs() -> Any:
        data = Data(x)
        data.compute_distances(maxk=100)
        return answer(data, data.return_data_overlap(other))

    def ours() -> Any:
        data = Data(distances=distances(x, 100), maxk=100)
        return answer(data, data.return_data_overlap(dist_indices=distances(other, 30)[1]))

    return value_workload(
        "dadapy_example",
        "DADApy",
        "100 neighbours of N = 1000, d = 3, data overlap with d = 5 and label overlap (k = 30)",
        theirs,
        ours,
        tolerance=1e-12,
        example="the neighbours of the README's Quick Example, seed 0",
    )


def dadapy_notebook(shrink: int, threads: int) -> Workload:
    """Each ``return_inf_imb_two_selected_coords`` of the information imbalance notebook.

    The notebook's other calls compute the same imbalances in processes of their own.
    """
    from dadapy.metric_comparisons import MetricComparisons

    from ilo_fast.adapters.dadapy import information_imbalance

    rng = np.random.RandomState(0)
    flat = rng.multivariate_normal(np.zeros(3), np.diag([1, 1, 0.2**2]), size=1000)
    gauss = rng.normal(size=(2000, 4))
    time = np.sort(rng.uniform(0, 1, 1000))[:, None]
    sine = np.hstack([time, 5 * np.sin(time * 25) + rng.normal(0, 0.5, (1000, 1))])
    pairs = [
        (flat, [0], [1]),
        (flat, [0, 1], [2]),
        (gauss, [0, 1], [1, 2]),
        (gauss, [0, 1, 2], [1, 2, 3]),
        (sine, [0], [1]),
    ]

    def theirs() -> Any:
        return [
            MetricComparisons(x, maxk=len(x) - 1).return_inf_imb_two_selected_coords(one, two)
            for x, one, two in pairs
        ]

    def ours() -> Any:
        return [information_imbalance(x[:, one], x[:, two]) for x, one, two in pairs]

    return value_workload(
        "dadapy_notebook",
        "DADApy",
        "information imbalance of 5 pairs of coordinate sets, N = 1000 and 2000, d = 1 to 3",
        theirs,
        ours,
        tolerance=1e-12,
        example="return_inf_imb_two_selected_coords in the information imbalance notebook, seed 0",
    )


def resi_example(shrink: int, threads: int) -> Workload:
    """The README's demo (augmentation on Cora) for one of its architectures, GCN.

    Their trainer trains the demo's 15 models, unless the folder REP_SIM has them, and gives the
    states of Cora's 1,000 test nodes, 15 of which are copies of others: theirs then takes some
    points for their own neighbours. Without the copies the check wants the same numbers.
    """
    from ilo_fast.adapters.resi import patched

    module = resi_measures()
    names = ("JaccardSimilarity", "RankSimilarity", "SecondOrderCosineSimilarity")
    states = _demo_states(shrink)

    def similarities(some: list[Any]) -> Any:
        measures = [getattr(module, name)() for name in names]
        pairs = itertools.combinations(some, 2)
        return [measure(one, two, "nd") for one, two in pairs for measure in measures]

    def ours(some: list[Any] = states) -> Any:
        with patched(module):
            return similarities(some)

    workload = value_workload(
        "resi_example",
        "ReSi",
        f"{', '.join(names)} of all pairs of {len(states)} GCNs on Cora, N = 1000, d = 64, k = 10",
        lambda: similarities(states),
        ours,
        tolerance=0.03,
        example="the README's demo_augmentation_test_cora, its GCNs, trained here by its trainer",
    )

    def check(contender: Contender, answer: Any) -> dict[str, Any]:
        facts = workload.check(contender, answer)
        if contender.ours:
            return facts
        _, kept = np.unique(states[0], axis=0, return_index=True)
        distinct = [rows[np.sort(kept)].astype(np.float64) for rows in states[:3]]
        apart = float(np.abs(np.subtract(similarities(distinct), ours(distinct))).max())
        if not apart <= 1e-9:
            raise AssertionError(f"resi_example: {apart} apart without copies")
        return {**facts, "largest_difference_without_copies": apart}

    return replace(workload, check=check)


def _demo_states(n: int) -> list[Any]:
    """The last inner layer of every n-th of the demo's GCNs, float32 ``[1000, 64]`` each."""
    import yaml

    with open(f"{os.environ['ILO_FAST_RESI']}/configs/demo_augmentation_test_cora.yaml") as file:
        demo = yaml.safe_load(file)["experiments"][0]["filter_key_vals"]
    unused = ModuleType("ogb"), ModuleType("ogb.nodeproppred")  # for another data set
    vars(unused[1])["PygNodePropPredDataset"] = None
    modules = {module.__name__: module for module in unused}
    with importable("ILO_FAST_RESI"), stand_ins(modules), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = import_module("graphs.graph_trainer").AugmentationTrainer
        states = []
        models = itertools.product(demo["identifier"], demo["seed"])
        for setting, seed in itertools.islice(models, 0, None, n):
            model = trainer(architecture_type="GCN", dataset_name="cora", seed=seed)
            model.train_models(settings=[setting])
            layers = model.get_test_representations(setting)
            states.append(layers[max(layers)])
    return states
