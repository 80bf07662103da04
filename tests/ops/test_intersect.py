"""intersection_sizes against sets in Python, as an operator and under torch.compile."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ilo_fast.ops import intersect
from ilo_fast.ops.intersect import intersection_sizes


def _lists(rng: np.random.Generator, layers: int, n: int, k: int, span: int) -> np.ndarray:
    return np.argsort(rng.random((layers, n, span)), axis=2)[:, :, :k].copy()


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    layers=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    n=st.integers(1, 12),
    k=st.tuples(st.integers(1, 6), st.integers(1, 6)),
)
def test_equals_sets(seed: int, layers: tuple[int, int], n: int, k: tuple[int, int]) -> None:
    rng = np.random.default_rng(seed)
    a, b = (_lists(rng, layers[s], n, k[s], 12) for s in (0, 1))
    truth = np.array(
        [[[len(set(u.tolist()) & set(v.tolist())) for u, v in zip(x, y, strict=True)] for y in b]
         for x in a]
    )  # fmt: skip
    left, right = torch.tensor(a), torch.tensor(b)
    np.testing.assert_array_equal(intersection_sizes(left, right, per_point=True), truth)
    np.testing.assert_array_equal(intersection_sizes(left, right), truth.sum(axis=2))


def test_blocks_of_points(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    a = torch.tensor(_lists(rng, 3, 29, 5, 20))
    whole = intersection_sizes(a, a, per_point=True)
    monkeypatch.setitem(intersect._BLOCK_ELEMENTS, "cpu", 3 * 25 * 4)
    assert torch.equal(intersection_sizes(a, a, per_point=True), whole)
    assert torch.equal(intersection_sizes(a, a), whole.sum(dim=2))
    assert torch.equal(intersection_sizes(a, a).diagonal(), torch.full((3,), 29 * 5))


@pytest.mark.parametrize("per_point", [False, True])
def test_operator_contract(per_point: bool) -> None:
    rng = np.random.default_rng(4)
    a, b = torch.tensor(_lists(rng, 2, 9, 4, 9)), torch.tensor(_lists(rng, 3, 9, 2, 9))
    torch.library.opcheck(torch.ops.ilo_fast.intersection_sizes, (a, b, per_point))


def test_under_compile() -> None:
    a = torch.tensor(_lists(np.random.default_rng(5), 2, 9, 4, 9))
    compiled = torch.compile(
        lambda x: intersection_sizes(x, x) * 2, backend="eager", fullgraph=True
    )
    assert torch.equal(compiled(a), intersection_sizes(a, a) * 2)


@pytest.mark.gpu
@pytest.mark.skipif(
    not torch.cuda.is_available(), reason="needs a CUDA device: python -m benchmarks gpu"
)
def test_cuda_equals_torch() -> None:
    rng = np.random.default_rng(6)
    for k_a, k_b, n in ((5, 5, 3001), (10, 128, 257)):
        a, b = torch.tensor(_lists(rng, 3, n, k_a, 200)), torch.tensor(_lists(rng, 2, n, k_b, 200))
        for per_point in (False, True):
            expected = intersection_sizes(a, b, per_point=per_point)
            found = intersection_sizes(a.cuda(), b.cuda(), per_point=per_point)
            assert torch.equal(found.cpu(), expected)
