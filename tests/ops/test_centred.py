"""The bounds everything rests on, tried against extended precision on hostile points."""

import numpy as np
import pytest
import torch
from hostile_points import CASES, normal

from ilo_fast.ops.centred import MASKED, centre, filter_operands, lifted_terms
from ilo_fast.ops.exact import pair_values, tie_error
from ilo_fast.ops.points import prepare_points
from ilo_fast.ops.precision import UNIT_ROUNDOFF_32, gamma

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


def off_diagonal(u):
    return ~np.eye(u, dtype=bool)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("case", CASES)
def test_filter_values_enclose_the_truth(case, metric):
    points, form = prepared(case, metric)
    u = points.u
    order = torch.randperm(u, generator=torch.Generator().manual_seed(1))
    operands = filter_operands(points, form, order, u + 5)
    value = torch.mm(operands.left, operands.right).numpy()[:u, :u].astype(np.longdouble)
    slack = operands.slack.numpy()[:u].astype(np.longdouble)
    truth = exact_form(points, form)[order][:, order]
    rows, cols = (grid.flatten() for grid in torch.meshgrid(order, order, indexing="ij"))
    values = pair_values(points, rows, cols)
    ties = tie_error(points, values, rows, cols).numpy().reshape(u, u)
    ties = ties * np.longdouble(form.scale) ** 2
    apart = off_diagonal(u)
    assert (truth + 2 * ties <= value)[apart].all()
    assert (value - slack[:, None] - slack[None] <= truth)[apart].all()


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("case", CASES)
def test_float64_form_is_within_its_slack(case, metric):
    points, form = prepared(case, metric)
    assert {t.dtype for t in (form.b, form.norm, form.slack, points.size)} == {torch.float64}
    d = form.rows(points.z)
    value = (d @ d.T + form.b[:, None] + form.b).numpy().astype(np.longdouble)
    slack = form.slack.numpy().astype(np.longdouble)
    apart = off_diagonal(points.u)
    error = np.abs(value - exact_form(points, form))
    assert (error <= slack[:, None] + slack[None])[apart].all()


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


@pytest.mark.parametrize("metric", ["cosine", "inner_product"])
def test_the_lift_covers_its_own_rounding(metric):
    """Points so close together that the tolerance dwarfs the form: b' rounds as the products do."""
    x = torch.ones(40, 9, dtype=torch.float64)
    x[:, 1:] = 2.0**-58 * torch.from_numpy(normal(np.random.default_rng(0), 40, 8))
    points = prepare_points(x, x.abs().amax(dim=1), metric)
    form = centre(points)
    assert float(form.slack.min()) > 10 * float((form.norm**2 / 2 + form.b.abs()).max())
    lifted, _ = lifted_terms(points, form)
    rounding = gamma(9 + 2, UNIT_ROUNDOFF_32)
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
