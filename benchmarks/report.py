"""Where a run's figures go: a JSON file that appears whole, and a table."""

import json
import math
import os
import platform
import shutil
import subprocess
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from ilo_fast.environment import devices
from ilo_fast.files import write_text

__all__ = ["describe_run", "print_workload", "write_json"]

_PACKAGES = (
    "ilo-fast",
    "torch",
    "numpy",
    "triton",
    "cupy-cuda13x",
    "faiss-cpu",
    "transformers",
    "liger-kernel",
)


def describe_run(**settings: Any) -> dict[str, Any]:
    """Machine, versions, commit and settings of this run."""
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = None
    commit = _git("rev-parse", "HEAD")
    changed = _git("status", "--porcelain", "--", "ilo_fast").splitlines()
    return {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit,  # "" where this is no checkout
        "changed_files": len(changed) if commit else None,
        "machine": {
            "cpu": devices()[-1].name,
            "cores": os.cpu_count(),
            "system": f"{platform.system()} {platform.machine()}",
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
            "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        },
        "python": platform.python_version(),
        "versions": versions,
        "settings": settings,
    }


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write under a temporary name, then rename: readers never see half a file.

    A figure that is not finite goes as null: JSON has no other word for it.
    """
    write_text(path, json.dumps(_finite(content), indent=1, allow_nan=False) + "\n")


def _finite(content: Any) -> Any:
    if isinstance(content, dict):
        return {name: _finite(value) for name, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def print_workload(result: dict[str, Any], console: Console) -> None:
    """One row a contender."""
    table = Table(title=f"{result['name']}: {result['describe']}")
    table.add_column("contender")
    numbers = ("seconds (median)", "spread", "CPU s", "ours / this", "peak MiB", "rows right")
    for column in numbers:
        table.add_column(column, justify="right")
    for name, timing in result["contenders"].items():
        right = timing.get("rows_right")
        peak = timing["peak_extra_mib"]
        table.add_row(
            name,
            f"{timing['wall_median_s']:.2f}",
            f"{timing['wall_min_s']:.2f}–{timing['wall_max_s']:.2f}",
            f"{timing['cpu_median_s']:.2f}",
            f"{timing['ours_over_this_wall']:.2f} (CPU {timing['ours_over_this_cpu']:.2f})",
            "" if peak is None else f"{peak:.0f}",
            "" if right is None else f"{100 * right:.2f} %",
        )
    console.print(table)


def _git(*arguments: str) -> str:
    root = Path(__file__).resolve().parent
    if shutil.which("git") is None:
        return ""
    shown = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True)
    return shown.stdout.strip()
