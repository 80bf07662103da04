"""Error constants and the guard around products."""

import math
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from threading import Barrier, Event

import pytest
import torch

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
