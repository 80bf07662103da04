"""The Triton kernels compile for cards that are not here, within those cards' means.

The interpreter proves what the kernels compute; this finds what only a compiler objects to.
"""

import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parent / "triton" / "compile_kernels.py"
SHARED = {80: 163 << 10, 90: 227 << 10, 100: 227 << 10, 120: 99 << 10}
MATRIX_UNIT = {80: "mma.sync", 90: "wgmma", 100: "tcgen05.mma", 120: "mma.sync"}
SPILL_BYTES = 512  # of stack a thread: the filter's epilogue spills a little, nothing else does
OLDER_SPILL_BYTES = {"3.7": 640, "3.8": 640}  # with bins of 8: 632 and 600, where 3.9 has 376


pytestmark = pytest.mark.xdist_group("compiles")  # one process compiles for all of them
ENGINE = {
    "90 4096 5 cosine": [],
    "90 576 5 inner_product": [],  # the most registers of the float64 kernels
    "90 1000 128 cosine": ["_filter_kernel", "_select_kernel"],  # bins of 8
    "80 576 5 cosine": ["_filter_kernel"],
    "100 4096 5 cosine": ["_filter_kernel", "_prepare_kernel"],
    "120 4096 5 cosine": ["_filter_kernel"],
}
BESIDE = {card: ["bfloat16"] for card in SHARED} | {90: ["bfloat16", "float16", "float32"]}
VARIANTS = ["variants 90 64 5 cosine 9001", "variants 90 64 5 euclidean 133"]


@pytest.fixture(scope="module")
def compiled() -> dict[str, Any]:
    """What each command of the script answers, all in one process."""
    pytest.importorskip("triton", reason="Triton has no wheel for this platform")
    commands = [
        *(" ".join([asked, *kernels]) for asked, kernels in ENGINE.items()),
        *(" ".join(["beside", str(card), *dtypes]) for card, dtypes in BESIDE.items()),
        *VARIANTS,
    ]
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *commands],
        env=environment, capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    assert "Warning" not in done.stderr  # such as that a launch leaves a default that will change
    return dict(zip(commands, map(json.loads, done.stdout.splitlines()), strict=True))


@pytest.mark.parametrize("asked", ENGINE)
def test_compiles(asked: str, compiled: dict[str, Any]) -> None:
    kernels, card = ENGINE[asked], int(asked.split()[0])
    found = {facts["kernel"]: facts for facts in compiled[" ".join([asked, *kernels])]}
    assert set(found) >= set(kernels or ["_rescore_kernel", "_repair_kernel_tiers", "_sort_kernel"])
    for name, facts in found.items():
        assert facts["shared_bytes"] <= SHARED[card], facts
        assert not facts["flushes_subnormals"], facts
        # Copies of a point have distance 0 only where products are rounded before they are added.
        assert not facts["fuses_float64"] or name == "_select_kernel", facts
        spill = OLDER_SPILL_BYTES.get(version("triton").rpartition(".")[0], SPILL_BYTES)
        limit = spill if name == "_filter_kernel" else 64
        assert facts["stack_bytes"] <= limit, facts
        # A row's bins are one lane's own: nothing of them is exchanged.
        assert name != "_select_kernel" or not facts["shared_bytes"], facts
    product = found["_filter_kernel"]
    assert product["matrix_unit"] == MATRIX_UNIT[card]
    assert product["tensor_copies"] == (card in (90, 100))
    assert not product["product_loop_spills"]  # None where the loop is unrolled


@pytest.mark.parametrize("card", BESIDE)
def test_kernels_beside_the_engine_compile(card: int, compiled: dict[str, Any]) -> None:
    dtypes = BESIDE[card]
    found = compiled[" ".join(["beside", str(card), *dtypes])]
    pools = [facts for facts in found if facts["kernel"] == "segment_pool_kernel"]
    assert len(pools) == 2 * len(dtypes)  # two modes
    [product] = [facts for facts in found if facts["kernel"] == "_product_kernel"]
    assert product["matrix_unit"] == MATRIX_UNIT[card]
    for name in ("largest_kernel", "rivals_kernel"):  # rows and columns, short and long
        assert sum(facts["kernel"] == name for facts in found) == 4
    assert len(found) == len(pools) + 9
    for facts in found:
        assert facts["stack_bytes"] == 0, facts
        assert not facts["flushes_subnormals"], facts


@pytest.mark.parametrize("asked", VARIANTS)
def test_a_search_runs_the_kernels_that_its_trial_tried(
    asked: str, compiled: dict[str, Any]
) -> None:
    """Where layers begin in memory, strides that happen to divide, more points or fewer make no
    other kernels."""
    found = compiled[asked]
    assert len(found) == 12
    assert set(found.values()) == {1}, found
