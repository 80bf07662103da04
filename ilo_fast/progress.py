"""What a run says while it works: stages, tokens/s and time left, on standard error."""

import sys
import time
from collections.abc import Callable
from functools import wraps
from typing import IO, TYPE_CHECKING, Any, ParamSpec, Self, TypeVar

from ilo_fast.shown import counted

if TYPE_CHECKING:
    from rich.progress import Progress as RichBar
    from rich.progress import TaskID

__all__ = ["PlainProgress", "Progress", "RichProgress", "make_progress", "with_progress"]

P = ParamSpec("P")
R = TypeVar("R")
_CALLS = ("start", "advance", "finish")


class Progress:
    """A listener that says nothing; the others say more of the same calls.

    `ilo_fast.extract` calls ``start``, ``advance``, ``finish`` and, where they are there, ``skip``
    and ``stage``; `ilo_fast.score` also calls ``stage`` before each step and ``layer`` after each
    layer's neighbours. Used in a ``with`` block, it leaves the terminal as it was whatever happens
    inside.
    """

    def stage(self, text: str) -> None:
        """A new step begins."""

    def start(self, total_tokens: int) -> None:
        """The forward pass begins, over this many tokens."""

    def advance(self, tokens: int, sentences: int) -> None:
        """This many more tokens and sentences went through the model."""

    def skip(self, tokens: int, sentences: int) -> None:
        """This many more were kept by an earlier run; no model sees them."""
        self.advance(tokens, sentences)

    def finish(self) -> None:
        """The forward pass is over."""

    def layer(self, done: int, total: int) -> None:
        """``done`` of ``total`` layers are scored."""

    def close(self) -> None:
        """Leave the terminal as it was."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class PlainProgress(Progress):
    """Lines of text for logs and pipes: one a stage, and one every ``every`` seconds within it."""

    def __init__(self, stream: IO[str] | None = None, *, every: float = 10.0) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._every = every
        self._total = self._done = self._sentences = self._kept = 0
        self._began = self._said = 0.0

    def stage(self, text: str) -> None:
        self._say(text)

    def start(self, total_tokens: int) -> None:
        self._total, self._done, self._sentences, self._kept = total_tokens, 0, 0, 0
        self._began = self._said = time.monotonic()

    def advance(self, tokens: int, sentences: int) -> None:
        self._done += tokens
        self._sentences += sentences
        if time.monotonic() - self._said >= self._every:
            self._said = time.monotonic()
            rate = self._done / max(self._said - self._began, 1e-9)
            left = (self._total - self._done) / max(rate, 1e-9)
            done = f"{self._done:,} of {counted(self._total, 'token')}"
            self._say(f"  {done}, {rate:,.0f} tokens/s, {left:.0f} s left")

    def skip(self, tokens: int, sentences: int) -> None:
        self._total -= tokens
        self._kept += sentences

    def finish(self) -> None:
        seconds = time.monotonic() - self._began
        if self._done or not self._kept:
            self._say(
                f"  {counted(self._done, 'token')}, {counted(self._sentences, 'sentence')} in "
                f"{seconds:.1f} s, "
                f"{self._done / max(seconds, 1e-9):,.0f} tokens/s"
            )
        if self._kept:
            were = "was" if self._kept == 1 else "were"
            kept = f"{counted(self._kept, 'sentence')} {were} there already"
            self._say(f"  {kept}, read in {seconds:.1f} s")

    def _say(self, text: str) -> None:
        self._stream.write(text + "\n")
        self._stream.flush()


class RichProgress(Progress):
    """A live bar with tokens/s and time left, for a terminal."""

    def __init__(self, console: Any = None) -> None:
        from rich.console import Console

        self._console = Console(stderr=True) if console is None else console
        self._bar: RichBar | None = None
        self._task: TaskID | None = None

    def stage(self, text: str) -> None:
        self.close()
        self._console.print(text, highlight=False, markup=False)

    def start(self, total_tokens: int) -> None:
        self._open(total_tokens, "tokens")

    def advance(self, tokens: int, sentences: int) -> None:
        if self._bar is not None and self._task is not None:
            self._bar.advance(self._task, tokens)

    def skip(self, tokens: int, sentences: int) -> None:
        if self._bar is not None and self._task is not None:
            left = self._bar.tasks[0].total or 0
            self._bar.update(self._task, total=max(0, left - tokens))

    def finish(self) -> None:
        self.close()

    def layer(self, done: int, total: int) -> None:
        if self._bar is None:
            self._open(total, "layers")
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=done)
        if done == total:
            self.close()

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
        self._bar = self._task = None

    def _open(self, total: int, unit: str) -> None:
        from rich import progress as rich_progress

        self.close()
        self._bar = rich_progress.Progress(
            rich_progress.BarColumn(bar_width=20),
            rich_progress.TaskProgressColumn(),
            rich_progress.MofNCompleteColumn(),
            rich_progress.TextColumn(unit),
            _rate_column(unit),
            rich_progress.TextColumn("time left"),
            rich_progress.TimeRemainingColumn(),
            console=self._console,
        )
        self._task = self._bar.add_task(unit, total=total)
        self._bar.start()


def make_progress(*, quiet: bool = False) -> Progress:
    """The listener that suits standard error: a live bar on a terminal, lines elsewhere."""
    if quiet:
        return Progress()
    return RichProgress() if sys.stderr.isatty() else PlainProgress()


def with_progress(run: Callable[P, R]) -> Callable[P, R]:
    """A function whose keyword ``progress`` is a listener, None, or True for `make_progress`'s.

    A listener is checked before anything else is; one made here leaves the terminal as it was.

    >>> @with_progress
    ... def work(*, progress=None):
    ...     progress.start(10)
    >>> work(progress="loud")
    Traceback (most recent call last):
    TypeError: progress must be True or have the methods start, advance, finish; got str
    """

    @wraps(run)
    def heard(*args: P.args, **kwargs: P.kwargs) -> R:
        progress = kwargs.get("progress")
        if isinstance(progress, bool):
            with make_progress(quiet=not progress) as own:
                kwargs["progress"] = own
                return run(*args, **kwargs)
        if progress is not None and not all(callable(getattr(progress, c, None)) for c in _CALLS):
            raise TypeError(
                f"progress must be True or have the methods {', '.join(_CALLS)}; "
                f"got {type(progress).__name__}"
            )
        return run(*args, **kwargs)

    return heard


def _rate_column(unit: str) -> Any:
    """A column saying ``unit``/s since the task began."""
    from rich.progress import ProgressColumn, Task
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            seconds = task.finished_time or task.elapsed
            return Text(f"{task.completed / seconds:,.0f} {unit}/s" if seconds else "")

    return Rate()
