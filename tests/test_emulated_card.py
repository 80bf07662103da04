"""The GPU tests that an emulated card can run, on machines without one.

What is checked is the code around the kernels: tensors that meet lie on one device, results come
back on the caller's, nothing is read through NumPy from a card. See tests/support/emulated_card.py.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
FILES = (
    "tests/activations/test_attention.py",
    "tests/activations/test_card.py",
    "tests/ops/test_intersect.py",
    "tests/ops/test_languages.py",
    "tests/ops/test_largest.py",
    "tests/ops/test_trial.py",
    "tests/overlap/test_gpu.py",
    "tests/test_device_manners.py",
    "tests/test_stored.py",
)


CASES = """
import numpy
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from ilo_fast import knn, vectors

pytestmark = pytest.mark.gpu
MIXED = [
    lambda x: x + torch.ones(3),
    lambda x: torch.cat([x, torch.ones(3)]),
    lambda x: x.long() @ x.long(),
    lambda x: torch.randn(3, generator=torch.Generator(), device="cuda"),
]


@pytest.mark.parametrize("mix", MIXED)
def test_refused(mix):
    with pytest.raises(RuntimeError):
        mix(torch.ones(3, device="cuda"))


def test_no_view():
    with pytest.raises(TypeError):
        numpy.asarray(torch.ones(3, device="cuda"))


def test_fine():
    x = torch.ones(3).cuda() * 2 + torch.tensor(1.0)
    assert x.is_cuda and x.device.type == "cuda" and x.cpu().tolist() == [3.0] * 3


@pytest.fixture(scope="module")
def x():
    points = torch.randn(28, 24, generator=torch.Generator().manual_seed(0))
    points[:, 3] += 30
    points[20:24] = points[5]
    return points


@pytest.fixture(scope="module")
def by_triton(x):
    return knn(x.cuda(), 3, backend="triton")


def check(found, backend, x):
    assert found.backend == backend and found.indices.is_cuda and found.certified.all()
    assert torch.equal(found.indices.cpu(), knn(x, 3).indices)


def test_triton_engine(by_triton, x):
    check(by_triton, "triton", x)


def test_torch_engine(x):
    check(knn(x.cuda(), 3, backend="torch"), "torch", x)


class Launches(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, kinds, args=(), kwargs=None):
        name = function._schema.name.partition("::")[2]
        there = "Card" in {kind.__name__ for kind in kinds}  # kernels here work on host tensors
        if there and not function.is_view and not name.startswith(("empty", "device")):
            self.names.append(name)
        return function(*args, **(kwargs or {}))


def test_few_launches_beside_the_kernels(by_triton, x, monkeypatch):  # what is cached is there
    card = x.cuda()
    monkeypatch.setattr(vectors, "flushes", lambda rows: pytest.fail("work for every core first"))
    with Launches() as seen:
        knn(card, 3, backend="triton")
    check = ["linalg_vector_norm", "amax", "_local_scalar_dense"]
    assert [name for name in seen.names if name != "_to_copy"] == check, seen.names
"""


def test_gpu_tests_on_an_emulated_card(tmp_path: Path) -> None:
    """And that the emulation refuses what a card would, and runs the engines' code for CUDA."""
    if torch.cuda.is_available():
        pytest.skip("a real card is here: python -m benchmarks gpu")
    if shutil.which("g++") is None:
        pytest.skip("needs g++ (Debian: apt-get install g++): make test")
    pytest.importorskip("triton", reason="Triton has no wheel for this platform")
    paths = os.pathsep.join([str(ROOT / "tests" / "support"), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": paths}
    environment |= {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    environment.pop("PYTEST_XDIST_WORKER", None)
    cases = tmp_path / "test_cases.py"
    cases.write_text(CASES)
    options = ("-p", "emulated_card", "-p", "no:cacheprovider", "-m", "gpu", "-k", "not cupy")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-c", "pyproject.toml", *options, *FILES, cases],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert "skipped" not in done.stdout.splitlines()[-1]
