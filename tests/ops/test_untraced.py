"""Searches inside compiled code run as they are: no compiler sees the engine."""

import subprocess
import sys

import torch

from ilo_fast import FlatIndex, knn


def compiled(function):
    """``function`` compiled, and the names of the operators that the compiler was given."""
    seen = []

    def backend(graph, _):
        seen.extend(node.name for node in graph.graph.nodes if node.op.startswith("call"))
        return graph

    return torch.compile(function, backend=backend), seen


def test_searches_stay_out_of_compiled_graphs():
    x = torch.randn(600, 9, generator=torch.Generator().manual_seed(0))
    index = FlatIndex(9, "cosine")

    def among_themselves(points):
        return knn(points * 2, 4, metric="cosine").indices + 1

    def found(points):
        index.add(points * 2)
        return index.search(points[:50] * 2, 4)[1] + 1

    for function in (among_themselves, found):
        torch.compiler.reset()
        fast, seen = compiled(function)
        expected = function(x)
        index.reset()
        assert torch.equal(fast(x), expected)
        assert 0 < len(seen) < 10  # the lines above, and what `search` fills up


def test_a_search_does_not_import_torchs_compiler():
    code = (
        "import sys, torch, ilo_fast; ilo_fast.knn(torch.eye(300), 2); "
        "assert 'torch._dynamo' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
