"""The tables of a results folder: their columns, and rows from neighbours."""

import io
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ilo_fast import __version__
from ilo_fast.alignment import bootstrap_intervals, ilo_null, neighbor_counts
from ilo_fast.companions import add_intervals, add_null
from ilo_fast.corpora import Corpus
from ilo_fast.kept import list_rows
from ilo_fast.results import SCHEMA, SCORES, Result
from ilo_fast.scans.failures import Failure
from ilo_fast.scans.jobs import Cell, Job
from ilo_fast.tables import RECORD_KEY

__all__ = ["CELL_KEY", "SCHEMAS", "cell_tables", "failure_table", "to_bytes"]

CELL_KEY = b"ilo_fast_scan"

_TEXT, _WHOLE, _REAL = pa.string(), pa.int64(), pa.float64()
_CELL = {
    **dict.fromkeys(("model", "revision", "corpus", "pool", "dtype", "metric"), _TEXT),
    **dict.fromkeys(("k", "threshold"), _WHOLE),
}
_KEY = {"key": _TEXT}
_RANGES = {f"{score}_{end}": _REAL for score in SCORES for end in ("low", "high")}
_CHANCE = {"ilo_null": _REAL, "ilo_null_sd": _REAL, "ilo_p": _REAL, "ilo_p_lower": _REAL}

SCHEMAS: dict[str, pa.Schema] = {
    "scores": pa.schema({**SCHEMA, **_CELL, **_RANGES, **_CHANCE, **_KEY}),
    "layers": pa.schema(
        {
            **_CELL,
            "layer": _WHOLE,
            "layers": _WHOLE,
            "languages": _WHOLE,
            "n_points": _WHOLE,
            **dict.fromkeys(SCORES, _REAL),
            "certified": _REAL,
            **_RANGES,
            **_CHANCE,
            **_KEY,
        }
    ),
    "pairs": pa.schema(
        {
            **_CELL,
            "layer": _WHOLE,
            "language": _TEXT,
            "other": _TEXT,
            "neighbors": _WHOLE,
            "share": _REAL,
            **_KEY,
        }
    ),
    "neighbors": pa.schema(
        {
            **_CELL,
            "layer": _WHOLE,
            "point": _WHOLE,
            "neighbors": pa.list_(pa.int32()),
            **_KEY,
        }
    ),
    "failures": pa.schema(
        {
            **_CELL,
            "kind": _TEXT,
            "reason": _TEXT,
            "trace": _TEXT,
            "target": _TEXT,
            "seconds": _REAL,
            "when": _TEXT,
            "package": _TEXT,
            **_KEY,
        }
    ),
}


def cell_tables(
    job: Job, cell: Cell, result: Result, lists: npt.NDArray[np.int64], text: Corpus
) -> dict[str, pd.DataFrame]:
    """The rows of one cell, by table, from its scores and neighbour lists ``[layers, n, k]``."""
    options, languages = job.options, text.language_ids
    described = _described(job, result.record["model"]["dtype"], cell.metric)
    layers = result.layers().assign(
        layers=result.record["model"]["n_layers"], n_points=text.n_points, **described
    )
    scores = result.table.assign(**described)
    if options["intervals"]:
        ranges = bootstrap_intervals(
            lists,
            languages,
            text.sentence_ids,
            threshold=options["threshold"],
            samples=options["intervals"],
            seed=options["seed"],
        )
        add_intervals(ranges, scores, layers)
    if options["permutations"]:
        chance = ilo_null(
            lists,
            languages,
            threshold=options["threshold"],
            permutations=options["permutations"],
            seed=options["seed"],
        )
        add_null(chance, scores, layers)
    numbers = layers["layer"].tolist()
    tables = {"scores": scores, "layers": layers, "pairs": _pairs(lists, numbers, text, described)}
    if options["keep_neighbors"]:
        tables["neighbors"] = list_rows(lists, numbers).assign(**described)
    for table in tables.values():
        table["key"] = cell.key
    return tables


def _described(job: Job, dtype: str, metric: str) -> dict[str, Any]:
    """What the rows of a job have in common."""
    how = {name: job.options[name] for name in ("pool", "k", "threshold")}
    return {**job.place, **how, "dtype": dtype, "metric": metric}


def _pairs(
    lists: npt.NDArray[np.int64], layers: list[int], text: Corpus, described: Mapping[str, Any]
) -> pd.DataFrame:
    """Per layer: how many neighbours the points of one language have in another, and what share."""
    counts = neighbor_counts(lists, text.language_ids)
    names, size = np.array(text.languages, dtype=object), text.n_languages
    return pd.DataFrame(
        {
            **described,
            "layer": np.repeat(layers, size * size),
            "language": np.tile(np.repeat(names, size), len(layers)),
            "other": np.tile(names, len(layers) * size),
            "neighbors": counts.ravel(),
            "share": (counts / counts.sum(axis=2, keepdims=True)).ravel(),
        }
    )


def failure_table(job: Job, failure: Failure, seconds: float) -> pd.DataFrame:
    """One row: which job failed, why, where in the code (of kind error), when."""
    row = {
        **_described(job, job.options["dtype"], ", ".join(cell.metric for cell in job.cells)),
        **vars(failure),
        "target": job.target,
        "seconds": seconds,
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "package": __version__,
        "key": job.key,
    }
    return pd.DataFrame([row])


def to_bytes(table: str, rows: pd.DataFrame, of: Cell | Job, record: Mapping[str, Any]) -> bytes:
    """A whole Parquet file: the table's columns in order (null where the rows have none), the run
    record and the cell's (of a failure, the job's) key in its metadata."""
    schema = SCHEMAS[table]
    arrays = [
        pa.array(rows[field.name], field.type, from_pandas=True)
        if field.name in rows
        else pa.nulls(len(rows), field.type)
        for field in schema
    ]
    parts = of.parts if isinstance(of, Cell) else of.cells[0].parts
    metadata = {
        RECORD_KEY: json.dumps(record, ensure_ascii=False, allow_nan=False).encode(),
        CELL_KEY: json.dumps({"slot": of.slot, "key": of.key, "parts": parts}).encode(),
    }
    sink = io.BytesIO()
    pq.write_table(
        pa.Table.from_arrays(arrays, schema=schema.with_metadata(metadata)),
        sink,
        compression="zstd",
        write_page_checksum=True,
    )
    return sink.getvalue()
