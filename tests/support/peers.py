"""Run single files of public research code beside ours, from checkouts the environment names.

`ILO_FAST_PEERS` is a folder with checkouts of `platonic-rep`, `resi`, `DADApy`, `LASER` and
`MEXA`, each under that name; a test whose checkout is missing skips and says so. These projects
have no package to install, or pin old ones, so a file is loaded by itself, with empty stand-ins
for what it imports and the compared functions do not use.

`ILO_FAST_STATES` is a file of real hidden states to compare on beside random ones, as
`examples/metrics_agreement.py --save-states` writes it.
"""

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType
from unittest.mock import patch

import numpy as np
import pytest


def checkout(name):
    """The folder of a checkout, or a skip."""
    root = os.environ.get("ILO_FAST_PEERS")
    if root is None:
        pytest.skip("needs ILO_FAST_PEERS, a folder with the peers' checkouts: make test-adapters")
    folder = Path(root) / name
    if not folder.is_dir():
        pytest.skip(f"needs a checkout {name} in ILO_FAST_PEERS: make test-adapters")
    return folder


def real_states():
    """(states [layers, n, d], languages, sentences) of a real model, or a skip."""
    path = os.environ.get("ILO_FAST_STATES")
    if path is None:
        pytest.skip("needs ILO_FAST_STATES, a file of real hidden states: make test-adapters")
    with np.load(path) as saved:
        return saved["states"], saved["languages"], saved["sentences"]


def load(path, stand_ins):
    """Load one source file as a module; stand_ins: module name → what it holds."""
    modules = {}
    for name, content in stand_ins.items():
        modules[name] = ModuleType(name)
        modules[name].__dict__.update(content)
        modules[name].__path__ = []
    for name in modules:  # `import a.b as c` reads b from a
        parent, _, child = name.rpartition(".")
        if parent in modules:
            setattr(modules[parent], child, modules[name])
    spec = importlib.util.spec_from_file_location(f"peer_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    with patch.dict(sys.modules, modules):
        spec.loader.exec_module(module)
    return module


def edit_distance(one, two):
    """Levenshtein distance, for a peer that takes it from a package it does not need else."""
    row = list(range(len(two) + 1))
    for i, x in enumerate(one, 1):
        diagonal, row[0] = row[0], i
        for j, y in enumerate(two, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (x != y))
    return row[-1]


def platonic():
    """platonic-rep's metrics module; its own float32 or float64 follows the features."""
    functional = {"edit_distance": edit_distance}
    return load(
        checkout("platonic-rep") / "metrics.py",
        {"torchaudio": {}, "torchaudio.functional": functional},
    )


def resi(name):
    """A module of ReSi's repsim.measures."""
    folder = checkout("resi") / "repsim" / "measures"
    utils = load(folder / "utils.py", {"einops": {"rearrange": None}, "loguru": {"logger": None}})
    return load(
        folder / f"{name}.py",
        {"repsim": {}, "repsim.measures": {}, "repsim.measures.utils": vars(utils)},
    )


def dadapy(x, k):
    """DADApy's MetricComparisons over float64 points, without its compiled parts."""
    from sklearn.neighbors import NearestNeighbors

    folder = checkout("DADApy") / "dadapy"
    helpers = load(folder / "_utils" / "metric_comparisons.py", {})

    class Base:
        pass

    def compute_nn_distances(points, maxk, metric="euclidean", period=None):
        found = NearestNeighbors(n_neighbors=maxk + 1, metric=metric).fit(points)
        return found.kneighbors(points)

    module = load(
        folder / "metric_comparisons.py",
        {
            "dadapy": {},
            "dadapy._cython": {"cython_overlap": None},
            "dadapy._utils": {},
            "dadapy._utils.metric_comparisons": vars(helpers),
            "dadapy._utils.utils": {"compute_nn_distances": compute_nn_distances},
            "dadapy.base": {"Base": Base},
        },
    )
    result = module.MetricComparisons.__new__(module.MetricComparisons)
    result.X, result.distances, result.dist_indices = x, None, None
    result.N, result.maxk, result.metric, result.period = len(x), k, "euclidean", None
    result.rng = np.random.default_rng(0)
    return result


def laser_xsim():
    """LASER's xsim module."""
    pytest.importorskip("faiss", reason="needs faiss-cpu: make test-adapters")
    return load(checkout("LASER") / "source" / "xsim.py", {})


def mexa_code():
    """MEXA's compute_mexa module."""
    return load(checkout("MEXA") / "compute_mexa.py", {"tqdm": {"tqdm": list}})
