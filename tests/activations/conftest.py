"""Lets the tests of this folder import their shared models by name; what several of them use."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def ran(monkeypatch):
    """The number of tokens of every forward pass of extraction."""
    from ilo_fast.activations.runner import Runner

    passes, run = [], Runner.run

    def counted(self, row, lengths):
        passes.append(len(row))
        return run(self, row, lengths)

    monkeypatch.setattr(Runner, "run", counted)
    return passes
