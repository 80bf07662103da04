"""From hidden states to the score table: neighbours, scores and further metrics of each layer."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ilo_fast import environment
from ilo_fast.activations import ActivationStore
from ilo_fast.alignment import same_language, translation_hit
from ilo_fast.companions import Companions
from ilo_fast.errors import HiddenStateError
from ilo_fast.ilo import ilo_scores
from ilo_fast.neighbors import Neighbors, knn
from ilo_fast.ops import dispatch
from ilo_fast.ops.request import Request
from ilo_fast.options import ScoreOptions
from ilo_fast.progress import Progress
from ilo_fast.record import backend_record, search_record
from ilo_fast.results import COLUMNS, Result, from_columns
from ilo_fast.shown import counted
from ilo_fast.tables import RECORD_VERSION
from ilo_fast.timeline import Clock

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["LayerScores", "check_search", "kept_in", "score_and_record", "score_layers"]


@dataclass(frozen=True)
class LayerScores:
    """The columns of `ilo_fast.results.COLUMNS`, an entry a (layer, language); how each layer was
    searched; the tables beside the scores."""

    columns: dict[str, list[Any]]
    searches: list[dict[str, Any]] = field(default_factory=list)
    companions: "dict[str, pd.DataFrame]" = field(default_factory=dict)

    def to_result(self, record: dict[str, Any]) -> Result:
        """The table with its record and the tables beside it."""
        return replace(from_columns(self.columns, record), companions=self.companions)


def check_search(options: ScoreOptions, n: int, dim: int, device: torch.device) -> None:
    """That a backend serves the searches to come, asked before there are any states."""
    points = torch.empty(1, n, dim, device="meta")
    largest = torch.empty(1, n, dtype=torch.float64, device="meta")
    request = Request(points, largest, options.k, options.metric)
    dispatch.choose(options.engine, request, device)


def score_layers(
    store: ActivationStore,
    options: ScoreOptions,
    *,
    model: str,
    device: torch.device,
    layers: Sequence[int] | None = None,
    each_layer: Callable[[int, Neighbors], None] | None = None,
    more: Companions | None = None,
    listener: Progress | None = None,
    clock: Clock | None = None,
) -> LayerScores:
    """Score layers of a store, ascending; one layer's states at a time are on ``device``.

    Args:
        model: its name in the table.
        options: those of the search and the scores; the store is there.
        layers: which of the store's; None for all.
        each_layer: called with each layer's number and `Neighbors`.
        more: what makes the tables beside the scores.
        listener, clock: told of each layer and of the time it took.
    """
    listener, clock = listener or Progress(), clock or Clock()
    more = more if more is not None and more.metrics else None
    chosen = sorted(store.layers if layers is None else layers)
    many = counted(len(store.language_ids), "point")
    listener.stage(f"Neighbours in {counted(len(chosen), 'layer')} of {many}")
    scores = LayerScores({name: [] for name in COLUMNS})
    for done, (layer, points) in enumerate(store.by_layer(chosen, device=device), start=1):
        with clock.measure("neighbours"):
            try:
                found = knn(points, options.k, metric=options.metric, backend=options.engine)
            except HiddenStateError as error:  # of states made by hand
                raise HiddenStateError(f"layer {layer} of the states: {error}") from error
        with clock.measure("scores"):
            rows = _rows(found, store, model=model, layer=layer, threshold=options.threshold)
            for name, values in rows.items():
                scores.columns[name].extend(values)
            scores.searches.append(search_record(layer, found))
        if each_layer is not None:
            each_layer(layer, found)
        if more is not None:
            with clock.measure("metrics"):
                more.add(layer, found, points)
        listener.layer(done, len(chosen))
    if more is not None:
        listener.stage(f"Metrics: {', '.join(more.metrics)}")
        with clock.measure("metrics"):
            scores.companions.update(more.tables())
    return scores


def score_and_record(
    store: ActivationStore,
    options: ScoreOptions,
    *,
    asked: dict[str, Any],
    model: dict[str, Any],
    corpus: dict[str, Any],
    device: torch.device,
    clock: Clock,
    **how: Any,
) -> Result:
    """The result of `score_layers`, whose further arguments are ``how``, with its run record.

    Args:
        asked: what the record says under ``"options"``: `ilo_fast.record.search_options`, and more.
        model, corpus: what it says of them.
        clock: made when the scoring, of which this is the last part, began.
    """
    scores = score_layers(store, options, model=model["name"], device=device, clock=clock, **how)
    record = {  # in the order of its keys in ``run.json``
        "record": RECORD_VERSION,
        "kind": "score",
        "started": clock.started.isoformat(timespec="seconds"),
        "finished": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "model": model,
        "corpus": corpus,
        "options": asked,
        "seed": options.seed,
        **environment.describe(str(device)),
        # what it says about model and corpus they have said above
        "extraction": {name: said for name, said in store.record.items() if name != "about"},
        "backend": backend_record(options.engine, device, scores.searches),
        "neighbours": scores.searches,
        "timeline": clock.seconds,
    }
    return scores.to_result(record)


def kept_in(lists: list[np.ndarray]) -> Callable[[int, Neighbors], None]:
    """An ``each_layer`` that keeps the neighbours of each layer, int64 ``[n, k]``."""
    return lambda _, found: lists.append(found.indices.cpu().numpy())


def _rows(
    found: Neighbors, store: ActivationStore, *, model: str, layer: int, threshold: int
) -> dict[str, list[Any]]:
    """One layer's part of the columns, a row a language."""
    ids, sentences = store.language_ids, store.sentence_ids
    scores = ilo_scores(found, ids, threshold=threshold)
    count = store.n_languages
    certified = found.certified.view(count, -1).double().mean(dim=1)
    return {
        "model": [model] * count,
        "layer": [layer] * count,
        "language": list(store.languages),
        "n_points": scores.n_points.tolist(),
        "k": [found.k] * count,
        "threshold": [threshold] * count,
        "metric": [found.metric] * count,
        "bridge": scores.bridge[0].tolist(),
        "reach": scores.reach[0].tolist(),
        "reach_count": scores.reach_count[0].tolist(),
        "ilo": scores.ilo[0].tolist(),
        "translation_hit": translation_hit(found, ids, sentences)[0].tolist(),
        "same_language": same_language(found, ids)[0].tolist(),
        "certified": certified.tolist(),
    }
