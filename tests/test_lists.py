"""Neighbour lists and labels, as the metrics read them."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch

from ilo_fast.lists import index_lists, label_codes


@pytest.mark.parametrize("dtype", [np.int8, np.uint16, np.uint64, ">i4", np.int64])
def test_indices_of_any_integer_kind_become_int64(dtype):
    got = index_lists(np.array([[1], [2], [0]], dtype=dtype))
    assert got.dtype == torch.int64
    assert got.tolist() == [[[1], [2], [0]]]


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


@pytest.mark.parametrize(
    "labels", [pa.array(["b", "a"]), pa.chunked_array([["b"], ["a"]])], ids=["array", "chunks"]
)
def test_labels_of_arrow(labels):
    assert label_codes(labels, 2)[0] == ("b", "a")


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


def test_a_table_is_no_sequence_of_labels():
    """Its columns' names would be the labels."""
    columns = {"a": ["x", "y"], "b": ["y", "x"]}
    for table in (pd.DataFrame(columns), pa.table(columns)):
        with pytest.raises(ValueError, match=r"mine must have one axis, got shape \[2, 2\]"):
            label_codes(table, 2, "mine")


@pytest.mark.parametrize("labels", [{"a", "b"}, frozenset("ab"), {"a": 0, "b": 1}])
def test_labels_without_the_order_of_the_points_are_refused(labels):
    with pytest.raises(TypeError, match="mine must have an order, got a"):
        label_codes(labels, 2, "mine")


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        (np.array([1.0, 2.0]), ValueError, "mine must be strings or integers, got 1.0"),
        (np.array([True, False]), ValueError, "mine must be strings or integers, got True"),
        (np.array([1, 2, 3]), ValueError, "mine must have one label per point, 2, got 3"),
        (np.ma.array([1, 2], mask=[0, 1]), TypeError, "mine must be an array without a mask"),
        (torch.ones(2, dtype=torch.int64, device="meta"), TypeError, "mine must hold numbers"),
    ],
)
def test_arrays_that_are_no_labels_of_the_points(labels, error, message):
    with pytest.raises(error, match=message):
        label_codes(labels, 2, "mine")
