"""Files that appear under their final names whole, or not at all, and checks of what is read."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ilo_fast.errors import InputError

__all__ = [
    "check_endless",
    "check_no_folders",
    "check_utf8",
    "expanded",
    "parse_json",
    "present",
    "read_json",
    "staged",
    "write_text",
]


def expanded(path: str | os.PathLike[str]) -> Path:
    """A user's path, ``~`` being their home: shells leave it in ``--out=~/x``, Python everywhere.

    >>> from ilo_fast.files import expanded
    >>> expanded("~/x").is_absolute(), str(expanded("x/~"))
    (True, 'x/~')
    """
    return Path(os.path.expanduser(path))


def present(folder: Path, names: Iterable[str]) -> list[Path]:
    """Those of the names that are files in a folder, sorted."""
    return [path for path in sorted(folder / name for name in names) if path.is_file()]


def check_utf8(path: str | Path, argument: str) -> None:
    """That a path has a name that records and Parquet's library can hold.

    Raises:
        InputError: naming ``argument``.
    """
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(f"{argument}: expected a name in UTF-8, got {str(path)!r}") from error


def check_endless(path: Path) -> None:
    """That a path is no pipe and no device, which to read may have no end.

    Raises:
        InputError: naming the path.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise InputError(f"{str(path)!r} is a pipe or a device, expected a file")


def parse_json(text: str | bytes) -> Any:
    """JSON's values; ValueError on anything else: NaN, infinity and what is nested too deeply."""
    try:
        return json.loads(text, parse_constant=_no_number)
    except RecursionError as error:
        raise ValueError(str(error)) from error


def _no_number(name: str) -> None:
    raise ValueError(f"it holds {name}, which JSON has not")


def read_json(path: Path) -> Any:
    """The values of a JSON file; ValueError where it holds none."""
    check_endless(path)
    return parse_json(path.read_text(encoding="utf-8"))


def check_no_folders(folder: Path, names: Iterable[str]) -> None:
    """That no file to be written meets a folder of its name, which it could not replace.

    Raises:
        InputError: naming the first.
    """
    for path in (folder / name for name in names):
        if path.is_dir():
            raise InputError(f"{str(path)!r} is a folder, where a file is to be written")


@contextmanager
def staged(folder: str | Path, *, obsolete: Iterable[str] = ()) -> Iterator[Path]:
    """A temporary folder inside ``folder``; its files move up when the block ends well.

    ``folder`` is made if it is missing, and goes again where nothing is written to it. Each file is
    flushed to disk and then renamed, so a reader finds the old file or the new one, never a part.
    When the block raises (an interrupt, a full disk), nothing in ``folder`` changes and the
    temporary files are removed.

    Files named in ``obsolete`` that the block does not write anew are removed last.

    >>> import tempfile, pathlib
    >>> from ilo_fast.files import staged
    >>> place = tempfile.TemporaryDirectory()
    >>> out = pathlib.Path(place.name) / "run"
    >>> with staged(out) as temporary:
    ...     _ = (temporary / "a.txt").write_text("whole")
    >>> sorted(path.name for path in out.iterdir())
    ['a.txt']
    """
    folder = Path(folder)
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    temporary = _temporary(folder)
    try:
        yield temporary
        written = sorted(temporary.iterdir())
        check_no_folders(folder, (path.name for path in written))
        for path in written:
            _flush(path)
        for path in written:
            os.replace(path, folder / path.name)
        for name in set(obsolete) - {path.name for path in written}:
            if (folder / name).is_file():
                (folder / name).unlink()
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        for path in made:
            with suppress(OSError):  # it holds something: what was written, or another's files
                path.rmdir()


def _temporary(folder: Path) -> Path:
    """A new folder inside ``folder``, which is made if it is missing."""
    tries = 3  # another process that found it missing too may take it away again in between
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            return Path(tempfile.mkdtemp(prefix=".ilo-fast-", dir=folder))
        except FileNotFoundError:
            tries -= 1
            if not tries:
                raise


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all, as `staged` does."""
    with staged(path.parent) as temporary:
        (temporary / path.name).write_text(text, encoding="utf-8")


def _flush(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())
