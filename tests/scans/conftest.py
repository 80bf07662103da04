"""Tiny models and text for scans."""

import shutil

import pytest
from changes import change


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
