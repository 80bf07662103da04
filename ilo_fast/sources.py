"""What `compare` and `plot` read: results, tables of a training, kept neighbours, stored states.

All become a `Source`: scores per layer and language, what they were made with, and the neighbour
lists where there are any.
"""

import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ilo_fast.activations import ActivationStore
from ilo_fast.activations.disk import open_store
from ilo_fast.companions import read_companions
from ilo_fast.errors import InputError
from ilo_fast.files import expanded
from ilo_fast.ilo import check_threshold
from ilo_fast.kept import NEIGHBORS_FILE, lists_of, read_lists
from ilo_fast.models.devices import default_device
from ilo_fast.options import ScoreOptions
from ilo_fast.results import TRAINING_FILE, Result, grids, read_parquet
from ilo_fast.scoring import kept_in, score_layers
from ilo_fast.stored import about, check_language_major

__all__ = [
    "Source",
    "from_result",
    "from_states_beside",
    "from_store",
    "read_inputs",
    "read_sources",
    "short_name",
]

_SCORES_FILE, _STORE_FILE, _SCAN_FILE = "scores.parquet", "store.json", "ilo-fast-scan.json"


@dataclass(frozen=True)
class Source:
    """Scores of one model, or of one model at one step of its training.

    Attributes:
        name: a short label.
        layers: entries of ``hidden_states``, ascending.
        depth: the last entry the model has, as far as it is known; otherwise the last one here.
        languages: in the corpus' order.
        n_sentences: of each language.
        values: float64 ``[layers, languages]`` for each of `ilo_fast.results.SCORES`, and
            ``certified``.
        settings: what two sources must have in common to be compared; None where it is unknown.
        lists: neighbour indices int64 ``[layers, points, k]``, points language-major, or None.
        states: the hidden states, or None.
        record: the run, as in `Result.record`.
        step: of the training, or None.
        training: label of the training that this is a step of, or None.
        result: the table and its record; of stored states, made of their scores.
    """

    name: str
    layers: tuple[int, ...]
    depth: int
    languages: tuple[str, ...]
    n_sentences: int
    values: dict[str, np.ndarray]
    settings: dict[str, Any]
    result: Result
    lists: npt.NDArray[np.int64] | None = None
    states: ActivationStore | None = None
    record: dict[str, Any] = field(default_factory=dict)
    step: int | None = None
    training: str | None = None

    @property
    def language_ids(self) -> npt.NDArray[np.int64]:
        """int64 ``[points]``: place in `languages` of each point's language."""
        return np.repeat(np.arange(len(self.languages), dtype=np.int64), self.n_sentences)

    @property
    def sentence_ids(self) -> npt.NDArray[np.int64]:
        """int64 ``[points]``: number of each point's sentence."""
        return np.tile(np.arange(self.n_sentences, dtype=np.int64), len(self.languages))

    @property
    def backend(self) -> str:
        """What finds its neighbours again: ``reference`` for those of the public code."""
        options = self.record.get("options", {})
        asked = options.get("reference") or options.get("backend") == "reference"
        return "reference" if asked else "auto"


def read_inputs(
    paths: Sequence[str | Path],
    *,
    k: int | None = None,
    threshold: int | None = None,
    metric: str | None = None,
) -> list[list[Source]]:
    """`read_sources` of several paths; stored states are scored as the tables among them were.

    Args:
        paths: folders and files.
        k, threshold, metric: for stored states; None takes the first table's, or 5, 3 and cosine.

    Raises:
        InputError: as `read_sources`, when a table was made with another k, threshold or metric
            than one that is given, and on a threshold beyond the languages of stored states.
    """
    places = [expanded(path) for path in paths]
    given = {"k": k, "threshold": threshold, "metric": metric}
    is_store = [(place / _STORE_FILE).is_file() for place in places]
    tables = {
        at: read_sources(place)
        for at, (place, stored) in enumerate(zip(places, is_store, strict=True))
        if not stored or (place / _SCORES_FILE).is_file()
    }
    for sources in tables.values():
        for name, value in given.items():
            made = sources[0].settings[name]
            if value is not None and value != made:
                label = sources[0].training or sources[0].name
                raise InputError(f"{name}: {label} was scored with {made}, {value} was asked for")
    usual: dict[str, Any] = {"k": 5, "threshold": None, "metric": "cosine"}
    first = next(iter(tables.values()), None)
    for name, value in given.items():
        if value is not None:
            usual[name] = value
        elif first is not None:
            usual[name] = first[0].settings[name]
    return [
        tables[at] if at in tables else read_sources(place, **usual)
        for at, place in enumerate(places)
    ]


def read_sources(
    path: str | Path, *, k: int = 5, threshold: int | None = None, metric: str = "cosine"
) -> list[Source]:
    """Read a folder of results, a ``.parquet`` table of scores, or a folder of stored states.

    Args:
        path: what `Result.save` or `Result.write_parquet` wrote, the table that a training's
            callback grows or its folder, or the folder given to `ilo_fast.extract`.
        k, threshold, metric: for stored states, whose neighbours are found here; tables carry
            their own.

    Returns:
        One source; of a table with a ``step`` column, one for each step, ascending.

    Raises:
        InputError: when there is nothing of the kind at ``path``.
    """
    path = expanded(path)
    if path.is_dir():
        if (path / _SCORES_FILE).is_file():
            path = path / _SCORES_FILE
        elif (path / TRAINING_FILE).is_file():
            path = path / TRAINING_FILE
        elif (path / _STORE_FILE).is_file():
            store = open_store(path)
            return [from_store(store, path.resolve().name, k=k, threshold=threshold, metric=metric)]
        elif (path / _SCAN_FILE).is_file():
            raise InputError(
                f"{str(path)!r} is a scan's folder of results: give the .parquet file of one, as "
                f"`ilo-fast query {shlex.quote(str(path))} "
                '"select distinct model, revision, corpus, metric, file from layers join runs '
                'using (key)"` lists them'
            )
        else:
            raise InputError(
                f"{str(path)!r} holds neither {_SCORES_FILE}, as `ilo-fast score` writes it, nor "
                f"{TRAINING_FILE}, as a training's callback does, nor hidden states, as `ilo-fast "
                "score --states` keeps them"
            )
    result = read_parquet(path)
    if result.table.empty:
        raise InputError(f"{str(path)!r} holds no scores: its table has no rows")
    if path.name == _SCORES_FILE:
        layers = set(result.table["layer"])
        beside = read_companions(path.parent, result.record, layers)
        result = replace(result, companions=beside)
    sources = from_result(result, _label(path, result.record))
    kept = _lists_file(path, result.record)
    if kept is None or len(sources) > 1:
        return sources
    source = sources[0]
    points = len(source.languages) * source.n_sentences
    lists = read_lists(kept, source.layers, points, source.settings["k"], source.record)
    return [replace(source, lists=lists)]


def from_result(result: Result, name: str | None = None) -> list[Source]:
    """A source, or one for each step of a table with a ``step`` column.

    The neighbour lists among the result's companions, if any, are the source's.

    Raises:
        InputError: when the table holds several models, settings, or a row twice, or the lists are
            not those of its layers and points.
    """
    label = short_name(result.model) if name is None else name
    if "step" not in result.table.columns:
        source = _from_table(result, label)
        kept = result.companions.get("neighbors")
        if kept is None:
            return [source]
        points = len(source.languages) * source.n_sentences
        where = f"{label}: companions['neighbors']"
        lists = lists_of(kept, source.layers, points, source.settings["k"], where)
        return [replace(source, lists=lists)]
    steps = sorted(int(step) for step in result.table["step"].unique())
    sources = []
    for step in steps:
        part = result.table[result.table["step"] == step].reset_index(drop=True)
        source = _from_table(Result(part, result.record), f"{label}, step {step}")
        sources.append(replace(source, step=step, training=label))
    return sources


def from_store(
    store: ActivationStore,
    name: str = "states",
    *,
    k: int = 5,
    threshold: int | None = None,
    metric: str = "cosine",
    layers: Sequence[int] | None = None,
    backend: str = "auto",
) -> Source:
    """A source whose neighbours are found now, layer by layer; ``threshold`` is 3 if left out.

    ``layers`` are some of the stored ones, None all.

    Raises:
        InputError: on a threshold that no point could reach, and states made by hand whose points
            are not one language after the other.
    """
    options = ScoreOptions(
        k=k, threshold=3 if threshold is None else threshold, metric=metric, backend=backend
    )
    if threshold is not None:  # the 3 beside fewer languages: zeros, and nothing else needs it
        check_threshold(options.threshold, options.k, len(store.languages))
    check_language_major(store)
    lists: list[np.ndarray] = []
    scores = score_layers(
        store,
        options,
        model=name,
        device=default_device(),
        layers=layers,
        each_layer=kept_in(lists),
    )
    model, corpus = about(store, name)
    record = {"model": model, "corpus": corpus, "extraction": store.record}
    source = _from_table(scores.to_result(record), name)
    return replace(source, lists=np.stack(lists), states=store)


def from_states_beside(source: Source, folder: str | Path) -> Source:
    """A table's source with the hidden states that its results folder holds as well, if any.

    Neighbours are found again, as the table's were; of the stored layers those of the table.

    Raises:
        InputError: when the states are of another model or text than the scores, or damaged.
    """
    folder = expanded(folder)
    if source.states is not None or not (folder / _STORE_FILE).is_file():
        return source
    store = open_store(folder)
    _, corpus = about(store, source.name)
    weights = source.record.get("model", {}).get("weights_sha256")
    scored = (source.settings["corpus"], source.settings["pool"], weights)
    kept = (corpus.get("sha256"), store.record.get("pool"), store.record.get("weights_sha256"))
    if scored != kept or not set(source.layers) <= set(store.layers):
        raise InputError(
            f"{str(folder)!r}: the hidden states are of another run than the scores beside them; "
            "score again with --states, or give them a folder of their own"
        )
    how = {name: source.settings[name] for name in ("k", "threshold", "metric")}
    made = from_store(store, source.name, layers=source.layers, backend=source.backend, **how)
    return replace(source, lists=made.lists, states=store)


def short_name(model: str) -> str:
    """The last part of a model's name or path.

    >>> short_name("org/model-1b"), short_name("model.gguf")
    ('model-1b', 'model.gguf')
    """
    return model.rstrip("/").rpartition("/")[2]


def _label(path: Path, record: Mapping[str, Any]) -> str:
    """What tells a file's result from others: its folder's name, its own, or what a scan says."""
    if "scan" in record:
        model, revision = short_name(record["scan"]["model"]), record["scan"]["revision"]
        return f"{model}@{revision}" if revision else model
    usual = path.name in (_SCORES_FILE, TRAINING_FILE)
    return path.resolve().parent.name if usual else path.stem


def _lists_file(path: Path, record: Mapping[str, Any]) -> Path | None:
    """Where the neighbour lists of a file's result lie, if they were kept."""
    if "scan" in record:  # scores/MODEL/CORPUS/FILE and neighbors/MODEL/CORPUS/FILE
        place = path.resolve()
        beside = place / "../../../../neighbors" / Path(*place.parts[-3:])
        kept = Path(os.path.normpath(beside))
    else:
        kept = path.with_name(NEIGHBORS_FILE)
        if path.name != _SCORES_FILE:
            return None
    return kept if kept.is_file() else None


def _from_table(result: Result, name: str) -> Source:
    table, record = result.table, result.record
    settings: dict[str, Any] = {}
    for column in ("model", "k", "threshold", "metric", "n_points"):
        found = table[column].unique().tolist()
        if len(found) != 1:
            raise InputError(f"{name}: the table must hold one {column}, it holds {found}")
        settings[column] = found[0]
    layers, languages, values = grids(table, name)
    depth = record.get("model", {}).get("n_layers", max(layers))
    if layers[0] < 0 or type(depth) is not int or depth < layers[-1]:
        raise InputError(
            f"{name}: the table holds layers {layers[0]} to {layers[-1]}, its model has {depth!r}"
        )
    options, extraction = record.get("options", {}), record.get("extraction", {})
    return Source(
        name=name,
        layers=layers,
        depth=depth,
        languages=languages,
        n_sentences=int(settings["n_points"]),
        values=values,
        settings={
            "corpus": record.get("corpus", {}).get("sha256"),
            "languages": languages,
            "sentences": int(settings["n_points"]),
            "k": int(settings["k"]),
            "threshold": int(settings["threshold"]),
            "metric": settings["metric"],
            "pool": options.get("pool", extraction.get("pool")),
        },
        record=record,
        result=result,
    )
