"""`score_states`: from hidden states that were kept to the table of scores, without their model."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ilo_fast.activations import ActivationStore, open_store
from ilo_fast.companions import Companions
from ilo_fast.errors import InputError
from ilo_fast.layers import LayerSpec, resolve_layers
from ilo_fast.models.devices import check_device
from ilo_fast.neighbors import Neighbors
from ilo_fast.options import ScoreOptions
from ilo_fast.progress import Progress, with_progress
from ilo_fast.record import search_options
from ilo_fast.results import Result
from ilo_fast.scoring import check_search, score_and_record
from ilo_fast.timeline import Clock

__all__ = ["about", "check_language_major", "score_states"]


@with_progress
def score_states(
    states: str | Path | ActivationStore,
    *,
    k: int = 5,
    threshold: int = 3,
    layers: LayerSpec = None,
    metric: str = "cosine",
    device: str | torch.device = "auto",
    backend: str = "auto",
    reference: bool = False,
    seed: int = 0,
    metrics: str | Sequence[str] = (),
    name: str | None = None,
    progress: Any = None,
    each_layer: Callable[[int, Neighbors], None] | None = None,
) -> Result:
    """Score hidden states that were kept, as `score` does, without their model and corpus.

    One layer at a time is read and brought to ``device``: states far larger than its memory will
    do, as will a machine that could not hold the model.

    Args:
        states: a finished folder, as ``score(..., states=FOLDER)`` or ``extract(..., folder=...)``
            left it, or an `ActivationStore`.
        k, threshold, metric, backend, reference, seed, metrics, each_layer: as in `score`.
        layers: which of the stored layers, by their numbers in the model; None for all.
        device: where to search; ``"auto"`` takes a GPU where there is one.
        name: the model's, for the table; None takes what the states say of it, or their folder's.
        progress: True shows the stages on standard error; a `ilo_fast.progress.Progress` hears of
            them.

    Returns:
        A `Result` of one row per (layer, language). Its record says of model and corpus what was
        known when the states were made.

    Raises:
        InputError: (a ValueError) on arguments and states that cannot be used; the message names
            which, what was expected and what came.

    >>> import numpy as np, torch
    >>> from ilo_fast import ActivationStore
    >>> points = torch.tensor([[[0.0, 1], [1, 0], [0.1, 1], [1, 0.1]]])  # [layers, points, dim]
    >>> language, sentence = np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1])
    >>> store = ActivationStore(points, (7,), ("deu", "eng"), language, sentence, {})
    >>> table = score_states(store, k=1, threshold=1).table
    >>> table[["model", "layer", "language", "ilo"]].values.tolist()
    [['states', 7, 'deu', 1.0], ['states', 7, 'eng', 1.0]]
    """
    options = ScoreOptions(
        k=k,
        threshold=threshold,
        layers=layers,
        metric=metric,
        backend=backend,
        reference=reference,
        seed=seed,
        metrics=metrics,
    )
    place = _one_device(device)
    if not isinstance(name, str | None):
        raise TypeError(f"name must be the model's, got {type(name).__name__}")
    clock = Clock()
    listener = progress if isinstance(progress, Progress) else Progress()
    listener.stage(f"Reading {states if isinstance(states, str | Path) else 'states'}")
    with clock.measure("load"):
        store = _opened(states)
    model, corpus = about(store, name)
    check_language_major(store)
    options.check_text(store)
    chosen = _stored_layers(store, layers, model.get("n_layers"))
    points, dim = store.states.shape[1:]
    check_search(options, points, dim, place)
    more = Companions(options.metrics, store, threshold=options.threshold, seed=options.seed)
    return score_and_record(
        store,
        options,
        asked=search_options(options, layers=chosen, pool=store.record.get("pool"), device=device),
        model=model,
        corpus=corpus,
        device=place,
        clock=clock,
        layers=chosen,
        each_layer=each_layer,
        more=more,
        listener=listener,
    )


def check_language_major(store: ActivationStore) -> None:
    """That the points are each language's sentences in order, equally many, one language after
    the other: states made by hand may be anything."""
    count, each = store.n_languages, store.n_sentences
    expected = np.repeat(np.arange(count), each), np.tile(np.arange(each), count)
    came = np.asarray(store.language_ids), np.asarray(store.sentence_ids)
    if not all(map(np.array_equal, came, expected)):
        raise InputError(
            "states: expected the points of one language after the other, the sentences of each in "
            f"order, {each} of each of {count} languages; language_ids and sentence_ids say "
            "otherwise"
        )


def _one_device(device: str | torch.device) -> torch.device:
    place = None if device == "balanced" else check_device(device)
    if place is None or place == "balanced":
        raise InputError("device: expected one to search on, got 'balanced', which spreads a model")
    return place


def _opened(states: str | Path | ActivationStore) -> ActivationStore:
    if isinstance(states, ActivationStore):
        return states
    if isinstance(states, str | Path):
        return open_store(states)
    raise TypeError(f"states must be a folder or an ActivationStore, got {type(states).__name__}")


def about(store: ActivationStore, name: str | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """The records of model and corpus, as they were described when the states were made.

    ``name``: the model's; None takes what the states say of it, or their folder's.
    """
    said = store.record.get("about", {})
    label = "states" if store.folder is None else store.folder.resolve().name
    # hashes are those of the states' key, whatever else is said
    model = {"name": label, "dtype": store.record.get("dtype"), **said.get("model", {})}
    if "weights_sha256" in store.record:
        model["weights_sha256"] = store.record["weights_sha256"]
    corpus = {
        "name": "the stored text",
        "languages": list(store.languages),
        "sentences": store.n_sentences,
        **said.get("corpus", {}),
    }
    if "corpus_sha256" in store.record:
        corpus["sha256"] = store.record["corpus_sha256"]
    return model if name is None else {**model, "name": name}, corpus


def _stored_layers(
    store: ActivationStore, layers: LayerSpec, n_layers: int | None
) -> tuple[int, ...]:
    """The layers chosen, ascending; numbers and slices count as in the model."""
    if layers is None:
        return tuple(sorted(store.layers))
    last = max(store.layers) if n_layers is None else n_layers
    chosen = tuple(sorted(resolve_layers(layers, last + 1)))
    missing = [layer for layer in chosen if layer not in store.layers]
    if missing:
        held = ", ".join(map(str, sorted(store.layers)))
        raise InputError(f"layers: the states hold {held}; layer {missing[0]} was asked for")
    return chosen
