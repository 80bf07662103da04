"""CUDA C++ sources: they compile for every supported card, run right, and ship in the wheel.

Compiling needs no GPU. The kernels' arithmetic is run on the CPU: the same sources, built by the
host's C++ compiler with the few CUDA words they use defined as a serial loop over threads.
"""

import ctypes
import importlib.util
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from cuda_words import WORDS

from ilo_fast.ops.cuda import source_folder
from ilo_fast.ops.intersect import intersect_torch
from ilo_fast.ops.languages import languages_torch

ROOT = Path(__file__).resolve().parents[1]
KERNELS = ["languages.cu", "intersect.cu"]
CARDS = ["sm_80", "sm_90", "sm_100"]

SHIM = f"""
{WORDS}
#include "SOURCE"
template <class F> void grid(long long blocks, long long rows, long long threads, F kernel) {{
  gridDim = {{blocks, rows, 1}};
  blockDim = {{threads, 1, 1}};
  for (blockIdx.y = 0; blockIdx.y < rows; ++blockIdx.y)
    for (blockIdx.x = 0; blockIdx.x < blocks; ++blockIdx.x)
      for (threadIdx.x = 0; threadIdx.x < threads; ++threadIdx.x) kernel();
}}
"""


def _nvrtc() -> ctypes.CDLL | None:
    """NVRTC of an installed wheel or toolkit, None when there is none."""
    folders: list[Path] = []
    spec = importlib.util.find_spec("nvidia")
    if spec is not None and spec.submodule_search_locations:
        folders += [Path(folder) for folder in spec.submodule_search_locations]
    nvcc = shutil.which("nvcc")
    if nvcc:
        folders.append(Path(nvcc).resolve().parents[1])
    for folder in folders:
        for path in sorted(folder.rglob("libnvrtc.so*"), reverse=True):
            return ctypes.CDLL(str(path))
    return None


def _compile_nvrtc(library: ctypes.CDLL, path: Path, options: list[str]) -> int:
    """Size of the binary; raises with the compiler's log."""
    program = ctypes.c_void_p()
    header = path.parent / "common.cuh"
    headers = (ctypes.c_char_p * 1)(header.read_bytes())
    names = (ctypes.c_char_p * 1)(header.name.encode())
    made = library.nvrtcCreateProgram(
        ctypes.byref(program), path.read_bytes(), path.name.encode(), 1, headers, names
    )
    assert made == 0
    arguments = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
    failed = library.nvrtcCompileProgram(program, len(options), arguments)
    size = ctypes.c_size_t()
    if failed:
        library.nvrtcGetProgramLogSize(program, ctypes.byref(size))
        log = ctypes.create_string_buffer(size.value)
        library.nvrtcGetProgramLog(program, log)
        raise AssertionError(log.value.decode())
    library.nvrtcGetCUBINSize(program, ctypes.byref(size))
    library.nvrtcDestroyProgram(ctypes.byref(program))
    return size.value


@pytest.mark.parametrize("card", CARDS)
@pytest.mark.parametrize(("kernel", "defines"), [(KERNELS[0], [1, 4]), (KERNELS[1], [0, 10, 32])])
def test_compiles_for_every_card(
    kernel: str, defines: list[int], card: str, tmp_path: Path
) -> None:
    library = _nvrtc()
    nvcc = shutil.which("nvcc")
    if library is None and nvcc is None:
        pytest.skip("needs nvcc, or NVRTC (pip install nvidia-cuda-nvrtc): make test")
    path = source_folder() / kernel
    word = {"languages.cu": "WORDS", "intersect.cu": "LIST"}[kernel]
    for value in defines:
        define = [f"-D{word}={value}"]
        if library is not None:
            options = ["-std=c++17", f"--gpu-architecture={card}", *define]
            assert _compile_nvrtc(library, path, options) > 0
        elif nvcc is not None:
            out = tmp_path / f"{kernel}.cubin"
            command = [nvcc, "-std=c++17", f"-arch={card}", "-cubin", "-Werror=all-warnings"]
            done = subprocess.run(
                [*command, *define, "-o", str(out), str(path)], capture_output=True, text=True
            )
            assert done.returncode == 0, done.stderr
            assert out.stat().st_size > 0


def _host_build(tmp_path: Path, source: str, body: str, defines: list[str]) -> ctypes.CDLL:
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("needs g++ or clang++ (Debian: apt-get install g++): make test")
    code = tmp_path / "kernel.cpp"
    code.write_text(SHIM.replace("SOURCE", source) + body)
    library = tmp_path / "kernel.so"
    subprocess.run(
        [
            *(compiler, "-std=c++17", "-O1", "-shared", "-fPIC", "-fsanitize=undefined"),
            *("-fno-sanitize-recover", *defines, f"-I{source_folder()}"),
            *("-o", str(library), str(code)),
        ],
        check=True,
        capture_output=True,
    )
    return ctypes.CDLL(str(library))


def _pointers(*arrays: np.ndarray) -> list[ctypes.c_void_p]:
    assert all(array.flags.c_contiguous for array in arrays)
    return [ctypes.c_void_p(array.ctypes.data) for array in arrays]


@pytest.mark.parametrize("languages", [3, 64, 65, 200])
def test_languages_kernel_on_the_host(languages: int, tmp_path: Path) -> None:
    body = """
    extern "C" void run(const i64* a, const i64* b, u64* c, u64* d, u64* e,
                        i64 l, i64 n, i64 k, i64 m, i64 t) {
      grid(3, 1, 32, [&] { languages_of_neighbours(a, b, c, d, e, l, n, k, m, t); });
    }"""
    words = -(-languages // 64)
    built = _host_build(tmp_path, "languages.cu", body, [f"-DWORDS={words}"])
    rng = np.random.default_rng(languages)
    layers, n, k = 2, 300, 7
    indices = rng.integers(0, n, (layers, n, k))
    language = rng.integers(0, languages, n)
    language[:3] = languages - 1
    masks = np.full((layers, n, words), -1)
    bridging = np.zeros((layers, languages), dtype=np.int64)
    reach = np.zeros((layers, languages, words), dtype=np.int64)
    numbers = [ctypes.c_longlong(value) for value in (layers, n, k, languages, 3)]
    built.run(*_pointers(indices, language, masks, bridging, reach), *numbers)
    truth = languages_torch(torch.tensor(indices), torch.tensor(language), languages, 3)
    for ours, theirs in zip((masks, bridging, reach), truth, strict=True):
        np.testing.assert_array_equal(ours, theirs.numpy())


@pytest.mark.parametrize("held", [0, 6])
def test_intersect_kernels_on_the_host(held: int, tmp_path: Path) -> None:
    body = """
    extern "C" void sums(const i64* a, const i64* b, u64* c, i64 p, i64 q, i64 n, i64 k, i64 m) {
      grid(16, 2, 1, [&] { intersect_sum(a, b, c, p, q, n, k, m); });
    }
    extern "C" void points(const i64* a, const i64* b, i64* c, i64 p, i64 q, i64 n, i64 k, i64 m) {
      grid(16, 2, 1, [&] { intersect_points(a, b, c, p, q, n, k, m); });
    }"""
    built = _host_build(tmp_path, "intersect.cu", body, [f"-DLIST={held}"])
    rng = np.random.default_rng(0)
    n, k_a, k_b = 53, 6, 9
    a = np.argsort(rng.random((3, n, 40)), axis=2)[:, :, :k_a].copy()
    b = np.argsort(rng.random((2, n, 40)), axis=2)[:, :, :k_b].copy()
    sums = np.zeros((3, 2), dtype=np.int64)
    sizes = np.full((3, 2, n), -1)
    numbers = [ctypes.c_longlong(value) for value in (3, 2, n, k_a, k_b)]
    built.sums(*_pointers(a, b, sums), *numbers)
    built.points(*_pointers(a, b, sizes), *numbers)
    left, right = torch.tensor(a), torch.tensor(b)
    np.testing.assert_array_equal(sizes, intersect_torch(left, right, True).numpy())
    np.testing.assert_array_equal(sums, intersect_torch(left, right, False).numpy())


def test_wheel_holds_the_sources(tmp_path: Path) -> None:
    pytest.importorskip("hatchling", reason="needs hatchling: make test")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
        for path in source_folder().iterdir():
            assert f"ilo_fast/csrc/{path.name}" in held
            assert archive.read(f"ilo_fast/csrc/{path.name}") == path.read_bytes()
