"""The bounds everything rests on, tried against extended precision on hostile points."""

import math

import numpy as np
import pytest
import torch
from hostile_points import CASES, normal

from ilo_fast.ops.centred import MASKED, centre, filter_operands, lifted_terms
from ilo_fast.ops.exact import pair_values, tie_error, tie_slack
from ilo_fast.ops.points import prepare_points
from ilo_fast.ops.precision import UNIT_ROUNDOFF_32, UNIT_ROUNDOFF_64, gamma

METRICS = ("cosine", "euclidean", "inner_product")


def prepared(case, metric, n=60, d=17, seed=0):
    x = torch.from_numpy(case(np.random.default_rng(seed), n, d))
    points = prepare_points(x, x.abs().amax(dim=1), metric)
    return points, centre(points)


def exact_form(points, form):
    """np.longdouble [u, u]: minus the value of every pair, in the form's units."""
    z = points.z.numpy().astype(np.longdouble)
    if points.metric == "inner_product":
        middle = form.middle.numpy().astype(np.longdouble)
        values = z @ z.T - (middle * middle).sum()
    else:
        values = -((z[:, None] - z[None]) ** 2).sum(axis=2) / 2
        zero = points.zero.numpy()
        values[zero] = values[:, zero] = -1
    return values * np.longdouble(form.scale) ** 2


def small_beside_two(generator, n, d):
    """Points whose products float32 loses, in the frame of two far ones."""
    x = 2.0**-66 * generator.uniform(1, 1.5, size=(n, d))
    x[1::2] *= -1
    x[0], x[1] = 1, -1
    return x


def off_diagonal(u):
    return ~np.eye(u, dtype=bool)


def wide(values):
    return values.numpy().astype(np.longdouble)


def ties(points, form):
    """np.longdouble [u, u]: the error bound of every pair's value, in the form's units."""
    u = points.u
    rows, cols = (grid.flatten() for grid in torch.meshgrid(*[torch.arange(u)] * 2, indexing="ij"))
    errors = tie_error(points, pair_values(points, rows, cols), rows, cols)
    return wide(errors).reshape(u, u) * np.longdouble(form.scale) ** 2


def summed(left, right, unit_roundoff):
    """Products of rows, and how far a sum of their terms in some order may be off."""
    left, right = wide(left), wide(right)
    return left @ right.T, gamma(left.shape[1], unit_roundoff) * (np.abs(left) @ np.abs(right).T)


@pytest.mark.parametrize("d", [2, 17, 150])
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("case", [*CASES, small_beside_two])
def test_filter_values_enclose_the_truth(case, metric, d):
    """In any order of the sums, and where all that can vanish does."""
    points, form = prepared(case, metric, d=d)
    u = points.u
    order = torch.randperm(u, generator=torch.Generator().manual_seed(1))
    operands = filter_operands(points, form, order, u + 5)
    value, lost = summed(operands.left[:u], operands.right.T[:u], UNIT_ROUNDOFF_32)
    lost += 3 * d * 2.0**-126
    slack = wide(operands.slack[:u])
    truth, allowed = (
        part[order][:, order] for part in (exact_form(points, form), ties(points, form))
    )
    apart = off_diagonal(u)
    # Three bounds of a value's error: its own, and a tie's width on either side.
    assert (truth + 3 * allowed <= value - lost)[apart].all()
    assert (value + lost - slack[:, None] - slack[None] <= truth - 3 * allowed)[apart].all()


@pytest.mark.parametrize("d", [2, 17, 150])
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("case", CASES)
def test_float64_form_is_within_its_slack(case, metric, d):
    """In any order of its sums, with a value's own error and a tie's width beside them."""
    points, form = prepared(case, metric, d=d)
    assert {t.dtype for t in (form.b, form.norm, form.slack, points.size)} == {torch.float64}
    rows = form.rows(points.z)
    value, lost = summed(rows, rows, UNIT_ROUNDOFF_64)
    length = np.sqrt((wide(rows) ** 2).sum(axis=1))
    assert (length <= wide(form.norm)).all()
    if metric == "inner_product":
        middle = wide(form.middle) * form.scale
        own = wide(rows) @ middle
        of_own = gamma(d, UNIT_ROUNDOFF_64) * np.sqrt((middle**2).sum()) * length
    else:
        own = -(length**2 + wide(points.zero) * np.longdouble(form.scale) ** 2) / 2
        of_own = gamma(d + 4, UNIT_ROUNDOFF_64) * length**2 / 2
    value += own[:, None] + own
    of_own += gamma(d + 2, UNIT_ROUNDOFF_64) * np.abs(own)
    lost += of_own[:, None] + of_own
    slack = wide(form.slack)
    error = np.abs(value - exact_form(points, form)) + lost + 3 * ties(points, form)
    assert (error <= slack[:, None] + slack)[off_diagonal(points.u)].all()


@pytest.mark.parametrize("d", [2, 17, 150])
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("case", CASES)
def test_ties_are_as_wide_as_the_page_says(case, metric, d):
    """Which values tie is part of the definition (docs/exactness.md, section 1)."""
    points, form = prepared(case, metric, d=d)
    scale = np.longdouble(form.scale)
    q = np.maximum(-exact_form(points, form) / scale**2, 0)
    size = wide(points.size)
    unit, depth = np.longdouble(2.0**-53), math.ceil(math.log2(d))
    expected = {
        "cosine": (2 * (depth + 5) * q + 3 * np.sqrt(2 * q)) * unit + ((depth + 5) * unit) ** 2,
        "euclidean": (depth + 5) * unit * q,
        "inner_product": (depth + 3) * unit * size[:, None] * size,
    }[metric]
    found = ties(points, form)
    apart = off_diagonal(points.u)
    np.testing.assert_allclose(found[apart], (expected * scale**2)[apart], rtol=1e-12, atol=1e-290)
    share = wide(tie_slack(points, form.norm, form.scale))
    assert (found <= share[:, None] + share)[apart].all()


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("case", CASES)
def test_exact_values_are_within_their_error(case, metric):
    """Also of the true distance of the input, normalisation included."""
    x = case(np.random.default_rng(3), 50, 17)
    points, _ = prepared(case, metric, n=50, seed=3)
    if points.duplicates is not None:
        x = x[points.duplicates.members[points.duplicates.starts].numpy()]
    wide = x.astype(np.longdouble)
    if metric == "cosine":
        largest = np.abs(wide).max(axis=1, keepdims=True)
        wide = wide / np.where(largest == 0, 1, largest)
        norm = np.sqrt((wide * wide).sum(axis=1, keepdims=True))
        wide = wide / np.where(norm == 0, 1, norm)
    else:
        wide = wide * np.longdouble(2) ** -points.exponent
    if metric == "inner_product":
        truth = -(wide @ wide.T)
    else:
        truth = ((wide[:, None] - wide[None]) ** 2).sum(axis=2) / 2
        truth[points.zero.numpy()] = 1
        truth[:, points.zero.numpy()] = 1
    count = points.u
    rows, cols = torch.meshgrid(torch.arange(count), torch.arange(count), indexing="ij")
    values = pair_values(points, rows.flatten(), cols.flatten())
    errors = tie_error(points, values, rows.flatten(), cols.flatten())
    apart = off_diagonal(count).flatten()
    error = np.abs(values.numpy() - truth.flatten())
    assert (error <= errors.numpy().astype(np.longdouble))[apart].all()
    assert torch.equal(values.view(count, count), values.view(count, count).T)


def test_the_bound_is_of_use():
    """On well-spread points a bound takes a small share of a typical similarity."""
    points, form = prepared(normal, "cosine", d=384)
    operands = filter_operands(points, form, torch.arange(points.u), points.u)
    assert float(operands.slack.max()) < 1e-4 * float(form.norm.max()) ** 2


@pytest.mark.parametrize("d", [9, 30_000])
@pytest.mark.parametrize("metric", ["cosine", "inner_product"])
def test_the_lift_covers_its_own_rounding(metric, d):
    """Points so close together that the tolerance dwarfs the form: b' rounds as the products do."""
    x = torch.ones(40, d, dtype=torch.float64)
    x[:, 1:] = 2.0**-58 / d * torch.from_numpy(normal(np.random.default_rng(0), 40, d - 1))
    points = prepare_points(x, x.abs().amax(dim=1), metric)
    form = centre(points)
    assert float(form.slack.min()) > 10 * float((form.norm**2 / 2 + form.b.abs()).max())
    lifted, _ = lifted_terms(points, form)
    rounding = gamma(d + 2, UNIT_ROUNDOFF_32)
    lost = rounding * (form.norm**2 / 2 + lifted.double().abs()) + UNIT_ROUNDOFF_32 * form.norm**2
    assert (lifted.double() >= form.b + form.slack + lost).all()


def test_padding_is_masked_for_good():
    points, form = prepared(normal, "euclidean")
    operands = filter_operands(points, form, torch.arange(points.u), points.u + 7)
    product = operands.left @ operands.right
    assert (product[: points.u, points.u :] < MASKED / 2).all()
    assert torch.isfinite(product).all()


@pytest.mark.parametrize("metric", ["euclidean", "inner_product"])
def test_one_outlier_does_not_drag_the_centre(metric):
    generator = np.random.default_rng(0)
    x = generator.normal(size=(500, 8)) + 3
    x[7] = 1e20
    x = torch.from_numpy(x)
    points = prepare_points(x, x.abs().amax(dim=1), metric)
    middle = centre(points).middle * 2.0**points.exponent
    torch.testing.assert_close(middle, torch.full((8,), 3.0, dtype=torch.float64), atol=0.5, rtol=0)
