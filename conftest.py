"""Which modules of the package cannot be read for doctests here, for want of an optional package.

They are named rather than skipped when their import fails: with
``--doctest-ignore-import-errors`` pytest also passes over a test module that cannot be imported.
"""

import gc
from collections.abc import Generator
from importlib.util import find_spec

import pytest

# module: the packages any one of which will do
OPTIONAL = {
    "ilo_fast/adapters/scib_metrics.py": ("scib_metrics",),
    "ilo_fast/adapters/sklearn.py": ("sklearn",),
    "ilo_fast/adapters/torchmetrics.py": ("torchmetrics",),
    "ilo_fast/adapters/umap.py": ("pynndescent",),
    "ilo_fast/finetune/lightning.py": ("lightning", "pytorch_lightning"),
    "ilo_fast/ops/triton_*.py": ("triton",),
    "ilo_fast/scans/*.py": ("pydantic",),
}
MISSING = {
    modules: packages
    for modules, packages in OPTIONAL.items()
    if not any(find_spec(package) for package in packages)
}
collect_ignore_glob = list(MISSING)


def pytest_report_header() -> list[str]:
    """Name what is left out."""
    return [
        f"without doctests: {modules} (needs {' or '.join(packages)})"
        for modules, packages in MISSING.items()
    ]


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What is imported now stays: no garbage collection, now or in a test, walks through it."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()
