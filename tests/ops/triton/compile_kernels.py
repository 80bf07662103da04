"""Compile the engine's kernels for cards that need not be there; print what each one takes.

``python compile_kernels.py "90 4096 5 cosine [kernel ...]"``: compute capability, dimensions, k,
metric, and which kernels (all when none is named). Every launch of the engine is made as on the
card, with the same specialisation, and compiled instead of run. A JSON object for each kernel.

``python compile_kernels.py "variants 90 576 5 cosine 2149"``: the trial's launches, then those of
seven layers of that many points in three parts; how many kernels each name is.

``python compile_kernels.py "beside 90 dtype ..."``: the kernels beside the engine's, as first.
Pooling has one for each dtype and mode.

Several such commands may be given; each answers with one line.
"""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from ilo_fast.ops import knn_triton, largest, segment_pool, triton_probe
from ilo_fast.ops.request import Request
from ilo_fast.ops.triton_config import FilterConfig, filter_config

np.seterr(all="ignore")  # no kernel runs: what the buffers hold is nobody's numbers


class AbsentCard:
    """As much of a driver as compiling asks for."""

    def __init__(self, capability: int) -> None:
        self.target = GPUTarget("cuda", capability, 32)

    def get_current_target(self) -> GPUTarget:
        return self.target

    def get_current_device(self) -> int:
        return self.target.arch  # kernels are kept for each device

    def get_current_stream(self, device: int | None = None) -> int:
        return 0

    def get_active_torch_device(self) -> torch.device:
        return torch.device("cpu")


def instead_of_a_card(capability: int, wanted: list[str]) -> dict[str, list[Any]]:
    """From now on launches compile only; the different kernels of each name are added here."""
    driver.set_active(AbsentCard(capability))
    made: dict[str, list[Any]] = {}

    def compile_only(kernel: Any, grid: Any) -> Any:
        def launch(*arguments: Any, **options: Any) -> None:
            if not wanted or kernel.__name__ in wanted:
                built = kernel.warmup(*arguments, grid=grid, **options)
                built = built.result() if hasattr(built, "result") else built
                name = kernel.__name__ + ("_tiers" if options.get("TIERS") else "")
                known = made.setdefault(name, [])
                if not any(one is built for one in known):
                    known.append(built)

        return launch

    JITFunction.__getitem__ = compile_only
    return made


def launch_engine(
    capability: int,
    x: torch.Tensor,
    k: int,
    metric: str,
    parts: list[tuple[int, int]],
    launch: FilterConfig | None = None,
) -> None:
    layers, n, d = x.shape
    row_max = torch.ones(layers, n, dtype=torch.float64)
    request = Request(x=x, row_max=row_max, k=k, metric=metric)
    plan = knn_triton.plan(capability // 10, layers, n, d, k, launch=launch)
    made = knn_triton._Results(request)
    for first, last in parts:
        knn_triton._search_layers(request, plan, first, last, made)


def compile_engine(
    capability: int, d: int, k: int, metric: str, wanted: list[str]
) -> list[dict[str, Any]]:
    made = instead_of_a_card(capability, wanted)
    x = torch.zeros(1, 9000 if d >= 2048 else 1500, d)
    launch_engine(capability, x, k, metric, [(0, 1)])
    return [_facts(name, built) for name, (built,) in made.items()]


def count_variants(capability: int, d: int, k: int, metric: str, n: int) -> dict[str, int]:
    made = instead_of_a_card(capability, [])
    launch = filter_config(capability // 10, n, d, k)
    trial = torch.zeros(2, 2083, d)  # triton_trial's
    launch_engine(capability, trial, k, metric, [(0, 2)], launch)
    launch_engine(capability, torch.zeros(7, n, d), k, metric, [(0, 3), (3, 6), (6, 7)])
    return {name: len(built) for name, built in made.items()}


def compile_beside(capability: int, pooled: list[str]) -> list[dict[str, Any]]:
    made = instead_of_a_card(capability, [])
    offsets = torch.tensor([0, 7, 20])
    for dtype in pooled:
        for mode in ("mean", "weighted"):
            segment_pool.launch(torch.zeros(20, 576, dtype=getattr(torch, dtype)), offsets, mode)
    triton_probe.product(*[torch.zeros(128, 64, dtype=torch.float16)] * 2)
    for length in (1024, 4096):
        form = torch.zeros(1, length, length)
        for dim in (1, 2):
            largest.launch_largest(form, 12, dim)
            largest.launch_rivals(form, form[:, 0], dim)
    return [_facts(name, one) for name, built in made.items() for one in built]


def _dumped(cubin: bytes, option: str) -> str:
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        return subprocess.run(
            [str(tool), option, file.name], capture_output=True, text=True, check=True
        ).stdout


def _spills_beside_products(sass: str) -> int | None:
    """Accesses to spilled registers in the shortest loop that holds products; None without one."""
    code = re.findall(r"/\*([0-9a-f]{4,})\*/ +(.*?);", sass)
    lines = [(int(at, 16), text) for at, text in code]
    loops = []
    for end, text in lines:
        target = re.search(r"\bBRA\b.* 0x([0-9a-f]+)", text)
        if target and int(target[1], 16) < end:
            body = [line for at, line in lines if int(target[1], 16) <= at <= end]
            if any(re.search(r"\b(HGMMA|UTCHMMA|HMMA)", line) for line in body):
                loops.append(body)
    if not loops:
        return None
    return sum(bool(re.search(r"\b(STL|LDL)\b", line)) for line in min(loops, key=len))


def _facts(name: str, built: Any) -> dict[str, Any]:
    cubin = built.asm["cubin"]
    usage = dict(re.findall(r"(REG|STACK):(\d+)", _dumped(cubin, "--dump-resource-usage")))
    ptx = built.asm["ptx"]
    facts = {
        "kernel": name,
        "registers": int(usage["REG"]),
        "stack_bytes": int(usage["STACK"]),
        "shared_bytes": built.metadata.shared,
        "warps": built.metadata.num_warps,
        "flushes_subnormals": ".ftz" in ptx,
        "fuses_float64": "fma.rn.f64" in ptx,
        "tensor_copies": "cp.async.bulk.tensor" in ptx,
        "matrix_unit": next((w for w in ("tcgen05.mma", "wgmma", "mma.sync") if w in ptx), None),
    }
    if name == "_filter_kernel":  # the dearest: to disassemble a kernel takes as long as compiling
        sass = _dumped(cubin, "-sass")
        code = re.findall(r"/\*[0-9a-f]{4,}\*/ +(?:@!?U?P\d+ )?(\w+)", sass)
        facts["instructions"] = len(code)
        facts["shared_accesses"] = sum(word in ("LDS", "STS", "LDSM", "STSM") for word in code)
        facts["product_loop_spills"] = _spills_beside_products(sass)
    return facts


def answer(command: str) -> Any:
    mode, *given = command.split() if command[0].isalpha() else ["engine", *command.split()]
    if mode == "beside":
        return compile_beside(int(given[0]), given[1:])
    card, dims, count = map(int, given[:3])
    if mode == "variants":
        return count_variants(card, dims, count, given[3], int(given[4]))
    return compile_engine(card, dims, count, given[3], given[4:])


if __name__ == "__main__":
    for command in sys.argv[1:]:
        sys.stdout.write(json.dumps(answer(command)) + "\n")
