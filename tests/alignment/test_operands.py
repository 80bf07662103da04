"""Each operand's promise for every pair, under the sums that float32 and matrix units make."""

import hostile_points
import numpy as np
import pytest
import torch
from matrix_units import aligned_and_cut

from ilo_fast.alignment.operands import bounded_points, half_points
from ilo_fast.ops.centred import centre
from ilo_fast.ops.points import prepare_points
from ilo_fast.ops.triton_config import accumulation
from ilo_fast.vectors import rounding_tolerance

N = 60


def prepared(x):
    layer = torch.from_numpy(x)
    points = prepare_points(layer, layer.abs().amax(dim=1), "cosine")
    row_of = torch.arange(len(x)) if points.duplicates is None else points.duplicates.group
    return points, row_of


def form(x, unit):
    """``unit (C_ij - 1)`` in extended precision."""
    x = x.astype(np.longdouble)
    x = x / np.where(x.any(axis=1), np.abs(x).max(axis=1), 1)[:, None]
    length = np.sqrt((x * x).sum(axis=1))
    z = x / np.where(length > 0, length, 1)[:, None]
    return (z @ z.T - 1) * unit


def holds(found, bounds, x):
    truth = form(x, bounds.unit)
    near = 16 * rounding_tolerance(x.shape[1]) * bounds.unit
    slack = bounds.slack[:-1].double().numpy()
    found = found.double().numpy()
    assert (found >= truth - near).all()
    assert (found - slack[:, None] - slack <= truth + near).all()


def far(generator, n, d):
    """Points all but equal to one another, beside one that is not."""
    x = 1 + 1e-6 * generator.normal(size=(n, d))
    x[0] = -generator.normal(size=d)
    return x


CASES = pytest.mark.parametrize("case", [*hostile_points.CASES, far])


@CASES
@pytest.mark.parametrize("d", [1, 200])
@pytest.mark.parametrize(
    ("major", "bits", "terms", "parts"),
    [(9, 24, 16, 1), (9, 25, 16, 5), (8, 23, 8, 1), (7, 23, 4, 3)],
)
def test_float16_under_the_sums_of_matrix_units(case, d, major, bits, terms, parts):
    x = case(np.random.default_rng(d), N, d)
    points, row_of = prepared(x)
    bounds = half_points(points, centre(points), row_of, accumulation(major))
    assert bounds.left.shape[1] % 16 == 0
    left, right = bounds.left[:-1], bounds.right[:-1]
    holds(aligned_and_cut(left, right, bits, terms, parts), bounds, x)
    order = torch.randperm(left.shape[1], generator=torch.Generator().manual_seed(0))
    holds(aligned_and_cut(left[:, order], right[:, order], bits, terms), bounds, x)


@CASES
@pytest.mark.parametrize("d", [1, 200])
def test_float32_in_any_order(case, d):
    x = case(np.random.default_rng(d), N, d)
    bounds = bounded_points(*prepared(x))
    left, right = bounds.left[:-1], bounds.right[:-1]
    holds(left @ right.T, bounds, x)
    order = torch.randperm(left.shape[1], generator=torch.Generator().manual_seed(0))
    holds(left[:, order] @ right[:, order].T, bounds, x)


@CASES
def test_the_masked_row_lies_below_every_point(case):
    x = case(np.random.default_rng(0), N, 24)
    points, row_of = prepared(x)
    half = half_points(points, centre(points), row_of, accumulation(9))
    for bounds in (half, bounded_points(points, row_of)):
        found = bounds.left.double() @ bounds.right.double().T
        assert found[:-1, :-1].amin() > found[-1].amax()
        assert found[:-1, :-1].amin() > found[:, -1].amax()
        assert bounds.slack[-1] == 0


def test_float16_bounds_are_narrow_on_states_like_those_of_models():
    """A few thousandths of the spread of the points, so that little is left to float64."""
    generator = np.random.default_rng(0)
    x = generator.normal(size=(N, 333))
    x[:, 7] += 60
    points, row_of = prepared(x)
    bounds = half_points(points, centre(points), row_of, accumulation(9))
    spread = -np.median(form(x, bounds.unit))
    assert bounds.slack[:-1].max() < 4e-3 * spread
