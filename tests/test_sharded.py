"""Rows spread over processes give, bit for bit, what one process gives."""

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

from ilo_fast import ILO, ilo_scores, knn
from ilo_fast.errors import HiddenStateError, InputError
from ilo_fast.sharded import gather_neighbors, knn_sharded

METRICS = ("cosine", "euclidean", "inner_product")


def hard_points(seed, n, d, dtype=torch.float32):
    """A massive dimension, exact copies across the shards, near copies, a zero vector."""
    random = np.random.default_rng(seed)
    points = random.standard_normal((n, d)) * 0.05
    points[:, 0] += 40
    points[n // 2 : n // 2 + n // 5] = points[: n // 5]
    points[-7:] = points[3] * (1 + 1e-7 * random.random((7, 1)))
    points[n // 3] = 0
    return torch.tensor(points).to(dtype)


CASES = [
    # name, layers, n, d, dtype, k, exclude_self, share of the first process
    ("plain", 2, 300, 24, torch.float32, 5, True, 0.5),
    ("uneven", 1, 257, 16, torch.float32, 5, True, 0.01),
    ("bfloat16", 1, 200, 8, torch.bfloat16, 3, True, 0.6),
    ("float64", 1, 120, 5, torch.float64, 7, True, 0.5),
    ("self", 1, 90, 6, torch.float32, 4, False, 0.4),
    ("everyone", 1, 24, 4, torch.float32, 23, True, 0.5),
]

WORKER = """
import sys, torch, torch.distributed as dist
sys.path.insert(0, {here!r})
from test_sharded import CASES, METRICS, case_points
from ilo_fast.errors import HiddenStateError, InputError
from ilo_fast.sharded import gather_neighbors, knn_sharded
import ilo_fast.sharded as sharded
sharded._TILE = 64  # several tiles in small problems
rank, folder = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method="file://" + folder + "/meet", rank=rank, world_size=2)
found = {{}}
for case in CASES:
    name, _, n, _, _, k, exclude_self, share = case
    cut = max(1, int(n * share))
    mine = slice(0, cut) if rank == 0 else slice(cut, n)
    for metric in METRICS:
        local = knn_sharded(
            case_points(case)[:, mine], k, metric=metric, exclude_self=exclude_self
        )
        whole = gather_neighbors(local)
        found[name, metric] = (whole.indices, whole.distances, whole.certified)
said = []
bad = torch.ones(4, 3)
if rank == 1:
    bad[2, 1] = float("nan")
for call in (
    lambda: knn_sharded(bad, 2),
    lambda: knn_sharded(torch.ones(4, 3 + rank), 2),
    lambda: knn_sharded(torch.ones(4, 3), 8),
    lambda: knn_sharded(torch.ones(4, 3), 2 + rank),
    lambda: knn_sharded(torch.ones(4, 3), 2, metric="x"),
    lambda: knn_sharded(torch.ones(4, 3) if rank else torch.ones(4), 2),
    lambda: knn_sharded(torch.ones(4, 3), 2 if rank else 2.5),
    lambda: knn_sharded(torch.ones(4, 3), 2, exclude_self=True if rank else "yes"),
    lambda: knn_sharded(torch.ones(4, 3, device="cpu" if rank else "meta"), 2),
    lambda: knn_sharded(torch.ones(4, 3, dtype=[torch.float16, torch.float64][rank]), 2),
    lambda: knn_sharded(torch.ones(4, 3), 2, metric=["cosine", "euclidean"][rank]),
    lambda: knn_sharded(torch.ones(4, 3), 2, exclude_self=bool(rank)),
):
    try:
        call()
        said.append("nothing")
    except (HiddenStateError, InputError, TypeError) as error:
        said.append(type(error).__name__ + ": " + str(error))
torch.set_flush_denormal(rank == 1)  # and the numbers it would take for zeros are the other's
call = lambda: knn_sharded(torch.full((4, 3), 1.0 if rank else 1e-40), 2)
try:
    call()
    said.append("nothing")
except InputError as error:
    said.append(str(error))
torch.set_flush_denormal(False)
torch.save({{"said": said, "found": found}}, f"{{folder}}/{{rank}}.pt")
dist.destroy_process_group()
"""


def case_points(case):
    _, layers, n, d, dtype, *_ = case
    return torch.stack([hard_points(seed, n, d, dtype) for seed in range(layers)])


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    """What each of two gloo processes found."""
    folder = tmp_path_factory.mktemp("ring")
    code = WORKER.format(here=str(Path(__file__).parent))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(rank), str(folder)],
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for rank in range(2)
    ]
    try:
        for process in processes:
            _, said = process.communicate(timeout=120)
            assert process.returncode == 0, said
    finally:
        for process in processes:
            process.kill()
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.mark.xdist_group("sharded")  # one process starts the two
@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0])
@pytest.mark.parametrize("metric", METRICS)
def test_two_processes_agree_with_one(two_processes, case, metric):
    name, _, _, _, _, k, exclude_self, _ = case
    expected = knn(case_points(case), k, metric=metric, exclude_self=exclude_self)
    for process in two_processes:
        indices, distances, certified = process["found"][name, metric]
        assert torch.equal(indices, expected.indices)
        assert torch.equal(distances.view(torch.int32), expected.distances.view(torch.int32))
        assert bool(certified.all())


@pytest.mark.xdist_group("sharded")
def test_every_process_says_what_is_wrong(two_processes):
    wrong_axes = "x must be [n, d] or [layers, n, d]; got shape [4]"
    for rank, process in enumerate(two_processes):
        nan, dimensions, many, different, metric, axes, whole, self_, *more = process["said"]
        meta, dtypes, metrics, selves, flushed = more
        assert (
            nan == "HiddenStateError: x must be finite; found NaN or infinity in layer 0, point 6"
        )
        assert "subnormal numbers" in flushed
        assert dimensions == "InputError: d must be the same in every process; got [3, 4]"
        assert "k must be between 1 and 7 for 8 points; got 8" in many
        assert "k must be the same in every process; got [2, 3]" in different
        assert "metric must be one of" in metric
        elsewhere = "InputError: x, k or exclude_self cannot be used in process 0, which says why"
        assert axes == (elsewhere if rank else "InputError: " + wrong_axes)
        assert whole == (elsewhere if rank else "TypeError: k must be an integer; got 2.5")
        truth = "TypeError: exclude_self must be True or False; got 'yes'"
        assert self_ == (elsewhere if rank else truth)
        truth = "TypeError: x must hold numbers; got a tensor on the device meta"
        assert meta == (elsewhere if rank else truth)
        same = "must be the same in every process; got "
        assert dtypes == f"InputError: dtype {same}[torch.float16, torch.float64]"
        assert metrics == f"InputError: metric {same}['cosine', 'euclidean']"
        assert selves == f"InputError: exclude_self {same}[False, True]"


@pytest.fixture
def alone():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_one_process_is_a_ring_too(alone):
    points = hard_points(3, 150, 12)
    expected = knn(points, 5)
    found = gather_neighbors(knn_sharded(points, 5))
    assert torch.equal(found.indices, expected.indices)
    assert torch.equal(found.distances, expected.distances)
    languages = np.repeat(["a", "b", "c"], 50)
    assert (ilo_scores(found, languages).ilo == ilo_scores(expected, languages).ilo).all()


def test_points_of_inference_mode(alone):
    points = hard_points(4, 90, 6)
    with torch.inference_mode():
        found = knn_sharded(points * 1, 5)
    assert torch.equal(found.indices, knn(points, 5).indices)


def test_a_tensor_of_torchs_that_is_spread_is_named(alone):
    mesh = init_device_mesh("cpu", (1,))
    spread = distribute_tensor(hard_points(4, 20, 6), mesh, [Shard(0)])
    metric = ILO()
    for call in (
        lambda: knn(spread),
        lambda: knn_sharded(spread),
        lambda: metric.update(spread, range(20)),
    ):
        with pytest.raises(TypeError, match=r"got a DTensor, .* each one's to_local\(\)\)"):
            call()
    found = knn_sharded(spread.to_local(), 3)
    assert torch.equal(found.indices, knn(spread.full_tensor(), 3).indices)


def test_all_points_equal(alone):
    points = torch.ones(60, 4)
    assert torch.equal(knn_sharded(points, 5).indices, knn(points, 5).indices)


def test_many_candidates_are_settled_in_between(alone, monkeypatch):
    monkeypatch.setattr("ilo_fast.sharded._FRESH", 50)
    monkeypatch.setattr("ilo_fast.sharded._TILE", 16)
    points = hard_points(5, 120, 6)
    assert torch.equal(knn_sharded(points, 4).indices, knn(points, 4).indices)


def test_what_cannot_be_searched(alone):
    with pytest.raises(TypeError, match="dense floating-point"):
        knn_sharded(torch.ones(3, 2, dtype=torch.int64))
    with pytest.raises(TypeError, match="k must be an integer"):
        knn_sharded(torch.ones(3, 2), 1.0)
    with pytest.raises(InputError, match="shape"):
        knn_sharded(torch.ones(3))
    with pytest.raises(InputError, match="at least 1 layer"):
        knn_sharded(torch.ones(0, 2))
    with pytest.raises(HiddenStateError, match="point 1"):
        knn_sharded(torch.tensor([[1.0], [torch.inf], [2.0]]), 1)


def test_outside_a_group():
    with pytest.raises(InputError, match="init_process_group"):
        knn_sharded(torch.ones(3, 2))


def test_the_script_of_the_page_runs(tmp_path):
    """docs/scans.md's, as one process on the CPU."""
    page = (Path(__file__).parents[1] / "docs" / "scans.md").read_text(encoding="utf-8")
    script = re.search(r"^```python\n(.*?)^```", page, re.M | re.S)[1]
    for old, new in (('"nccl"', '"gloo"'), (".cuda()", "")):
        assert old in script
        script = script.replace(old, new)
    torch.save(hard_points(0, 90, 8), tmp_path / "states-0.pt")
    check = """
from ilo_fast import knn
assert (scores.ilo == ilo_scores(knn(rows, 5), languages).ilo).all()
dist.destroy_process_group()
"""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    meet = {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    subprocess.run(
        [sys.executable, "-c", f"languages = list('abcdef') * 15\n{script}{check}"],
        cwd=tmp_path,
        env={**os.environ, **meet, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
        check=True,
        timeout=120,
    )
