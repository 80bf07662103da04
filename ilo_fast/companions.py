"""Further metrics of a run, as tables beside its scores."""

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import torch

from ilo_fast.alignment import (
    BootstrapIntervals,
    Components,
    ILONull,
    bootstrap_intervals,
    fragments,
    hubness,
    ilo_null,
    neighbor_counts,
    pair_scores,
    translation_mrr,
)
from ilo_fast.alignment.winners import SCORES as PAIR_SCORES
from ilo_fast.errors import InputError
from ilo_fast.kept import list_rows
from ilo_fast.lists import ParallelPoints
from ilo_fast.neighbors import Neighbors
from ilo_fast.results import SCORES
from ilo_fast.tables import TABLES, damaged, read_beside

__all__ = [
    "METRICS",
    "SETTINGS",
    "Companions",
    "add_intervals",
    "add_null",
    "check_metrics",
    "read_companions",
]

METRICS = ("mrr", "fragments", "null", "intervals", "hubness", "pairs", "neighbors")
"""What can be asked for beside the scores; docs/metrics.md says what each is."""

SETTINGS: dict[str, Any] = {
    "permutations": 1000,
    "samples": 1000,
    "level": 0.95,
    "hub_factor": 2.0,
    "xsim_k": 4,
    "csls_k": 10,
}
"""How the metrics are computed; in the run record of a result that has any."""


def check_metrics(metrics: str | Iterable[str]) -> tuple[str, ...]:
    """The metrics asked for, each once, in the order of `METRICS`; ``"all"`` is all of them.

    Args:
        metrics: names, or text with commas between them.

    Raises:
        InputError: on an unknown name.
        TypeError: on anything but names.

    >>> check_metrics("null,mrr"), check_metrics([]), check_metrics("all") == METRICS
    (('mrr', 'null'), (), True)
    """
    names = metrics.split(",") if isinstance(metrics, str) else metrics
    if not isinstance(names, Iterable):
        raise TypeError(f"metrics must be names, got {names!r}")
    names = list(names)
    if not all(isinstance(name, str) for name in names):
        raise TypeError(f"metrics must be names, got {names!r}")
    asked = {name.strip() for name in names}
    unknown = sorted(asked - {*METRICS, "all"})
    if unknown:
        raise InputError(f"metrics must be among {', '.join(METRICS)} or all, got {unknown[0]!r}")
    return METRICS if "all" in asked else tuple(name for name in METRICS if name in asked)


class Companions:
    """Collects a run's neighbours layer by layer, and makes the tables at the end.

    Args:
        metrics: as `check_metrics` gives them.
        corpus: the parallel text, or the states of one.
        threshold: other languages that make a point a bridge.
        seed: of the permutations and bootstrap draws.

    Raises:
        InputError: when the corpus has too few sentences for the pairs' scores.

    >>> import numpy as np
    >>> from ilo_fast import Corpus
    >>> text = Corpus("words", ("eng_Latn", "deu_Latn"), (("Hello.", "Bye."), ("Hallo.", "Ade.")))
    >>> more = Companions(("mrr",), text, threshold=1, seed=0)
    >>> more.add(0, np.array([[2], [0], [0], [1]]), None)
    >>> more.tables()["language_metrics"].values.tolist()
    [[0, 'eng_Latn', 0.5], [0, 'deu_Latn', 1.0]]
    """

    def __init__(
        self, metrics: tuple[str, ...], corpus: ParallelPoints, *, threshold: int, seed: int
    ) -> None:
        needed = max(SETTINGS["xsim_k"], SETTINGS["csls_k"])
        if "pairs" in metrics and corpus.n_sentences < needed:
            raise InputError(
                f"metrics: pairs averages over {needed} sentences, the corpus has "
                f"{corpus.n_sentences}"
            )
        self.metrics, self._corpus = metrics, corpus
        self._threshold, self._seed = threshold, seed
        self._layers: list[int] = []
        self._lists: list[np.ndarray] = []
        self._pairs: list[pd.DataFrame] = []

    def add(self, layer: int, found: Neighbors | np.ndarray, points: Any) -> None:
        """One layer's neighbours ``[n, k]`` and hidden states ``[n, d]``."""
        indices = found.indices if isinstance(found, Neighbors) else found
        lists = torch.as_tensor(indices).cpu().numpy().astype(np.int64)
        self._layers.append(layer)
        self._lists.append(lists)
        if "pairs" in self.metrics:
            self._pairs.append(self._pair_rows(layer, lists, points))

    def tables(self) -> dict[str, pd.DataFrame]:
        """The tables that the metrics fill, of `TABLES`."""
        lists = np.stack(self._lists)
        count, languages = len(self._layers), self._corpus.n_languages
        by_language: dict[str, Any] = {
            "layer": np.repeat(self._layers, languages),
            "language": list(self._corpus.languages) * count,
        }
        by_layer: dict[str, Any] = {"layer": np.array(self._layers)}
        keys = len(by_language), len(by_layer)
        for metric, fill in (
            ("mrr", self._mrr),
            ("fragments", self._fragments),
            ("intervals", self._intervals),
            ("null", self._null),
            ("hubness", self._hubness),
        ):
            if metric in self.metrics:
                fill(lists, by_language, by_layer)
        tables = {}
        if len(by_language) > keys[0]:
            tables["language_metrics"] = pd.DataFrame(by_language)
        if self._pairs:
            tables["pair_metrics"] = pd.concat(self._pairs, ignore_index=True)
        if len(by_layer) > keys[1]:
            tables["layer_metrics"] = pd.DataFrame(by_layer)
        if "neighbors" in self.metrics:
            tables["neighbors"] = list_rows(lists, self._layers)
        return tables

    def _mrr(self, lists: np.ndarray, language: dict[str, Any], layer: dict[str, Any]) -> None:
        ids, sentences = self._corpus.language_ids, self._corpus.sentence_ids
        language["translation_mrr"] = translation_mrr(lists, ids, sentences).ravel()

    def _fragments(
        self, lists: np.ndarray, language: dict[str, Any], layer: dict[str, Any]
    ) -> None:
        parts = fragments(lists, self._corpus.language_ids, threshold=self._threshold)
        for name in ("interlingual", "fragmented"):
            language[name] = getattr(parts, name).ravel()
            found: tuple[Components, ...] = getattr(parts, f"{name}_components")
            layer[f"{name}_points"] = [int(one.sizes.sum()) for one in found]
            layer[f"{name}_components"] = [one.count for one in found]
            layer[f"{name}_largest"] = [int(one.sizes[0]) if one.count else 0 for one in found]
            layer[f"{name}_largest_languages"] = [
                int(one.language_counts[0]) if one.count else 0 for one in found
            ]

    def _intervals(
        self, lists: np.ndarray, language: dict[str, Any], layer: dict[str, Any]
    ) -> None:
        found = bootstrap_intervals(
            lists,
            self._corpus.language_ids,
            self._corpus.sentence_ids,
            threshold=self._threshold,
            samples=SETTINGS["samples"],
            level=SETTINGS["level"],
            seed=self._seed,
        )
        add_intervals(found, language, layer)

    def _null(self, lists: np.ndarray, language: dict[str, Any], layer: dict[str, Any]) -> None:
        found = ilo_null(
            lists,
            self._corpus.language_ids,
            threshold=self._threshold,
            permutations=SETTINGS["permutations"],
            seed=self._seed,
        )
        add_null(found, language, layer)

    def _hubness(self, lists: np.ndarray, language: dict[str, Any], layer: dict[str, Any]) -> None:
        found = hubness(lists, hub_factor=SETTINGS["hub_factor"])
        layer["hub_skewness"] = found.skewness
        layer["orphans"] = found.orphans
        layer["hubs"] = found.hubs
        layer["hub_entries"] = found.hub_entries

    def _pair_rows(self, layer: int, lists: np.ndarray, points: Any) -> pd.DataFrame:
        """A row for each ordered pair of languages, each with itself too."""
        corpus, size = self._corpus, self._corpus.n_languages
        counts = neighbor_counts(lists, corpus.language_ids)[0]
        scores = pair_scores(
            points,
            corpus.language_ids,
            corpus.sentence_ids,
            k=SETTINGS["xsim_k"],
            csls_k=SETTINGS["csls_k"],
        )
        return pd.DataFrame(
            {
                "layer": layer,
                "a": np.repeat(np.array(corpus.languages, dtype=object), size),
                "b": np.tile(np.array(corpus.languages, dtype=object), size),
                "neighbors": counts.ravel(),
                "share": (counts / counts.sum(axis=1, keepdims=True)).ravel(),
                **{name: getattr(scores, name)[0].ravel() for name in PAIR_SCORES},
            }
        )


def add_intervals(found: BootstrapIntervals, by_language: Any, by_layer: Any) -> None:
    """Columns ``<score>_low`` and ``<score>_high`` of tables by layer and language, and by layer.

    The tables are pandas' or dicts, rows layer by layer, languages in the corpus' order.
    """
    for score in SCORES:
        for end in ("low", "high"):
            by_language[f"{score}_{end}"] = getattr(getattr(found, score), end).ravel()
            by_layer[f"{score}_{end}"] = getattr(found.mean[score], end)


def add_null(found: ILONull, by_language: Any, by_layer: Any) -> None:
    """Columns of ILO against its null, of tables as `add_intervals` takes them."""
    for table, against in ((by_language, found.ilo), (by_layer, found.mean_ilo)):
        table["ilo_null"] = against.null_mean.ravel()
        table["ilo_null_sd"] = against.null_std.ravel()
        table["ilo_p"] = against.p_value.ravel()
        table["ilo_p_lower"] = against.p_lower.ravel()
        table["ilo_calibrated"] = against.score.ravel()


def read_companions(
    folder: Path, record: Mapping[str, Any], layers: Collection[int]
) -> dict[str, pd.DataFrame]:
    """The tables beside a result of some layers, the neighbour lists left out; empty where there
    are none.

    Raises InputError when one is of another run than ``record`` says the scores are of, or damaged.
    """
    tables = {}
    for name in TABLES[:-1]:
        path = folder / f"{name}.parquet"
        if path.is_file():
            tables[name] = table = read_beside(path, record, {"layer": pa.int64()})
            _check_companion(path, table, layers)
    return tables


def _check_companion(path: Path, table: pd.DataFrame, layers: Collection[int]) -> None:
    """That a table has numbers of these layers, and all ends of intervals where it has any."""
    twice = path.stem == "layer_metrics" and table["layer"].duplicated().any()
    if twice or set(table["layer"]) != set(layers):
        raise damaged(path, f"its layers must be {sorted(set(layers))}")
    for name in table.columns.difference(["layer", "language", "a", "b"]):
        if table[name].dtype.kind not in "if":
            raise damaged(path, f"its column {name} must hold numbers")
    ends = {f"{score}_{end}" for score in SCORES for end in ("low", "high")}
    lacking = sorted(ends.difference(table.columns))
    if lacking and ends.intersection(table.columns):
        raise damaged(path, f"it lacks the column {lacking[0]}")
