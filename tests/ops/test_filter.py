"""Bins, slabs and tiles against brute force."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ilo_fast.ops import filter as module
from ilo_fast.ops.centred import MASKED, Operands
from ilo_fast.ops.filter import Plan, bin_maxima, plan_filter

CPU = torch.device("cpu")

SIZES = {"n": st.integers(2, 150), "bins": st.integers(1, 6), "per_tile": st.integers(1, 5)}
plans = st.one_of(
    st.builds(Plan, **SIZES, group=st.integers(1, 4), strip=st.just(0)),
    st.builds(Plan, **SIZES, group=st.just(1), strip=st.integers(1, 9)),
)


def operands_for(plan):
    d = 3
    generator = torch.Generator().manual_seed(plan.n)
    left = torch.zeros(plan.padded, d + 2)
    left[: plan.n] = torch.randn(plan.n, d + 2, generator=generator)
    left[plan.n :, d] = MASKED
    left[:, d + 1] = 1.0
    right = left.clone()
    right[:, d], right[:, d + 1] = left[:, d + 1], left[:, d]
    return Operands(left, right.T, torch.zeros(plan.padded))


@settings(max_examples=60, deadline=None)
@given(plans)
def test_property_maxima_are_those_of_the_whole_product(plan):
    operands = operands_for(plan)
    product = operands.left @ operands.right
    product.fill_diagonal_(MASKED)
    expected = torch.stack(
        [product[: plan.n, plan.slice(b)].amax(dim=1) for b in range(plan.all_bins)], dim=1
    )
    found, following = torch.empty(plan.n, plan.all_bins), 0
    for start, maxima in bin_maxima(operands, plan, lambda *block: (block[0], block[1].clone())):
        assert start == following
        following = start + maxima.shape[0]
        found[start:following] = maxima
    assert following == plan.n
    real = expected > MASKED / 2
    torch.testing.assert_close(found[real], expected[real])
    assert (found[~real] < MASKED / 2).all()


@settings(max_examples=60, deadline=None)
@given(plans)
def test_property_every_point_has_one_place(plan):
    points = torch.arange(plan.padded)
    number, slot = plan.locate(points)
    assert torch.equal(plan.member(number, slot), points)
    for b in range(plan.all_bins):
        members = plan.member(torch.full((plan.width,), b), torch.arange(plan.width))
        assert members.tolist() == points[plan.slice(b)].tolist()


@pytest.mark.parametrize("device", [CPU, torch.device("cuda")])
@pytest.mark.parametrize("k", [1, 5, 30, 128])
@pytest.mark.parametrize("n", [2, 100, 2048, 5001, 30907, 100_003, 1_000_000, 2_000_000])
def test_plans_cover_all_points_within_the_budget(n, k, device):
    d = 384
    plan = plan_filter(n, d, k, device)
    if plan is None:
        assert n < 8 * 32 * 8 or n < 64 * k
        return
    assert plan.tiles * plan.tile >= n > (plan.tiles - 1) * plan.tile
    assert plan.padded >= plan.tiles * plan.tile
    assert plan.tiles * plan.tile < 1.15 * n
    assert plan.all_bins >= 4 * k
    rows = plan.strip or plan.tiles * plan.tile
    budget = max(module.MAXIMA_BYTES[device.type], 4 * n * d)
    assert 4 * rows * plan.all_bins <= 1.05 * budget
    assert plan.tile <= 1 << 13


def test_every_form_is_chosen_somewhere(monkeypatch):
    assert plan_filter(2000, 8, 5, CPU) is None
    assert plan_filter(4000, 8, 5, CPU).group == 1
    monkeypatch.setitem(module.MAXIMA_BYTES, "cpu", 1 << 20)
    assert plan_filter(8000, 8, 1, CPU).group > 1
    assert plan_filter(8000, 8, 5, CPU).strip > 0
