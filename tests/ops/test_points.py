"""Float64 points: exact scaling, normalisation in a fixed order, copies merged."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ilo_fast.ops.points import fold_dot, fold_sum, power_of_two, prepare_points, rounded_root


def prepare(x, metric="cosine"):
    x = torch.as_tensor(x)
    return prepare_points(x, x.double().abs().amax(dim=1), metric)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 70), st.integers(0, 2**32 - 1))
def test_fold_sum_is_accurate_and_blind_to_neighbouring_rows(d, seed):
    terms = torch.from_numpy(np.random.default_rng(seed).random(size=(9, d)))
    sums = fold_sum(terms.clone())
    for row in range(9):
        exact = math.fsum(terms[row].tolist())
        depth = math.ceil(math.log2(d)) if d > 1 else 0
        assert abs(float(sums[row]) - exact) <= exact * depth * 2.0**-53
        assert torch.equal(fold_sum(terms[row : row + 1].clone()), sums[row : row + 1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("d", [1, 2, 3, 7, 64, 100])
def test_fold_dot_is_as_good_as_rounded_once(d, dtype):
    generator = torch.Generator().manual_seed(d)
    left, right = (torch.rand(40, d, generator=generator, dtype=dtype) - 0.5 for _ in range(2))
    left[:, : d // 2] = -left[:, d - d // 2 :]  # nearly everything cancels
    right[:, : d // 2] = right[:, d - d // 2 :] * (1 + 2.0**-20)
    left, right = left.double(), right.double()
    exact = [
        sum(Fraction(one) * Fraction(other) for one, other in zip(*pair, strict=True))
        for pair in zip(left.tolist(), right.tolist(), strict=True)
    ]
    size = (left * right).abs().sum(dim=1).tolist()
    found = fold_dot(left.clone(), right.clone(), dtype == torch.float32).tolist()
    level = 2 * (math.ceil(math.log2(d)) + 1) ** 2 * Fraction(2) ** -106
    for value, truth, magnitude in zip(found, exact, size, strict=True):
        bound = abs(truth) * Fraction(2) ** -53 + level * Fraction(magnitude)
        assert abs(Fraction(value) - truth) <= bound
    assert torch.equal(fold_dot(left.clone(), right.clone()), fold_dot(right.clone(), left.clone()))


def test_power_of_two_is_exact_over_its_whole_range():
    exponents = torch.arange(-1022, 1024)
    expected = torch.tensor([math.ldexp(1.0, e) for e in range(-1022, 1024)], dtype=torch.float64)
    assert torch.equal(power_of_two(exponents), expected)


@pytest.mark.parametrize("n", [1, 3, 1000, 100_000])
def test_roots_are_correctly_rounded_however_many(n):
    squares = torch.rand(n, dtype=torch.float64, generator=torch.Generator().manual_seed(n)) * 4
    roots = rounded_root(squares.clone()).tolist()
    assert roots == [math.sqrt(square) for square in squares.tolist()]


def test_a_row_among_many_has_the_bits_it_has_alone():
    x = np.random.default_rng(0).normal(size=(5000, 6))
    many = prepare(x).z
    for row in range(0, 5000, 50):
        assert torch.equal(prepare(x[row : row + 1]).z[0], many[row])


@pytest.mark.parametrize("scale", [2.0**-1060, 2.0**-500, 1.0, 2.0**500, 2.0**1000])
def test_norms_neither_overflow_nor_vanish(scale):
    x = np.random.default_rng(0).normal(size=(20, 33))
    expected = prepare(x).z
    scaled = prepare(x * scale)
    tolerance = 1e-2 if scale < 2.0**-1022 else 0  # such input has few bits left
    torch.testing.assert_close(scaled.z, expected, rtol=tolerance, atol=tolerance)
    assert torch.equal(prepare(x, "euclidean").z, torch.ldexp(torch.tensor(x), -torch.tensor(2)))


def test_equal_rows_are_equal_bit_for_bit_whatever_the_threads():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3000, 129, generator=generator, dtype=torch.float64)
    x[2999] = x[0]
    before = torch.get_num_threads()
    results = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        try:
            results.append(prepare(x))
        finally:
            torch.set_num_threads(before)
    assert all(torch.equal(results[0].z, other.z) for other in results[1:])
    assert results[0].u == 2999
    assert torch.equal(prepare(x[2990:]).z[-1], results[0].z[0])


@pytest.mark.parametrize(
    ("metric", "copies"), [("cosine", 4), ("euclidean", 3), ("inner_product", 3)]
)
def test_copies_are_merged(metric, copies):
    x = np.random.default_rng(1).normal(size=(50, 5))
    x[20] = x[3]
    x[40] = x[3]
    x[10] = x[2]
    x[5] = 2 * x[4]  # the same direction, exactly: a copy under cosine only
    points = prepare(x, metric)
    assert points.u == 50 - copies
    duplicates = points.duplicates
    rows = {}
    for index, row in enumerate(prepare(x, metric).z.tolist()):
        rows.setdefault(tuple(row), index)
    for original in range(50):
        group = int(duplicates.group[original])
        members = duplicates.members[duplicates.starts[group] :][: duplicates.counts[group]]
        assert original in members.tolist()
        assert members.tolist() == sorted(members.tolist())
    assert duplicates.group[20] == duplicates.group[3] == duplicates.group[40]
    assert (duplicates.group[5] == duplicates.group[4]) == (metric == "cosine")
    firsts = duplicates.members[duplicates.starts]
    assert torch.equal(firsts, firsts.sort().values)


def test_zero_and_minus_zero_are_one_point():
    x = np.zeros((3, 4))
    x[1] = -0.0
    x[2, 0] = 1
    points = prepare(x)
    assert points.u == 2
    assert points.zero.tolist() == [True, False]
    assert points.size.tolist() == [0.0, 1.0]


def test_equal_hashes_of_different_rows_are_not_merged(monkeypatch):
    def constant(_low, _high, size, **_options):
        return torch.zeros(size, dtype=torch.int64)

    monkeypatch.setattr(torch, "randint", constant)
    # With every multiplier 1 the hash is a plain sum: swapped columns collide.
    points = prepare(np.array([[0.5, 0.25], [0.25, 0.5], [0.5, 0.25]]), "euclidean")
    assert points.u >= 2
    x = np.random.default_rng(0).permuted(np.tile([0.5, 0.25, 0.125], (30, 1)), axis=1)
    assert prepare(x, "euclidean").u >= 6
