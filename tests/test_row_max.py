"""The check on the way in: largest magnitudes, however the points are cut up for it."""

import pytest
import torch

from ilo_fast import arrays
from ilo_fast.errors import HiddenStateError


@pytest.mark.parametrize("elements", [1, 50, 333, 10**6])
def test_any_cut_gives_the_same(elements, monkeypatch):
    monkeypatch.setattr(arrays, "_CHECK_ELEMENTS", {"cpu": elements, "cuda": elements})
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(17, 5, 9, generator=generator).transpose(0, 1)[..., :7]
    assert torch.equal(arrays.row_max(states, False), states.abs().amax(2).double())
    states = states.contiguous()
    states[3, 2, 1] = torch.nan
    with pytest.raises(HiddenStateError, match="found NaN in layer 3, row 2"):
        arrays.row_max(states, False)
