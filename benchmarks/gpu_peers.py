"""Other ways to the neighbours on a card; optional tools are reported when they are missing."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ilo_fast import knn

__all__ = ["contenders"]

K = 5
_CHUNK_BYTES = 1 << 30


def contenders(
    x: torch.Tensor, public_code: Path | None, *, backend: str
) -> dict[str, Callable[[], Any]]:
    """Name → one run. x: float32 ``[n, d]`` or ``[layers, n, d]`` on the device."""
    runs: dict[str, Callable[[], Any]] = {
        "ilo_fast": lambda: knn(x, K, backend=backend),
        "bare float16 product": _bare_product(x),
        "torch fp16 matmul + topk": _chunked(x, torch.float16),
        "torch fp32 matmul + topk": _chunked(x, torch.float32),
        "FlashLib flash_knn": lambda: _flashlib(x),
        "FAISS GpuIndexFlatIP": lambda: _faiss(x),
        "cuVS brute_force": lambda: _cuvs(x),
    }
    if x.device.type == "cuda" and backend != "torch":
        runs["ilo_fast, backend torch"] = lambda: knn(x, K, backend="torch")
    if public_code is not None:
        try:
            runs["public code"] = _public(x, public_code)
        except (OSError, ImportError) as error:
            runs["public code"] = _raising(error)
    return runs


def _raising(error: Exception) -> Callable[[], Any]:
    def run() -> Any:
        raise error

    return run


def _layers(x: torch.Tensor) -> torch.Tensor:
    return x[None] if x.ndim == 2 else x


def _bare_product(x: torch.Tensor) -> Callable[[], Any]:
    """The N×N float16 matrix a naive user needs, N padded to a multiple of 8."""
    points = torch.nn.functional.normalize(_layers(x), dim=2).to(torch.float16)
    padded = torch.nn.functional.pad(points, (0, 0, 0, -points.shape[1] % 8))
    out = padded.new_empty(padded.shape[1], padded.shape[1])

    def run() -> Any:
        for layer in padded:
            torch.mm(layer, layer.T, out=out)
        return out

    return run


def _chunked(x: torch.Tensor, dtype: torch.dtype) -> Callable[[], Any]:
    """Product of unit vectors and topk, strip by strip."""

    def run() -> Any:
        found = []
        for layer in _layers(x):
            unit = torch.nn.functional.normalize(layer, dim=1).to(dtype)
            step = max(1, _CHUNK_BYTES // (unit.element_size() * len(unit)))
            for start in range(0, len(unit), step):
                similarity = unit[start : start + step] @ unit.T
                here = torch.arange(len(similarity), device=x.device)
                similarity[here, start + here] = -2
                found.append(similarity.topk(K, dim=1).indices)
        return torch.cat(found)

    return run


def _flashlib(x: torch.Tensor) -> Any:
    from flashlib import flash_knn  # squared L2 of unit vectors orders as cosine does

    return [flash_knn(torch.nn.functional.normalize(layer, dim=1), K + 1) for layer in _layers(x)]


def _faiss(x: torch.Tensor) -> Any:
    import faiss
    import faiss.contrib.torch_utils

    found = []
    for layer in _layers(x):
        unit = torch.nn.functional.normalize(layer, dim=1)
        index = faiss.GpuIndexFlatIP(faiss.StandardGpuResources(), x.shape[-1])
        index.add(unit)
        found.append(index.search(unit, K + 1))
    return found


def _cuvs(x: torch.Tensor) -> Any:
    from cuvs.neighbors import brute_force

    found = []
    for layer in _layers(x):
        unit = torch.nn.functional.normalize(layer, dim=1)
        index = brute_force.build(unit, metric="inner_product")
        found.append(brute_force.search(index, unit, K + 1))
    return found


def _public(x: torch.Tensor, checkout: Path) -> Callable[[], Any]:
    from benchmarks.peers import load_public_code

    module, _ = load_public_code(checkout)
    languages = 31
    host = _layers(x)[0].cpu().numpy()
    share = len(host) // languages
    points = {str(i): np.array(host[i * share : (i + 1) * share]) for i in range(languages)}

    def run() -> Any:
        return module.compute_bridge_reach(
            points, neighbor_k=K, neighbor_threshold=3, metric="cosine", device=str(x.device)
        )

    return run
