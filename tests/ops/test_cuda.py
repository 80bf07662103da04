"""Launching CUDA C++ through CuPy: arguments, grid and stream, with CuPy played by the test."""

import sys
import types
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ilo_fast.ops import cuda


class TorchStream:
    cuda_stream = 1234

    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, self.cuda_stream


def test_another_header_is_another_binary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What CuPy keeps a binary under: the source and the options."""
    keys: list[tuple[str, tuple[str, ...]]] = []

    class RawModule:
        def __init__(self, *, code: str, options: tuple[str, ...], backend: str) -> None:
            keys.append((code, options))

        def get_function(self, name: str) -> str:
            return name

    space = types.SimpleNamespace(Device=lambda number: nullcontext())
    monkeypatch.setitem(sys.modules, "cupy", types.SimpleNamespace(cuda=space, RawModule=RawModule))
    monkeypatch.setattr(cuda, "source_folder", lambda: tmp_path)
    (tmp_path / "some.cu").write_text('#include "common.cuh"\n')
    for header in ("typedef long i64;", "typedef long long i64;", "typedef long i64;"):
        (tmp_path / "common.cuh").write_text(header)
        cuda.kernel.cache_clear()
        cuda.kernel("some.cu", "one", 0, ("LIST=5",))
    cuda.kernel.cache_clear()
    assert keys[0] != keys[1]
    assert keys[0] == keys[2]


def test_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []

    class Stream:
        @classmethod
        def from_external(cls, stream: Any) -> Any:
            calls.append(stream.__cuda_stream__()[1])
            return nullcontext()

    class RawModule:
        def __init__(self, *, code: str, options: tuple[str, ...], backend: str) -> None:
            assert "intersect_sum" in code
            assert f"-I{cuda.source_folder()}" in options
            assert backend == "nvrtc"

        def get_function(self, name: str) -> Any:
            return lambda *given: calls.append((name, *given))

    space = types.SimpleNamespace(Stream=Stream, Device=lambda number: nullcontext())
    monkeypatch.setitem(sys.modules, "cupy", types.SimpleNamespace(cuda=space, RawModule=RawModule))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: TorchStream())
    cuda.kernel.cache_clear()
    lists = torch.zeros(3, dtype=torch.int64)
    cuda.launch(
        "intersect.cu", "intersect_sum", 1000, (lists, 7), device=torch.device("cuda", 0), grid_y=5
    )
    cuda.kernel.cache_clear()
    pointer, (name, grid, block, values) = calls
    assert pointer == TorchStream.cuda_stream
    assert (name, grid, block) == ("intersect_sum", (8, 5), (128,))
    assert values == (lists.data_ptr(), 7)
    assert [type(value) for value in values] == [np.intp, np.int64]
