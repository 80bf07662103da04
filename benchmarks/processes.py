"""Commands in processes of their own, ended with all that they started."""

import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import IO

__all__ = ["end_all", "run_bounded"]

_running: set[int] = set()  # process groups, which Ctrl-C in a terminal does not reach


def run_bounded(
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
    """
    # A group, not a session: what ends this process's session takes the command along.
    with subprocess.Popen(
        arguments, cwd=cwd, env=env, stdout=output, stderr=output, process_group=0
    ) as process:
        _running.add(process.pid)
        try:
            return process.wait(seconds)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)  # not reaped yet: the group is its own
            raise
        finally:
            _running.discard(process.pid)


def end_all() -> None:
    """End the commands of all threads, which then have an exit status."""
    for group in tuple(_running):
        with suppress(ProcessLookupError):  # it has just ended
            os.killpg(group, signal.SIGKILL)
