"""Locks of the operating system on files: gone with the process that held them."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

__all__ = ["locked", "try_lock"]


def try_lock(path: Path) -> IO[bytes] | None:
    """The open, locked file at ``path``, or None when another process has it locked."""
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = path.open("ab")
        except FileNotFoundError:
            continue  # the folder was tidied away in between
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return None
        except BaseException:
            file.close()
            raise
        try:
            # Whoever had it may have removed the file since: then the lock is of nothing.
            if os.fstat(file.fileno()).st_ino == path.stat().st_ino:
                return file
        except FileNotFoundError:
            pass
        file.close()


@contextlib.contextmanager
def locked(path: Path) -> Iterator[bool]:
    """Hold the lock for the block: True, or False when another process has it."""
    file = try_lock(path)
    try:
        yield file is not None
    finally:
        if file is not None:
            path.unlink(missing_ok=True)
            file.close()
