"""Data is read where it lies: no copies between devices, the caller's stream, results in kind."""

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ilo_fast import ILO, FlatIndex, ilo_scores, knn
from ilo_fast.arrays import to_torch
from ilo_fast.ops import dispatch

N, D, K = 3000, 24, 4
METRICS = ["cosine", "euclidean", "inner_product"]


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request):
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device: python -m benchmarks gpu")
    return request.param


def points(device="cpu", n=N):
    return torch.randn(n, D, generator=torch.Generator().manual_seed(n)).to(device)


class Crossings(TorchDispatchMode):
    """Operations with floating-point tensors of N elements and more on two kinds of device."""

    def __init__(self):
        super().__init__()
        self.seen, self.operations = [], 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        self.operations += 1
        data = [
            leaf
            for leaf in tree_leaves((args, kwargs, result))
            if isinstance(leaf, torch.Tensor) and leaf.is_floating_point() and leaf.numel() >= N
        ]
        if len({tensor.device.type for tensor in data}) > 1:
            self.seen.append(str(function))
        return result


def test_crossings_are_noticed():
    with Crossings() as crossings:
        points().to("meta")
    assert crossings.seen


@pytest.mark.parametrize("metric", METRICS)
def test_no_data_crosses_between_devices(device, metric):
    x, queries = points(device), points(device, n=200)
    languages = [f"l{i % 5}" for i in range(N)]
    knn(x, K, metric=metric)  # on a card, `auto` first tries its kernels on points from the host
    with Crossings() as crossings:
        found = knn(x, K, metric=metric)
        index = FlatIndex(D, metric)
        index.add(x)
        searched = index.search(queries, K)
        streamed = ILO(k=K, metric=metric)
        streamed.update(x, languages)
        streamed.compute()
        ilo_scores(found, languages)
    assert crossings.operations > 50
    assert crossings.seen == []
    for tensor in (found.indices, found.distances, found.certified, *searched):
        assert tensor.device == x.device
    np.testing.assert_array_equal(found.indices.cpu(), knn(x.cpu(), K, metric=metric).indices)


@pytest.mark.parametrize("metric", METRICS)
def test_a_default_device_changes_nothing(metric):
    """Every tensor is made where the points are: `torch.set_default_device` is the caller's own."""
    x, queries = points(), points(n=60)
    languages = [f"l{i % 5}" for i in range(N)]
    expected = knn(x, K, metric=metric).indices
    with torch.device("meta"):  # whatever is made there fails as soon as it is read
        found = knn(x, K, metric=metric)
        index = FlatIndex(D, metric)
        index.add(x)
        index.search(queries, K)
        streamed = ILO(k=K, metric=metric)
        streamed.update(x, languages)
        streamed.compute()
        ilo_scores(found, languages)
    assert torch.equal(found.indices, expected)


def test_the_engine_reads_the_callers_memory(device, monkeypatch):
    given = []
    choose = dispatch.choose
    monkeypatch.setattr(
        dispatch, "choose", lambda name, request: given.append(request.x) or choose(name, request)
    )
    x = points(device)
    version = x._version
    for view in (x, x.T[:12].T, x[::2], torch.nn.Parameter(x)):
        knn(view, K)
        assert given[-1].data_ptr() == view.data_ptr()
        assert given[-1].stride()[1:] == view.stride()
    array = np.asarray(x.cpu())
    knn(array, K)
    assert given[-1].data_ptr() == array.ctypes.data
    assert x._version == version  # and nothing wrote to it


def test_queries_are_read_and_points_copied_once(device):
    x, queries = points(device), points(device, n=50)
    index = FlatIndex(D, "cosine")
    index.add(x)
    versions = x._version, queries._version
    first = index.search(queries, K)
    base = index._base
    second = index.search(queries, K)
    assert index._base is base  # prepared once
    assert (x._version, queries._version) == versions
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_arrays_become_tensors_over_the_same_memory():
    array = np.arange(12.0).reshape(3, 4)
    tensor, back = to_torch(array)
    assert tensor.data_ptr() == array.ctypes.data
    result = torch.ones(2)
    assert back(result).ctypes.data == result.data_ptr()
    x = points()
    tensor, back = to_torch(x)
    assert tensor is x
    assert back(result) is result


@pytest.mark.gpu
def test_work_is_queued_on_the_callers_stream():
    """The points are still being computed on that stream when the search is called."""
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device: python -m benchmarks gpu")
    x = points("cuda")
    expected = knn(x.roll(7, 0), K).indices
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        late = torch.zeros_like(x)
        torch.cuda._sleep(200_000_000)
        late.copy_(x.roll(7, 0))
        found = knn(late, K).indices
        again = found.clone()
    stream.synchronize()
    assert torch.equal(again, expected)


@pytest.mark.gpu
def test_cupy_arrays_come_back_in_kind_on_their_stream():
    cupy = pytest.importorskip("cupy", reason="needs CuPy: python -m benchmarks gpu")
    x = points("cuda")
    expected = knn(x, K).indices.cpu().numpy()
    with cupy.cuda.Stream(non_blocking=True):
        array = cupy.asarray(x) * 2  # queued on CuPy's stream, not torch's
        found = knn(array, K)
        assert isinstance(found.indices, cupy.ndarray)
        assert found.indices.device == array.device
        np.testing.assert_array_equal(cupy.asnumpy(found.indices), expected)
        index = FlatIndex(D, "cosine")
        index.add(array)
        values, _ = index.search(array[:9], K)
        assert isinstance(values, cupy.ndarray)
