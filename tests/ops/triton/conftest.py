"""The Triton kernels, on the card where there is one, else under Triton's interpreter.

The interpreter is switched on by TRITON_INTERPRET=1 when a kernel is decorated, so these tests
need a process of their own: tests/ops/test_triton_interpreter.py starts it.
"""

import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))  # for clouds.py
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
collect_ignore_glob = ["clouds.py", "compile_kernels.py"]
if not INTERPRETED and not torch.cuda.is_available():
    collect_ignore_glob.append("test_*.py")

if INTERPRETED:
    torch.set_num_threads(1)
    from quick_interpreter import prepare_once_a_launch

    prepare_once_a_launch()


@pytest.fixture
def device() -> torch.device:
    return torch.device("cpu" if INTERPRETED else "cuda")


@pytest.fixture
def major(device: torch.device) -> int:
    """Compute capability, 0 for the interpreter."""
    return 0 if INTERPRETED else torch.cuda.get_device_capability(device)[0]


@pytest.fixture(autouse=True)
def _poisoned_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fresh memory holds NaN or a huge number, so that an entry no kernel wrote shows."""
    empty = torch.empty

    def poisoned(*args: Any, **kwargs: Any) -> torch.Tensor:
        made = empty(*args, **kwargs)
        if made.dtype.is_floating_point:
            return made.fill_(torch.nan)
        return made.fill_(True if made.dtype == torch.bool else torch.iinfo(made.dtype).max)

    monkeypatch.setattr(torch, "empty", poisoned)
