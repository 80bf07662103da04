"""The trial that lets ``auto`` take the engine: what passes, and that what is wrong is seen."""

from collections.abc import Callable, Iterator

import pytest
import torch

from ilo_fast.ops import knn_torch, knn_triton, triton_trial
from ilo_fast.ops.request import EngineResult, Request
from ilo_fast.ops.triton_config import Accumulation, accumulation, filter_config


def _lists(device: torch.device, major: int, n: int = 100, k: int = 2) -> str:
    launch = filter_config(major, n, 20, k)
    return triton_trial.lists(device, launch, 20, k, "cosine", torch.float32, n)


@pytest.fixture(autouse=True)
def _anew() -> None:
    triton_trial.lists.cache_clear()
    triton_trial.sums.cache_clear()


def test_sums_lie_within_the_bound(device: torch.device, major: int) -> None:
    assert triton_trial.sums(device, accumulation(major), (64, 640)) == ""


def test_sums_beyond_a_bound_are_noticed(device: torch.device) -> None:
    wide = Accumulation(64, 40, "finer than any unit")
    assert "off by" in triton_trial.sums(device, wide, (64,))


def test_lists_of_hard_points_are_proved(device: torch.device, major: int) -> None:
    assert _lists(device, major) == ""


def _swap(found: EngineResult) -> None:
    found.indices[1, 5] = found.indices[1, 5].flip(0)


def _doubt(found: EngineResult) -> None:
    found.certified[0, 2] = False


@pytest.mark.parametrize(("spoil", "rows"), [(_swap, 1), (_doubt, 0)])
def test_a_wrong_or_unproved_row_is_noticed(
    spoil: Callable[[EngineResult], None],
    rows: int,
    device: torch.device,
    major: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def spoilt(request: Request, _: object) -> EngineResult:
        found = knn_torch.search(request)
        spoil(found)
        return found

    monkeypatch.setattr(knn_triton, "search", spoilt)
    assert f"{rows} of 200 rows" in _lists(device, major)


def test_a_launch_that_fails_is_told_and_no_memory_raised(
    device: torch.device, major: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*args: object) -> None:
        raise RuntimeError("out of resource: shared memory\nmore")

    monkeypatch.setattr(knn_triton, "search", fails)
    assert _lists(device, major) == "RuntimeError: out of resource: shared memory"

    def full(*args: object) -> None:
        raise torch.OutOfMemoryError("full")

    triton_trial.lists.cache_clear()
    monkeypatch.setattr(knn_triton, "search", full)
    with pytest.raises(torch.OutOfMemoryError):
        _lists(device, major)


@pytest.fixture(params=["bfloat16", "float64"])
def _other_defaults(request: pytest.FixtureRequest) -> Iterator[None]:
    torch.set_default_dtype(getattr(torch, request.param))
    torch.set_default_device("meta")
    try:
        yield
    finally:
        torch.set_default_device(None)
        torch.set_default_dtype(torch.float32)


@pytest.mark.usefixtures("_other_defaults")
def test_torchs_defaults_change_nothing(device: torch.device, major: int) -> None:
    points = triton_trial.hard_points(50, 6)
    assert (points.dtype, points.device.type) == (torch.float32, "cpu")
    assert triton_trial.sums(device, accumulation(major), (64,)) == ""
    assert _lists(device, major) == ""
