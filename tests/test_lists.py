import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ilo_fast.adapters._shared import float_tensor
from ilo_fast.errors import HiddenStateError
from ilo_fast.lists import (
    index_lists,
    label_codes,
    real_array,
    rounding_tolerance,
    state_layers,
    unit_rows,
)


@pytest.mark.parametrize("dtype", [np.int8, np.uint16, np.uint64, ">i4", np.int64])
def test_indices_of_any_integer_kind_become_int64(dtype):
    got = index_lists(np.array([[1], [2], [0]], dtype=dtype))
    assert got.dtype == torch.int64
    assert got.tolist() == [[[1], [2], [0]]]


def test_arrays_torch_does_not_take_are_read_all_the_same():
    lists = np.array([[1, 2], [2, 0], [0, 1]])
    assert index_lists(lists[:, ::-1])[0].tolist() == [[2, 1], [0, 2], [1, 0]]
    states = np.arange(6.0).reshape(3, 2)
    assert state_layers(states[::-1].astype(">f4"))[0].tolist() == [[4, 5], [2, 3], [0, 1]]
    states.flags.writeable = False
    assert state_layers(states)[0].tolist() == [[0, 1], [2, 3], [4, 5]]


def test_tensors_without_numbers_in_place_are_refused():
    for tensor, message in (
        (torch.zeros(3, 4, device="meta"), "states must hold numbers; got .* device meta"),
        (torch.eye(3).to_sparse(), "states must be dense; got layout sparse_coo"),
    ):
        with pytest.raises(TypeError, match=message):
            state_layers(tensor)
    with pytest.raises(TypeError, match="neighbors must hold numbers"):
        index_lists(torch.zeros(3, 1, dtype=torch.int64, device="meta"))
    with pytest.raises(TypeError, match="languages must hold numbers"):
        label_codes(torch.zeros(3, dtype=torch.int64, device="meta"), 3)


def test_masked_arrays_are_refused():
    """torch would count what their mask hides."""
    codes = np.ma.masked_equal([0, 1, 1], 0)
    for check, name in (
        (lambda: index_lists(codes[:, None]), "neighbors"),
        (lambda: state_layers(np.ma.masked_less(np.eye(3), 0.5)), "states"),
        (lambda: label_codes(codes, 3), "languages"),
        (lambda: float_tensor(codes[:, None], "X"), "X"),
    ):
        with pytest.raises(TypeError, match=f"{name} must be an array without a mask"):
            check()


def test_labels_keep_their_order_and_kind():
    names, codes = label_codes(["b", "a", "b", 3], 4)
    assert names == ("b", "a", 3)
    assert codes.tolist() == [0, 1, 0, 2]
    names, codes = label_codes(np.array([7, 7, 2]), 3)
    assert names == (7, 2)
    assert all(type(name) is int for name in names)


def test_labels_of_other_array_libraries():
    class Array:
        def __iter__(self):
            return iter([np.array(2), np.array(1)])

        def tolist(self):
            return [2, 1]

    assert label_codes(Array(), 2)[0] == (2, 1)


def test_a_name_in_the_message_is_the_argument():
    with pytest.raises(ValueError, match="mine must"):
        index_lists([[5], [0]], "mine")
    with pytest.raises(ValueError, match="mine must"):
        label_codes([1], 2, "mine")
    with pytest.raises(ValueError, match="mine must"):
        state_layers([1.0], "mine")


def test_large_finite_states_pass_and_infinite_ones_are_found_where_they_are():
    huge = np.full((2, 3), 1e308)  # a sum of them is infinite; they are not
    assert state_layers(huge).shape == (1, 2, 3)
    both = np.zeros((2, 4, 3))
    both[1, 2] = [np.inf, -np.inf, 0]
    with pytest.raises(HiddenStateError, match="layer 1, row 2"):
        state_layers(both)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 6), st.integers(1, 50), st.integers(-300, 300), st.integers(0, 2**32 - 1))
def test_unit_rows_have_length_one_at_any_scale(n, d, power, seed):
    rows = np.random.default_rng(seed).normal(size=(n, d)) + 0.01
    got = unit_rows(torch.from_numpy(rows * 10.0**power)).numpy()
    np.testing.assert_allclose(got, rows / np.linalg.norm(rows, axis=1, keepdims=True), rtol=1e-12)


def test_zero_rows_stay_zero():
    assert unit_rows(torch.zeros(2, 3)).tolist() == [[0.0] * 3] * 2


@pytest.mark.parametrize("d", [3, 64, 640])
def test_equal_cosines_are_within_the_tolerance(d):
    """Scaled copies of a row have one cosine with anything; computed ones differ by less."""
    generator = np.random.default_rng(d)
    row, others = generator.normal(size=d), generator.normal(size=(50, d)) + 3
    copies = row * generator.uniform(1e-3, 1e3, size=(200, 1))
    cosines = unit_rows(torch.from_numpy(copies)) @ unit_rows(torch.from_numpy(others)).T
    assert float((cosines.amax(0) - cosines.amin(0)).max()) <= rounding_tolerance(d)


def test_states_with_a_gradient_are_read_without_it():
    states = torch.randn(4, 3, requires_grad=True)
    assert not state_layers(states).requires_grad
    with pytest.raises(ValueError, match="states must be an array, got list"):
        state_layers([states])


def test_floating_types_that_nothing_computes_with_are_named():
    with pytest.raises(ValueError, match=r"states must hold floating-point .* torch.float8_e4m3fn"):
        state_layers(torch.eye(3).to(torch.float8_e4m3fn))


@pytest.mark.parametrize(
    "labels",
    [
        torch.ones(2, dtype=torch.bfloat16),
        torch.ones(2, requires_grad=True),
        torch.ones(2, dtype=torch.complex64),
    ],
)
def test_tensors_of_no_integers_are_no_labels(labels):
    with pytest.raises(
        ValueError, match=f"mine must be strings or integers, got dtype {labels.dtype}"
    ):
        label_codes(labels, 2, "mine")


@pytest.mark.parametrize("labels", [{"a", "b"}, frozenset("ab"), {"a": 0, "b": 1}])
def test_labels_without_the_order_of_the_points_are_refused(labels):
    with pytest.raises(TypeError, match="mine must have an order, got a"):
        label_codes(labels, 2, "mine")


def test_real_arrays_of_any_kind():
    for value in (
        0.5,
        [0.5],
        torch.tensor(0.5).bfloat16(),
        torch.tensor([0.5], requires_grad=True),
    ):
        assert float(real_array(value, "mine").sum()) == 0.5
    for bad in ("x", ["0.5"], [[1], [1, 2]], {}, 1j, np.ones(2) * 1j):
        with pytest.raises(ValueError, match="mine must"):
            real_array(bad, "mine")
