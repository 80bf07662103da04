"""One run at a time writes states into a folder."""

import os
from pathlib import Path

from ilo_fast.errors import InputError

__all__ = ["lock_folder"]


def lock_folder(folder: Path) -> int | None:
    """A descriptor that holds the lock on a folder, or None where its file system has none.

    Raises:
        InputError: when another run holds it.
    """
    try:
        import fcntl
    except ImportError:
        return None  # Windows
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise InputError(
            f"folder: another run is writing its states into {folder}; wait for it, or give "
            "another folder"
        ) from None
    except OSError:  # of a network file system
        os.close(descriptor)
        return None
    return descriptor
