"""The whole search beside other ways to its answer, interleaved, and its kernels one by one."""

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu_peers import contenders
from ilo_fast import knn

__all__ = ["milliseconds", "profile", "race"]

SLOW = {"public code", "torch fp32 matmul + topk", "ilo_fast, backend torch"}


def race(
    name: str,
    x: torch.Tensor,
    rounds: int,
    backend: str,
    target: float | None,
    public_code: Path | None,
) -> dict[str, Any]:
    """Milliseconds of every contender, interleaved; peak memory of ours beyond the input."""
    runs = contenders(x, public_code, backend=backend)
    timings: dict[str, list[float]] = {key: [] for key in runs}
    failed: dict[str, str] = {}
    for key, run in list(runs.items()):  # warm up: compile, tune, allocate
        try:
            for _ in range(1 if key in SLOW else 3):
                run()
                _synchronize(x.device)
        except Exception as error:  # a peer that cannot run is reported, ours must run
            if key == "ilo_fast":
                raise
            failed[key] = f"{type(error).__name__}: {error}"[:300]
            del runs[key]
    for number in range(rounds):
        for key, run in runs.items():
            if key in SLOW and number >= 3:
                continue
            timings[key].append(milliseconds(run, x.device))
    ours = statistics.median(timings["ilo_fast"])
    found: dict[str, Any] = {"name": name, "shape": list(x.shape), "not run": failed}
    found["contenders"] = {
        key: {
            "median_ms": statistics.median(values),
            "min_ms": min(values),
            "max_ms": max(values),
            "ours_over_this": ours / statistics.median(values),
        }
        for key, values in timings.items()
        if values
    }
    found["peak_extra_mib"] = _peak_mib(runs["ilo_fast"], x.device)
    if target is not None and "bare float16 product" in found["contenders"]:
        found["target_over_bare_product"] = target
        found["meets_target"] = (
            found["contenders"]["bare float16 product"]["ours_over_this"] <= target
        )
    return found


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def milliseconds(run: Callable[[], Any], device: torch.device) -> float:
    """Wall time from an idle device to a finished answer: launches and host work count."""
    _synchronize(device)
    start = time.perf_counter()
    answer = run()
    _synchronize(device)
    elapsed = time.perf_counter() - start
    del answer
    return 1e3 * elapsed


def _peak_mib(run: Callable[[], Any], device: torch.device) -> float | None:
    if device.type != "cuda":
        return None
    torch.cuda.synchronize(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    run()
    torch.cuda.synchronize(device)
    return (torch.cuda.max_memory_allocated(device) - before) / 2**20


def profile(x: torch.Tensor, backend: str) -> dict[str, Any]:
    """Microseconds of every kernel of one call, and their share."""
    activities = [torch.profiler.ProfilerActivity.CUDA]
    knn(x, 5, backend=backend)
    with torch.profiler.profile(activities=activities) as profiler:
        for _ in range(5):
            knn(x, 5, backend=backend)
        torch.cuda.synchronize()
    rows = {row.key: row.self_device_time_total / 5 for row in profiler.key_averages()}
    total = sum(rows.values())
    if not total:
        raise RuntimeError("the profiler saw no kernel: it may not be allowed to read the card")
    n, d = x.shape
    kernels = {
        name: {"microseconds": value, "share": value / total}
        for name, value in sorted(rows.items(), key=lambda item: -item[1])[:15]
    }
    product = sum(value for name, value in rows.items() if "_filter_kernel" in name)
    half = n * n * d / (product * 1e-6) / 1e12 if product else None
    return {"total_microseconds": total, "kernels": kernels, "filter_tflops": half}
