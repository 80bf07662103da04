"""The choice of layers, against Python's own slicing."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ilo_fast.errors import InputError
from ilo_fast.layers import parse_layers, resolve_layers

ends = st.none() | st.integers(-40, 40)


@given(st.integers(1, 35), ends, ends, st.none() | st.sampled_from([1, 2, 3, -1, -2]))
def test_slices_are_pythons(entries, start, stop, step):
    text = ":".join("" if end is None else str(end) for end in (start, stop))
    if step is not None:
        text += f":{step}"
    expected = tuple(range(entries)[slice(start, stop, step)])
    if expected:
        assert resolve_layers(text, entries) == expected
        assert resolve_layers(slice(start, stop, step), entries) == expected
    else:
        with pytest.raises(InputError, match="selects none"):
            resolve_layers(text, entries)


@pytest.mark.parametrize(
    ("given_layers", "expected"),
    [
        (None, (0, 1, 2, 3)),
        ("0,2", (0, 2)),
        ("-1", (3,)),
        (" 2 , 0 ", (2, 0)),
        ("::-1", (3, 2, 1, 0)),
        (":", (0, 1, 2, 3)),
        (3, (3,)),
        ([1, -4], (1, 0)),
        ([slice(2, None), 0], (2, 3, 0)),
        (range(3, -1, -2), (3, 1)),
        ((np.int64(1), np.int8(-1)), (1, 3)),
        (np.arange(1, 4), (1, 2, 3)),
        (np.arange(4, dtype=np.uint8)[::-2], (3, 1)),
        (np.array(2), (2,)),
        (torch.arange(2, 4), (2, 3)),
        (torch.tensor(3), (3,)),
    ],
)
def test_forms(given_layers, expected):
    assert resolve_layers(given_layers, 4) == expected


@pytest.mark.parametrize("text", ["", "x", "1,,2", "1-3", "1:2:3:4", "0.5", "1:2:0", "٣x"])
def test_unreadable_text_is_named(text):
    with pytest.raises(InputError, match="layers"):
        parse_layers(text)


@pytest.mark.parametrize("layers", ["1,0,1", [2, slice(3, None), 2], np.array([3, 3])])
def test_a_number_given_twice_needs_no_model_to_be_refused(layers):
    with pytest.raises(InputError, match="must name each layer once"):
        parse_layers(layers)


@pytest.mark.parametrize("layers", [4, -5, "0,4", [99]])
def test_layers_the_model_lacks(layers):
    with pytest.raises(InputError, match=r"not one of the model's layers 0 … 3"):
        resolve_layers(layers, 4)


@pytest.mark.parametrize("layers", ["0,2,0", [2, -2], [slice(None), 2]])
def test_a_layer_named_twice(layers):
    with pytest.raises(InputError, match=r"layers must name each layer once, got [02] more often"):
        resolve_layers(layers, 4)


@pytest.mark.parametrize("layers", [slice(0, 3, 0), [1, slice(None, None, 0)], "0:3:0"])
def test_a_slice_without_a_step(layers):
    """Said before there is a model."""
    with pytest.raises(InputError, match="layers: the step of a slice must not be 0, got"):
        parse_layers(layers)


@pytest.mark.parametrize("layers", [1.5, [1.5], slice("a"), [slice(0, 2.0)]])
def test_other_types(layers):
    with pytest.raises(TypeError, match="layers must be numbers"):
        parse_layers(layers)


def test_no_layers():
    for none in ([], np.arange(0)):
        with pytest.raises(InputError, match="at least one"):
            resolve_layers(none, 4)


@pytest.mark.parametrize(
    "layers",
    [
        np.array([0.0, 2.0]),
        np.array([[0, 1], [2, 3]]),
        torch.tensor([1.0]),
        [False, True],  # a mask names no layers
        np.array([True, False, False, True]),
        torch.tensor([True, False]),
        {0, 1},
    ],
)
def test_arrays_that_name_no_layers(layers):
    with pytest.raises(TypeError, match="layers must be numbers"):
        resolve_layers(layers, 4)
