"""float16 products: how sums may be off, and what the trial of a card's library notices."""

from collections.abc import Iterator
from functools import partial

import pytest
import torch
from matrix_units import aligned_and_cut

from ilo_fast.ops import half_products
from ilo_fast.ops.half_products import one_product, served_sums, sum_bound, worst_share
from ilo_fast.ops.triton_config import Accumulation, accumulation

CPU = torch.device("cpu")
CARD = torch.device("cuda", 0)


@pytest.fixture
def hopper(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A card played by the host: its trial is made there, anew for each test."""
    monkeypatch.setattr(half_products, "obstacle", lambda device: "")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    half_products._trial.cache_clear()
    yield
    half_products._trial.cache_clear()


@pytest.mark.parametrize(("terms", "steps"), [(1, 2), (16, 2), (17, 4), (4096, 320)])
def test_the_bound_counts_the_parts_of_a_sum(terms: int, steps: int) -> None:
    sums = Accumulation(16, 24, "")
    assert sum_bound(sums, terms) == sums.gamma(16 * steps)


@pytest.mark.parametrize("major", [0, 8, 9])
def test_float32_sums_keep_to_the_bound(major: int) -> None:
    share, _ = worst_share(one_product, CPU, partial(sum_bound, accumulation(major)), (64, 640))
    assert 0 < share <= 1


@pytest.mark.parametrize(("bits", "holds"), [(25, True), (24, True), (20, False), (10, False)])
def test_units_that_cut_more_than_they_may_are_noticed(bits: int, holds: bool) -> None:
    bound = partial(sum_bound, accumulation(9))
    share, at = worst_share(partial(aligned_and_cut, bits=bits), CPU, bound, (64,))
    assert (share <= 1) == holds
    assert at["dims"] == 64


def test_a_card_whose_products_pass_serves(hopper: None) -> None:
    assert served_sums(CPU) == accumulation(9)


def _narrow(left: torch.Tensor, right: torch.Tensor, out: torch.Tensor) -> None:
    out.copy_((left.float() @ right.float()).half())


def _absent(left: torch.Tensor, right: torch.Tensor, out: torch.Tensor) -> None:
    raise RuntimeError("bmm: no such kernel")


def _nothing(left: torch.Tensor, right: torch.Tensor, out: torch.Tensor) -> None:
    out.fill_(torch.nan)


@pytest.mark.parametrize(
    ("product", "said"),
    [(_narrow, "differs from plain torch"), (_nothing, "differs"), (_absent, "no such kernel")],
)
def test_others_leave_the_work_to_float32(
    product: object, said: str, hopper: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(half_products, "half_products", product)
    with pytest.warns(RuntimeWarning, match=said):
        assert served_sums(CPU) is None


def test_obstacles(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "need a CUDA card" in half_products.obstacle(CPU)
    assert served_sums(CPU) is None
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (6, 1))
    assert "7.0" in half_products.obstacle(CARD)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 0))
    assert half_products.obstacle(CARD) == ""
    monkeypatch.setattr(torch.version, "hip", "6.4")
    assert "AMD" in half_products.obstacle(CARD)
