"""The benchmark's sweep over the filter's launches: what is timed, and what is only recorded."""

from dataclasses import replace

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
    chosen = replace(filter_config(major, 100, 20, 5), reason="")
    other = replace(chosen, bin_width=8 if chosen.bin_width == 16 else 16)
    broken = replace(chosen, stages=7)
    monkeypatch.setattr(gpu_sweep, "launches", lambda _: [chosen, broken, other])
    refused = {chosen: "", other: "", broken: "out of shared memory"}
    monkeypatch.setattr(gpu_sweep, "_checked", lambda *_: refused)
    rows = gpu_sweep.sweep(100, 20, device, rounds=1)["launches"]
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
