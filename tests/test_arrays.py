"""Arrays of any library and kind, read as they are or refused by name."""

import numpy as np
import pytest
import torch

from ilo_fast.adapters._shared import float_tensor
from ilo_fast.arrays import real_array
from ilo_fast.lists import index_lists, label_codes
from ilo_fast.vectors import state_layers


def test_arrays_torch_does_not_take_are_read_all_the_same():
    lists = np.array([[1, 2], [2, 0], [0, 1]])
    assert index_lists(lists[:, ::-1])[0].tolist() == [[2, 1], [0, 2], [1, 0]]
    states = np.arange(6.0).reshape(3, 2)
    assert state_layers(states[::-1].astype(">f4"))[0].tolist() == [[4, 5], [2, 3], [0, 1]]
    states.flags.writeable = False
    assert state_layers(states)[0].tolist() == [[0, 1], [2, 3], [4, 5]]


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_tensors_without_numbers_in_place_are_refused():
    for tensor, message in (
        (torch.zeros(3, 4, device="meta"), "states must hold numbers; got .* device meta"),
        (torch.eye(3).to_sparse(), "states must be dense; got layout sparse_coo"),
        (
            torch.nested.nested_tensor([torch.ones(2, 4), torch.ones(3, 4)]),
            "states must be dense; got a nested tensor",
        ),
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


def test_a_name_in_the_message_is_the_argument():
    with pytest.raises(ValueError, match="mine must"):
        index_lists([[5], [0]], "mine")
    with pytest.raises(ValueError, match="mine must"):
        label_codes([1], 2, "mine")
    with pytest.raises(ValueError, match="mine must"):
        state_layers([1.0], "mine")


class Library:
    """Another library's array, which speaks DLPack alone."""

    def __init__(self, array, device=1):
        self.array, self.device, self.strides = array, device, array.strides

    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.device, 0


def test_negative_strides_through_dlpack():
    """torch would end the process."""
    states = np.arange(6.0).reshape(3, 2)
    assert state_layers(Library(states[::-1]))[0].tolist() == [[4, 5], [2, 3], [0, 1]]
    with pytest.raises(TypeError, match=r"states must be readable through DLPack; .* a copy"):
        state_layers(Library(states[::-1], device=2))


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
