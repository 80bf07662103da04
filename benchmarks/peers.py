"""Others' ways to the same neighbours, as contenders; each returns indices ``[n, k]`` or None."""

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

__all__ = ["chunked_torch", "faiss_flat", "load_public_code", "public_code"]

_CHUNK_BYTES = 256 << 20


def chunked_torch(x: torch.Tensor, k: int) -> Callable[[], Any]:
    """float32 product of normalised points and topk(k + 1), strip by strip; self left out."""

    def run() -> Any:
        unit = torch.nn.functional.normalize(x, dim=1)
        rows = max(1, _CHUNK_BYTES // (4 * x.shape[0]))
        found = torch.empty(x.shape[0], k, dtype=torch.int64)
        for start in range(0, x.shape[0], rows):
            similarity = unit[start : start + rows] @ unit.T
            here = torch.arange(similarity.shape[0])
            similarity[here, start + here] = -2.0
            found[start : start + rows] = similarity.topk(k, dim=1).indices
        return found.numpy()

    return run


def faiss_flat(x: np.ndarray[Any, Any], k: int, threads: int) -> Callable[[], Any] | None:
    """faiss-cpu IndexFlatIP over normalised points, k + 1 asked for, building included."""
    try:
        import faiss  # after torch: the first OpenMP runtime loaded is the one both use
    except ImportError:
        return None
    faiss.omp_set_num_threads(threads)

    def run() -> Any:
        unit = x / np.linalg.norm(x, axis=1, keepdims=True)
        index = faiss.IndexFlatIP(x.shape[1])
        index.add(unit)
        _, found = index.search(unit, k + 1)
        # Self is first except where a copy or rounding puts another there.
        own = found == np.arange(len(x))[:, None]
        own[~own.any(axis=1), -1] = True
        return found[~own].reshape(len(x), k)

    return run


def load_public_code(checkout: Path) -> tuple[Any, str]:
    """The module src/ilo.py of a checkout of HLTCHKUST/interlingua, and its commit."""
    source = checkout / "src" / "ilo.py"
    if not source.is_file():
        raise FileNotFoundError(f"{checkout} is no checkout of interlingua: it has no src/ilo.py")
    spec = importlib.util.spec_from_file_location("interlingua_ilo", source)
    if spec is None or spec.loader is None:
        raise ImportError(f"cannot import {source}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    shown = subprocess.run(
        ["git", "-C", str(checkout), "rev-parse", "HEAD"], capture_output=True, text=True
    )
    return module, shown.stdout.strip() or "unknown"


def public_code(
    module: Any, x: np.ndarray[Any, Any], names: list[str], k: int, threshold: int
) -> Callable[[], Any]:
    """compute_bridge_reach of the public code on the CPU: neighbours, then bridge and reach."""
    sentences = len(x) // len(names)
    by_language = {name: x[i * sentences : (i + 1) * sentences] for i, name in enumerate(names)}

    def run() -> Any:
        return module.compute_bridge_reach(
            by_language, neighbor_k=k, neighbor_threshold=threshold, metric="cosine", device="cpu"
        )

    return run
