"""What a mask is found to be, for a length and by a band; and that it is looked at once."""

import pytest
import torch
from mask_functions import around, both_ways, causal, chunks, window

from ilo_fast.activations import masks
from ilo_fast.activations.masks import PackedMask


@pytest.mark.parametrize(
    ("mask", "length", "form", "sides"),
    [
        (causal, 5, "causal", (-1, 0)),
        (causal, 1, "full", (-1, 0)),
        (both_ways, 5, "full", (-1, -1)),
        (window(3), 5, "other", (2, 0)),
        (window(5), 5, "causal", (-1, 0)),
        (window(9), 5, "causal", (-1, 0)),
        (around(2), 5, "other", (2, 2)),
        (around(2), 3, "full", (-1, -1)),
        (chunks(2), 5, "other", None),
    ],
)
def test_mask_forms_and_windows(mask, length, form, sides):
    packed = PackedMask(mask)
    assert packed.form(length) == form
    assert packed.window(length) == sides
    if sides is not None:
        left, right = (length if side < 0 else side for side in sides)
        index = torch.arange(length)
        distance = index[:, None] - index[None, :]
        assert torch.equal(packed.block(length), (distance <= left) & (-distance <= right))


def test_a_mask_is_looked_at_once_whatever_the_layers(monkeypatch):
    seen = []
    look = masks._window
    monkeypatch.setattr(masks, "_window", lambda block: seen.append(len(block)) or look(block))
    packed = PackedMask(window(3))
    assert [packed.window(length) for length in (5, 5, 9, 5, 9)] == [(2, 0)] * 5
    assert seen == [5, 9]
    here = torch.device("cpu")
    assert packed.block_on(5, here) is packed.block_on(5, here)
