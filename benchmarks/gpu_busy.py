"""What a card does while a piece of work runs: which kernels, and for how much of the time any.

Idle time is what CUDA graphs could save at most; the elementwise kernels' share what compiled or
fused blocks could.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.autograd import DeviceType

__all__ = ["busy", "covered"]


def covered(spans: Iterable[tuple[float, float]]) -> float:
    """Length of the union of intervals."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total


def busy(run: Callable[[], Any], device: torch.device) -> dict[str, Any]:
    """Milliseconds from the first kernel of ``run`` to the end of the last, the share of them in
    which at least one runs, and the kernels that take longest with their shares of all kernels'
    time. Off CUDA, in a dry run, torch's operators stand in for kernels.

    Where torch cannot profile a card, ``"not run"`` says why: what was timed before is kept."""
    run()
    try:
        return _profiled(run, device)
    except Exception as error:
        return {"not run": f"{type(error).__name__}: {error}"[:300]}


def _profiled(run: Callable[[], Any], device: torch.device) -> dict[str, Any]:
    cuda = device.type == "cuda"
    kind = torch.profiler.ProfilerActivity.CUDA if cuda else torch.profiler.ProfilerActivity.CPU
    with torch.profiler.profile(activities=[kind]) as profiler:
        run()
        if cuda:
            torch.cuda.synchronize(device)
    wanted = DeviceType.CUDA if cuda else DeviceType.CPU
    spans: list[tuple[float, float]] = []
    taken: dict[str, float] = defaultdict(float)
    for event in profiler.events() or ():
        if event.device_type == wanted and not event.is_user_annotation:  # no range around kernels
            span = event.time_range
            spans.append((span.start, span.end))
            taken[event.name] += span.end - span.start
    if not spans:
        return {"not run": "the profiler saw no kernel: it may not be allowed to read the card"}
    whole = max(end for _, end in spans) - min(start for start, _ in spans)
    kernels = sorted(taken.items(), key=lambda item: -item[1])[:12]
    return {
        "milliseconds": whole / 1e3,
        "busy_share": covered(spans) / whole,
        "kernels": {name[:120]: value / sum(taken.values()) for name, value in kernels},
    }
