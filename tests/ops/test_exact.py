"""The exact stage by hand: values, ties, order, copies."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ilo_fast.ops import exact
from ilo_fast.ops.exact import empty_lists, expand, pair_values, rank, tie_error
from ilo_fast.ops.points import prepare_points


def prepare(x, metric="euclidean"):
    x = torch.as_tensor(np.asarray(x, dtype=np.float64))
    return prepare_points(x, x.abs().amax(dim=1), metric)


def all_pairs(u):
    rows, cols = torch.meshgrid(torch.arange(u), torch.arange(u), indexing="ij")
    apart = ~torch.eye(u, dtype=torch.bool)
    return rows[apart], cols[apart]


def full_lists(x, k, metric="euclidean", exclude_self=True, shuffle=None):
    points = prepare(x, metric)
    lists = empty_lists(points, k, exclude_self)
    rows, cols = all_pairs(points.u)
    if shuffle is not None:
        order = torch.randperm(rows.shape[0], generator=torch.Generator().manual_seed(shuffle))
        rows, cols = rows[order], cols[order]
    rank(points, rows, cols, lists)
    return expand(points, lists, k)


def test_ties_go_to_the_lower_index_also_at_the_end():
    x = [[0.0], [3.0], [-3.0], [3.0 * (1 + 2**-52)], [1.0], [-1.0]]
    indices, distances = full_lists(x, 3)
    assert indices[0].tolist() == [4, 5, 1]
    assert distances[0].tolist() == [1, 1, 3]
    indices, _ = full_lists(x, 5)
    assert indices[0].tolist() == [4, 5, 1, 2, 3]


def test_what_rounding_can_tell_apart_is_no_tie():
    x = [[0.0], [1.0 + 2**-40], [1.0]]
    indices, _ = full_lists(x, 2)
    assert indices[0].tolist() == [2, 1]


def test_a_tie_does_not_chain():
    """Steps of just under the tolerance: a group reaches as far as its first member's, only."""
    points = prepare([[0.0], [1.0]])
    value = torch.tensor([0.5], dtype=torch.float64)
    zero = torch.zeros(1, dtype=torch.int64)
    step = float(tie_error(points, value, zero, zero)) * 1.2  # of the value; |x| has half of it
    x = [[0.0]] + [[1 + i * step * 0.99] for i in (3, 2, 1, 0)]
    indices, distances = full_lists(x, 4)
    assert indices[0].tolist() == [3, 4, 1, 2]
    assert (distances[0].diff() >= 0).all()


def test_two_that_share_half_a_tolerance_tie():
    """A tie is as wide as the errors of both, also where nothing nearer makes one."""
    x = [[0.0], [1.0 + 1.5 * 5 * 2**-54], [1.0], [5.0]]  # err: (1 + 5) u of the value
    points = prepare(x)
    rows, cols = torch.tensor([0, 0]), torch.tensor([2, 1])
    values = pair_values(points, rows, cols)
    error = tie_error(points, values, rows, cols)
    gap = values[1] - values[0]
    assert error[0] < gap <= 2 * error[0]
    assert full_lists(x, 1)[0][0].tolist() == [1]


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [0, 3, 1, 2], [2, 3, 1, 0]])
def test_bounds_of_others_neither_widen_a_tie_nor_narrow_it(order):
    """Two long points tie by their own bounds; a short one, nearly as near, only by its own."""
    far = 2.0**20
    x = np.array([[1, 0, 0], [1, far, 0], [1 - 2**-40, -far, 0], [1 - 2**-41, 0, 0]])[order]
    at = [order.index(i) for i in range(4)]
    indices, _ = full_lists(x, 3, "inner_product")
    assert indices[at[0]].tolist() == [*sorted(at[1:3]), at[3]]


@pytest.mark.parametrize("d", [2, 17, 200])
def test_where_an_inner_product_counts_as_nothing(d):
    """Up to what either engine may leave of a true 0 (docs/exactness.md, section 1)."""
    depth = math.ceil(math.log2(d))
    residue = 0.5 * (d / 16 + 2 * depth + 4) ** 2 * 2.0**-106
    x = np.zeros((3, d))
    x[0, 0] = x[1:, 1] = 1
    x[1:, 0] = 0.999 * residue, 1.001 * residue
    points = prepare(x, "inner_product")
    found = pair_values(points, torch.tensor([0, 0]), torch.tensor([1, 2]))
    assert found.tolist() == [0, -x[2, 0] * 2.0 ** (-2 * points.exponent)]


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [0, 1, 3, 2]])
def test_of_equal_values_the_smallest_bound_leads_its_tier(order):
    """Equal inner products, unequal bounds: the tier is as wide as the smaller one."""
    far = 2.0**20
    x = np.array([[1, 0, 0], [1 - 2**-40, far, 0], [1, 0, 1], [1, far, 0]])[order]
    for shuffle in range(4):
        indices, _ = full_lists(x, 3, "inner_product", shuffle=shuffle)
        assert indices[0].tolist() == [2, 3, 1]


def test_copies_of_a_point_have_the_same_neighbours():
    """Another point has the copies' very product and a larger bound, a third lies within it."""
    x = np.array([[1, 0, 0], [1, 2**20, 0], [1, 0, 0], [1 - 2**-40, 0, 2**20], [1 - 2**-50, 0, 0]])
    indices, _ = full_lists(x, 3, "inner_product")
    assert indices[[0, 2]].tolist() == [[1, 2, 4], [0, 1, 4]]


@pytest.mark.parametrize("exponent", [0, -200, -300, -520, -600, -900])
def test_bounds_of_small_points_beside_large_ones(exponent):
    """One sum in seven orders, tied within its rounding however small the row or the others are."""
    rolled = np.stack([np.roll(np.random.default_rng(1).normal(size=7), i) for i in range(7)])
    small = 2.0**exponent
    for row, others in ((small, 1.0), (1.0, small), (2.0 ** (exponent // 2),) * 2):
        x = np.concatenate([np.full((1, 7), 0.1 * row), others * rolled, -np.ones((1, 7))])
        indices, _ = full_lists(x, 7, "inner_product")
        assert indices[0].tolist() == [1, 2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [0, 2, 1, 3], [3, 1, 2, 0]])
@pytest.mark.parametrize(("factor", "far"), [(1.0, 2.0**60), (1 / 3, 2.0**40)])
def test_a_long_point_whose_product_cancels(order, factor, far):
    """Its plain sum is off by more than the short point's bound, by which the two would not tie."""
    x = factor * np.array([[1, 1, 1, 0], [far, 1, -far, 0], [0, 0.5, 0, 0], [-1, -1, -1, 0]])
    level = np.array([[0, 1, 0, 0]]) * factor  # the long point's very product
    indices, distances = full_lists(np.concatenate([x, level])[:, order], 3, "inner_product")
    assert indices[0].tolist() == [1, 4, 2]
    np.testing.assert_allclose(distances[0] / factor**2, [-1, -1, -0.5], rtol=1e-6)


def test_a_true_zero_ties_with_a_zero_vector():
    """What rounding left of it was more than the zero vector's bound, and its sign the order."""
    generator = np.random.default_rng(0)
    half = generator.standard_normal((24, 17))
    x = np.concatenate([half, half], axis=1)
    x[1::3, 17:] *= -1  # (a, a), (b, -b) and zero vectors are orthogonal to each other
    x[2::3] = 0
    indices, distances = full_lists(x[:, generator.permutation(34)], 23, "inner_product")
    orthogonal = [i for i in range(24) if i % 3]
    for row in range(0, 24, 3):
        level = np.isin(indices[row], orthogonal)
        assert indices[row][level].tolist() == orthogonal
        assert not distances[row][level].any()


@pytest.mark.parametrize("long", ["queries", "base", "both"])
def test_products_of_float32_and_float64_points(long):
    """Those of long numbers lose bits where the sum cancels, whichever side they are on."""
    short = torch.tensor([[1 + 2.0**-23, -1 - 2.0**-22], [0.5, 1.0]], dtype=torch.float32)
    across = short[0, 0].double() / -short[0, 1].double()
    numbers = torch.tensor([[1 / 3, across / 3], [1.0, 0.3]], dtype=torch.float64)
    sides = [numbers, short] if long == "queries" else [short, numbers]
    if long == "both":
        sides = [numbers, torch.stack([across, torch.tensor(-1.0)]).expand(2, 2) / 7]
    left, right = (prepare_points(x, x.double().abs().amax(dim=1), "inner_product") for x in sides)
    place = torch.zeros(1, dtype=torch.int64)
    pair = zip(left.z[0].tolist(), right.z[0].tolist(), strict=True)
    truth = -sum(Fraction(one) * Fraction(other) for one, other in pair)
    value = float(pair_values(right, place, place, left=left))
    assert abs(truth) < 2.0**-53
    assert value == pytest.approx(float(truth), rel=1e-12, abs=0)


def test_values_are_symmetric_bit_for_bit():
    x = np.random.default_rng(0).normal(size=(30, 37)) + 5
    for metric in ("cosine", "euclidean", "inner_product"):
        points = prepare(x, metric)
        rows, cols = all_pairs(30)
        assert torch.equal(pair_values(points, rows, cols), pair_values(points, cols, rows))


def test_blocks_change_nothing(monkeypatch):
    x = np.random.default_rng(0).integers(-2, 3, size=(40, 5))
    expected = full_lists(x, 7)
    monkeypatch.setattr(exact, "_PADDED_ELEMENTS", 16)
    monkeypatch.setattr(exact, "block_rows", lambda device, row: 3)
    found = full_lists(x, 7, shuffle=1)
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1], expected[1])


@settings(max_examples=80, deadline=None)
@given(st.integers(2, 14), st.integers(1, 3), st.booleans(), st.integers(0, 2**32 - 1))
def test_property_integers_by_definition(n, d, exclude_self, seed):
    """Small integers: squared distances are exact, so the lists are known without rounding."""
    generator = np.random.default_rng(seed)
    x = generator.integers(-1, 2, size=(n, d))
    assume(len(np.unique(x, axis=0)) > 1)
    most = n - 1 if exclude_self else n
    k = int(generator.integers(1, most + 1))
    indices, distances = full_lists(x, k, exclude_self=exclude_self, shuffle=seed % 1000)
    for i in range(n):
        others = [j for j in range(n) if j != i or not exclude_self]
        squared = {j: int(((x[i] - x[j]) ** 2).sum()) for j in others}
        others.sort(key=lambda j: (squared[j], j))
        assert indices[i].tolist() == others[:k]
        expected = [np.float32(math.sqrt(squared[j])) for j in others[:k]]
        assert distances[i].tolist() == expected


def test_distances_at_the_ends_of_the_range():
    x = np.array([[1e200, 0], [-1e200, 0], [1e200, 1e190]])
    indices, distances = full_lists(x, 2)
    assert indices[0].tolist() == [2, 1]
    assert distances[0].tolist() == [math.inf, math.inf]  # beyond float32
    _, products = full_lists(x, 2, "inner_product")
    assert products[0].tolist() == [-math.inf, math.inf]
    tiny, distances = full_lists(np.array([[1e-30], [2e-30], [4e-30]]), 2)
    assert tiny[0].tolist() == [1, 2]
    np.testing.assert_allclose(distances[0], [1e-30, 3e-30], rtol=1e-6)
