"""How long each step of a run takes, and the ranges that name the steps in a profile."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from torch.profiler import record_function

__all__ = ["Clock", "TimedProgress"]


class Clock:
    """Seconds by step, added up over its repetitions; each is a range of that name in a profile."""

    def __init__(self) -> None:
        self.started = datetime.now(UTC)
        self.seconds: dict[str, float] = {}

    def add(self, step: str, began: float) -> None:
        """Count what passed since ``began``, a reading of `time.perf_counter`, as ``step``."""
        self.seconds[step] = self.seconds.get(step, 0.0) + time.perf_counter() - began

    @contextmanager
    def measure(self, step: str) -> Iterator[None]:
        """Count the block as ``step``."""
        began = time.perf_counter()
        with record_function(step):
            yield
        self.add(step, began)


class TimedProgress:
    """Passes progress on; what comes before the forward passes counts as tokenising."""

    def __init__(self, listener: Any, clock: Clock) -> None:
        self._listener, self._clock = listener, clock
        self._began = time.perf_counter()

    def stage(self, text: str) -> None:
        getattr(self._listener, "stage", lambda text: None)(text)

    def start(self, total_tokens: int) -> None:
        self._clock.add("tokenise", self._began)
        self._began = time.perf_counter()
        self._listener.start(total_tokens)

    def advance(self, tokens: int, sentences: int) -> None:
        self._listener.advance(tokens, sentences)

    def skip(self, tokens: int, sentences: int) -> None:
        getattr(self._listener, "skip", self._listener.advance)(tokens, sentences)

    def finish(self) -> None:
        self._clock.add("forward", self._began)
        self._listener.finish()
