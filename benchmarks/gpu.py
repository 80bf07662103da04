"""``python -m benchmarks gpu``: check every kernel on the card, then time everything.

In order: the GPU tests; the accumulation model of the matrix units and the trial that lets ``auto``
take the Triton engine; neighbours against float64, every row, on synthetic and (where the files are
present) real hidden states; the whole call beside the bare matrix product and other tools,
interleaved in this process; overlaps of neighbour lists; a profile kernel by kernel; small shapes
under compute-sanitizer, which is slow; extraction with models of random weights beside the loops
that people write; the whole command; last, the filter's launch configurations beside each other.
The JSON is written after every part; one that fails is in it, and makes the exit status 1.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import torch
from rich.console import Console

from benchmarks.gpu_checks import check_accumulation, compare_float64, run_tests, test_runs
from benchmarks.gpu_command import end_to_end, first_batch
from benchmarks.gpu_extraction import SHAPES, TINY, measure
from benchmarks.gpu_inputs import inputs, real_models, synthetic
from benchmarks.gpu_overlap import all_pairs, layers_by_layers, two_models
from benchmarks.gpu_parts import LATE, ContextLost, Parts, earlier, start_anew
from benchmarks.gpu_race import profile, race
from benchmarks.gpu_sweep import sweep as sweep_launches
from benchmarks.processes import time_out_as_interrupt
from benchmarks.report import describe_run
from ilo_fast.ops import dispatch
from ilo_fast.ops.request import Request
from ilo_fast.ops.triton_trial import doubt

__all__ = ["command"]

ROOT = Path(__file__).resolve().parents[1]
POINTS = 30_907
WIDTHS = {4096: 0.65, 1024: 0.75, 576: 1.0}  # d: target, as a share of the bare float16 product
console = Console(markup=False)  # errors and shapes come in brackets, too


def _default_out() -> Path:
    """In the folder that the environment variable OUT names, else among the results."""
    return Path(os.environ.get("OUT") or ROOT / "benchmarks" / "results") / "gpu.json"


@click.command("gpu")
@click.option(
    "--out",
    type=Path,
    default=_default_out,
    show_default="$OUT/gpu.json; benchmarks/results/gpu.json without OUT",
)
@click.option(
    "--commit",
    envvar="ILO_FAST_COMMIT",
    help="What the file records where git cannot say, in a copy without .git.",
)
@click.option("--points", default=POINTS, show_default=True)
@click.option("--rounds", default=20, show_default=True, help="Timed rounds a contender.")
@click.option("--backend", default="triton", show_default=True, help="Checked, timed, profiled.")
@click.option("--tests/--no-tests", default=True, help="Run the GPU tests first.")
@click.option("--sanitizer/--no-sanitizer", default=False, help="Some under compute-sanitizer.")
@click.option("--kernels/--no-kernels", default=True, help="Neighbours: check, time, profile.")
@click.option("--extraction/--no-extraction", default=True, help="Forward passes, whole command.")
@click.option("--sweep/--no-sweep", default=True, help="The filter's launches beside each other.")
@click.option("--public-code", type=Path, help="A checkout of HLTCHKUST/interlingua to time.")
@click.option("--states", type=Path, multiple=True, help="Hidden states [layers, n, d], .pt files.")
@click.option("--minutes", type=float, help="Begin no part later than this.")
@click.option("--resume", is_flag=True, help="Go on behind the parts that --out has.")
@click.option("--deadline", type=float, hidden=True, help="--minutes as seconds of the epoch.")
@click.option("--dry-run", is_flag=True, help="On the CPU, tiny: proves the command, not the card.")
@time_out_as_interrupt()
def command(
    out: Path,
    commit: str | None,
    points: int,
    rounds: int,
    backend: str,
    tests: bool,
    sanitizer: bool,
    kernels: bool,
    extraction: bool,
    sweep: bool,
    public_code: Path | None,
    states: tuple[Path, ...],
    minutes: float | None,
    resume: bool,
    deadline: float | None,
    dry_run: bool,
) -> None:
    """Check and time the kernels and the extraction on a CUDA card."""
    if dry_run:
        device, points, rounds, tests, backend = torch.device("cpu"), 320, 2, False, "auto"
        out = out.with_name("gpu-dry-run.json")
    elif torch.cuda.is_available():
        device = torch.device("cuda", torch.cuda.current_device())
    else:
        raise click.ClickException("no CUDA device; --dry-run proves the command without one")
    if deadline is None:
        deadline = float("inf") if minutes is None else time.time() + 60 * minutes
    result = describe_run(points=points, rounds=rounds, dry_run=dry_run, backend=backend)
    result["commit"] = result["commit"] or commit
    if not result["commit"]:
        console.print("NO COMMIT is recorded: not a checkout, and no --commit was given")
    result["backend"] = dispatch.explain(device)
    result["device"] = _device(device)
    if resume:
        try:
            result = earlier(out, result)
        except (OSError, ValueError) as error:
            raise click.ClickException(f"--resume: {error}") from None
    parts = Parts(out, result, device, deadline)
    try:
        plain, checked = test_runs()
        if tests:
            _add_tests(parts, {"tests": plain})
        if kernels:
            _add_kernels(parts, points, rounds, device, backend, states, public_code, dry_run)
        if tests and sanitizer:
            _add_tests(parts, {name: {name: words} for name, words in checked.items()})
        if extraction:
            _add_extraction(parts, device, backend, dry_run)
        if sweep and device.type == "cuda":
            _add_sweep(parts, points, device)
    except ContextLost as lost:
        console.print(f"{lost} broke the CUDA context: going on in a new process")
        start_anew(deadline)
    parts.write()
    console.print(f"written to {out}")
    late = [name for name, status in result["parts"].items() if status == LATE]
    for name in late:
        console.print("LEFT OUT, no time:", name)
    for failure in parts.failures:
        console.print("FAILED:", failure)
    if parts.failures or late:
        sys.exit(1)


def _add_tests(parts: Parts, runs: dict[str, dict[str, list[str]]]) -> None:
    """Tests in processes of their own, those of a part side by side."""
    found = parts.result.setdefault("tests", {})
    for name, commands in runs.items():

        def run(commands: dict[str, list[str]] = commands) -> dict[str, Any]:
            return run_tests(ROOT, commands, parts.failures)

        parts.run(name, found.update, run)


def _add_kernels(
    parts: Parts,
    points: int,
    rounds: int,
    device: torch.device,
    backend: str,
    states: tuple[Path, ...],
    public_code: Path | None,
    dry_run: bool,
) -> None:
    """The neighbour search: against float64, beside other tools, kernel by kernel."""
    result = parts.result
    truth, speed = result.setdefault("truth", []), result.setdefault("speed", [])
    if device.type == "cuda":

        def accumulation() -> dict[str, Any]:
            return {"accumulation": check_accumulation(device, parts.failures)}

        parts.run("accumulation", result.update, accumulation)
        trials = result.setdefault("trial", {})
        for d in WIDTHS:

            def trial(d: int = d) -> dict[str, Any]:
                start = time.perf_counter()
                shape = torch.empty(1, points, d, device="meta")
                why = doubt(device, Request(shape, shape[..., 0].double(), 5, "cosine"))
                if why:
                    parts.failures.append(f"auto would not take triton at d = {d}: {why}")
                return {str(d): {"doubt": why, "seconds": time.perf_counter() - start}}

            parts.run(f"trial: d = {d}", trials.update, trial)
    for name, x in inputs(points, tuple(WIDTHS), states, device, dry_run):

        def compare(name: str = name, x: Callable[[], torch.Tensor] = x) -> dict[str, Any]:
            row = compare_float64(name, x(), parts.failures, backend)
            console.print(name, f"{row['rows_right']:.6f} of rows right", row["stats"])
            return row

        parts.run(f"truth: {name}", truth.append, compare)
    shapes = [(f"one layer, d = {d}", (1, points, d), target) for d, target in WIDTHS.items()]
    shapes += [("4 layers", (4, points, 1024), None), ("small batch", (33, 1024, 4096), None)]
    for name, shape, target in shapes:
        peer = public_code if shape[0] == 1 else None

        def raced(
            name: str = name,
            shape: tuple[int, int, int] = shape if not dry_run else (min(2, shape[0]), 100, 32),
            target: float | None = target,
            peer: Path | None = peer,
        ) -> dict[str, Any]:
            layers, n, d = shape
            made = [synthetic(n, d, device, seed) for seed in range(layers)]
            x = made[0] if layers == 1 else torch.stack(made)
            row = race(name, x, rounds, backend, target, peer)
            medians = {key: one["median_ms"] for key, one in row["contenders"].items()}
            console.print(name, medians)
            return row

        parts.run(f"speed: {name}", speed.append, raced)
    overlaps = result.setdefault("overlap", [])
    few, shape = (3, (2, 100, 32)) if dry_run else (33, (33, 1024, 4096))
    parts.run(
        "overlap: layers",
        overlaps.append,
        lambda: layers_by_layers(points, rounds, device, parts.failures, few),
    )
    parts.run(
        "overlap: two models",
        overlaps.append,
        lambda: two_models(rounds, device, backend, parts.failures, shape),
    )
    parts.run(
        "pair scores",
        overlaps.append,
        lambda: all_pairs(points, 32 if dry_run else 1024, rounds, device, backend, parts.failures),
    )
    for row in overlaps:
        console.print(row["name"], f"{row['median_ms']:.2f} ms")
    if device.type == "cuda":
        profiles = result.setdefault("profile", {})
        for d in WIDTHS:

            def profiled(d: int = d) -> dict[str, Any]:
                return {str(d): profile(synthetic(points, d, device), backend)}

            parts.run(f"profile: d = {d}", profiles.update, profiled)


def _add_extraction(parts: Parts, device: torch.device, backend: str, dry_run: bool) -> None:
    """Forward passes of random models, then the command on the real models that are at hand."""
    sizes = {"peer_sentences": 32, "gemm": 64, "rounds": 1} if dry_run else {}
    found = parts.result.setdefault("extraction", [])
    for shape in (TINY,) if dry_run else SHAPES:

        def extraction(shape: Any = shape) -> dict[str, Any]:
            row = measure(shape, device, parts.failures, **sizes)
            rates = {name: one["sentences_per_s"] for name, one in row["contenders"].items()}
            console.print(shape.name, f"{row['gemm_tflops']:.0f} TFLOP/s", rates, row["not run"])
            return row

        parts.run(f"extraction: {shape.name}", found.append, extraction)
    whole = parts.result.setdefault("command", [])
    text = os.environ.get("ILO_FAST_FLORES")
    if not text or dry_run:
        return
    options = ["--device", str(device), "--backend", backend]
    for name, path in real_models():
        parts.run(
            f"first batch: {name}",
            whole.append,
            lambda path=path: first_batch(path(), text, str(device), "bfloat16"),
        )
        for dtype, rounds in (("bfloat16", 2), ("float32", 1)):
            given = [*options, "--dtype", dtype]
            parts.run(
                f"command: {name}, {dtype}",
                whole.append,
                lambda path=path, given=given, rounds=rounds: end_to_end(
                    path(), text, given, rounds
                ),
            )


def _add_sweep(parts: Parts, points: int, device: torch.device) -> None:
    """Which launch of the filter is fastest, for ops/triton_config.py to be set from."""
    found = parts.result.setdefault("sweep", {})
    for d in WIDTHS:

        def swept(d: int = d) -> dict[str, Any]:
            row = sweep_launches(points, d, device, found.setdefault(str(d), {}), parts.write)
            best = row["launches"][0]
            console.print(f"d = {d}: fastest search {best.get('search_ms')} ms", best["launch"])
            return {str(d): row}

        parts.run(f"sweep: d = {d}", found.update, swept)


def _device(device: torch.device) -> dict[str, Any]:
    if device.type != "cuda":
        return {"name": "cpu"}
    properties = torch.cuda.get_device_properties(device)
    driver = None
    if shutil.which("nvidia-smi"):
        asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        driver = subprocess.run(asked, capture_output=True, text=True).stdout.strip()
    return {
        "name": properties.name,
        "capability": f"{properties.major}.{properties.minor}",
        "multiprocessors": properties.multi_processor_count,
        "memory_mib": properties.total_memory >> 20,
        "cuda": torch.version.cuda,
        "driver": driver,
    }
