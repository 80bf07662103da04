"""Trials of the kernels that pool and count: what passes, what is noticed, who serves then."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from ilo_fast.ops import cuda, intersect, languages, segment_pool, trial

HOST = torch.device("cpu")
LISTS = torch.tensor([[[1, 2], [0, 2], [0, 1]]])
LANGUAGE = torch.tensor([0, 1, 1])
STATES = torch.arange(12.0).view(6, 2)
OFFSETS = torch.tensor([0, 2, 6])

# each: its module, the launch that the test plays, arguments of the trial, a call that it decides
KERNELS: dict[str, tuple[Any, str, tuple[Any, ...], Callable[[], Any]]] = {
    "languages": (
        languages, "_launch", (2,),
        lambda: languages._neighbor_languages_cuda(LISTS, LANGUAGE, 2, 1)[1],
    ),
    "sum": (
        intersect, "_launch", (5, False),
        lambda: intersect._intersection_sizes_cuda(LISTS, LISTS, False),
    ),
    "points": (
        intersect, "_launch", (40, True),
        lambda: intersect._intersection_sizes_cuda(LISTS, LISTS, True),
    ),
    "mean": (
        segment_pool, "launch", (torch.float16, "mean"),
        lambda: segment_pool._segment_pool_cuda(STATES, OFFSETS, "mean"),
    ),
    "weighted": (
        segment_pool, "launch", (torch.float32, "weighted"),
        lambda: segment_pool._segment_pool_cuda(STATES, OFFSETS, "weighted"),
    ),
}  # fmt: skip
PLAIN = {
    languages: languages.languages_torch,
    intersect: intersect.intersect_torch,
    segment_pool: segment_pool.segment_pool_torch,
}


@pytest.fixture(params=KERNELS)
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A kernel on a card played by the host: the trial is made anew and asked of this one."""
    if request.param in ("mean", "weighted"):
        pytest.importorskip("triton", reason="Triton has no wheel for this platform")
    monkeypatch.setattr(cuda, "obstacle", lambda device: "")
    monkeypatch.setattr(segment_pool, "obstacle", lambda device: "")
    for module in PLAIN:
        module._trial.cache_clear()  # type: ignore[attr-defined]
    yield KERNELS[request.param]
    for module in PLAIN:
        module._trial.cache_clear()  # type: ignore[attr-defined]


def test_what_plain_torch_finds_passes(kernel: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    module, launch, arguments, call = kernel
    calls = []

    def right(*given: Any) -> Any:
        calls.append(given)
        return PLAIN[module](*given)

    monkeypatch.setattr(module, launch, right)
    assert module._trial(HOST, *arguments) == ""
    calls.clear()
    module._trial.cache_clear()
    call()
    call()
    assert len(calls) == 3  # one trial of this launch, two calls


def _spoil(found: Any) -> Any:
    first = found[0] if isinstance(found, tuple) else found
    first.view(-1)[5] += first.view(-1)[5].abs() * 1e-5 if first.is_floating_point() else 1
    return found


def test_one_wrong_number_is_noticed_and_torch_serves(
    kernel: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, launch, arguments, call = kernel
    monkeypatch.setattr(module, launch, lambda *given: _spoil(PLAIN[module](*given)))
    assert "differs from plain torch" in module._trial(HOST, *arguments)
    with pytest.warns(RuntimeWarning, match="plain torch serves instead of a kernel: .*differs"):
        found = call()
    monkeypatch.setattr(module, launch, PLAIN[module])
    module._trial.cache_clear()
    assert torch.equal(found, call())


def test_a_kernel_that_does_not_start_is_told(kernel: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    module, launch, _, call = kernel

    def fails(*given: Any) -> Any:
        raise RuntimeError("libnvrtc.so.13: cannot open shared object file\nmore")

    monkeypatch.setattr(module, launch, fails)
    with pytest.warns(RuntimeWarning, match=r": RuntimeError: libnvrtc\.so\.13: cannot open .* fi"):
        call()


def test_no_memory_is_no_verdict(kernel: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    module, launch, arguments, _ = kernel

    def full(*given: Any) -> Any:
        raise torch.OutOfMemoryError("full")

    monkeypatch.setattr(module, launch, full)
    with pytest.raises(torch.OutOfMemoryError):
        module._trial(HOST, *arguments)
    monkeypatch.setattr(module, launch, PLAIN[module])
    assert module._trial(HOST, *arguments) == ""


def test_a_broken_context_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(device: torch.device) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(torch.cuda, "synchronize", broken)
    with pytest.raises(RuntimeError, match="illegal memory access"):
        trial.verdict(ValueError("a launch"), torch.device("cuda", 0))


@pytest.mark.gpu
@pytest.mark.skipif(
    not torch.cuda.is_available(), reason="needs a CUDA device: python -m benchmarks gpu"
)
@pytest.mark.parametrize("name", [*KERNELS])
def test_kernels_pass_on_the_device(name: str) -> None:
    module, _, arguments, _ = KERNELS[name]
    card = torch.device("cuda", 0)
    if module is not segment_pool and cuda.obstacle(card):
        pytest.skip(cuda.obstacle(card))
    assert module._trial(card, *arguments) == ""
