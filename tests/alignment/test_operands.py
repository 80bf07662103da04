"""Each operand's promise for every pair, under the sums that float32 and matrix units make."""

import hostile_points
import numpy as np
import pytest
import torch
from matrix_units import aligned_and_cut

from ilo_fast.alignment.operands import bounded_points, half_points
from ilo_fast.ops.centred import centre
from ilo_fast.ops.half_products import sum_bound
from ilo_fast.ops.points import prepare_points
from ilo_fast.ops.precision import UNIT_ROUNDOFF_32, gamma
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


def level(generator, n, d):
    """Opposite points whose float16 residuals, as large as they come, lie along the points."""
    x = generator.choice([-1.0, 1.0], size=(n, d))
    x[1::2] = -x[::2]
    return x


def level_but_for_noise(generator, n, d):
    """Points closer together than float64's tolerance of their cosines."""
    x = np.ones((n, d))
    x[:, 1:] = 2.0**-58 * generator.normal(size=(n, d - 1))
    return x


@pytest.mark.parametrize("case", [*hostile_points.CASES, far, level, level_but_for_noise])
@pytest.mark.parametrize("d", [2, 200])
@pytest.mark.parametrize("half", [False, True], ids=["float32", "float16"])
def test_whatever_sums_may_lose(case, d, half):
    """Each product off by all that its bound allows: nothing but the slacks stands for it."""
    points, row_of = prepared(case(np.random.default_rng(d), N, d))
    form = centre(points)
    if half:
        sums = accumulation(9)
        bounds = half_points(points, form, row_of, sums)
        relative = sum_bound(sums, bounds.left.shape[1])
    else:
        bounds = bounded_points(points, row_of)
        relative = gamma(d + 2, UNIT_ROUNDOFF_32)
    left, right = (side[:-1].double().numpy() for side in (bounds.left, bounds.right))
    found, lost = left @ right.T, relative * (np.abs(left) @ np.abs(right).T)
    z = points.z.numpy().astype(np.longdouble)
    truth = -((z[:, None] - z) ** 2).sum(axis=2) / 2
    truth[points.zero.numpy()] = truth[:, points.zero.numpy()] = -1
    truth = truth[row_of][:, row_of] * bounds.unit
    slack = bounds.slack[:-1].double().numpy()
    assert (found - lost >= truth).all()
    assert (found + lost - slack[:, None] - slack <= truth).all()
    own = bounds.left[:-1, d : d + (3 if half else 1)].double().sum(dim=1)
    assert bounds.rounding >= 8 * UNIT_ROUNDOFF_32 * float(own.abs().max())


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
