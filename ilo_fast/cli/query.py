"""``ilo-fast query``: SQL over the results of a scan."""

import sys
from pathlib import Path

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
        found.to_csv(sys.stdout, index=False, lineterminator="\n")
    elif form == "json":
        click.echo(found.to_json(orient="records", force_ascii=False))
    else:
        click.echo(found.to_string(index=False) if len(found) else "no rows")
