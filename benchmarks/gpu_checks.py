"""What must hold before anything is timed on a card: neighbours equal to float64's, the bound's
assumption about the matrix units."""

import os
import re
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.processes import Commands
from ilo_fast import knn
from ilo_fast.ops import half_products
from ilo_fast.ops.request import METRICS
from ilo_fast.ops.triton_config import accumulation

__all__ = ["check_accumulation", "compare_float64", "run_tests", "test_runs"]

_K = 5
_BLOCK_BYTES = 2 << 30
_TIE = 1e-14  # dozens of roundings of these float64 sums; few pairs that differ lie as near
_REPORTED = 9  # compute-sanitizer's exit status where it has found something
_SEARCH, _MANNERS = "tests/ops/test_knn_op.py", "tests/test_device_manners.py"


def compare_float64(
    name: str, x: torch.Tensor, failures: list[str], backend: str
) -> dict[str, Any]:
    """All rows of all layers against float64 cosines of centred points, written apart from ops.

    A row is right when its list is float64's: same set and order, where cosines that differ by
    less than `_TIE` are equal and the lower index comes first.
    """
    found = knn(x, _K, backend=backend)
    layers, n, _ = x.shape
    wrong = 0
    worst = 0.0
    for layer in range(layers):
        z = x[layer].to(torch.float64)
        z = z / torch.linalg.vector_norm(z, dim=1, keepdim=True).clamp(min=1e-300)
        z -= z.mean(dim=0)  # |z_i - z_j| is what orders; centring keeps its digits
        square = z.square().sum(dim=1)
        step = max(1, _BLOCK_BYTES // (8 * n))
        for start in range(0, n, step):
            rows = torch.arange(start, min(start + step, n), device=x.device)
            half = (square[rows, None] + square) / 2 - z[rows] @ z.T
            half[torch.arange(len(rows), device=x.device), rows] = torch.inf
            ours = found.indices[layer, rows]
            nearest = torch.topk(half, _K, dim=1, largest=False).values
            own = half.gather(1, ours)
            gap = (own - nearest).abs().amax(dim=1)
            worst = max(worst, float(gap.max()))
            equal = (own[:, 1:] - own[:, :-1]).abs() <= _TIE
            ordered = (~equal | (ours[:, 1:] > ours[:, :-1])).all(dim=1)
            # Nothing outside the list may tie with its last entry at a lower index.
            tied = (half <= own[:, -1:] + _TIE) & (half >= own[:, -1:] - _TIE)
            lower = tied & (torch.arange(n, device=x.device) < ours.amax(dim=1, keepdim=True))
            lower.scatter_(1, ours, False)
            last_tied = (own - own[:, -1:]).abs() <= _TIE
            highest = torch.where(last_tied, ours, -1).amax(dim=1, keepdim=True)
            lower &= torch.arange(n, device=x.device) < highest
            wrong += int((~((gap <= _TIE) & ordered & ~lower.any(dim=1))).sum())
    right = 1 - wrong / (layers * n)
    if wrong or not bool(found.certified.all()):
        failures.append(f"{name}: {wrong} rows differ from float64, worst gap {worst:g}")
    stats = found.stats
    return {
        "name": name,
        "shape": list(x.shape),
        "backend": found.backend,
        "rows_right": right,
        "worst_gap": worst,
        "certified": float(found.certified.double().mean()),
        "stats": {
            "rows_repaired_mean": sum(stats.rows_repaired) / layers,
            "rows_repaired_max": max(stats.rows_repaired),
            "open_candidates_mean": sum(stats.open_candidates) / layers,
            "open_candidates_max": max(stats.open_candidates),
        },
        "rows_repaired": list(stats.rows_repaired),
        "open_candidates": list(stats.open_candidates),
    }


def check_accumulation(device: torch.device, failures: list[str]) -> dict[str, Any]:
    """Largest error of the card's float16 products, as a share of what the bounds allow."""
    from ilo_fast.ops import triton_probe

    model = accumulation(torch.cuda.get_device_capability(device)[0])
    made: dict[str, Any] = {
        "terms": model.terms,
        "fraction_bits": model.fraction_bits,
        "reason": model.reason,
    }
    for name, product, bound in (
        ("filter", triton_probe.product, model.gamma),
        ("library", half_products.one_product, partial(half_products.sum_bound, model)),
    ):
        worst, at = half_products.worst_share(product, device, bound)
        if not worst <= 1:
            failures.append(f"{name}: products lose {worst:.2f} times what the bound allows ({at})")
        made[name] = {"worst_share_of_bound": worst, "at": at}
    return made


def test_runs() -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Names and commands of the GPU tests, and of small shapes under compute-sanitizer.

    >>> sorted(test_runs()[0])[:2]
    ['gpu marker', 'triton kernels: bound']
    """
    root = Path(__file__).resolve().parents[1]
    pytest = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    marked = [*pytest, "-m", "gpu"]
    # Compiling takes most of the time and one core: what compiles most has processes of its own.
    apart = {root / _SEARCH, root / _MANNERS}
    others = [
        str(path.relative_to(root))
        for path in sorted((root / "tests").rglob("test_*.py"))
        if path not in apart and "mark.gpu" in path.read_text(encoding="utf-8")
    ]
    plain = {
        # A test module that wants a package this machine lacks keeps no other from running.
        "gpu marker": [*marked, "--continue-on-collection-errors", *others],
        "gpu marker: manners": [*marked, _MANNERS],
        **{f"gpu marker: {metric}": [*marked, _SEARCH, "-k", metric] for metric in METRICS},
        **{
            f"triton kernels: {path.stem[5:]}": [*pytest, str(path.relative_to(root))]
            for path in sorted((root / "tests/ops/triton").glob("test_*.py"))
        },
    }
    checked = {
        f"compute-sanitizer {tool}": [
            *("compute-sanitizer", "--tool", tool, "--error-exitcode", str(_REPORTED)),
            *("--report-api-errors", "no"),  # libraries ask for entry points that a driver lacks
            *(*pytest, "tests/ops/triton/test_bound.py", "tests/ops/triton/test_engine.py"),
            *("-k", "mode or odd or equals_float64 or lower_index"),  # every kernel, odd shapes
        ]
        for tool in ("memcheck", "racecheck")
    }
    return plain, checked


def run_tests(
    root: Path, runs: dict[str, list[str]], failures: list[str], seconds: float = 420.0
) -> dict[str, Any]:
    """The commands side by side, each in a process of its own and stopped after ``seconds``.

    Compiling kernels takes one core a process and most of the time; nothing here is timed. What
    only racecheck reports, in tests that pass, has ``hazards`` in what is returned and is no
    failure: it does not know every way of waiting for a copy.
    """
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    commands = Commands()
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(len(runs)) as together:

        def run(place: int) -> dict[str, Any]:
            name, arguments = list(runs.items())[place]
            own = dict(environment)
            if name.startswith("compute-sanitizer"):
                # An allocation a tensor: accesses behind it are not into another one's memory.
                own["PYTORCH_NO_CUDA_MEMORY_CACHING"] = "1"
            log = Path(folder) / f"{place}.txt"
            began = time.monotonic()
            status: int | str
            with log.open("w") as file:
                try:
                    status = commands.run(arguments, seconds, file, cwd=root, env=own)
                except (OSError, subprocess.TimeoutExpired) as error:
                    status = f"{type(error).__name__}: {error}"[:300]
            text = log.read_text(errors="replace").strip()
            found = {
                "status": status,
                "summary": (text.splitlines() or [""])[-1],
                "seconds": round(time.monotonic() - began, 1),
            }
            if "racecheck" in name and status == _REPORTED and _passed(text):
                found["hazards"] = re.findall(r"RACECHECK SUMMARY:.*", text)
            return found if status == 0 else {**found, "output": _ends(text)}

        try:
            futures = [together.submit(run, place) for place in range(len(runs))]
            # Awake now and then: a signal just before an endless wait is heard only at its end.
            while wait(futures, timeout=1.0).not_done:
                pass
            found = {name: future.result() for name, future in zip(runs, futures, strict=True)}
        except BaseException:  # Ctrl-C: without them the threads are done
            commands.end()
            raise
    for name, one in found.items():
        print(name, one["status"], one["summary"], flush=True)
        if one["status"] != 0 and "hazards" not in one:
            failures.append(f"{name}: {one['status']} {one['summary']}")
        if one["status"] != 0:
            print(one["output"][-4000:], flush=True)
    return found


def _passed(log: str) -> bool:
    """Whether pytest's last line tells of no failure; the sanitizer's begin with ``=====``."""
    told = re.findall(r"^(?!=====).*\b\d+ (?:passed|failed|errors?)\b.*$", log, re.MULTILINE)
    return bool(told) and re.search(r"failed|error", told[-1]) is None


def _ends(text: str) -> str:
    """A log's beginning, where the first failure is, and its end, where the summary is."""
    return text if len(text) <= 16_000 else f"{text[:8_000]}\n[…]\n{text[-8_000:]}"
