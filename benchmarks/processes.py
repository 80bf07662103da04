"""Commands in processes of their own, ended with all that they started."""

import os
import signal
import subprocess
from pathlib import Path
from typing import IO

__all__ = ["run_bounded"]


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
        try:
            return process.wait(seconds)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)  # not reaped yet: the group is its own
            raise
