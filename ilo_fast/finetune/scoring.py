"""Score a model that is in memory, in the middle of its training, and leave no trace."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from ilo_fast.activations import ActivationStore, extract
from ilo_fast.corpora import Corpus
from ilo_fast.options import ScoreOptions
from ilo_fast.scoring import kept_in, score_layers

__all__ = ["Scored", "score_in_place", "score_store", "untouched"]


@dataclass(frozen=True)
class Scored:
    """One scoring: the columns of `ilo_fast.Result`, and the neighbours they came from.

    ``columns`` maps each of `ilo_fast.results.COLUMNS` to a list, one entry a (layer, language);
    ``indices`` is int64 ``[layers, points, k]`` on the CPU; ``extraction`` says how the states were
    made; ``backend`` names what searched.
    """

    columns: dict[str, list[Any]]
    indices: np.ndarray
    extraction: dict[str, Any]
    backend: str


def score_in_place(
    model: nn.Module, tokenizer: Any, corpus: Corpus, name: str, options: ScoreOptions
) -> Scored:
    """Score ``corpus`` on ``model`` as it stands; inside `untouched` where it goes on training.

    One layer's states at a time are on the model's device for the search, all of them in the store.
    """
    store = extract(model, tokenizer, corpus, **options.extraction)
    return score_store(store, name, options, next(model.parameters()).device)


def score_store(
    store: ActivationStore, name: str, options: ScoreOptions, device: torch.device
) -> Scored:
    """Neighbours and scores of states already extracted, layer by layer."""
    indices: list[np.ndarray] = []
    scores = score_layers(store, options, model=name, device=device, each_layer=kept_in(indices))
    return Scored(
        columns=scores.columns,
        indices=np.stack(indices),
        extraction=store.record,
        backend=", ".join(dict.fromkeys(search["backend"] for search in scores.searches)),
    )


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Put back what a scoring could change, however it ends.

    The mode of every module (parts may be in evaluation mode on their own), Python's, NumPy's and
    torch's random states (of the devices the model is on). Gradients are not touched: nothing in
    between runs a backward pass.
    """
    modes = [(module, module.training) for module in model.modules()]
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 (the global one)
    cards = sorted({p.device.index for p in model.parameters() if p.device.type == "cuda"})
    try:
        with torch.random.fork_rng(devices=cards):
            yield
    finally:
        for module, mode in modes:
            module.training = mode
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
