"""What `ilo-fast scan` prints: the jobs of a dry run, the sum of a scan."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.table import Table
from rich.text import Text

from ilo_fast.cli.display import make_console, plain
from ilo_fast.shown import counted

if TYPE_CHECKING:
    from ilo_fast.scans.jobs import Job
    from ilo_fast.scans.run import ScanSummary

__all__ = ["show_dry_run", "show_summary"]

_WIDTH_OF_PIPES = 120  # eight columns


def show_dry_run(plan_file: Path, out: Path | None, *, skip_failed: bool) -> None:
    """Each job with its estimate, what is skipped, and the sums."""
    from ilo_fast.activations.space import human
    from ilo_fast.environment import free_disk
    from ilo_fast.errors import InputError
    from ilo_fast.scans.dataset import Dataset
    from ilo_fast.scans.plan import read_plan
    from ilo_fast.scans.run import prepare
    from ilo_fast.scans.view import duration

    plan = read_plan(plan_file)
    folder = out or plan.results_folder
    if folder is None:
        raise InputError("results: the plan names no results folder, and no --out was given")
    dataset = Dataset(folder) if folder.exists() and any(folder.iterdir()) else None
    todo = prepare(plan, dataset, retry_failures=not skip_failed)
    for note in todo.notes:
        click.echo(note, err=True)
    estimates = [todo.estimate(job) for job in todo.jobs]
    console = make_console(_WIDTH_OF_PIPES)
    table = Table(title="Jobs to do", title_justify="left")
    for name in ("model", "revision", "corpus", "metrics"):
        table.add_column(name, overflow="fold")
    for name in ("tokens", "time", "memory", "download"):
        table.add_column(name, justify="right", no_wrap=True)
    for job, estimate in zip(todo.jobs, estimates, strict=True):
        table.add_row(
            *map(Text, (job.model, job.revision, job.corpus)),
            ", ".join(cell.metric for cell in job.cells),
            f"{estimate.tokens:,}" if estimate.tokens is not None else "?",
            duration(estimate.seconds) if estimate.seconds is not None else "?",
            human(estimate.memory) if estimate.memory is not None else "?",
            "?" if estimate.download is None else human(estimate.download),
        )
    console.print(table)
    weights = [(job.target, job.commit) for job in todo.jobs]  # of several jobs, downloaded once
    downloads = dict(zip(weights, (e.download or 0 for e in estimates), strict=True))
    unknown = [job for job, e in zip(todo.jobs, estimates, strict=True) if not e.known]
    lines = [
        f"{counted(len(todo.jobs), 'job')} to do, {len(todo.skipped)} skipped: "
        + _there(skip_failed)
        + (f" ({', '.join(f'{n} {why}' for why, n in todo.reasons.items())})" if todo.jobs else ""),
        f"About {duration(sum(e.seconds or 0.0 for e in estimates))} on {todo.device.count} × "
        f"{todo.device.name}, {human(sum(downloads.values()))} to download, "
        f"{human(sum(e.results for e in estimates))} of results in {folder} "
        f"({human(free_disk(folder))} free). Estimates, from configurations alone.",
    ]
    if unknown:
        lines.append(
            f"{counted(len(unknown), 'job')} without an estimate, whose configuration cannot be "
            f"read or gives no size: {', '.join(dict.fromkeys(map(_configuration, unknown)))}"
        )
    for line in lines:
        plain(console, line)


def show_summary(summary: "ScanSummary", *, skip_failed: bool) -> None:
    """What was done, why, and where the results are."""
    from ilo_fast.scans.view import duration

    console = make_console(_WIDTH_OF_PIPES)
    why = ", ".join(f"{count} {reason}" for reason, count in summary.reasons.items())
    lines = [
        f"{summary.computed} computed, {summary.failed} failed, {summary.skipped} skipped as "
        f"{_there(skip_failed)}, in {duration(summary.seconds)}" + (f" ({why})" if why else "")
    ]
    if summary.stopped:
        lines.append("Stopped before the end: run the same command to go on.")
    lines.append(f"Results in {summary.folder}")
    if summary.failed:
        where = shlex.quote(str(summary.folder))
        lines.append(f'What failed and why: ilo-fast query {where} "from failures"')
    for line in lines:
        plain(console, line)


def _configuration(job: "Job") -> str:
    """Where a job's model has its sizes."""
    if job.source == "folder":
        return f"{job.target}/config.json"
    return f"{job.target}@{job.revision}" if job.source == "hub" and job.revision else job.target


def _there(skip_failed: bool) -> str:
    """Why jobs are skipped."""
    return "there already or failed before" if skip_failed else "there already"
