"""Tables beside a result: Parquet with the run record in its metadata, and CSV."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ilo_fast.errors import InputError

__all__ = [
    "RECORD_KEY",
    "RECORD_VERSION",
    "TABLES",
    "read_beside",
    "read_table",
    "write_parquet",
    "write_table",
]

TABLES = ("language_metrics", "pair_metrics", "layer_metrics", "neighbors")
"""Names of the tables beside a result, and of their files."""

RECORD_KEY = b"ilo_fast"
"""Where a Parquet file's metadata hold the run record, as JSON."""

RECORD_VERSION = 1
"""Of the run record, under its key ``record``; raised when the meaning of a key changes."""


def write_parquet(
    table: pd.DataFrame,
    record: Mapping[str, Any],
    path: Path,
    types: Mapping[str, pa.DataType] | None = None,
) -> None:
    """Write ``table`` with ``record`` in its metadata; ``types`` of columns that must have those.

    ``path`` is in a folder of `ilo_fast.files.staged`. NaN becomes null.
    """
    arrow = pa.Table.from_pandas(table, preserve_index=False)
    fields = [
        pa.field(field.name, (types or {}).get(field.name, field.type), metadata=field.metadata)
        for field in arrow.schema
    ]
    text = json.dumps(record, ensure_ascii=False, allow_nan=False)
    metadata = {**(arrow.schema.metadata or {}), RECORD_KEY: text.encode()}
    pq.write_table(arrow.cast(pa.schema(fields)).replace_schema_metadata(metadata), path)


def write_table(
    table: pd.DataFrame, record: Mapping[str, Any], folder: Path, name: str, *, csv: bool = True
) -> None:
    """Write ``name.parquet``, ``record`` as JSON in its metadata, and ``name.csv`` into ``folder``.

    ``folder`` is one of `ilo_fast.files.staged`. NaN becomes null in Parquet and an empty field in
    CSV, whose numbers have all their digits.
    """
    write_parquet(table, record, folder / f"{name}.parquet")
    if csv:
        table.to_csv(folder / f"{name}.csv", index=False, lineterminator="\n")


def read_table(path: str | Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The table and the run record that `write_parquet` wrote.

    Raises InputError on another file, and on a record of a later version than this one's.
    """
    try:
        table = pq.read_table(path)
    except FileNotFoundError:
        raise InputError(f"no result file at {str(path)!r}") from None
    except pa.ArrowInvalid as error:
        whole = Path(path).with_suffix(".parquet")
        if Path(path).suffix == ".csv" and whole.is_file():
            raise InputError(
                f"{str(path)!r} holds no run record; give {str(whole)!r}, the same table with one"
            ) from error
        raise InputError(f"{str(path)!r} is not a Parquet file: {error}") from error
    except OSError as error:
        if error.errno is not None:  # the system's own, which names the file
            raise
        raise InputError(f"{str(path)!r} is damaged: {error}") from error
    metadata = table.schema.metadata or {}
    if RECORD_KEY not in metadata:
        raise InputError(f"{str(path)!r} holds no ilo_fast run record in its metadata")
    record: dict[str, Any] = json.loads(metadata[RECORD_KEY])
    version = record.get("record", RECORD_VERSION)
    if version > RECORD_VERSION:
        raise InputError(
            f"{str(path)!r} was written by a later ilo_fast: its run record has version {version}, "
            f"this one reads up to {RECORD_VERSION}; install a later ilo-fast"
        )
    return table.to_pandas(), record


def read_beside(path: Path, record: Mapping[str, Any]) -> pd.DataFrame:
    """A table beside the scores of the run ``record``; InputError when it is of another one."""
    table, made = read_table(path)
    if made.get("finished") != record.get("finished"):
        raise InputError(
            f"{str(path)!r} is of another run than the scores beside it; score again with the same "
            "--metrics, or delete it"
        )
    return table
