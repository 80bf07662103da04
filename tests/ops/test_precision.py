"""Error constants and the guard around products."""

import math
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from threading import Barrier, Event

import pytest
import torch

from ilo_fast.errors import InputError
from ilo_fast.ops import precision
from ilo_fast.ops.precision import UNIT_ROUNDOFF_32, UNIT_ROUNDOFF_64, gamma, ieee_products

CPU = torch.device("cpu")


def test_unit_roundoffs():
    assert torch.finfo(torch.float32).eps / 2 == UNIT_ROUNDOFF_32
    assert math.ulp(1.0) / 2 == UNIT_ROUNDOFF_64


@pytest.mark.parametrize("terms", [1, 386, 16386])
def test_gamma_by_its_formula(terms):
    exact = Fraction(terms, 2**24) / (1 - Fraction(terms, 2**24))
    assert gamma(terms, UNIT_ROUNDOFF_32) == pytest.approx(float(exact), rel=1e-15)


def test_gamma_refuses_what_it_cannot_bound():
    with pytest.raises(ValueError, match="no useful bound"):
        gamma(2**23, UNIT_ROUNDOFF_32)


def test_the_guard_puts_everything_back():
    switch = torch.backends.mkldnn.matmul
    before = switch.fp32_precision
    x = torch.randn(4, 4, requires_grad=True)
    with ieee_products(CPU):
        assert switch.fp32_precision == "ieee"
        assert not torch.is_grad_enabled()
        assert not (x @ x).requires_grad
    assert switch.fp32_precision == before
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"), ieee_products(CPU):
        torch.mm(x, x[:3])
    assert switch.fp32_precision == before
    assert torch.is_grad_enabled()


def test_the_guard_leaves_sums_in_parts_as_they_are():
    """torch allows them again where the reductions of float16 are set alone."""
    switch = torch.backends.cuda.matmul
    name = "allow_fp16_reduced_precision_reduction"
    before = getattr(switch, name), getattr(switch, f"{name}_split_k")
    try:
        setattr(switch, name, (False, False))
        with precision.full_precision("cuda"):
            assert not getattr(switch, f"{name}_split_k")
        assert (getattr(switch, name), getattr(switch, f"{name}_split_k")) == (False, False)
        setattr(switch, name, True)
        with precision.full_precision("cuda"):
            assert not getattr(switch, name)
        assert (getattr(switch, name), getattr(switch, f"{name}_split_k")) == (True, True)
    finally:
        setattr(switch, name, before)


def test_a_change_by_another_thread_is_raised_and_stays():
    switch = torch.backends.mkldnn.matmul
    before = switch.fp32_precision
    changed = "bf16" if before != "bf16" else "tf32"
    try:
        with pytest.raises(RuntimeError, match="another thread changed"), ieee_products(CPU):
            switch.fp32_precision = changed
        assert switch.fp32_precision == changed
        with ieee_products(CPU):
            assert switch.fp32_precision == "ieee"
        assert switch.fp32_precision == changed
    finally:
        switch.fp32_precision = before


def rounded(bits):
    """float32 with its last mantissa bits rounded away."""
    half, kept = 1 << (bits - 1), -1 << bits
    return lambda x: ((x.contiguous().view(torch.int32) + half) & kept).view(torch.float32)


def by_operands(bits):
    narrow = rounded(bits)
    return lambda left, right: narrow(left) @ narrow(right)


def three_bfloat16(left, right):
    """What some libraries take for float32: high and low halves, without the low ones' product."""
    high = left.bfloat16().float(), right.bfloat16().float()
    low = (left - high[0]).bfloat16().float(), (right - high[1]).bfloat16().float()
    return high[0] @ high[1] + high[0] @ low[1] + low[0] @ high[1]


def narrow_sums(left, right):
    total = torch.zeros(left.shape[0], right.shape[1])
    for term in range(left.shape[1]):
        total = rounded(13)(total + left[:, term : term + 1] * right[term])
    return total


def strassen(left, right):
    a, b, c, d = (part for half in left.chunk(2) for part in half.chunk(2, dim=1))
    e, f, g, h = (part for half in right.chunk(2) for part in half.chunk(2, dim=1))
    p = [a @ (f - h), (a + b) @ h, (c + d) @ e, d @ (g - e), (a + d) @ (e + h)]
    upper = p[4] + p[3] - p[1] + (b - d) @ (g + h), p[0] + p[1]
    lower = p[2] + p[3], p[0] + p[4] - p[2] - (a - c) @ (e + f)
    return torch.cat([torch.cat(upper, dim=1), torch.cat(lower, dim=1)])


@pytest.mark.parametrize(
    "product", [by_operands(16), by_operands(13), three_bfloat16, narrow_sums, strassen]
)
def test_products_that_are_not_ieee_are_refused(product, monkeypatch):
    precision._share_of_torch.cache_clear()
    with ieee_products(CPU):
        pass
    precision._share_of_torch.cache_clear()
    monkeypatch.setattr(torch, "mm", product)
    try:
        with pytest.raises(InputError, match="times the bound of IEEE"), ieee_products(CPU):
            pass
    finally:
        precision._share_of_torch.cache_clear()


def test_settings_of_float16_sums_are_held_and_put_back():
    """They can be set without a card."""
    products = torch.backends.cuda.matmul
    before = products.allow_fp16_accumulation, products.allow_fp16_reduced_precision_reduction
    try:
        products.allow_fp16_accumulation = True
        products.allow_fp16_reduced_precision_reduction = True
        with precision.full_precision("cuda"):
            assert products.fp32_precision == "ieee"
            assert not products.allow_fp16_accumulation
            assert not products.allow_fp16_reduced_precision_reduction
        assert products.allow_fp16_accumulation
        assert products.allow_fp16_reduced_precision_reduction
        with (
            pytest.raises(RuntimeError, match="another thread changed"),
            precision.full_precision("cuda"),
        ):
            products.allow_fp16_accumulation = True
        assert products.allow_fp16_accumulation
        assert products.allow_fp16_reduced_precision_reduction
    finally:
        products.allow_fp16_accumulation, products.allow_fp16_reduced_precision_reduction = before


def test_autocast_is_off_inside():
    x = torch.randn(4, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (x @ x).dtype == torch.bfloat16
        with ieee_products(CPU):
            assert (x @ x).dtype == torch.float32


def test_a_thread_that_ends_first_takes_nothing_from_the_other():
    switch = torch.backends.mkldnn.matmul
    before, both_in, first_out = switch.fp32_precision, Barrier(2, timeout=60), Event()

    def first():
        with ieee_products(torch.device("cpu")):
            both_in.wait()
        first_out.set()

    def second():
        with ieee_products(torch.device("cpu")):
            both_in.wait()
            assert first_out.wait(60)
            return switch.fp32_precision

    with ThreadPoolExecutor(2) as threads:
        one, two = threads.submit(first), threads.submit(second)
        one.result()
        assert two.result() == "ieee"
    assert switch.fp32_precision == before
