"""neighbor_languages against sets in Python, as an operator and under torch.compile."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ilo_fast.ops.languages import neighbor_languages, unpack_masks


def _truth(
    indices: np.ndarray, language: np.ndarray, languages: int, threshold: int
) -> tuple[list[list[set[int]]], np.ndarray, list[list[set[int]]]]:
    layers, n, _ = indices.shape
    seen = [
        [{int(language[j]) for j in indices[a, i]} - {int(language[i])} for i in range(n)]
        for a in range(layers)
    ]
    bridging = np.zeros((layers, languages), dtype=int)
    reach: list[list[set[int]]] = [[set() for _ in range(languages)] for _ in range(layers)]
    for a in range(layers):
        for i in range(n):
            bridging[a, language[i]] += len(seen[a][i]) >= threshold
            reach[a][language[i]] |= seen[a][i]
    return seen, bridging, reach


def _sets(masks: torch.Tensor, languages: int) -> list[list[set[int]]]:
    bits = unpack_masks(masks, languages).numpy()
    return [[set(np.flatnonzero(row).tolist()) for row in layer] for layer in bits]


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    languages=st.sampled_from([2, 3, 63, 64, 65, 128, 129]),
    n=st.integers(2, 40),
    k=st.integers(1, 9),
    threshold=st.integers(1, 5),
)
def test_equals_sets(seed: int, languages: int, n: int, k: int, threshold: int) -> None:
    rng = np.random.default_rng(seed)
    indices = rng.integers(0, n, (2, n, k))
    language = rng.integers(0, languages, n)
    masks, bridging, reach = neighbor_languages(
        torch.tensor(indices), torch.tensor(language), languages, threshold
    )
    seen, count, unions = _truth(indices, language, languages, threshold)
    assert _sets(masks, languages) == seen
    np.testing.assert_array_equal(bridging.numpy(), count)
    assert _sets(reach, languages) == unions


def test_top_bit_of_a_word() -> None:
    language = torch.tensor([63, 0])
    masks, bridging, reach = neighbor_languages(torch.tensor([[[1], [0]]]), language, 64, 1)
    assert masks.flatten().tolist() == [1, -(2**63)]
    assert bridging.sum() == 2
    assert reach[0, 0, 0] == -(2**63)
    assert unpack_masks(masks, 64)[0, 1].nonzero().flatten().tolist() == [63]


def test_operator_contract() -> None:
    rng = torch.Generator().manual_seed(0)
    indices = torch.randint(0, 20, (2, 20, 4), generator=rng)
    language = torch.randint(0, 70, (20,), generator=rng)
    torch.library.opcheck(torch.ops.ilo_fast.neighbor_languages, (indices, language, 70, 2))


def test_under_compile() -> None:
    indices = torch.tensor([[[1, 2], [0, 2], [0, 1]]])
    language = torch.tensor([0, 1, 1])

    def total(lists: torch.Tensor) -> torch.Tensor:
        return neighbor_languages(lists, language, 2, 1)[1].sum() + 1

    compiled = torch.compile(total, backend="eager", fullgraph=True)
    assert compiled(indices) == total(indices) == 4


@pytest.mark.gpu
@pytest.mark.skipif(
    not torch.cuda.is_available(), reason="needs a CUDA device: python -m benchmarks gpu"
)
def test_cuda_equals_torch() -> None:
    rng = torch.Generator().manual_seed(1)
    for languages in (3, 64, 200):
        indices = torch.randint(0, 5000, (4, 5000, 5), generator=rng)
        language = torch.randint(0, languages, (5000,), generator=rng)
        expected = neighbor_languages(indices, language, languages, 3)
        with torch.cuda.stream(torch.cuda.Stream()):
            found = neighbor_languages(indices.cuda(), language.cuda(), languages, 3)
            found = [tensor.cpu() for tensor in found]
        for ours, theirs in zip(found, expected, strict=True):
            assert torch.equal(ours, theirs)
