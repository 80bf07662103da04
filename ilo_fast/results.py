"""The table of scores and the record of the run that made it, in memory and on disk."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from ilo_fast.environment import require_space
from ilo_fast.errors import InputError
from ilo_fast.files import check_utf8, expanded, parse_json, read_json, staged
from ilo_fast.shown import counted
from ilo_fast.tables import TABLES, damaged, read_table, write_parquet, write_table

__all__ = [
    "COLUMNS",
    "SCHEMA",
    "SCORES",
    "TRACE_FILE",
    "TRAINING_FILE",
    "Result",
    "from_columns",
    "grids",
    "left_behind",
    "read_parquet",
]

_TEXT, _WHOLE, _REAL = pa.string(), pa.int64(), pa.float64()

SCHEMA = {
    "model": _TEXT,
    "layer": _WHOLE,
    "language": _TEXT,
    "n_points": _WHOLE,
    "k": _WHOLE,
    "threshold": _WHOLE,
    "metric": _TEXT,
    "bridge": _REAL,
    "reach": _REAL,
    "reach_count": _WHOLE,
    "ilo": _REAL,
    "translation_hit": _REAL,
    "same_language": _REAL,
    "certified": _REAL,
}
"""The types of `COLUMNS`, in files."""

COLUMNS = tuple(SCHEMA)
"""The columns every result has, in order; further ones may follow."""

SCORES = ("bridge", "reach", "ilo", "translation_hit", "same_language")
"""The columns that are scores between 0 and 1."""

TRACE_FILE = "trace.json.gz"
TRAINING_FILE = "alignment.parquet"  # what a callback writes into the training's folder
"""Where `ilo-fast score --profile` writes its trace, beside the scores."""

_PICTURES = ("layers.png", "languages.png")
_PLOT_BYTES = 4 << 20  # two pictures at 160 dots an inch, with room to spare
_ROW_BYTES = 400  # one row as CSV plus Parquet, generously


@dataclass(frozen=True, eq=False)
class Result:
    """Scores of one or more models, one row per (model, layer, language), and how they came about.

    Attributes:
        table: the columns of `COLUMNS`, in that order, then any others. ``layer`` counts as
            transformers' ``hidden_states`` does (0 is the embedding output). ``bridge``, ``reach``,
            ``ilo``, ``translation_hit``, ``same_language`` and ``certified`` are shares between 0
            and 1 (float64); ``certified`` is the share of the language's points whose neighbours
            are proved to be those of float64 arithmetic.
        record: the run: versions, device, dtype, backend, model revision, corpus hash, options,
            seconds. Holds nothing JSON cannot.
        companions: further metrics by table name, as ``score(..., metrics=...)`` makes them; see
            `ilo_fast.tables.TABLES` and docs/metrics.md.

    >>> import pandas as pd
    >>> from ilo_fast.results import COLUMNS, Result
    >>> row = ["tiny", 0, "eng_Latn", 40, 5, 3, "cosine", .5, 1., 11, 2 / 3, .25, .4, 1.]
    >>> result = Result(pd.DataFrame([row], columns=list(COLUMNS)), {"seed": 0})
    >>> result.layers()[["layer", "bridge"]].values.tolist()
    [[0.0, 0.5]]
    """

    table: pd.DataFrame
    record: dict[str, Any] = field(default_factory=dict)
    companions: dict[str, pd.DataFrame] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.table, pd.DataFrame):
            raise TypeError(f"table must be a pandas.DataFrame, got {type(self.table).__name__}")
        if tuple(self.table.columns[: len(COLUMNS)]) != COLUMNS:
            raise InputError(
                f"table must begin with the columns {list(COLUMNS)}, got {list(self.table.columns)}"
            )
        if not isinstance(self.record, Mapping):
            raise TypeError(f"record must be a dict, got {type(self.record).__name__}")

    def __repr__(self) -> str:
        counts = {name: self.table[name].nunique() for name in ("layer", "language")}
        shown = ", ".join(counted(count, name) for name, count in counts.items())
        models = self.table["model"].unique().tolist()
        return f"Result({counted(len(self.table), 'row')}: models {models}, {shown})"

    @property
    def model(self) -> str:
        """The one model scored; InputError when the table holds none or several."""
        models = self.table["model"].unique().tolist()
        if len(models) != 1:
            raise InputError(f"the result must hold exactly one model, it holds {models}")
        return str(models[0])

    def to_pandas(self) -> pd.DataFrame:
        """A copy of the table."""
        return self.table.copy()

    def layers(self) -> pd.DataFrame:
        """Unweighted means over languages: one row per (model, layer), of a training per step too.

        Columns: model, step (of a training), layer, languages (how many), then bridge, reach, ilo,
        translation_hit, same_language and certified.
        """
        by = [name for name in ("model", "step", "layer") if name in self.table]
        grouped = self.table.groupby(by, sort=False)
        means = grouped[[*SCORES, "certified"]].mean()
        means.insert(0, "languages", grouped["language"].nunique())
        return means.reset_index()

    def write_parquet(self, path: str | Path) -> Path:
        """Write the table to ``path``, the run record as JSON in the file's metadata.

        The folder is made where it is missing; the file appears whole or not at all. Returns the
        path. Raises InputError when the record holds what JSON cannot, OSError when writing fails.
        """
        path = expanded(path)
        with staged(path.parent) as temporary:
            write_parquet(self.table, _as_json(self.record), temporary / path.name, SCHEMA)
        return path

    @staticmethod
    def read_parquet(path: str | Path) -> "Result":
        """Read what `write_parquet` wrote; InputError when ``path`` is not such a file."""
        return read_parquet(path)

    def write_csv(self, path: str | Path) -> Path:
        """Write the table to ``path`` as CSV, numbers with all their digits, without the record.

        The folder is made where it is missing; the file appears whole or not at all. Returns the
        path. Raises OSError when writing fails.
        """
        path = expanded(path)
        with staged(path.parent) as temporary:
            self.table.to_csv(temporary / path.name, index=False, lineterminator="\n")
        return path

    def save(self, folder: str | Path, *, plots: bool = True) -> list[Path]:
        """Write ``scores.parquet``, ``scores.csv``, ``run.json`` and, with ``plots``, the pictures
        ``layers.png`` and ``languages.png`` into ``folder``; of each companion table a
        ``.parquet`` and, but for the neighbour lists, a ``.csv``.

        All are written under temporary names first and renamed at the end, so that an interrupt or
        a full disk leaves what ``folder`` held before. Pictures, companion tables and the trace
        that another run left there go away with its scores; other files stay. Returns the paths.
        Raises InputError when the disk has too little room, the record holds what JSON cannot or
        the pictures would have several rows a layer and language or the folder's name is no UTF-8,
        OSError when writing fails all the same.
        """
        folder = expanded(folder)
        check_utf8(folder, "folder")
        require_space(folder, self.space_needed(plots=plots))
        began = time.perf_counter()
        record = _as_json(self.record)
        with staged(folder, obsolete=left_behind(folder, record)) as temporary:
            self.table.to_csv(temporary / "scores.csv", index=False, lineterminator="\n")
            if plots:
                from ilo_fast import plots as draw

                more = self.companions.get("layer_metrics")
                draw.save(draw.layers(self, metrics=more), temporary / "layers.png")
                draw.save(draw.languages(self), temporary / "languages.png")
            record.setdefault("timeline", {})["files"] = time.perf_counter() - began
            write_parquet(self.table, record, temporary / "scores.parquet", SCHEMA)
            for name, companion in self.companions.items():
                write_table(companion, record, temporary, name, csv=name != "neighbors")
            text = json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False)
            (temporary / "run.json").write_text(text + "\n", encoding="utf-8")
            names = sorted(path.name for path in temporary.iterdir())
        return [folder / name for name in names]

    def space_needed(self, *, plots: bool = True) -> int:
        """An upper estimate of the bytes `save` writes."""
        record = len(json.dumps(self.record, default=str))
        rows = len(self.table) + sum(len(table) for table in self.companions.values())
        return (
            rows * _ROW_BYTES
            + (4 + 2 * len(self.companions)) * record
            + (1 << 16)
            + plots * _PLOT_BYTES
        )


def read_parquet(path: str | Path) -> Result:
    """Read a result and its run record; InputError when ``path`` does not hold one."""
    path = expanded(path)
    if path.is_dir():
        raise InputError(f"{str(path)!r} is a folder: give the file, its scores.parquet")
    table, record = read_table(path, SCHEMA, "table of scores, such as scores.parquet")
    if "step" in table and table["step"].dtype != np.int64:  # of a training
        raise damaged(path, "its column step must hold whole numbers in every row")
    return Result(table, record)


def from_columns(columns: Mapping[str, Any], record: dict[str, Any]) -> Result:
    """A result from one array or list per column, each cast to the column's type."""
    kinds: dict[pa.DataType, Any] = {_TEXT: "str", _WHOLE: np.int64, _REAL: np.float64}
    table = pd.DataFrame({name: columns[name] for name in COLUMNS})
    for name, kind in SCHEMA.items():
        table[name] = table[name].astype(kinds[kind])
    return Result(table, record)


def grids(
    table: pd.DataFrame, name: str
) -> tuple[tuple[int, ...], tuple[str, ...], dict[str, np.ndarray]]:
    """Layers, ascending, languages as they come, and `SCORES` and ``certified`` of one model, each
    float64 ``[layers, languages]``.

    Raises:
        InputError: on a row that is there twice, or is not; ``name`` says whose.
    """
    languages = tuple(table["language"].unique().tolist())
    twice = table.duplicated(["layer", "language"])
    if twice.any():
        row = table[twice].iloc[0]
        raise InputError(
            f"{name}: the table holds layer {row['layer']} of {row['language']} more than once"
        )
    values = {}
    for score in (*SCORES, "certified"):
        grid = table.pivot(index="layer", columns="language", values=score)
        if grid.isna().to_numpy().any():
            raise InputError(f"{name}: the table lacks {score} of some layers and languages")
        values[score] = grid[list(languages)].to_numpy(dtype=np.float64)
    return tuple(int(layer) for layer in grid.index), languages, values


def _as_json(record: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of a run record as JSON reads it back; NumPy's numbers become Python's."""

    def number(value: Any) -> Any:
        if isinstance(value, np.generic):
            return value.item()
        raise TypeError(f"{type(value).__name__} is none of JSON's types")

    try:
        text = json.dumps(record, default=number, allow_nan=False, ensure_ascii=False)
        plain: dict[str, Any] = parse_json(text.encode())  # no lone surrogates either
    except (TypeError, ValueError) as error:
        raise InputError(f"record must hold nothing that JSON cannot: {error}") from None
    return plain


def left_behind(folder: Path, record: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of what `Result.save` may have written besides scores, where ``folder`` holds a run.

    Empty where it is the run of ``record``, whose pictures and tables are still right.
    """
    try:
        earlier = read_json(folder / "run.json")
    except (FileNotFoundError, ValueError):
        return ()  # nothing says that the files are ours
    if not isinstance(earlier, dict) or not (folder / "scores.parquet").is_file():
        return ()
    run = [(one.get("finished"), one.get("options")) for one in (earlier, record)]
    if run[0] == run[1] and run[0][0] is not None:
        return ()
    tables = (f"{name}{ending}" for name in TABLES for ending in (".parquet", ".csv"))
    return (*_PICTURES, TRACE_FILE, *tables)
