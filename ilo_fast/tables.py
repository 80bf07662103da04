"""Tables beside a result: Parquet with the run record in its metadata, and CSV."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ilo_fast.errors import InputError
from ilo_fast.files import check_endless, parse_json

__all__ = [
    "RECORD_KEY",
    "RECORD_VERSION",
    "TABLES",
    "damaged",
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

_PARTS = {"model", "corpus", "options", "extraction", "scan"}
_PLACE = ("model", "revision")


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
    whole = arrow.cast(pa.schema(fields)).replace_schema_metadata(metadata)
    pq.write_table(whole, path, write_page_checksum=True)


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


def read_table(
    path: str | Path, types: Mapping[str, pa.DataType] | None = None, what: str = "table"
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The table and the run record that `write_parquet` wrote.

    Args:
        path: the file.
        types: of columns that must be there and, but for real numbers, hold a value in every row.
        what: the table is, for messages.

    Raises:
        InputError: on another file, a damaged one, and a record of a later version than this one's.
    """
    path = Path(path)
    check_endless(path)
    try:
        # Not told what pandas said of the columns: their own types decide.
        table = pq.read_table(path, page_checksum_verification=True)
        table.validate(full=True)
        record = _record(path, table.schema.metadata or {})
        table = table.replace_schema_metadata(None)
        _check_columns(path, table, types or {}, what)
        return table.to_pandas(), record
    except FileNotFoundError:
        raise InputError(f"no result file at {str(path)!r}") from None
    except pa.ArrowException as error:
        whole = path.with_suffix(".parquet")
        if path.suffix == ".csv" and whole.is_file():
            raise InputError(
                f"{str(path)!r} holds no run record; give {str(whole)!r}, the same table with one"
            ) from error
        raise InputError(f"{str(path)!r} is not a Parquet file: {error}") from error
    except UnicodeDecodeError as error:  # of a column's name
        raise damaged(path, str(error)) from error
    except OSError as error:
        if error.errno is not None:  # the system's own, which names the file
            raise
        raise damaged(path, str(error)) from error


def damaged(path: Path, why: str) -> InputError:
    """The error that a file is damaged."""
    return InputError(f"{str(path)!r} is damaged: {why}")


def _record(path: Path, metadata: Mapping[bytes, bytes]) -> dict[str, Any]:
    """The run record in a file's metadata, its parts being what they are read for."""
    if RECORD_KEY not in metadata:
        raise InputError(f"{str(path)!r} holds no ilo_fast run record in its metadata")
    try:
        record = parse_json(metadata[RECORD_KEY])
    except ValueError as error:
        raise damaged(path, f"its run record is no JSON: {error}") from error
    if not isinstance(record, dict):
        raise damaged(path, f"its run record cannot be {record!r:.80}")
    for part in _PARTS & record.keys():
        if not isinstance(record[part], dict):
            raise damaged(path, f"its run record's {part} cannot be {record[part]!r:.80}")
    scan = record.get("scan", dict.fromkeys(_PLACE, ""))
    if not all(isinstance(scan.get(name), str) for name in _PLACE):
        raise damaged(path, f"its run record's scan cannot be {scan!r:.80}")
    version = record.get("record", RECORD_VERSION)
    if type(version) is not int:
        raise damaged(path, f"its run record's version cannot be {version!r:.80}")
    if version > RECORD_VERSION:
        raise InputError(
            f"{str(path)!r} was written by a later ilo_fast: its run record has version {version}, "
            f"this one reads up to {RECORD_VERSION}; install a later ilo-fast"
        )
    return record


def _check_columns(
    path: Path, table: pa.Table, types: Mapping[str, pa.DataType], what: str
) -> None:
    names = table.column_names
    lacking = [name for name in types if name not in names]
    if lacking:  # a table beside the scores, or a comparison
        raise InputError(f"{str(path)!r} is no {what}: it lacks the columns {', '.join(lacking)}")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise damaged(path, f"it has the column {twice[0]!r} more than once")
    for name, kind in types.items():
        column = table[name]
        if column.type != kind:
            raise damaged(path, f"its column {name} must be of type {kind}, it is {column.type}")
        values = pc.list_flatten(column) if pa.types.is_list(kind) else column
        if not pa.types.is_floating(kind) and column.null_count + values.null_count:
            raise damaged(path, f"its column {name} lacks values")


def read_beside(
    path: Path, record: Mapping[str, Any], types: Mapping[str, pa.DataType]
) -> pd.DataFrame:
    """A table beside the scores of the run ``record``; InputError when it is of another one."""
    table, made = read_table(path, types, f"{path.stem} table")
    if made.get("finished") != record.get("finished"):
        raise InputError(
            f"{str(path)!r} is of another run than the scores beside it; score again with the same "
            "--metrics, or delete it"
        )
    return table
