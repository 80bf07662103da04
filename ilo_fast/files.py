"""Files: written whole or not at all, and told apart by what they hold."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["fingerprint", "staged"]

_ENDS = 1 << 20


@contextmanager
def staged(folder: str | Path) -> Iterator[Path]:
    """A temporary folder inside ``folder``; its files move up when the block ends well.

    ``folder`` is made if it is missing. Each file is flushed to disk and then renamed, so a reader
    finds the old file or the new one, never a part. When the block raises (an interrupt, a full
    disk), nothing in ``folder`` changes and the temporary files are removed.

    >>> import tempfile, pathlib
    >>> from ilo_fast.files import staged
    >>> out = pathlib.Path(tempfile.mkdtemp()) / "run"
    >>> with staged(out) as temporary:
    ...     _ = (temporary / "a.txt").write_text("whole")
    >>> sorted(path.name for path in out.iterdir())
    ['a.txt']
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".ilo-fast-", dir=folder))
    try:
        yield temporary
        written = sorted(temporary.iterdir())
        for path in written:
            _flush(path)
        for path in written:
            os.replace(path, folder / path.name)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def fingerprint(path: str | Path) -> str:
    """SHA-256 (hex) over the names and sizes of a file, or a folder's files, and their ends.

    Of each file the first and the last MiB are read, so that weights of any size are told apart in
    milliseconds: training moves every weight. It is no protection against a forger. Hidden files
    and folders count for nothing.
    """
    root = Path(path)
    files = [root] if root.is_file() else sorted(p for p in root.rglob("*") if p.is_file())
    digest = hashlib.sha256()
    for file in files:
        inside = file.relative_to(root.parent if root.is_file() else root)
        if any(part.startswith(".") for part in inside.parts):
            continue
        size = file.stat().st_size
        digest.update(f"{inside.as_posix()}\0{size}\0".encode())
        with file.open("rb") as stream:
            digest.update(stream.read(_ENDS))
            stream.seek(max(size - _ENDS, 0))
            digest.update(stream.read(_ENDS))
    return digest.hexdigest()


def _flush(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())
