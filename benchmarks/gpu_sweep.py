"""Launches of the filter kernel beside each other: ops/triton_config.py is set from their times.

Each launch is compiled and must find the neighbours of the trial's hard points in a process of its
own, several side by side and none for long; then, for every one that may serve, the filter alone
and the whole search are timed. What is known of a launch is kept as soon as it is known.
"""

import statistics
import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, replace
from multiprocessing import get_context
from typing import Any

import torch

from benchmarks.gpu_inputs import synthetic
from benchmarks.gpu_race import milliseconds
from ilo_fast.ops import knn_triton
from ilo_fast.ops.request import Request
from ilo_fast.ops.triton_config import FilterConfig, filter_config
from ilo_fast.ops.triton_trial import lists

__all__ = ["launches", "sweep"]

K = 5
_TILES = (
    (128, 256, 8),
    (256, 128, 8),
    (128, 128, 4),
    (128, 128, 8),
    (64, 256, 4),
)  # rows, columns, warps
_AT_ONCE = 8  # processes that compile
_SECONDS, _MOST_SECONDS = 90.0, 300.0  # of one process; of all that compile
_ROUNDS = 10
_IN_A_ROW = 5  # launches a timing of the filter: a host's time to launch one is not the kernel's


def launches(chosen: FilterConfig) -> list[FilterConfig]:
    """The chosen launch first, then others of its card; equal ones once.

    >>> found = launches(filter_config(9, 30907, 4096, 5))
    >>> len(found) == len(set(found)), found[0].block_n
    (True, 256)
    """
    chosen = replace(chosen, reason="")
    found = [chosen, replace(chosen, tma=not chosen.tma)]
    found += [
        replace(
            chosen,
            block_m=rows,
            block_n=columns,
            warps=warps,
            stages=stages,
            bin_width=width,
            one_pass=one_pass,
        )
        for rows, columns, warps in _TILES
        for stages in (3, 4)
        for width in (16, 32)
        for one_pass in (False, True)
    ]
    return list(dict.fromkeys(found))


def sweep(
    points: int,
    d: int,
    device: torch.device,
    found: dict[str, Any],
    save: Callable[[], None],
    rounds: int = _ROUNDS,
) -> dict[str, Any]:
    """Every launch for a layer of ``points`` in ``d`` dimensions, fastest search first.

    ``found`` is what an earlier call came to, at first empty; it is filled, and ``save`` called,
    launch by launch.
    """
    asked = launches(filter_config(_major(device), points, d, K))
    found["chosen"] = asdict(asked[0])
    rows = found.setdefault("launches", [])
    known = [row["launch"] for row in rows]
    for launch, refused in _checked(
        [one for one in asked if asdict(one) not in known], points, d, device
    ):
        rows.append({"launch": asdict(launch), "refused": refused})
        save()
    x = synthetic(points, d, device)[None]
    request = _request(x)
    for row in rows:
        if not row["refused"] and "search_ms" not in row:
            row.update(_timed(request, FilterConfig(**row["launch"]), rounds))
            save()
    rows.sort(key=lambda row: row.get("search_ms", float("inf")))
    return found


def _timed(request: Request, launch: FilterConfig, rounds: int) -> dict[str, Any]:
    _, n, d = request.shape
    device = request.x.device
    with torch.no_grad(), knn_triton.on_device(device):
        run = _filter(request, launch)
        kernel = run()

        def in_a_row() -> None:
            for _ in range(_IN_A_ROW):
                run()

        in_a_row()
        alone = [milliseconds(in_a_row, device) / _IN_A_ROW for _ in range(rounds)]
    whole = [
        milliseconds(lambda: knn_triton.search(request, launch), device) for _ in range(rounds)
    ]
    median = statistics.median(alone)
    return {
        "filter_ms": median,
        "filter_min_ms": min(alone),
        "filter_tflops": n * n * d / (median * 1e-3) / 1e12,
        "registers": getattr(kernel, "n_regs", None),  # None under Triton's interpreter
        "spills": getattr(kernel, "n_spills", None),
        "search_ms": statistics.median(whole[1:] or whole),
        "search_min_ms": min(whole),
    }


def _filter(request: Request, launch: FilterConfig) -> Any:
    """The filter of one layer, ready to launch again and again."""
    from ilo_fast.ops.triton_filter import allocate, filter_bins
    from ilo_fast.ops.triton_prepare import prepare

    _, n, d = request.shape
    device = request.x.device
    plan = knn_triton.plan(_major(device), 1, n, d, request.k, launch=launch)
    x, largest = knn_triton._scaled(request, 0, 1)
    operands = prepare(
        x, largest, request.metric,
        row_multiple=launch.row_multiple, gamma=plan.gamma, config=plan.row,
    )  # fmt: skip
    bins = allocate(1, n, plan.n_pad, plan.n_pad, launch, device)
    return lambda: filter_bins(operands, bins, launch, first_row=0, exclude_self=True)


def _checked(
    asked: list[FilterConfig], points: int, d: int, device: torch.device
) -> Generator[tuple[FilterConfig, str], None, None]:
    """Each launch, as soon as it is known, with why it cannot be timed: "" where it can."""
    end = time.monotonic() + _MOST_SECONDS
    with ThreadPoolExecutor(_AT_ONCE) as together:
        tasks = {
            together.submit(_apart, _try, (one, points, d, str(device)), end): one for one in asked
        }
        try:
            for task in as_completed(tasks):
                yield tasks[task], task.result()
        except BaseException:  # Ctrl-C: those that wait would all be tried first
            together.shutdown(wait=False, cancel_futures=True)
            raise


def _apart(call: Callable[..., str], arguments: tuple[Any, ...], end: float) -> str:
    """What ``call`` returns in a process of its own, whose CUDA context it may break."""
    seconds = min(_SECONDS, end - time.monotonic())
    if seconds <= 0:
        return "not tried: no time"
    context = get_context("spawn")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(there, call, arguments), daemon=True)
    process.start()
    there.close()
    try:
        if here.poll(seconds):
            said: str = here.recv()
            return said
        return f"no answer in {seconds:.0f} s"
    except EOFError:
        process.join()
        return f"its process ended with status {process.exitcode}"
    finally:
        here.close()
        process.kill()
        process.join()


def _send(pipe: Any, call: Callable[..., str], arguments: tuple[Any, ...]) -> None:
    pipe.send(call(*arguments))


def _try(launch: FilterConfig, points: int, d: int, name: str) -> str:
    """Is the launch right? Its binaries are on disk afterwards."""
    try:
        device = torch.device(name)
        wrong = lists(device, launch, d, K, "cosine", torch.float32, True)
        if not wrong:
            knn_triton.search(_request(synthetic(points, d, device)[None]), launch)
    except Exception as error:  # of a compiler or a launch
        return f"{type(error).__name__}: {error}"[:300]
    return wrong


def _request(x: torch.Tensor) -> Request:
    return Request(x, x.abs().amax(dim=2).double(), K, "cosine")


def _major(device: torch.device) -> int:
    """Compute capability; 0 for Triton's interpreter."""
    return torch.cuda.get_device_capability(device)[0] if device.type == "cuda" else 0
