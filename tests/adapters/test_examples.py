"""The tools' own examples: the benchmark's workloads, whose check wants the same numbers."""

import sys

import pytest

from benchmarks import adapter_examples
from benchmarks.adapters import WORKLOADS, there

pytestmark = pytest.mark.adapters
FOREIGN = {"graphs", "measure_alignment", "metrics", "repsim"}


@pytest.fixture
def modules():
    """Modules of checkouts are forgotten afterwards: their names are anybody's."""
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.partition(".")[0] in FOREIGN:
            del sys.modules[name]


@pytest.mark.parametrize("name", adapter_examples.__all__)
def test_same_numbers(name, modules, recwarn):
    needs, make = WORKLOADS[name]
    missing = [need for need in needs if not there(need)]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}: make test-adapters")
    workload = make(8, 2)
    ours, theirs = workload.contenders
    assert ours.ours
    workload.check(ours, ours.run())
    assert workload.check(theirs, theirs.run())["largest_difference"] < 0.03
