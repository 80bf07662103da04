"""The Triton kernels, on the card where there is one, else under Triton's interpreter.

The interpreter is switched on by TRITON_INTERPRET=1 when a kernel is decorated, so these tests
need a process of their own: tests/ops/test_triton_interpreter.py starts it.
"""

import inspect
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
    from triton.runtime import interpreter

    _members: dict[int, list[tuple[str, Any]]] = {}

    def _patch_builtin(package: Any, *rest: Any) -> None:
        """What Triton does on every call of a nested function, without listing members anew."""
        from triton import language

        if id(package) not in _members:
            _members[id(package)] = [
                (name, member)
                for name, member in inspect.getmembers(package)
                if language.core.is_builtin(member)
            ]
        for name, member in _members[id(package)]:
            interpreter._patch_attr(package, name, member, *rest)

    interpreter._patch_builtin = _patch_builtin


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
