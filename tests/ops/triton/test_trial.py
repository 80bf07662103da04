"""The trial that lets ``auto`` take the engine: what passes, and that what is wrong is seen."""

from collections.abc import Callable, Iterator
from contextlib import nullcontext

import pytest
import torch

from ilo_fast.errors import InputError
from ilo_fast.ops import knn_torch, knn_triton, triton_trial
from ilo_fast.ops.request import EngineResult, Request
from ilo_fast.ops.triton_config import Accumulation, accumulation, filter_config


def _lists(
    device: torch.device, major: int, n: int = 100, k: int = 2, exclude_self: bool = True
) -> str:
    launch = filter_config(major, n, 20, k)
    return triton_trial.lists(device, launch, 20, k, "cosine", torch.float32, exclude_self, n)


@pytest.fixture(autouse=True)
def _anew() -> None:
    triton_trial.lists.cache_clear()
    triton_trial.sums.cache_clear()


def test_sums_lie_within_the_bound(device: torch.device, major: int) -> None:
    assert triton_trial.sums(device, accumulation(major), (64, 640)) == ""


def test_sums_beyond_a_bound_are_noticed(device: torch.device) -> None:
    wide = Accumulation(64, 40, "finer than any unit")
    assert "off by" in triton_trial.sums(device, wide, (64,))


@pytest.mark.parametrize("exclude_self", [True, False])
def test_lists_of_hard_points_are_proved(
    exclude_self: bool, device: torch.device, major: int
) -> None:
    assert _lists(device, major, exclude_self=exclude_self) == ""


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
    search = knn_triton.search

    def fails(*args: object) -> None:
        raise RuntimeError("out of resource: shared memory\nmore")

    monkeypatch.setattr(knn_triton, "search", fails)
    assert _lists(device, major) == "RuntimeError: out of resource: shared memory"

    def full(*args: object) -> None:
        raise RuntimeError("Triton Error [CUDA]: out of memory")

    triton_trial.lists.cache_clear()
    monkeypatch.setattr(knn_triton, "_search_layers", full)
    monkeypatch.setattr(knn_triton, "search", search)
    with pytest.raises(InputError, match="too large for the device's free memory"):
        _lists(device, major)
    monkeypatch.undo()
    assert _lists(device, major) == ""  # that memory was short was no verdict


def test_no_verdict_from_a_broken_context(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(triton_trial, "worst_share", broken)
    monkeypatch.setattr(triton_trial, "on_device", lambda device: nullcontext())
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    card = torch.device("cuda", 0)
    assert "illegal" in triton_trial.sums(card, accumulation(9), (64,))
    triton_trial.sums.cache_clear()
    monkeypatch.setattr(torch.cuda, "synchronize", broken)
    with pytest.raises(RuntimeError, match="illegal memory access"):
        triton_trial.sums(card, accumulation(9), (64,))


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("full"),
        RuntimeError("Triton Error [CUDA]: out of memory"),
        InputError("x is too large"),
    ],
)
def test_no_memory_is_a_doubt_for_now(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object) -> None:
        raise error from torch.OutOfMemoryError("full")

    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda card: (9, 0))
    monkeypatch.setattr(triton_trial, "sums", full)
    x = torch.zeros(1, 9, 4, device="meta")
    request = Request(x, x[..., 0].double(), 2, "cosine")
    assert "no memory" in triton_trial.doubt(torch.device("cuda", 0), request)


@pytest.mark.parametrize("exclude_self", [True, False])
def test_the_search_that_is_tried_is_the_one_asked_for(
    exclude_self: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[object, ...]] = []
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda card: (9, 0))
    monkeypatch.setattr(triton_trial, "sums", lambda *_: "")
    monkeypatch.setattr(triton_trial, "lists", lambda *call: asked.append(call) or "")
    x = torch.zeros(1, 9, 4, dtype=torch.float16, device="meta")
    request = Request(x, x[..., 0].double(), 2, "euclidean", exclude_self=exclude_self)
    assert triton_trial.doubt(torch.device("cuda", 0), request) == ""
    assert asked[0][2:] == (4, 2, "euclidean", torch.float16, exclude_self)


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
