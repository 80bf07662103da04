"""UTF-8 bytes to lines, the same way for every kind of file."""

from collections.abc import Iterable
from pathlib import Path

from ilo_fast.errors import CorpusError
from ilo_fast.files import check_endless

__all__ = ["check_labels", "decode", "decode_lines", "read_bytes"]

_OTHER_MARKS = {  # longest first: the UTF-32 mark begins with the UTF-16 one
    b"\xff\xfe\x00\x00": "UTF-32",
    b"\x00\x00\xfe\xff": "UTF-32",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}


def read_bytes(path: Path) -> bytes:
    """The file's bytes; a file that cannot be read is a `CorpusError`."""
    check_endless(path)
    try:
        return path.read_bytes()
    except OSError as error:
        raise CorpusError(f"{path}: cannot be read: {error.strerror or error}") from error


def check_labels(labels: Iterable[str], where: str, what: str, hint: str = "") -> None:
    """That what names the languages, ``what`` of ``where``, can be the label of one.

    `Corpus` asks for the same, but cannot say which file it is about.
    """
    for label in labels:
        if label != label.strip() or not label.isprintable():
            raise CorpusError(
                f"{where}: {what} {label!r} is no language's name: it has blanks at its ends or "
                f"characters that do not show{hint}"
            )


def decode(data: bytes, label: str) -> str:
    """Decode UTF-8 and drop a byte order mark.

    Raises:
        CorpusError: naming ``label`` and the line, on bytes that are no UTF-8 and NUL characters.
    """
    for mark, encoding in _OTHER_MARKS.items():
        if data.startswith(mark):
            raise CorpusError(f"{label}: is {encoding}, expected UTF-8: save the file as UTF-8")
    data = data.removeprefix(b"\xef\xbb\xbf")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        number = data.count(b"\n", 0, error.start) + 1
        column = error.start - data.rfind(b"\n", 0, error.start)
        raise CorpusError(
            f"{label}: line {number} is not UTF-8: its byte {column} is 0x{data[error.start]:02X}"
        ) from error
    if "\0" in text:
        number = text.count("\n", 0, text.index("\0")) + 1
        raise CorpusError(
            f"{label}: line {number} holds a NUL character; is the file UTF-16 or binary? "
            "Expected UTF-8 text"
        )
    return text


def decode_lines(data: bytes, label: str) -> list[str]:
    r"""Decode UTF-8, drop a byte order mark, split at LF or CRLF, drop blank lines at the end.

    Lines are split at ``\n`` only: `str.splitlines` would also split at U+2028, U+0085 and others,
    which occur inside sentences.

    Raises:
        CorpusError: naming ``label`` and the line, on bytes that are no UTF-8, NUL characters, or a
            carriage return inside a line.

    >>> decode_lines(b"\xef\xbb\xbfone\r\ntwo\r\n\r\n", "file.txt")
    ['one', 'two']
    """
    lines = [line.removesuffix("\r") for line in decode(data, label).split("\n")]
    while lines and not lines[-1].strip():
        lines.pop()
    for number, line in enumerate(lines, start=1):
        if "\r" in line:
            raise CorpusError(
                f"{label}: line {number} holds a carriage return; expected lines that end in LF "
                "or CRLF"
            )
    return lines
