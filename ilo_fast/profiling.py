"""A Chrome trace of a run, for chrome://tracing or Perfetto."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from ilo_fast.files import staged

__all__ = ["activities_on", "chrome_trace"]


def activities_on(device: str) -> tuple[ProfilerActivity, ...]:
    """What to trace of a run on ``device``; "auto" is CUDA where there is one."""
    wants_cuda = device.partition(":")[0] in ("auto", "balanced", "cuda")
    if wants_cuda and torch.cuda.is_available():
        return ProfilerActivity.CPU, ProfilerActivity.CUDA
    return (ProfilerActivity.CPU,)


@contextmanager
def chrome_trace(path: Path, device: str) -> Iterator[None]:
    """Trace the block in all its threads; the file appears whole when the block ends well.

    It is compressed where ``path`` ends in .gz, which both viewers read. Until then it is held in
    memory, about 200 bytes for each operator that ran.
    """
    from torch._C._profiler import _ExperimentalConfig

    threads = _ExperimentalConfig(profile_all_threads=True)  # tokenising runs beside the model
    with profile(activities=activities_on(device), experimental_config=threads) as traced:
        yield
    with staged(path.parent) as temporary:
        traced.export_chrome_trace(str(temporary / path.name))
