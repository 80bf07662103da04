"""``python -m benchmarks gpu``: check every kernel on the card, then time everything.

In order: the GPU tests; the accumulation model of the matrix units; neighbours against float64,
every row, on synthetic and (where the files are present) real hidden states; the whole call beside
the bare matrix product and other tools, interleaved in this process; a profile kernel by kernel;
extraction with models of random weights beside the loops that people write; the whole command.
The JSON appears whole at the end; a check that fails is in it, and makes the exit status 1.
"""

import contextlib
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import torch
from rich.console import Console

from benchmarks.gpu_checks import check_accumulation, compare_float64, run_tests
from benchmarks.gpu_command import end_to_end, first_batch
from benchmarks.gpu_extraction import SHAPES, TINY, measure
from benchmarks.gpu_inputs import gemma, inputs, synthetic
from benchmarks.gpu_peers import contenders
from benchmarks.report import describe_run, write_json
from ilo_fast import knn
from ilo_fast.ops import dispatch

__all__ = ["command"]

ROOT = Path(__file__).resolve().parents[1]
POINTS = 30_907
WIDTHS = {4096: 0.65, 1024: 0.75, 576: 1.0}  # d: target, as a share of the bare float16 product
console = Console()


@click.command("gpu")
@click.option("--out", type=Path, default=ROOT / "benchmarks" / "results" / "gpu.json")
@click.option("--points", default=POINTS, show_default=True)
@click.option("--rounds", default=20, show_default=True, help="Timed rounds a contender.")
@click.option("--tests/--no-tests", default=True, help="Run the GPU tests first.")
@click.option("--sanitizer/--no-sanitizer", default=False, help="And under compute-sanitizer.")
@click.option("--kernels/--no-kernels", default=True, help="Neighbours: check, time, profile.")
@click.option("--extraction/--no-extraction", default=True, help="Forward passes, whole command.")
@click.option("--public-code", type=Path, help="A checkout of HLTCHKUST/interlingua to time.")
@click.option("--states", type=Path, multiple=True, help="Hidden states [layers, n, d], .pt files.")
@click.option("--dry-run", is_flag=True, help="On the CPU, tiny: proves the command, not the card.")
def command(
    out: Path,
    points: int,
    rounds: int,
    tests: bool,
    sanitizer: bool,
    kernels: bool,
    extraction: bool,
    public_code: Path | None,
    states: tuple[Path, ...],
    dry_run: bool,
) -> None:
    """Check and time the kernels and the extraction on a CUDA card."""
    if dry_run:
        device, points, rounds, tests = torch.device("cpu"), 320, 2, False
        out = out.with_name("gpu-dry-run.json")
    elif torch.cuda.is_available():
        device = torch.device("cuda", torch.cuda.current_device())
    else:
        raise click.ClickException("no CUDA device; --dry-run proves the command without one")
    result = describe_run(points=points, rounds=rounds, dry_run=dry_run)
    result["backend"] = dispatch.explain(device)
    result["device"] = _device(device)
    failures: list[str] = []
    if tests:
        result["tests"] = run_tests(ROOT, sanitizer, failures)
    if kernels:
        _add_kernels(result, points, rounds, device, states, public_code, dry_run, failures)
    if extraction:
        _add_extraction(result, device, dry_run, failures)
    result["failures"] = failures
    write_json(out, result)
    console.print(f"written to {out}")
    for failure in failures:
        console.print("FAILED:", failure)
    if failures:
        sys.exit(1)


def _add_kernels(
    result: dict[str, Any],
    points: int,
    rounds: int,
    device: torch.device,
    states: tuple[Path, ...],
    public_code: Path | None,
    dry_run: bool,
    failures: list[str],
) -> None:
    """The neighbour search: against float64, beside other tools, kernel by kernel."""
    if device.type == "cuda":
        result["accumulation"] = check_accumulation(device, failures)
    result["truth"] = [
        compare_float64(name, x, failures)
        for name, x in inputs(points, tuple(WIDTHS), states, device, dry_run)
    ]
    for row in result["truth"]:
        console.print(row["name"], f"{row['rows_right']:.6f} of rows right", row["stats"])
    result["speed"] = []
    for d, target in WIDTHS.items():
        x = synthetic(points, d if not dry_run else 64, device)
        result["speed"].append(_race(f"one layer, d = {d}", x, rounds, target, public_code))
    for name, shape in (("4 layers", (4, points, 1024)), ("small batch", (33, 1024, 4096))):
        shape = shape if not dry_run else (2, 100, 32)
        x = torch.stack([synthetic(shape[1], shape[2], device, seed) for seed in range(shape[0])])
        result["speed"].append(_race(name, x, rounds, None, None))
    if device.type == "cuda":
        result["profile"] = {str(d): _profile(synthetic(points, d, device)) for d in WIDTHS}


def _add_extraction(
    result: dict[str, Any], device: torch.device, dry_run: bool, failures: list[str]
) -> None:
    """Forward passes of random models, then the command on the real models that are at hand."""
    sizes = {"peer_sentences": 32, "gemm": 64, "rounds": 1} if dry_run else {}
    result["extraction"] = []
    for shape in (TINY,) if dry_run else SHAPES:
        found = measure(shape, device, failures, **sizes)
        rates = {name: one["sentences_per_s"] for name, one in found["contenders"].items()}
        console.print(shape.name, f"{found['gemm_tflops']:.0f} TFLOP/s", rates, found["not run"])
        result["extraction"].append(found)
    result["command"] = []
    text = os.environ.get("ILO_FAST_FLORES")
    for path in filter(None, (os.environ.get("ILO_FAST_SMOLLM2"), gemma())):
        if not text or dry_run:
            continue
        first = first_batch(path, text, str(device), "bfloat16")
        whole = [
            end_to_end(path, text, ["--device", str(device), "--dtype", dtype], rounds)
            for dtype, rounds in (("bfloat16", 2), ("float32", 1))
        ]
        console.print(first, [(one["dtype"], one["runs"][-1]) for one in whole])
        result["command"].append({"first_batch": first, "end_to_end": whole})


def _device(device: torch.device) -> dict[str, Any]:
    if device.type != "cuda":
        return {"name": "cpu"}
    properties = torch.cuda.get_device_properties(device)
    driver = subprocess.run(
        ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"],
        capture_output=True, text=True,
    )  # fmt: skip
    return {
        "name": properties.name,
        "capability": f"{properties.major}.{properties.minor}",
        "multiprocessors": properties.multi_processor_count,
        "memory_mib": properties.total_memory >> 20,
        "cuda": torch.version.cuda,
        "driver": driver.stdout.strip(),
    }


def _race(
    name: str, x: torch.Tensor, rounds: int, target: float | None, public_code: Path | None
) -> dict[str, Any]:
    """Milliseconds of every contender, interleaved; peak memory of ours beyond the input."""
    runs = contenders(x, public_code)
    timings: dict[str, list[float]] = {key: [] for key in runs}
    failed: dict[str, str] = {}
    for key, run in list(runs.items()):  # warm up: compile, tune, allocate
        try:
            for _ in range(3):
                run()
            _synchronize(x.device)
        except Exception as error:  # a peer that cannot run is reported, ours must run
            if key.startswith("ilo_fast"):
                raise
            failed[key] = f"{type(error).__name__}: {error}"[:300]
            del runs[key]
    slow = {"public code", "torch fp32 matmul + topk"}
    for number in range(rounds):
        for key, run in runs.items():
            if key in slow and number >= 3:
                continue
            timings[key].append(_milliseconds(run, x.device))
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
    console.print(name, {key: value["median_ms"] for key, value in found["contenders"].items()})
    return found


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _milliseconds(run: Callable[[], Any], device: torch.device) -> float:
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


def _profile(x: torch.Tensor) -> dict[str, Any]:
    """Microseconds of every kernel of one call, and their share."""
    activities = [torch.profiler.ProfilerActivity.CUDA]
    knn(x, 5)
    with contextlib.ExitStack() as stack:
        profiler = stack.enter_context(torch.profiler.profile(activities=activities))
        for _ in range(5):
            knn(x, 5)
        torch.cuda.synchronize()
    rows = {row.key: row.self_device_time_total / 5 for row in profiler.key_averages()}
    total = sum(rows.values())
    n, d = x.shape
    kernels = {
        name: {"microseconds": value, "share": value / total}
        for name, value in sorted(rows.items(), key=lambda item: -item[1])[:15]
    }
    product = sum(value for name, value in rows.items() if "_filter_kernel" in name)
    half = n * n * d / (product * 1e-6) / 1e12 if product else None
    return {"total_microseconds": total, "kernels": kernels, "filter_tflops": half}
