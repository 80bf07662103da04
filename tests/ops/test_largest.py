"""Largest entries and best rivals against sorting; the kernels interpreted, and their trial."""

import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ilo_fast.ops import largest

HOST = torch.device("cpu")


def check(
    form: torch.Tensor, keep: int, dim: int, found: tuple[torch.Tensor, torch.Tensor]
) -> None:
    lines = form.movedim(dim, 2).numpy()
    values, places = (part.numpy() for part in found)
    assert values.shape == places.shape == (*lines.shape[:2], keep)
    np.testing.assert_array_equal(values, -np.sort(-lines, axis=2)[..., :keep])
    np.testing.assert_array_equal(np.take_along_axis(lines, places, axis=2), values)
    assert (np.diff(np.sort(places, axis=2), axis=2) > 0).all()


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 3),
    st.sampled_from([64, 128, 320]),
    st.sampled_from([64, 192]),
    st.integers(1, 32),
    st.sampled_from([1, 2]),
    st.sampled_from([0.0, 1.0, 40.0]),
)
def test_largest_entries(
    seed: int, count: int, rows: int, columns: int, keep: int, dim: int, levels: float
) -> None:
    """Many equal entries, few, or none; all equal too."""
    form = torch.randn(count, rows, columns, generator=torch.Generator().manual_seed(seed))
    form = form if levels == 1 else (form * levels).round()
    check(form, keep, dim, largest.largest_entries(form, keep, dim))


@pytest.mark.parametrize("dim", [1, 2])
def test_numbers_of_any_sign_and_size(dim: int) -> None:
    """On a CPU their bits are ordered in their place."""
    some = [0.0, -0.0, 1e-45, -1e-45, 1e-38, -1e-38, 1.0, -1.0, 3e38, -3e38, torch.inf, -torch.inf]
    form = torch.tensor(some * 11)[: 2 * 64].view(1, 2, 64).repeat(1, 32, 1)
    check(form, 20, dim, largest.largest_entries(form, 20, dim))


@pytest.mark.parametrize("dim", [1, 2])
def test_best_rivals(dim: int) -> None:
    form = torch.randn(2, 64, 128, generator=torch.Generator().manual_seed(0))
    shift = torch.randn(2, form.shape[dim], generator=torch.Generator().manual_seed(1))
    found = largest.best_rivals(form, shift, dim, lambda: torch.full_like(form, torch.nan))
    lines = form.movedim(dim, 2).numpy()
    np.testing.assert_array_equal(found, (lines - shift.numpy()[:, None]).max(axis=2))


INTERPRETED = """
import torch
from quick_interpreter import prepare_once_a_launch
from test_largest import check
from ilo_fast.ops import largest
prepare_once_a_launch()
generator = torch.Generator().manual_seed(0)
for shape in [(1, 3, 5), (2, 35, 64), (2, 9, 997), (1, 17, 2049)]:
    for dim in (1, 2):
        form = torch.randn(shape, generator=generator).movedim(2, dim).contiguous()
        form[0, ::2] = form[0, ::2].round()
        keep = min(12, form.shape[dim])
        check(form, keep, dim, largest.launch_largest(form, keep, dim))
        shift = torch.randn(form.shape[0], form.shape[dim], generator=generator)
        plain = (form.movedim(dim, 2) - shift[:, None]).amax(dim=2)
        assert torch.equal(largest.launch_rivals(form, shift, dim), plain)
for length, dim in [(64, 1), (64, 2), (1024, 2)]:
    assert not largest._largest_trial(torch.device("cpu"), length, dim, 12)
    assert not largest._rivals_trial(torch.device("cpu"), length, dim)
print("equal")
"""


def test_kernels_in_the_interpreter() -> None:
    pytest.importorskip("triton", reason="Triton has no wheel for this platform")
    paths = os.pathsep.join([os.path.dirname(__file__), *sys.path])
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        [sys.executable, "-c", INTERPRETED],
        env=environment | {"PYTHONPATH": paths},
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert run.stdout.strip() == "equal", run.stderr[-2000:]


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A card played by the host: kernels replaced by plain torch, trials made anew."""

    def entries(form: torch.Tensor, keep: int, dim: int) -> Any:
        return form.movedim(dim, 2).topk(keep, dim=2)

    def rivals(form: torch.Tensor, shift: torch.Tensor, dim: int) -> torch.Tensor:
        return (form.movedim(dim, 2) - shift[:, None]).amax(dim=2)

    monkeypatch.setattr(largest, "obstacle", lambda device: "")
    monkeypatch.setattr(largest, "launch_largest", entries)
    monkeypatch.setattr(largest, "launch_rivals", rivals)
    for trial in (largest._largest_trial, largest._rivals_trial):
        trial.cache_clear()
    yield
    for trial in (largest._largest_trial, largest._rivals_trial):
        trial.cache_clear()


def no_room() -> torch.Tensor:
    raise AssertionError("a kernel needs none")


@pytest.mark.parametrize("dim", [1, 2])
def test_kernels_serve_once_tried(dim: int, card: None) -> None:
    form = torch.randn(2, 128, 64, generator=torch.Generator().manual_seed(0))
    check(form, 3, dim, largest.largest_entries(form, 3, dim))
    shift = torch.zeros(2, form.shape[dim])
    found = largest.best_rivals(form, shift, dim, no_room)
    assert torch.equal(found, form.amax(dim=dim))
    assert largest._largest_trial.cache_info().misses == 1
    assert largest._rivals_trial.cache_info().misses == 1


@pytest.mark.parametrize("dim", [1, 2])
@pytest.mark.parametrize("spoilt", ["value", "place", "twice"])
def test_a_wrong_kernel_leaves_the_work_to_plain_torch(
    dim: int, spoilt: str, card: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = largest.launch_largest

    def wrong(form: torch.Tensor, keep: int, dim: int) -> Any:
        values, places = right(form, keep, dim)
        if spoilt == "value":
            values[1, 5, 0] += 1
        elif spoilt == "place":
            places[1, 5, 1] = form.movedim(dim, 2)[1, 5].argmin()
        else:
            values[1, 5], places[1, 5] = values[1, 5, :1], places[1, 5, :1]
        return values, places

    monkeypatch.setattr(largest, "launch_largest", wrong)
    monkeypatch.setattr(largest, "launch_rivals", lambda *_: torch.zeros(2, 32))
    form = torch.randn(2, 128, 64, generator=torch.Generator().manual_seed(0))
    with pytest.warns(RuntimeWarning, match="largest entries along dimension"):
        check(form, 3, dim, largest.largest_entries(form, 3, dim))
    shift = torch.zeros(2, form.shape[dim])
    with pytest.warns(RuntimeWarning, match="best rivals along dimension"):
        found = largest.best_rivals(form, shift, dim, lambda: torch.empty_like(form))
    assert torch.equal(found, form.amax(dim=dim))


def test_slices_too_long_for_registers_are_plain_torch(card: None) -> None:
    form = torch.randn(1, 64, 8192, generator=torch.Generator().manual_seed(0))
    check(form, 5, 2, largest.largest_entries(form, 5, 2))
    assert largest._largest_trial.cache_info().misses == 0


@pytest.mark.gpu
@pytest.mark.skipif(
    not torch.cuda.is_available(), reason="needs a CUDA device: python -m benchmarks gpu"
)
@pytest.mark.parametrize("dim", [1, 2])
def test_kernels_on_the_device(dim: int) -> None:
    form = torch.randn(2, 48, 1024, generator=torch.Generator().manual_seed(0))
    form[0] = (form[0] * 4).round()
    form = form.movedim(2, dim).contiguous()
    shift = torch.randn(2, 1024, generator=torch.Generator().manual_seed(1))
    values, places = largest.launch_largest(form.cuda(), 12, dim)
    check(form, 12, dim, (values.cpu(), places.cpu()))
    expected = (form.movedim(dim, 2) - shift[:, None]).amax(dim=2)
    assert torch.equal(largest.launch_rivals(form.cuda(), shift.cuda(), dim).cpu(), expected)
