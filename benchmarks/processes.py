"""Commands in processes of their own, ended with all that they started."""

import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

__all__ = ["Commands", "time_out_as_interrupt"]


@contextmanager
def time_out_as_interrupt() -> Iterator[None]:
    """Within it SIGTERM, which ends what takes too long, is heard as Ctrl-C is.

    Otherwise this process ends at once and the commands, in groups of their own, go on without it.
    """
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class Commands:
    """Commands that run side by side, each from a thread of its own."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._groups: set[int] = set()  # which Ctrl-C in a terminal does not reach
        self._ended = False

    def run(
        self,
        arguments: list[str],
        seconds: float,
        output: IO[str],
        *,
        cwd: Path | None = None,
        env: dict[str, str] | None = None,
    ) -> int:
        """Exit status of a command that writes to ``output``.

        Raises:
            subprocess.TimeoutExpired: after so many seconds; it and its descendants are gone then.
            ChildProcessError: after `end`, where nothing starts any more.
        """
        with self._lock:
            if self._ended:
                raise ChildProcessError("not started: all commands were ended")
            # A group, not a session: what ends this process's session takes the command along.
            process = subprocess.Popen(
                arguments, cwd=cwd, env=env, stdout=output, stderr=output, process_group=0
            )
            self._groups.add(process.pid)
        with process:
            try:
                return process.wait(seconds)
            except BaseException:
                os.killpg(process.pid, signal.SIGKILL)  # not reaped yet: the group is its own
                raise
            finally:
                with self._lock:
                    self._groups.discard(process.pid)

    def end(self) -> None:
        """End the commands of all threads, which then have an exit status."""
        with self._lock:
            self._ended = True
            for group in self._groups:
                with suppress(ProcessLookupError):  # it has just ended
                    os.killpg(group, signal.SIGKILL)
