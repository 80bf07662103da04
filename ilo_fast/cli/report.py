"""``ilo-fast report``: the results of a scan as one page."""

from pathlib import Path

import click

from ilo_fast.cli.options import WritablePath, debug

__all__ = ["report"]


@click.command(short_help="A scan as one HTML page.")
@click.argument("results", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--out",
    type=WritablePath(dir_okay=False, path_type=Path),
    default=Path("report.html"),
    show_default=True,
    help="The page to write.",
)
@click.option("--title", default="ILO scan", show_default=True, help="Of the page.")
@debug
def report(results: Path, out: Path, title: str) -> None:
    """Write RESULTS, the folder of a scan, as one HTML page that needs no network."""
    from ilo_fast.activations.space import human
    from ilo_fast.scans.report import write_report

    path = write_report(results, out, title=title)
    click.echo(f"Written to {path} ({human(path.stat().st_size)})")
