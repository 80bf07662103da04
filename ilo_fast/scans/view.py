"""A scan on the terminal: a live table, or plain lines where there is no terminal."""

import sys
import time
from typing import IO, Any, Self

from ilo_fast.progress import Progress
from ilo_fast.scans.jobs import Job
from ilo_fast.scans.work import Outcome
from ilo_fast.shown import counted

__all__ = ["LiveView", "PlainView", "View", "duration", "make_view"]


class View:
    """A listener that says nothing; the others say more of the same calls."""

    def begin(self, todo: int, skipped: int, engine: str) -> None:
        """The scan starts: so many jobs to do, so many skipped."""

    def say(self, text: str) -> None:
        """Something worth a line."""

    def started(self, job: Job, seconds: float | None) -> None:
        """A job starts; ``seconds`` is its estimate."""

    def finished(self, job: Job, outcome: Outcome) -> None:
        """A job ends, well or not."""

    def tick(self, engine: str) -> None:
        """Time passes; ``engine`` says how busy the machines are."""

    def progress(self, job: Job) -> Progress | None:
        """What hears of a job's own progress, where it runs in this process."""
        return None

    def close(self) -> None:
        """Leave the terminal as it was."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class PlainView(View):
    """One line an event, for logs and pipes."""

    def __init__(self, stream: IO[str] | None = None) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._clock = _Clock()

    def begin(self, todo: int, skipped: int, engine: str) -> None:
        self._clock.begin(todo)
        self.say(f"{counted(todo, 'job')} to do, {skipped} skipped; {engine}")

    def say(self, text: str) -> None:
        self._stream.write(text + "\n")
        self._stream.flush()

    def started(self, job: Job, seconds: float | None) -> None:
        about = "" if seconds is None else f", about {duration(seconds)}"
        self.say(f"start   {job.name}{about}")

    def finished(self, job: Job, outcome: Outcome) -> None:
        self._clock.count(outcome)
        place = f"{self._clock.done} of {self._clock.todo}"
        if outcome.failure is not None:
            failure = outcome.failure
            self.say(f"FAILED  {job.name} ({place}): {failure.kind}: {failure.reason}")
            return
        rate = outcome.tokens / max(outcome.seconds, 1e-9)
        left = self._clock.left()
        self.say(
            f"done    {job.name} ({place}): {duration(outcome.seconds)}, {rate:,.0f} tokens/s"
            + (f", {duration(left)} left" if left else "")
        )


class LiveView(View):
    """Jobs under way with their tokens, machines, rate and time left; finished ones scroll by."""

    def __init__(self, console: Any = None) -> None:
        from rich.console import Console
        from rich.live import Live

        self._console = Console(stderr=True) if console is None else console
        self._clock = _Clock()
        self._running: dict[str, _Running] = {}
        self._engine = ""
        self._failed = self._skipped = 0
        self._live = Live(
            console=self._console, get_renderable=self._draw, refresh_per_second=4, transient=True
        )

    def begin(self, todo: int, skipped: int, engine: str) -> None:
        self._clock.begin(todo)
        self._skipped, self._engine = skipped, engine
        self._live.start()

    def say(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def started(self, job: Job, seconds: float | None) -> None:
        self._running[job.id] = _Running(job, seconds)

    def finished(self, job: Job, outcome: Outcome) -> None:
        from rich.text import Text

        self._running.pop(job.id, None)
        self._clock.count(outcome)
        if outcome.failure is None:
            rate = outcome.tokens / max(outcome.seconds, 1e-9)
            line = Text.assemble(
                ("✓ ", "green"),
                job.name,
                (f"  {duration(outcome.seconds)}, {rate:,.0f} tokens/s", "dim"),
            )
        else:
            self._failed += 1
            said = f"  {outcome.failure.kind}: {outcome.failure.reason}"
            line = Text.assemble(("✗ ", "red"), job.name, (said, "red"))
        self._console.print(line, soft_wrap=True)

    def tick(self, engine: str) -> None:
        self._engine = engine

    def progress(self, job: Job) -> Progress | None:
        return self._running[job.id]

    def close(self) -> None:
        self._live.stop()

    def _draw(self) -> Any:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        clock = self._clock
        jobs = Table(box=None, expand=True, show_header=bool(self._running), padding=(0, 1))
        jobs.add_column("job", ratio=1, overflow="ellipsis", no_wrap=True)
        jobs.add_column("step", style="dim", no_wrap=True)
        jobs.add_column("", width=20)
        jobs.add_column("tokens/s", justify="right")
        jobs.add_column("time", justify="right")
        for running in self._running.values():
            bar = ProgressBar(total=1.0, completed=running.share, width=20)
            about = f" of {duration(running.estimate)}" if running.estimate else ""
            rate = f"{running.rate:,.0f}" if running.rate else ""
            time_spent = duration(time.monotonic() - running.began) + about
            jobs.add_row(Text(running.job.name), running.step, bar, rate, time_spent)
        left = clock.left()
        whole = Table.grid(expand=True, padding=(0, 1))
        whole.add_column(no_wrap=True)
        whole.add_column(ratio=1)
        whole.add_column(justify="right", no_wrap=True)
        whole.add_row(
            f"{clock.done} of {counted(clock.todo, 'job')}",
            ProgressBar(total=max(clock.todo, 1), completed=clock.done),
            ", ".join(
                part
                for part in (
                    f"{self._failed} failed" if self._failed else "",
                    f"{self._skipped} skipped" if self._skipped else "",
                    f"{clock.rate():,.0f} tokens/s" if clock.tokens else "",
                    f"{duration(left)} left" if left else "",
                )
                if part
            ),
        )
        return Group(jobs, whole, Text(self._engine, style="dim"))


class _Running(Progress):
    """One job under way, as its own progress tells it."""

    def __init__(self, job: Job, estimate: float | None) -> None:
        self.job, self.estimate = job, estimate
        self.began = time.monotonic()
        self.step, self.share, self.rate = "loading", 0.0, 0.0
        self._total = self._done = 0
        self._from = self.began

    def start(self, total_tokens: int) -> None:
        self.step, self._total, self._from = "forward", total_tokens, time.monotonic()

    def advance(self, tokens: int, sentences: int) -> None:
        self._done += tokens
        self.share = min(1.0, self._done / max(self._total, 1))
        self.rate = self._done / max(time.monotonic() - self._from, 1e-9)

    def finish(self) -> None:
        self.step, self.share = "neighbours", 1.0


class _Clock:
    """Jobs and tokens done, and the time they took."""

    def __init__(self) -> None:
        self.todo = self.done = self.tokens = 0
        self._began = time.monotonic()

    def begin(self, todo: int) -> None:
        self.todo, self._began = todo, time.monotonic()

    def count(self, outcome: Outcome) -> None:
        self.done += 1
        self.tokens += outcome.tokens

    def rate(self) -> float:
        return self.tokens / max(time.monotonic() - self._began, 1e-9)

    def left(self) -> float | None:
        """Seconds left if the rest goes as what is done went; None before anything is."""
        if not self.done or self.done >= self.todo:
            return None
        return (time.monotonic() - self._began) / self.done * (self.todo - self.done)


def duration(seconds: float) -> str:
    """For people.

    >>> from ilo_fast.scans.view import duration
    >>> duration(0.42), duration(75), duration(7320)
    ('0.4 s', '1 min 15 s', '2 h 2 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def make_view(*, quiet: bool = False) -> View:
    """The view that suits standard error."""
    if quiet:
        return View()
    return LiveView() if sys.stderr.isatty() else PlainView()
