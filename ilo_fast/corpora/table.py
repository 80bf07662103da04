"""A table with one column a language: .tsv, .csv, .jsonl or .parquet.

Text is read by the standard library, not by pandas, whose readers turn words such as "NA" or "null"
into missing values and quietly repair ragged rows.
"""

import csv
import io
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ilo_fast.corpora.corpus import Corpus, choose_languages, is_blank, some
from ilo_fast.corpora.lines import check_labels, decode, decode_lines, read_bytes
from ilo_fast.errors import CorpusError, InputError
from ilo_fast.files import check_endless
from ilo_fast.shown import counted

__all__ = ["ID_COLUMNS", "TABLES", "read_table"]

TABLES = (".tsv", ".csv", ".jsonl", ".parquet")

ID_COLUMNS = ("", "__index_level_0__", "id", "idx", "index", "row", "sentence_id", "unnamed: 0")
"""Column names (compared in lower case) that number sentences rather than name a language.

"id" is the ISO 639-1 code of Indonesian too, so such a column is left out only if none of its
values holds a blank; otherwise the languages must be named.
"""


@dataclass
class _Table:
    """Columns as read: a cell is a string, None where missing, or another value, refused later."""

    names: tuple[str, ...]
    columns: dict[str, list[Any]]
    unit: str = "row"  # what messages count, from 1: rows below the header, or lines
    notes: list[str] = field(default_factory=list)


def read_table(path: Path, languages: Iterable[str] | None = None) -> Corpus:
    """Read a table, its languages sorted by name unless given; see `load_corpus`."""
    table = _READERS[path.suffix.lower()](path, languages)
    chosen = _language_columns(table, path) if languages is None else tuple(languages)
    tabs = path.suffix.lower() == ".csv" and any("\t" in name for name in chosen)
    hint = "; a table with tabs between its cells is a .tsv file" if tabs else ""
    check_labels(chosen, str(path), "column name", hint)
    if not chosen or not table.columns[chosen[0]]:
        what = "language columns" if not chosen else "rows"
        raise CorpusError(f"{path}: no {what}; expected one column per language, a sentence a row")
    _check_cells(table, chosen, path)
    columns = tuple(tuple(table.columns[name]) for name in chosen)
    return Corpus(path.stem, chosen, columns, source=str(path), notes=tuple(table.notes))


def _language_columns(table: _Table, path: Path) -> tuple[str, ...]:
    """All columns but those that number the sentences."""
    left_out = []
    for name in table.names:
        if name.lower() not in ID_COLUMNS:
            continue
        values = [value for value in table.columns[name] if isinstance(value, str)]
        if name and any(len(value.split()) > 1 for value in values):
            raise CorpusError(
                f"{path}: column {name!r} holds sentences, but its name is that of a row number; "
                "name the columns to read with languages= (--languages)"
            )
        left_out.append(name)
    if left_out:
        table.notes.append(f"columns left out: {', '.join(repr(name) for name in left_out)}")
    chosen = tuple(sorted(set(table.names) - set(left_out)))
    for name in chosen:
        _check_holds_words(table, name, path)
    return chosen


def _check_holds_words(table: _Table, name: str, path: Path) -> None:
    """That a column is not all numbers: in a .csv or .tsv file these are text like any other."""
    cells = [
        (number, value)
        for number, value in enumerate(table.columns[name], start=1)
        if isinstance(value, str) and not is_blank(value)
    ]
    if cells and all(_is_number(value) for _, value in cells):
        raise _no_text(table, *cells[0], name, "a number, as are all of the column", path)


def _check_cells(table: _Table, chosen: tuple[str, ...], path: Path) -> None:
    missing = []
    for name in chosen:
        for number, value in enumerate(table.columns[name], start=1):
            if value is None or (isinstance(value, str) and is_blank(value)):
                missing.append(f"{table.unit} {number}, column {name!r}")
            elif not isinstance(value, str):
                raise _no_text(table, number, value, name, type(value).__name__, path)
            elif not _is_unicode(value):
                raise CorpusError(
                    f"{path}: {table.unit} {number}, column {name!r}: no valid Unicode, a lone "
                    "surrogate"
                )
            elif "\0" in value:  # in .csv and .tsv files already refused, with its line
                raise CorpusError(
                    f"{path}: {table.unit} {number}, column {name!r}: holds a NUL character, "
                    "expected text"
                )
    if missing:
        raise CorpusError(f"{path}: missing or empty sentences: {some(missing)}")


def _no_text(
    table: _Table, number: int, value: object, name: str, kind: str, path: Path
) -> CorpusError:
    return CorpusError(
        f"{path}: {table.unit} {number}, column {name!r}: expected text, got {_short(value)} "
        f"({kind}); if the column is no language, name the ones that are with languages= "
        "(--languages)"
    )


def _check_names(names: Iterable[str], path: Path) -> tuple[str, ...]:
    stripped = tuple(name.strip() for name in names)
    twice = sorted({repr(name) for name in stripped if stripped.count(name) > 1})
    if twice:
        raise CorpusError(f"{path}: column names occur more than once: {some(twice)}")
    return stripped


def _read_delimited(path: Path, languages: Iterable[str] | None) -> _Table:
    data = read_bytes(path)
    comma = path.suffix.lower() == ".csv"
    if comma:
        table_rows = _csv_rows(data, path)
    else:
        table_rows = [line.split("\t") for line in decode_lines(data, str(path))]
    if not table_rows:
        raise CorpusError(f"{path}: is empty; expected a header line that names the languages")
    if not any(table_rows[0]):
        raise CorpusError(f"{path}: line 1 is blank; expected a header that names the languages")
    names = _check_names(table_rows[0], path)
    choose_languages(languages, names, where=str(path))
    table = _Table(names, {name: [] for name in names})
    for number, row in enumerate(table_rows[1:], start=1):
        if len(row) != len(names):
            raise CorpusError(
                f"{path}: row {number} below the header has "
                f"{counted(len(row), 'cell')}, expected {len(names)} ({some(list(names))})"
            )
        for name, value in zip(names, row, strict=True):
            table.columns[name].append(value)
    if not comma:
        quoted = sum(
            len(value) > 1 and value[0] == value[-1] == '"' for row in table_rows for value in row
        )
        if quoted:
            table.notes.append(
                f"{quoted} cells begin and end with a double quote, which a .tsv file keeps as text"
            )
    return table


def _csv_rows(data: bytes, path: Path) -> list[list[str]]:
    # Not by lines: a quoted cell may hold line breaks.
    reader = csv.reader(io.StringIO(decode(data, str(path)), newline=""), strict=True)
    rows: list[list[str]] = []
    began = 1
    try:
        for row in reader:
            rows.append(row)
            began = reader.line_num + 1
    except csv.Error as error:
        # A quote that is never closed is noticed at the end of the file, far from where it is.
        row_at = f"row {len(rows)} below the header, which begins in line {began}"
        where = row_at if rows and reader.line_num > began else f"line {reader.line_num}"
        raise CorpusError(f"{path}: {where}: {error}") from error
    while rows and not any(cell.strip() for cell in rows[-1]):
        rows.pop()
    return rows


def _read_jsonl(path: Path, languages: Iterable[str] | None) -> _Table:
    names: dict[str, None] = {}
    rows = []
    for number, line in enumerate(decode_lines(read_bytes(path), str(path)), start=1):
        try:
            row = json.loads(line, object_pairs_hook=_once)
        except json.JSONDecodeError as error:
            raise CorpusError(
                f"{path}: line {number} is not a JSON object: {error.msg}, at character "
                f"{error.pos + 1}"
            ) from error
        except (ValueError, RecursionError) as error:
            raise CorpusError(f"{path}: line {number} is not a JSON object: {error}") from error
        if not isinstance(row, dict):
            raise CorpusError(
                f"{path}: line {number}: expected a JSON object with one key per language, got "
                f"{_short(row)}"
            )
        names.update(dict.fromkeys(row))
        rows.append(row)
    if not rows:
        raise CorpusError(f"{path}: is empty; expected one JSON object a line")
    columns = _check_names(names, path)
    choose_languages(languages, columns, where=str(path))
    cells = {
        stripped: [row.get(name) for row in rows]
        for name, stripped in zip(names, columns, strict=True)
    }
    return _Table(columns, cells, unit="line")


def _read_parquet(path: Path, languages: Iterable[str] | None) -> _Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    check_endless(path)
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            names = _check_names(file.schema_arrow.names, path)
            chosen = set(choose_languages(languages, names, where=str(path)))
            wanted = [name for name in file.schema_arrow.names if name.strip() in chosen]
            content = file.read(columns=wanted)
        cells = {name.strip(): content.column(name).to_pylist() for name in wanted}
    except (pa.ArrowException, OSError) as error:
        raise CorpusError(f"{path}: is no readable Parquet file: {error}") from error
    except UnicodeDecodeError as error:
        raise CorpusError(f"{path}: holds text that is not UTF-8: {error}") from error
    return _Table(tuple(cells), cells)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    if len(set(keys)) != len(keys):
        twice = sorted({repr(key) for key in keys if keys.count(key) > 1})
        raise InputError(f"a key occurs more than once: {some(twice)}")
    return dict(pairs)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return any(character.isdigit() for character in text)  # "nan" and "infinity" are words


def _is_unicode(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."


_READERS = {
    ".tsv": _read_delimited,
    ".csv": _read_delimited,
    ".jsonl": _read_jsonl,
    ".parquet": _read_parquet,
}
