"""`scan`: every model of a plan on every corpus, into one folder; only what is not there yet."""

import os
import signal
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from ilo_fast.corpora import Corpus
from ilo_fast.environment import require_space
from ilo_fast.errors import InputError
from ilo_fast.files import check_utf8, expanded
from ilo_fast.scans.dataset import Dataset
from ilo_fast.scans.engines import Engine, LocalEngine, RayEngine
from ilo_fast.scans.estimate import Device, Estimate, estimate_job, find_device
from ilo_fast.scans.jobs import Cell, Job, plan_jobs
from ilo_fast.scans.plan import Plan, read_plan
from ilo_fast.scans.query import read_table
from ilo_fast.scans.view import View, make_view
from ilo_fast.scans.work import Outcome
from ilo_fast.shown import counted

__all__ = ["ScanSummary", "Todo", "prepare", "scan"]

_PAUSE = 0.2  # seconds between looks at jobs that another scan is at


@dataclass(frozen=True)
class ScanSummary:
    """What a scan did. ``computed``, ``failed``, ``skipped``: numbers of jobs; ``reasons``: why
    jobs were to do, and how many; ``stopped``: whether Ctrl-C ended it before the last job."""

    folder: Path
    computed: int
    failed: int
    skipped: int
    reasons: dict[str, int]
    stopped: bool
    seconds: float

    def to_pandas(self, table: str = "scores") -> pd.DataFrame:
        """A table of the results, one of `ilo_fast.scans.query.VIEWS`."""
        return read_table(self.folder, table)


@dataclass(frozen=True)
class Todo:
    """A plan against a folder: the jobs to do, why, those done, the corpora."""

    jobs: list[Job]
    reasons: dict[str, int]
    skipped: list[Job]
    corpora: dict[str, Corpus]
    device: Device = field(repr=False)

    @property
    def notes(self) -> list[str]:
        """What the corpora say of how they were read, such as columns left out."""
        return [
            f"Note: corpus {name}: {note}"
            for name, corpus in self.corpora.items()
            for note in corpus.notes
        ]

    def estimate(self, job: Job) -> Estimate:
        """Of one job."""
        return estimate_job(job, self.corpora[job.corpus], self.device)


def scan(
    plan: str | os.PathLike[str] | Mapping[str, Any] | Plan,
    *,
    results: str | os.PathLike[str] | None = None,
    engine: str | Engine = "local",
    address: str | None = None,
    workers: int | None = None,
    retry_failures: bool = True,
    view: View | None = None,
) -> ScanSummary:
    """Score every model of a plan on every corpus; do only what the results folder lacks.

    Args:
        plan: a YAML file, a mapping of the same shape, or a `Plan`; see docs/scans.md.
        results: the folder; the plan's own ``results`` where None.
        engine: ``"local"`` (this process), ``"ray"``, or an object like those.
        address: of a Ray cluster; None starts one on this machine.
        workers: processors of a Ray cluster started here.
        retry_failures: do jobs again that failed before.
        view: what hears of jobs; by default a live view on a terminal, lines elsewhere.

    Returns:
        A `ScanSummary`; ``summary.to_pandas()`` is the table of scores.

    A result depends on the model's commit or files, the tokenizer, the corpus, the options and the
    version of this package; where one changed, the job is done again and its result takes the old
    one's place. A job that fails becomes a row of the table ``failures``. The first Ctrl-C ends the
    scan after the jobs under way, the second one at once; both leave whole files only.

    Raises:
        InputError: on a plan that cannot be done, naming the line and key of each mistake, on a
            folder that holds something else, and on too little disk space.

    >>> from ilo_fast import scan
    >>> summary = scan("plan.yaml", results="results")  # doctest: +SKIP
    >>> summary.to_pandas("layers")  # doctest: +SKIP
    """
    began = time.monotonic()
    plan = read_plan(plan)
    folder = _folder(plan, results)
    if not (engine in ("local", "ray") if isinstance(engine, str) else hasattr(engine, "submit")):
        raise InputError(f"engine must be local or ray, or an object like those, got {engine!r}")
    if engine != "ray" and (address is not None or workers is not None):
        raise InputError(f"address and workers are for engine='ray', got engine={engine!r}")
    dataset = Dataset(folder, create=True)
    todo = prepare(plan, dataset, retry_failures=retry_failures)
    with ExitStack() as stack:
        shown = stack.enter_context(make_view() if view is None else view)
        for note in todo.notes:
            shown.say(note)
        if not todo.jobs:
            there = "there already" if retry_failures else "there already or failed before"
            verb = "is" if len(todo.skipped) == 1 else "are"
            shown.say(f"nothing to do: {counted(len(todo.skipped), 'job')} {verb} {there}")
            stack.enter_context(dataset)  # a folder is one from the first scan on
            _forget_failures(dataset, todo.skipped)
            return ScanSummary(folder, 0, 0, len(todo.skipped), {}, False, 0.0)
        require_space(folder, sum(todo.estimate(job).results for job in todo.jobs))
        chosen = _engine(engine, address, workers)
        stopping = stack.enter_context(_two_interrupts(shown))
        stack.enter_context(dataset)
        _forget_failures(dataset, todo.skipped)
        stack.push(lambda kind, error, trace: chosen.close(cancel=error is not None))
        shown.begin(len(todo.jobs), len(todo.skipped), chosen.describe())
        counts = _Loop(dataset, chosen, shown, todo, stopping).run()
    return ScanSummary(
        folder,
        counts["computed"],
        counts["failed"],
        len(todo.skipped) + counts["done elsewhere"],
        todo.reasons,
        bool(stopping),
        time.monotonic() - began,
    )


def prepare(plan: Plan, dataset: Dataset | None, *, retry_failures: bool = True) -> Todo:
    """Compare a plan with what a folder holds (None: nothing)."""
    jobs, corpora = plan_jobs(plan)
    todo: list[Job] = []
    skipped: list[Job] = []
    reasons: Counter[str] = Counter()
    for job in jobs:
        missing = []
        why = ""
        failed = dataset.failure_key(job) if dataset else None
        for cell in job.cells:
            stored = dataset.stored(job, cell) if dataset else None
            if stored is not None and stored["key"] == cell.key:
                continue
            if failed == job.key and not retry_failures:
                continue
            missing.append(cell)
            if stored is not None:
                changed = _differences(stored["parts"], cell.parts) or ["what a key is made of"]
                why = "changed: " + ", ".join(changed)
            elif failed is not None:
                why = why or "failed before"
            else:
                why = why or "new"
        if missing:
            todo.append(job.only(missing))
            reasons[why] += 1
        else:
            skipped.append(job)
    return Todo(todo, dict(reasons), skipped, corpora, find_device())


def _forget_failures(dataset: Dataset, skipped: list[Job]) -> None:
    """Of jobs whose results are there: a model was gone for a while and is back as it was."""
    for job in skipped:
        failed = dataset.failure_key(job) is not None
        if failed and all(_is_there(dataset, job, cell) for cell in job.cells):
            dataset.forget_failure(job)


def _is_there(dataset: Dataset, job: Job, cell: Cell) -> bool:
    stored = dataset.stored(job, cell)
    return stored is not None and stored["key"] == cell.key


def _differences(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    return sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))


class _Loop:
    """Hands jobs to the engine and outcomes to the dataset."""

    def __init__(
        self, dataset: Dataset, engine: Engine, view: View, todo: Todo, stopping: list[bool]
    ) -> None:
        self._dataset, self._engine, self._view, self._todo = dataset, engine, view, todo
        self._stopping = stopping
        self._claims: dict[str, ExitStack] = {}
        self._counts: Counter[str] = Counter()

    def run(self) -> Counter[str]:
        """Until every job is done, here or by another scan at work in the same folder."""
        pending = deque(self._todo.jobs)
        try:
            while (pending and not self._stopping) or self._claims:
                started = not self._stopping and self._start(pending)
                if not self._stopping:
                    self._engine.foresee(pending)
                self._view.tick(self._engine.describe())
                outcomes = self._engine.collect()
                for job, outcome in outcomes:
                    self._settle(job, outcome)
                if not started and not outcomes and not self._claims:
                    time.sleep(_PAUSE)  # all that is left is under way elsewhere
        finally:
            for claim in self._claims.values():
                claim.close()
        return self._counts

    def _start(self, pending: deque[Job]) -> bool:
        """Submit what there is room for; whether anything moved."""
        moved = False
        for _ in range(len(pending)):
            if self._engine.room < 1:
                break
            job = pending.popleft()
            claim = ExitStack()
            if not claim.enter_context(self._dataset.claim(job)):
                claim.close()
                pending.append(job)
                continue
            moved = True
            left = [cell for cell in job.cells if not _is_there(self._dataset, job, cell)]
            if not left:
                claim.close()
                self._counts["done elsewhere"] += 1
                self._view.say(f"skip    {job.name}: another scan did it")
                continue
            job = job.only(left)
            estimate = self._todo.estimate(job)
            self._claims[job.id] = claim
            self._view.started(job, estimate.seconds)
            self._engine.submit(job, estimate, self._view.progress(job))
        return moved

    def _settle(self, job: Job, outcome: Outcome) -> None:
        if outcome.failure is None:
            for cell in job.cells:
                self._dataset.write(job, cell, outcome.files[cell.slot])
            self._dataset.forget_failure(job)
        else:
            self._dataset.write_failure(job, outcome.failure, outcome.seconds)
        self._claims.pop(job.id).close()
        self._counts["computed" if outcome.failure is None else "failed"] += 1
        self._view.finished(job, outcome)


def _folder(plan: Plan, results: str | os.PathLike[str] | None) -> Path:
    folder = expanded(results) if results is not None else plan.results_folder
    if folder is None:
        raise InputError("results: the plan names no results folder, and none was given")
    folder = folder.absolute()
    check_utf8(folder, "results")
    return folder


def _engine(engine: str | Engine, address: str | None, workers: int | None) -> Engine:
    if engine == "ray":
        return RayEngine(address, workers=workers)
    return LocalEngine() if isinstance(engine, str) else engine


@contextmanager
def _two_interrupts(view: View) -> Iterator[list[bool]]:
    """The first Ctrl-C fills the list yielded, the second raises KeyboardInterrupt."""
    stopping: list[bool] = []
    if threading.current_thread() is not threading.main_thread():
        yield stopping
        return

    def heard(number: int, frame: Any) -> None:
        if stopping:
            raise KeyboardInterrupt
        stopping.append(True)
        view.say("stopping after the jobs under way; Ctrl-C again stops at once")

    before = signal.signal(signal.SIGINT, heard)
    try:
        yield stopping
    finally:
        signal.signal(signal.SIGINT, before)
