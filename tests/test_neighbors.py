"""The public edge of knn: what it takes, what it refuses, what it gives back."""

import dataclasses
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from knn_oracle import assert_exact

from ilo_fast import FlatIndex, Neighbors, ilo_scores, knn
from ilo_fast.errors import HiddenStateError, InputError

METRICS = ("cosine", "euclidean", "inner_product")


def points(n=40, d=6, seed=0, shift=1.0):
    return np.random.default_rng(seed).normal(size=(n, d)) + shift


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("exclude_self", [True, False])
def test_matches_the_oracle(metric, dtype, exclude_self):
    x = points(60, 7).astype(dtype)
    found = knn(x, 5, metric=metric, exclude_self=exclude_self)
    assert_exact(found, x, metric, exclude_self=exclude_self)


@pytest.mark.parametrize("metric", METRICS)
def test_bfloat16_is_searched_at_its_own_values(metric):
    x = torch.from_numpy(points()).to(torch.bfloat16)
    found = knn(x, 3, metric=metric)
    assert_exact(found, x.double().numpy(), metric)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(("n", "d", "k"), [(2, 1, 1), (2, 5, 1), (3, 1, 2), (33, 1, 4), (7, 3, 6)])
def test_smallest_sizes(metric, n, d, k):
    x = points(n, d, seed=n)
    assert_exact(knn(x, k, metric=metric), x, metric)


def test_neighbors_fields():
    found = knn(torch.from_numpy(points()), 4, metric="euclidean")
    assert isinstance(found, Neighbors)
    assert (found.k, found.metric, found.backend, found.exact) == (4, "euclidean", "torch", True)
    assert found.indices.dtype == torch.int64
    assert found.distances.dtype == torch.float32
    assert found.certified.dtype == torch.bool
    assert found.indices.shape == found.distances.shape == (40, 4)
    assert found.certified.shape == (40,)
    assert found.stats.method == ("float64",)
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.metric = "cosine"


@pytest.mark.parametrize("metric", METRICS)
def test_layers_are_searched_one_by_one(metric):
    x = np.stack([points(seed=seed, shift=seed) for seed in range(3)])
    found = knn(x, 4, metric=metric)
    assert found.indices.shape == (3, 40, 4)
    assert found.certified.shape == (3, 40)
    assert len(found.stats.rows_repaired) == 3
    for layer in range(3):
        alone = knn(x[layer], 4, metric=metric)
        np.testing.assert_array_equal(found.indices[layer], alone.indices)
        np.testing.assert_array_equal(found.distances[layer], alone.distances)


def test_numpy_in_numpy_out():
    found = knn(points())
    assert all(type(a) is np.ndarray for a in (found.indices, found.distances, found.certified))
    assert (found.indices.dtype, found.distances.dtype) == (np.int64, np.float32)


class Foreign:
    """An array of another library: DLPack in, its own from_dlpack out."""

    def __init__(self, tensor):
        self.tensor = tensor

    def __dlpack__(self, **options):
        return self.tensor.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.tensor.__dlpack_device__()

    def __array_namespace__(self):
        return Foreign

    @staticmethod
    def from_dlpack(tensor):
        return Foreign(tensor)


def test_dlpack_in_kind():
    x = torch.from_numpy(points())
    found = knn(Foreign(x))
    assert isinstance(found.indices, Foreign)
    assert torch.equal(found.indices.tensor, knn(x).indices)


def test_any_strides_and_gradients():
    x = points(30, 8)
    expected = knn(x).indices
    parameter = torch.nn.Parameter(torch.from_numpy(x))
    found = knn(parameter)
    np.testing.assert_array_equal(found.indices.numpy(), expected)
    assert not found.distances.requires_grad
    transposed = torch.from_numpy(np.ascontiguousarray(x.T)).T
    wide = torch.from_numpy(np.repeat(x, 2, axis=1))[:, ::2]
    for variant in (transposed, wide):
        np.testing.assert_array_equal(knn(variant).indices.numpy(), expected)
    read_only = x.copy()
    read_only.flags.writeable = False
    big_endian = x.astype(">f8")
    backwards = x[::-1].copy()[::-1]
    for array in (read_only, big_endian, backwards, np.asfortranarray(x)):
        np.testing.assert_array_equal(knn(array).indices, expected)


@pytest.mark.parametrize("before", ["i1", "(3,)i1", "(5,)i1"])
def test_a_field_of_a_record_array(before):
    table = np.zeros(30, dtype=np.dtype([("tag", before), ("states", "f4", (3,))]))
    table["states"] = np.random.default_rng(0).normal(size=(30, 3))
    found = knn(table["states"], k=2)
    np.testing.assert_array_equal(found.indices, knn(table["states"].copy(), k=2).indices)


def test_a_negative_stride_of_an_axis_of_length_1():
    x = np.random.default_rng(0).normal(size=(9, 4))
    found = knn(x[None][::-1], k=2)
    np.testing.assert_array_equal(found.indices[0], knn(x, k=2).indices)
    column = np.arange(5.0)[:, None]
    found = knn(column[:, ::-1], k=1, metric="euclidean")
    assert found.indices.tolist() == [[1], [0], [1], [2], [3]]


def test_the_input_is_left_alone():
    x = torch.from_numpy(points())
    before = x.clone()
    knn(x)
    assert torch.equal(x, before)


def test_k_may_be_any_integer_type():
    assert knn(points(), np.int32(3)).k == 3


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"k": 0}, ValueError, "k must be between 1 and 39"),
        ({"k": 40}, ValueError, r"k must be between 1 and 39 for 40 points \(self excluded\)"),
        ({"k": 41, "exclude_self": False}, ValueError, "between 1 and 40"),
        ({"k": 2.0}, TypeError, "k must be an integer; got 2.0"),
        ({"k": True}, TypeError, "k must be an integer; got True"),
        ({"k": "5"}, TypeError, "k must be an integer; got '5'"),
        ({"metric": "cos"}, ValueError, "cosine, euclidean, inner_product; got 'cos'"),
        ({"metric": None}, TypeError, "metric must be one of .*; got NoneType"),
        ({"exact": 1}, TypeError, "exact must be True or False; got 1"),
        ({"exclude_self": "yes"}, TypeError, "exclude_self must be True or False"),
        ({"backend": "faiss"}, ValueError, "backend must be one of auto, torch, .*got 'faiss'"),
    ],
)
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        knn(points(), **arguments)


@pytest.mark.parametrize("value", [np.ones((40, 8)), ["en", "de"] * 500], ids=["array", "labels"])
def test_what_was_given_in_the_wrong_place_is_named_in_one_line(value):
    with pytest.raises(TypeError, match=r"^k must be an integer; got ") as caught:
        knn(points(), value)
    assert str(caught.value).endswith(f"… ({type(value).__name__})")
    assert len(str(caught.value)) < 120
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (np.zeros(5), ValueError, r"\[n, d\] or \[layers, n, d\]; got shape \[5\]"),
        (np.zeros((2, 2, 2, 2)), ValueError, "got shape"),
        (np.zeros((1, 3)), ValueError, r"at least 1 layer, 2 points and 1 dimension; got \[1, 3\]"),
        (np.zeros((5, 0)), ValueError, "1 dimension"),
        (np.zeros((0, 5, 3)), ValueError, "1 layer"),
        (np.zeros((5, 3), dtype=np.int64), TypeError, "float64; got int64"),
        (np.ma.masked_less(np.eye(5), 0.5), TypeError, "x must be an array without a mask"),
        (torch.zeros(5, 3, dtype=torch.int32), TypeError, "float64; got int32"),
        (torch.zeros(5, 3, dtype=torch.complex64), TypeError, "got complex64"),
        (torch.zeros(5, 3).to_sparse(), TypeError, "x must be dense"),
        (torch.zeros(5, 3, device="meta"), TypeError, "x must hold numbers; got .* device meta"),
        (
            [[1.0, 2.0], [3.0, 4.0]],
            TypeError,
            r"a torch tensor, a NumPy or CuPy array.*got list \(pass numpy.array\(x\)\)",
        ),
        ([torch.ones(2), torch.ones(2)], TypeError, r"got list \(pass torch.stack\(x\)\)"),
        (pd.DataFrame(np.eye(5)), TypeError, r"got DataFrame \(pass x.to_numpy\(\)\)"),
        (scipy.sparse.eye_array(5), TypeError, r"got dia_array \(pass x.toarray\(\)\)"),
        ("abc", TypeError, "got str$"),
    ],
)
def test_bad_points(x, error, message):
    with pytest.raises(error, match=message):
        knn(x, 1)


class Traced:
    """As a JAX array within a function that is traced: DLPack's, by name, without numbers."""

    def __dlpack__(self, **options):
        raise AttributeError


def test_traced_arrays_are_named():
    message = "x must hold numbers; got Traced, .* jax.jit, vmap or grad transforms cannot call"
    with pytest.raises(TypeError, match=message):
        knn(Traced())
    with pytest.raises(TypeError, match="neighbors must hold numbers; got Traced"):
        ilo_scores(Traced(), ["a", "b"])


class Unreadable:
    """As an Arrow array of lists: DLPack's, by name, of numbers that it cannot hand over."""

    def __dlpack__(self, **options):
        raise BufferError("lists are not numbers")

    def __dlpack_device__(self):
        return 1, 0


def test_what_dlpack_cannot_read_is_named():
    message = "x must be readable through DLPack; got Unreadable: lists are not numbers"
    with pytest.raises(TypeError, match=message):
        knn(Unreadable())


@pytest.mark.parametrize(("value", "name"), [(np.nan, "NaN"), (np.inf, "inf"), (-np.inf, "inf")])
def test_values_that_are_not_finite(value, name):
    x = np.stack([points(), points()])
    x[1, 17, 3] = value
    with pytest.raises(HiddenStateError, match=f"{name}.* in layer 1, row 17"):
        knn(x)
    with pytest.raises(HiddenStateError, match=f"{name}.* in row 17 "):
        knn(x[1].astype(np.float32))


@pytest.mark.parametrize("exact", [True, False])
def test_exact_is_recorded_and_certified_is_honest(exact):
    x = points(2500, 5)
    found = knn(x, 4, exact=exact)
    reference = knn(x, 4)
    assert found.exact is exact
    agree = (found.indices == reference.indices).all(axis=1)
    assert agree[found.certified].all()
    assert reference.certified.all()
    assert found.certified.mean() > 0.5


def test_products_stay_ieee_whatever_the_caller_set():
    x = torch.from_numpy(points(2200, 16, shift=20.0).astype(np.float32))
    expected = knn(x)
    before = torch.backends.mkldnn.matmul.fp32_precision
    torch.backends.mkldnn.matmul.fp32_precision = "bf16"
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16), torch.inference_mode():
            found = knn(x)
        assert torch.backends.mkldnn.matmul.fp32_precision == "bf16"
    finally:
        torch.backends.mkldnn.matmul.fp32_precision = before
    assert torch.equal(found.indices, expected.indices)
    assert torch.equal(found.distances, expected.distances)


problems = st.tuples(
    st.sampled_from(METRICS),
    st.integers(2, 24),  # n
    st.integers(1, 9),  # d
    st.integers(0, 2**32 - 1),
    st.booleans(),  # small integers: exact ties everywhere
)


def drawn(problem):
    metric, n, d, seed, coarse = problem
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(n, d))
    return metric, np.round(x * 2) if coarse else x, int(generator.integers(1, n)), generator


@settings(max_examples=60, deadline=None)
@given(problems)
def test_property_exact(problem):
    metric, x, k, _ = drawn(problem)
    assert_exact(knn(x, k, metric=metric), x, metric)


@settings(max_examples=40, deadline=None)
@given(problems)
def test_property_shorter_lists_are_prefixes(problem):
    metric, x, k, generator = drawn(problem)
    longer, shorter = knn(x, k, metric=metric), int(generator.integers(1, k + 1))
    found = knn(x, shorter, metric=metric)
    np.testing.assert_array_equal(found.indices, longer.indices[:, :shorter])
    np.testing.assert_array_equal(found.distances, longer.distances[:, :shorter])


@settings(max_examples=40, deadline=None)
@given(problems)
def test_property_order_of_points_does_not_matter(problem):
    metric, x, k, generator = drawn(problem)
    order = generator.permutation(len(x))
    found, moved = knn(x, k, metric=metric), knn(x[order], k, metric=metric)
    np.testing.assert_array_equal(moved.distances, found.distances[order])


@settings(max_examples=40, deadline=None)
@given(problems, st.integers(-200, 200))
def test_property_powers_of_two_change_nothing(problem, exponent):
    metric, x, k, generator = drawn(problem)
    scale = np.ldexp(1.0, exponent)
    if metric == "cosine":
        scale = np.ldexp(1.0, generator.integers(-300, 300, size=(len(x), 1)))
    found, scaled = knn(x, k, metric=metric), knn(x * scale, k, metric=metric)
    np.testing.assert_array_equal(scaled.indices, found.indices)


@pytest.mark.parametrize("metric", ["cosine", "inner_product", "euclidean"])
@pytest.mark.parametrize("n", [40, 300, 2100])
@pytest.mark.parametrize("exponent", [8, 30, 100, 200])
def test_points_that_differ_by_next_to_nothing(metric, n, exponent):
    """Around one direction: level to rounding, but for euclidean, whose differences are exact."""
    generator = np.random.default_rng(exponent)
    x = generator.normal(size=(n, 4)) * 10.0**-exponent
    x[:, 0] = 1
    index = FlatIndex(4, metric)
    index.add(x)
    found, asked = knn(x, 3, metric=metric).indices, index.neighbors(x[:5], 3).indices
    if metric == "euclidean" and exponent < 150:
        far = np.square(x[:5, None, 1:] * 10.0**exponent - x[:, 1:] * 10.0**exponent).sum(axis=2)
        np.testing.assert_array_equal(asked, far.argsort(axis=1)[:, :3])
        np.testing.assert_array_equal(found[:5], far.argsort(axis=1)[:, 1:4])
    elif metric != "euclidean" and exponent > 8:
        np.testing.assert_array_equal(asked, [[0, 1, 2]] * 5)
        level = [np.delete(np.arange(4), row)[:3] if row < 4 else [0, 1, 2] for row in range(n)]
        np.testing.assert_array_equal(found, level)
    for lists in (found, asked):
        assert lists.min() >= 0
        assert (np.diff(np.sort(lists, axis=1), axis=1) > 0).all()


@pytest.fixture
def flushing():
    """Subnormal numbers are zeros to this thread's arithmetic."""
    if not torch.set_flush_denormal(True):
        pytest.skip("needs a processor that can take subnormal numbers as zeros: make test on one")
    yield
    torch.set_flush_denormal(False)


def in_steps(dtype, unit):
    """Points on a line through 0, a multiple of ``unit`` each, made from their bits."""
    integer = {8: torch.int64, 4: torch.int32, 2: torch.int16}[dtype.itemsize]
    return (torch.arange(6, dtype=integer)[:, None] * unit).view(dtype)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_subnormal_points(dtype):
    found = knn(in_steps(dtype, 1), k=1, metric="euclidean")
    assert found.indices.tolist() == [[1], [0], [1], [2], [3], [4]]
    assert found.certified.all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_subnormal_points_are_refused_where_they_are_flushed(flushing, dtype):
    x = in_steps(dtype, 1)
    for points in (x, x.flip(0).T.contiguous().T, -x):
        with pytest.raises(ValueError, match=r"subnormal numbers.*set_flush_denormal\(False\)"):
            knn(points, k=1, metric="euclidean")


@pytest.mark.parametrize("metric", ["cosine", "euclidean", "inner_product"])
def test_flushing_changes_nothing_for_normal_points(flushing, metric):
    x = torch.randn(300, 24, generator=torch.Generator().manual_seed(0))
    x[:, 3] *= 1e-37
    x[7] = 0
    flushed = knn(x, k=5, metric=metric)
    torch.set_flush_denormal(False)
    usual = knn(x, k=5, metric=metric)
    assert torch.equal(flushed.indices, usual.indices)
    assert flushed.certified.all()


_FLUSHED_ONCE = """
import torch
from ilo_fast import knn

if not torch.set_flush_denormal(True):
    raise SystemExit("cannot")
(torch.rand(1 << 20) + 1).sum()  # torch starts its other threads, which keep the setting
torch.set_flush_denormal(False)
x = torch.zeros(3000, 64, dtype=torch.int32)
x[torch.arange(3000), torch.arange(3000) * 7 % 64] = 1 + torch.arange(3000, dtype=torch.int32) % 9
print(bool((knn(x.float()).indices == knn(x.view(torch.float32)).indices).all()))
"""


def test_threads_that_went_on_flushing_are_noticed():
    environment = dict(os.environ, OMP_NUM_THREADS="2")
    done = subprocess.run(
        [sys.executable, "-c", _FLUSHED_ONCE], env=environment, capture_output=True, text=True
    )
    if "cannot" in done.stderr:
        pytest.skip("needs a processor that can take subnormal numbers as zeros: make test on one")
    # Where torch's threads do not keep the setting, the lists are right.
    assert "subnormal numbers" in done.stderr or done.stdout == "True\n"


def test_errors_are_value_errors():
    assert issubclass(HiddenStateError, InputError)
    assert issubclass(InputError, ValueError)
