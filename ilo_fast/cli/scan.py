"""``ilo-fast scan``: every model of a plan on every corpus, into one folder."""

from pathlib import Path

import click

from ilo_fast.cli.options import WritablePath, debug

__all__ = ["scan"]

_BAD_PLAN, _SOME_FAILED, _STOPPED = 2, 3, 130


@click.command(short_help="Score many models into one folder.")
@click.argument("plan", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--out",
    type=WritablePath(file_okay=False, path_type=Path),
    help="Folder of the results, new or of an earlier scan; the plan's own when left out.",
)
@click.option("--dry-run", is_flag=True, help="Show the jobs and what they would take; do nothing.")
@click.option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="Where jobs run: in this process, or as tasks of a Ray cluster.",
)
@click.option("--address", help="Of a Ray cluster ('auto' finds it); one is started when left out.")
@click.option(
    "--workers", type=click.IntRange(min=1), help="Processors of a Ray cluster started here."
)
@click.option("--skip-failed", is_flag=True, help="Do not try again what failed before.")
@click.option("--quiet", "-q", is_flag=True, help="No progress on standard error.")
@debug
def scan(
    plan: Path,
    out: Path | None,
    dry_run: bool,
    engine: str,
    address: str | None,
    workers: int | None,
    skip_failed: bool,
    quiet: bool,
) -> None:
    """Score every model of PLAN, a YAML file, on its corpora; do only what is not there yet.

    Ctrl-C ends the scan after the jobs under way, a second one at once; run the command again to
    go on. Exit status 3: done, but some models failed (ilo-fast query OUT "from failures").
    """
    from ilo_fast.cli import scan_display
    from ilo_fast.scans import scan as run
    from ilo_fast.scans.plan import PlanError
    from ilo_fast.scans.view import make_view

    try:
        if dry_run:
            scan_display.show_dry_run(plan, out, skip_failed=skip_failed)
            return
        summary = run(
            plan,
            results=out,
            engine=engine,
            address=address,
            workers=workers,
            retry_failures=not skip_failed,
            view=make_view(quiet=quiet),
        )
    except PlanError as error:  # one line a mistake, where other errors have one line in all
        for line in str(error).splitlines():
            click.echo(f"ilo-fast: {line}", err=True)
        raise click.exceptions.Exit(_BAD_PLAN) from None
    scan_display.show_summary(summary, skip_failed=skip_failed)
    if summary.stopped or summary.failed:
        raise click.exceptions.Exit(_STOPPED if summary.stopped else _SOME_FAILED)
