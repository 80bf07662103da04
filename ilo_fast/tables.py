"""Tables beside a result: Parquet with the run record in its metadata, and CSV."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ilo_fast.errors import InputError

__all__ = ["TABLES", "read_table", "write_table"]

TABLES = ("language_metrics", "pair_metrics", "layer_metrics", "neighbors")
"""Names of the tables beside a result, and of their files."""

_METADATA_KEY = b"ilo_fast"  # as in `Result.write_parquet`


def write_table(
    table: pd.DataFrame, record: Mapping[str, Any], folder: Path, name: str, *, csv: bool = True
) -> None:
    """Write ``name.parquet``, ``record`` as JSON in its metadata, and ``name.csv`` into ``folder``.

    ``folder`` is one of `ilo_fast.files.staged`. NaN becomes null in Parquet and an empty field in
    CSV, whose numbers have all their digits.
    """
    arrow = pa.Table.from_pandas(table, preserve_index=False)
    text = json.dumps(record, ensure_ascii=False, allow_nan=False)
    metadata = {**(arrow.schema.metadata or {}), _METADATA_KEY: text.encode()}
    pq.write_table(arrow.replace_schema_metadata(metadata), folder / f"{name}.parquet")
    if csv:
        table.to_csv(folder / f"{name}.csv", index=False, lineterminator="\n")


def read_table(path: Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The table and the run record that `write_table` wrote; InputError on another file."""
    try:
        table = pq.read_table(path)
    except pa.ArrowInvalid as error:
        raise InputError(f"{str(path)!r} is not a Parquet file: {error}") from error
    metadata = table.schema.metadata or {}
    if _METADATA_KEY not in metadata:
        raise InputError(f"{str(path)!r} holds no ilo_fast run record in its metadata")
    return table.to_pandas(), json.loads(metadata[_METADATA_KEY])
