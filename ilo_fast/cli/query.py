"""``ilo-fast query``: SQL over the results of a scan."""

import json
import math
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import click

from ilo_fast.cli.options import debug

__all__ = ["query"]

_FORMATS = ("table", "csv", "json")


@click.command(short_help="SQL over the results of a scan.")
@click.argument("results", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("sql")
@click.option(
    "--format",
    "form",
    type=click.Choice(_FORMATS),
    default="table",
    show_default=True,
    help="How to print the answer.",
)
@debug
def query(results: Path, sql: str, form: str) -> None:
    """Run one SQL statement (DuckDB's) over RESULTS, the folder of a scan.

    Tables: scores (a row per model, layer, language), layers (means over languages, with
    intervals and null), languages, pairs (whose neighbours are whose), failures, runs, and
    neighbors where a plan kept them. For example:

    ilo-fast query results "select model, max(ilo) from layers group by model"
    """
    from ilo_fast.scans import query as run

    found = run(results, sql)
    if form == "csv":
        found.map(_cell).to_csv(sys.stdout, index=False, lineterminator="\n")
    elif form == "json":
        click.echo(_json(found.to_dict("records")))
    else:
        click.echo(found.to_string(index=False) if len(found) else "no rows")


def _json(value: Any) -> str:
    return json.dumps(_plain(value), ensure_ascii=False, separators=(",", ":"))


def _cell(value: Any) -> Any:
    """A cell of a CSV file: lists as JSON, where NumPy's text has line breaks and leaves out."""
    listed = isinstance(value, list | dict) or getattr(value, "ndim", 0) > 0
    return _json(value) if listed else value


def _plain(value: Any) -> Any:
    """As JSON has it, numbers with all their digits (pandas' own JSON has ten decimals)."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, float | Decimal):
        return float(value) if math.isfinite(value) else None
    if value is None or isinstance(value, int | str):
        return value
    text = str(value)
    return None if text in ("NaT", "<NA>") else text
