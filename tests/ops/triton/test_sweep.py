"""The benchmark's sweep over the filter's launches: what is timed, and what is only recorded."""

import os
import time
from dataclasses import replace
from typing import Any

import pytest
import torch

from benchmarks import gpu_sweep
from benchmarks.gpu_sweep import launches
from ilo_fast.ops.triton_config import filter_config


@pytest.mark.parametrize("card", [8, 9])
def test_every_launch_is_another_and_fits_the_tables(card: int) -> None:
    found = launches(filter_config(card, 30_907, 1024, 5))
    assert len(found) == len(set(found)) > 20
    assert all(one.block_n % one.block_m == 0 or one.block_m % one.block_n == 0 for one in found)
    assert all(64 % one.block_k == 0 and one.block_m % one.bin_width == 0 for one in found)
    assert {one.tma for one in found} == {True, False}


def test_launches_that_may_serve_are_timed_fastest_first(
    device: torch.device, major: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = replace(filter_config(major, 50, 6, 5), reason="")
    other = replace(chosen, bin_width=8 if chosen.bin_width == 16 else 16)
    broken = replace(chosen, stages=7)
    monkeypatch.setattr(gpu_sweep, "launches", lambda _: [chosen, broken, other])
    refused = {chosen: "", broken: "out of shared memory", other: ""}
    monkeypatch.setattr(
        gpu_sweep, "_checked", lambda asked, *_: ((one, refused[one]) for one in asked)
    )
    found: dict[str, Any] = {}
    saved = []

    def save() -> None:
        saved.append(sum("search_ms" in row for row in found["launches"]))
        if saved[-1] == 1:
            raise KeyboardInterrupt  # as a time-out ends a process

    with pytest.raises(KeyboardInterrupt):
        gpu_sweep.sweep(50, 6, device, found, save, rounds=1)
    assert saved == [0, 0, 0, 1]
    kept = found["launches"][0]["search_ms"]
    rows = gpu_sweep.sweep(50, 6, device, found, lambda: None, rounds=1)["launches"]
    assert kept in [row.get("search_ms") for row in rows]
    assert [row["refused"] for row in rows] == ["", "", "out of shared memory"]
    assert 0 < rows[0]["search_ms"] <= rows[1]["search_ms"]
    assert all(row["filter_ms"] > 0 and row["filter_tflops"] > 0 for row in rows[:2])
    registers = [row["registers"] for row in rows[:2]]
    assert registers == [None, None] if major == 0 else min(registers) > 0
    assert "search_ms" not in rows[2]


def test_a_launch_is_tried_before_it_is_timed(
    device: torch.device, major: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = filter_config(major, 100, 20, 5)
    found = {"lists": "", "search": None}
    monkeypatch.setattr(gpu_sweep, "lists", lambda *_: found["lists"])
    assert gpu_sweep._try(chosen, 100, 20, str(device)) == ""
    found["lists"] = "on this card 3 of 200 rows of its trial differ from float64's"
    assert "3 of 200" in gpu_sweep._try(chosen, 100, 20, str(device))
    found["lists"] = ""

    def fails(*_: object) -> None:
        raise RuntimeError("out of resources")

    monkeypatch.setattr(gpu_sweep.knn_triton, "search", fails)
    assert gpu_sweep._try(chosen, 100, 20, str(device)) == "RuntimeError: out of resources"


def _ends_badly(*_: object) -> str:
    os._exit(7)


def _hangs(*_: object) -> str:
    time.sleep(60)
    return ""


def test_a_launch_that_hangs_or_ends_its_process_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    later = time.monotonic() + 60
    assert gpu_sweep._apart(" and ".join, (["a", "b"],), later) == "a and b"
    assert gpu_sweep._apart(_ends_badly, (), later) == "its process ended with status 7"
    monkeypatch.setattr(gpu_sweep, "_SECONDS", 1.0)
    assert gpu_sweep._apart(_hangs, (), later) == "no answer in 1 s"
    assert gpu_sweep._apart(_hangs, (), time.monotonic()) == "not tried: no time"


def test_what_waits_is_not_tried_after_an_interrupt(monkeypatch: pytest.MonkeyPatch) -> None:
    begun = []

    def tried(*_: object) -> str:
        begun.append(1)
        time.sleep(0.1)
        return ""

    monkeypatch.setattr(gpu_sweep, "_apart", tried)
    chosen = filter_config(9, 100, 20, 5)
    asked = [replace(chosen, stages=stages) for stages in range(4 * gpu_sweep._AT_ONCE)]
    checked = gpu_sweep._checked(asked, 100, 20, torch.device("cpu"))
    next(checked)
    checked.close()
    assert len(begun) < 3 * gpu_sweep._AT_ONCE
