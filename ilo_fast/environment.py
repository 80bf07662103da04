"""What this machine runs: versions, devices, free disk space; read when asked, never at import."""

import functools
import platform
import shutil
import sys
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from ilo_fast.errors import InputError

__all__ = [
    "Device",
    "cpu_facts",
    "describe",
    "devices",
    "free_disk",
    "require_space",
    "versions",
]

# Distribution names whose versions can change a score, then those that can change its speed.
_RECORDED = (
    "ilo-fast",
    "torch",
    "transformers",
    "tokenizers",
    "numpy",
    "scipy",
    "pandas",
    "pyarrow",
    "safetensors",
    "gguf",
    "accelerate",
    "triton",
    "liger-kernel",
    "cupy-cuda13x",
    "cupy-cuda12x",
    "matplotlib",
)


@dataclass(frozen=True)
class Device:
    """One device torch can compute on; ``memory`` in bytes, 0 where it is not known."""

    id: str
    name: str
    memory: int


def versions() -> dict[str, str | None]:
    """Versions of the packages that take part in a score; None where one is not installed.

    Reads installed metadata and imports nothing.

    >>> from ilo_fast.environment import versions
    >>> versions()["torch"] is not None
    True
    """
    return {name: _version(name) for name in _RECORDED}


@functools.cache
def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def devices() -> list[Device]:
    """The devices torch sees: each CUDA card, Apple's GPU where there is one, and the CPU last."""
    import torch

    found = []
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            card = torch.cuda.get_device_properties(index)
            found.append(Device(f"cuda:{index}", card.name, card.total_memory))
    if torch.backends.mps.is_available():
        found.append(Device("mps", "Apple GPU", 0))
    found.append(Device("cpu", _cpu_name(), 0))
    return found


def describe(device: str | None = None) -> dict[str, Any]:
    """Python, platform, package versions and the named device, as they go in a run record.

    ``device``: a torch device name such as ``"cuda:0"``; None leaves the device out, and torch
    unimported.
    """
    record: dict[str, Any] = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": versions(),
    }
    if device is not None:
        import torch

        record["device"] = asdict(_find_device(device))
        record["threads"] = torch.get_num_threads()
    return record


def free_disk(folder: str | Path) -> int:
    """Bytes free where ``folder`` is or will be."""
    existing = Path(folder).absolute()
    while not existing.exists():
        existing = existing.parent
    return shutil.disk_usage(existing).free


def require_space(folder: str | Path, needed: int) -> None:
    """Raise InputError unless the file system of ``folder`` has ``needed`` bytes free."""
    free = free_disk(folder)
    if free < needed:
        raise InputError(
            f"not enough disk space for {str(folder)!r}: about {needed / 2**20:.1f} MiB needed, "
            f"{free / 2**20:.1f} MiB free"
        )


def _find_device(name: str) -> Device:
    known = {device.id: device for device in devices()}
    wanted = f"{name}:0" if name == "cuda" else name
    return known.get(wanted, Device(wanted, "unknown", 0))


@functools.cache
def cpu_facts() -> dict[str, str]:
    """What Linux says of the first processor, such as ``"vendor_id"``; elsewhere nothing.

    >>> from ilo_fast.environment import cpu_facts
    >>> cpu_facts().get("vendor_id", "unknown") != ""
    True
    """
    if sys.platform != "linux":
        return {}
    first, _, _ = Path("/proc/cpuinfo").read_text(encoding="utf-8").partition("\n\n")
    facts = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in facts}


def _cpu_name() -> str:
    return cpu_facts().get("model name") or platform.processor() or platform.machine()
