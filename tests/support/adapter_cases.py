"""Points that look like pooled hidden states, truth for them, and checkouts of other projects."""

import importlib
import os
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest


def hidden_like(n, d, seed=0, groups=6, massive=40.0):
    """float32 groups of points around one massive direction; and each point's group."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(groups, d)) * 1.5
    group = np.arange(n) % groups
    points = centres[group] + rng.normal(size=(n, d))
    points[:, 0] += massive
    return points.astype(np.float32), group


def brute_force(points, k, metric, rows=None):
    """float64 neighbours of some rows, self left out, by full sorting."""
    z = points.astype(np.float64)
    rows = np.arange(len(z)) if rows is None else rows
    if metric == "cosine":
        z = z / np.linalg.norm(z, axis=1, keepdims=True)
    z = z - z.mean(axis=0) if metric != "inner_product" else z
    distance = -z[rows] @ z.T
    if metric != "inner_product":
        distance = distance + 0.5 * (z**2).sum(axis=1)
    distance[np.arange(len(rows)), rows] = np.inf
    return np.argsort(distance, axis=1, kind="stable")[:, :k]


def recall(found, expected):
    """Mean share of the true neighbours that were found."""
    pairs = zip(found.tolist(), expected.tolist(), strict=True)
    return np.mean([len(set(a) & set(b)) / len(b) for a, b in pairs])


@contextmanager
def checkout(variable, *modules):
    """Import modules of a checkout whose folder an environment variable names, or skip."""
    folder = os.environ.get(variable)
    if folder is None:
        pytest.skip(f"needs {variable}, the folder of a checkout: make test-adapters")
    if not Path(folder).is_dir():
        pytest.skip(f"needs {variable}, and {folder} is no folder: make test-adapters")
    before = set(sys.modules)
    sys.path.insert(0, folder)
    try:
        yield [importlib.import_module(module) for module in modules]
    finally:
        sys.path.remove(folder)
        inside = [
            name
            for name in set(sys.modules) - before
            if str(getattr(sys.modules[name], "__file__", None) or "").startswith(folder)
        ]
        for name in inside:
            del sys.modules[name]
