"""The filter of queries among other points, tried against extended precision on hostile points."""

import numpy as np
import pytest
import torch
from hostile_points import CASES

from ilo_fast.ops.centred import centre
from ilo_fast.ops.exact import pair_values, tie_error
from ilo_fast.ops.knn_queries import shared_forms
from ilo_fast.ops.points import prepare_points
from ilo_fast.ops.query_filter import base_side, open_pairs, query_side
from ilo_fast.ops.workers import worker_threads

METRICS = ("cosine", "euclidean", "inner_product")
DTYPES = (torch.float32, torch.float64)


def prepared(case, metric, n, m, apart=1.0, d=17):
    """Base points and queries of one scale, and their forms in the base's frame."""
    generator = np.random.default_rng(0)
    base = torch.from_numpy(case(generator, n, d))
    queries = torch.from_numpy(apart * case(generator, m, d))
    queries[: m // 3] = base[: m // 3] * (1 + 1e-9)
    sizes = [x.abs().amax(dim=1) for x in (base, queries)]
    if metric != "cosine":
        largest = torch.maximum(sizes[0].amax(), sizes[1].amax())
        sizes = [largest.expand(len(x)) for x in (base, queries)]
    points, asked = (
        prepare_points(x, size, metric) for x, size in zip((base, queries), sizes, strict=True)
    )
    return points, asked, *shared_forms(points, centre(points), asked)


def values_and_ties(points, asked):
    """Minus the exact stage's value of every pair and its error bound, ``[queries, points]``."""
    shape = asked.u, points.u
    rows, cols = (
        grid.flatten() for grid in torch.meshgrid(*map(torch.arange, shape), indexing="ij")
    )
    values = pair_values(points, rows, cols, left=asked)
    ties = tie_error(points, values, rows, cols, left=asked)
    return values.view(shape), ties.view(shape)


def in_form_units(points, asked, form):
    """np.longdouble: minus the true value of every pair, and twice its tie tolerance."""
    square = np.longdouble(form.scale) ** 2
    q, z = (side.z.numpy().astype(np.longdouble) for side in (asked, points))
    if points.metric == "inner_product":
        middle = form.middle.numpy().astype(np.longdouble)
        truth = q @ z.T - (middle * middle).sum()
    else:
        truth = -((q[:, None] - z[None]) ** 2).sum(axis=2) / 2
        truth[asked.zero.numpy()] = -1
        truth[:, points.zero.numpy()] = -1
    return truth * square, 2 * values_and_ties(points, asked)[1].numpy() * square


@pytest.mark.parametrize("apart", [1.0, 2.0**14])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("case", CASES)
def test_products_enclose_the_truth(case, metric, dtype, apart):
    points, asked, form, asked_form = prepared(case, metric, 70, 40, apart)
    left, right = query_side(asked, asked_form, dtype), base_side(points, form, dtype)
    product = torch.mm(left.rows, right.rows.T).numpy().astype(np.longdouble)
    slack = right.slack.numpy().astype(np.longdouble)
    lower = product - left.slack.numpy().astype(np.longdouble)[:, None] - slack
    order = right.order.numpy()
    truth, ties = (part[:, order] for part in in_form_units(points, asked, form))
    assert (truth + ties <= product[:, : points.u]).all()
    assert (lower[:, : points.u] <= truth).all()
    assert (product[:, points.u :] < product[:, : points.u].min() - 1e20).all()  # padding


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("k", [1, 3, 300])
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("case", CASES)
def test_whoever_can_matter_is_open(case, metric, k, dtype):
    """Also across bins, strips and workers; k = 300 leaves no bins."""
    points, asked, form, asked_form = prepared(case, metric, 1100, 90)
    k = min(k, points.u)
    left, right = query_side(asked, asked_form, dtype), base_side(points, form, dtype)
    rows = torch.arange(asked.u)
    with worker_threads(rows.device):
        found = list(open_pairs(left, right, rows, k, points.u))
    row, col, crowded = (torch.cat(parts) for parts in zip(*found, strict=True))
    assert crowded.numel() == 0
    assert (row[1:] >= row[:-1]).all()
    is_open = torch.zeros(asked.u, points.u, dtype=torch.bool)
    is_open[row, col] = True
    assert is_open.sum() == row.shape[0]  # none twice
    values, ties = values_and_ties(points, asked)
    kth = values.sort(dim=1).values[:, k - 1 : k]
    assert is_open[values <= kth + 2 * ties].all()


def test_crowded_queries_are_named_and_left_out():
    points, asked, form, asked_form = prepared(CASES[0], "euclidean", 1100, 90)
    sides = query_side(asked, asked_form, torch.float32), base_side(points, form, torch.float32)
    rows = torch.arange(10, 90)
    whole = [torch.cat(parts) for parts in zip(*open_pairs(*sides, rows, 4, 1100), strict=True)]
    counts = torch.bincount(whole[0], minlength=90)
    limit = int(counts[10:].median())
    row, col, crowded = (
        torch.cat(parts) for parts in zip(*open_pairs(*sides, rows, 4, limit), strict=True)
    )
    assert crowded.tolist() == (counts > limit).nonzero().flatten().tolist()
    kept = counts[whole[0]] <= limit
    assert torch.equal(row, whole[0][kept])
    assert torch.equal(col, whole[1][kept])
