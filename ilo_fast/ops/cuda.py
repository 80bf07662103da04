"""CUDA C++ sources compiled at run time: found, compiled once a device, launched on torch's stream.

CuPy does the compiling (NVRTC) and the loading; it caches the binaries on disk. Nothing is
imported or compiled before the first kernel is asked for.
"""

from functools import lru_cache
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

__all__ = ["kernel", "launch", "obstacle", "source_folder"]

_THREADS = 128
_BLOCKS = 4096  # enough to fill any card; the kernels stride over what is left


def obstacle(device: torch.device) -> str:
    """Why the CUDA kernels cannot serve a device, "" when they can.

    >>> obstacle(torch.device("cpu"))
    'CUDA kernels need a CUDA device, not cpu'
    """
    if device.type != "cuda":
        return f"CUDA kernels need a CUDA device, not {device.type}"
    if find_spec("cupy") is None:
        return "the package cupy is not installed (pip install 'ilo-fast[gpu]')"
    return ""


def source_folder() -> Path:
    """Folder of the CUDA sources: inside an installed package, beside it in a checkout.

    >>> sorted(path.name for path in source_folder().glob("*.cu"))
    ['intersect.cu', 'languages.cu']
    """
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "csrc", package.parent / "csrc"):
        if (folder / "common.cuh").is_file():
            return folder
    raise FileNotFoundError(f"no CUDA sources beside {package}: the installation is incomplete")


@lru_cache(maxsize=64)
def kernel(file: str, name: str, device: int, defines: tuple[str, ...] = ()) -> Any:
    """A kernel of a source file, compiled for a device with ``-D`` definitions."""
    import cupy

    folder = source_folder()
    # CuPy's cache on disk knows a binary by its source and options, not by what it includes.
    included = sha256((folder / "common.cuh").read_bytes()).hexdigest()[:16]
    defines = (*defines, f"COMMON_{included}")
    options = ("-std=c++17", f"-I{folder}", *(f"-D{define}" for define in defines))
    with cupy.cuda.Device(device):
        module = cupy.RawModule(
            code=(folder / file).read_text(encoding="utf-8"), options=options, backend="nvrtc"
        )
        return module.get_function(name)


def launch(
    file: str,
    name: str,
    items: int,
    arguments: tuple[torch.Tensor | int, ...],
    *,
    device: torch.device,
    defines: tuple[str, ...] = (),
    grid_y: int = 1,
) -> None:
    """Launch a kernel over ``items`` on the device's current torch stream.

    Tensors go as pointers and must be contiguous; whole numbers go as 64-bit integers.
    """
    import cupy
    import numpy as np

    number = device.index if device.index is not None else torch.cuda.current_device()
    function = kernel(file, name, number, defines)
    values = tuple(
        np.intp(value.data_ptr()) if isinstance(value, torch.Tensor) else np.int64(value)
        for value in arguments
    )
    blocks = min(_BLOCKS, max(1, -(-items // _THREADS)))
    stream = cupy.cuda.Stream.from_external(torch.cuda.current_stream(number))
    with cupy.cuda.Device(number), stream:
        function((blocks, grid_y), (_THREADS,), values)
