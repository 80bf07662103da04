"""Tiny models and text for scans."""

import shutil
import warnings
from importlib.util import find_spec

import pytest
from changes import change

# Without the extra no module here can be read; a machine for the GPU tests need not have it.
if not all(find_spec(name) for name in ("pydantic", "yaml")):
    collect_ignore_glob = ["test_*.py"]
    warnings.warn("tests/scans is left out: it needs the extra 'scan'", stacklevel=1)


@pytest.fixture
def models(tiny_model, tmp_path):
    """A folder with two copies of the tiny model, one of them changed."""
    folder = tmp_path / "models"
    for name in ("step9", "step10"):
        shutil.copytree(tiny_model, folder / name)
    change(folder / "step10")
    return folder


@pytest.fixture
def plan(models, corpus_folder):
    """Two models on one corpus, few draws."""
    return {
        "models": [str(models / "step*")],
        "corpora": [{"corpus": str(corpus_folder), "name": "text", "limit": 5}],
        "defaults": {"k": 3, "threshold": 2, "intervals": 4, "permutations": 4},
    }


@pytest.fixture
def run(plan, tmp_path):
    """Scan the plan with changes; quiet."""

    from ilo_fast import scan
    from ilo_fast.scans.view import View

    def run_scan(view=None, results=None, retry_failures=True, **changed):
        return scan(
            {**plan, **changed},
            results=results or tmp_path / "out",
            view=view or View(),
            retry_failures=retry_failures,
        )

    return run_scan
