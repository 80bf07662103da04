"""Run the kernels' tests under Triton's interpreter, which needs a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent / "triton"
FILES = sorted(FOLDER.glob("test_*.py"))
ENGINE = FOLDER / "test_engine.py"  # as long as all the others
assert ENGINE in FILES


@pytest.mark.parametrize(
    "files",
    [[ENGINE], [file for file in FILES if file != ENGINE]],
    ids=["engine", "others"],
)
def test_under_the_interpreter(files: list[Path]) -> None:
    pytest.importorskip("triton", reason="Triton has no wheel for this platform")
    environment = dict(os.environ, TRITON_INTERPRET="1", OMP_NUM_THREADS="1")
    environment.pop("PYTEST_XDIST_WORKER", None)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *map(str, files)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
