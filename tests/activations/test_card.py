"""Extraction on a card gives the CPU's states, wherever they are kept."""

import pytest
import torch
from families import SENTENCES, Characters, make

from ilo_fast import Corpus, extract

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not torch.cuda.is_available(), reason="needs a CUDA device: python -m benchmarks gpu"
    ),
]
CORPUS = Corpus("many", ("one", "two"), tuple(part * 2 for part in SENTENCES))


@pytest.mark.parametrize("place", ["memory", "cuda", "disk"])
def test_states_in_each_place(place, tmp_path):
    """Many batches on their way at once: none is read before it is there, nor written over."""
    model, tokenizer = make("llama"), Characters()
    expected = extract(model, tokenizer, CORPUS).states
    folder = tmp_path / "states" if place == "disk" else None
    options = {"store": place, "folder": folder, "batch_tokens": 60}
    found = extract(model.cuda(), tokenizer, CORPUS, **options)
    assert found.record["batches"] == "packed"
    assert found.states.is_cuda == (place == "cuda")
    torch.testing.assert_close(found.states.cpu(), expected, rtol=1e-4, atol=1e-5)
