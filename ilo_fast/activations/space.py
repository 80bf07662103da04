"""How much room there is in host and device memory."""

import os
from pathlib import Path

import torch

__all__ = ["free_memory", "human"]

_GROUP = Path("/sys/fs/cgroup")


def human(count: int) -> str:
    """A number of bytes for people: ``'3.1 GB'``."""
    size = float(count)
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def _cgroup_free() -> int | None:
    """What the container's memory limit leaves, where there is one."""
    try:
        limit = (_GROUP / "memory.max").read_text().strip()
        if limit == "max":
            return None
        taken = int((_GROUP / "memory.current").read_text())
        stat = dict(line.split() for line in (_GROUP / "memory.stat").read_text().splitlines())
        # The cache of files read, a model's among them, is counted, and goes when room is needed.
        return int(limit) - taken + int(stat["inactive_file"])
    except (OSError, ValueError):
        return None  # no such limit on this system


def _host_free() -> int:
    meminfo = Path("/proc/meminfo")
    if meminfo.is_file():
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    pages = "SC_AVPHYS_PAGES" if "SC_AVPHYS_PAGES" in os.sysconf_names else "SC_PHYS_PAGES"
    return os.sysconf(pages) * os.sysconf("SC_PAGE_SIZE")  # macOS tells the whole only


def free_memory(device: torch.device) -> int:
    """Bytes free on a CUDA device, or in this machine's memory."""
    if device.type == "cuda":
        # What torch keeps of tensors that are gone is taken to the driver and free to the next one.
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + kept
    limit = _cgroup_free()
    return _host_free() if limit is None else min(_host_free(), limit)
