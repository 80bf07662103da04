"""The folder of results: Parquet files, each written whole, each naming what it depends on.

``<table>/<model>/<corpus>/<slot>.parquet``: one file a table and cell. A slot's file is replaced
in one step, so a cell is never there twice and never half; ``scores`` is written last and makes
the rest count.
"""

import contextlib
import json
import os
import shutil
import socket
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ilo_fast.environment import require_space
from ilo_fast.errors import InputError
from ilo_fast.files import check_endless, expanded, parse_json, read_json
from ilo_fast.scans.failures import Failure
from ilo_fast.scans.jobs import SCHEMA_VERSION, Cell, Job
from ilo_fast.scans.locks import locked, try_lock
from ilo_fast.scans.names import safe_name
from ilo_fast.scans.tables import CELL_KEY, SCHEMAS, failure_table, to_bytes
from ilo_fast.tables import RECORD_KEY

__all__ = ["Dataset", "read_cell", "read_rows", "reading"]

_MARKER = "ilo-fast-scan.json"
_WORK, _LOCKS = ".work", ".locks"
_LEAST_SPACE = 1 << 20


class Dataset:
    """A results folder; a ``with`` block makes it and gives it a workspace, for writing.

    Opening one removes what scans that died left behind.
    """

    def __init__(self, folder: str | Path, *, create: bool = False) -> None:
        self.folder = expanded(folder).absolute()
        self._workspace: Path | None = None
        self._held: Any = None
        self._check(create)

    # ------------------------------------------------------------------ reading

    def files(self, table: str) -> list[Path]:
        """The files of a table, in a fixed order."""
        return sorted((self.folder / table).glob("*/*/*.parquet"))

    def path(self, table: str, job: Job, slot: str) -> Path:
        """Where a file of a table stands: of a cell, or of a job that failed."""
        return (
            self.folder / table / safe_name(job.model) / safe_name(job.corpus) / f"{slot}.parquet"
        )

    def stored(self, job: Job, cell: Cell) -> dict[str, Any] | None:
        """Key and key parts of a cell's result, or None when there is none that can be read."""
        found = _told(self.path("scores", job, cell.slot))
        if found is not None and found["key"] == cell.key:
            beside = ["layers", "pairs", *["neighbors"] * job.options["keep_neighbors"]]
            told = [_told(self.path(table, job, cell.slot)) for table in beside]
            if any(one is None or one["key"] != cell.key for one in told):
                return None
        return found

    def failure_key(self, job: Job) -> str | None:
        """The key a job failed with, or None when it did not."""
        found = _told(self.path("failures", job, job.slot))
        return None if found is None else str(found["key"])

    # ------------------------------------------------------------------ writing

    def __enter__(self) -> Self:
        work = self.folder / _WORK
        self._remove_abandoned(work)
        name = safe_name(f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}")
        # The lock comes first and goes last: a folder without one is of a scan that died.
        self._held = try_lock(work / f"{name}.lock")
        self._workspace = work / name
        self._workspace.mkdir()
        if not (self.folder / _MARKER).exists():
            text = json.dumps({"format": "ilo_fast scan", "schema": SCHEMA_VERSION})
            self._put(self.folder / _MARKER, text.encode())
        return self

    def __exit__(self, *error: object) -> None:
        assert self._workspace is not None
        shutil.rmtree(self._workspace, ignore_errors=True)
        self._workspace.with_name(f"{self._workspace.name}.lock").unlink(missing_ok=True)
        self._held.close()
        self._workspace = None
        for name in (_WORK, _LOCKS):
            with contextlib.suppress(OSError):  # another scan is at work there
                (self.folder / name).rmdir()

    def _remove_abandoned(self, work: Path) -> None:
        """Remove the workspaces and locks of scans that died."""
        for lock in [*work.glob("*.lock"), *(self.folder / _LOCKS).glob("*.lock")]:
            with locked(lock) as mine:
                if mine and lock.parent == work:
                    shutil.rmtree(lock.with_suffix(""), ignore_errors=True)

    @contextlib.contextmanager
    def claim(self, job: Job) -> Iterator[bool]:
        """Whether this scan may do the job now: no other scan is at it."""
        with locked(self.folder / _LOCKS / f"{job.id}.lock") as mine:
            yield mine

    def write(self, job: Job, cell: Cell, tables: Mapping[str, bytes]) -> None:
        """Store a cell's tables, ``scores`` last; one that it no longer has goes away."""
        for table in sorted(tables, key=lambda name: name == "scores"):
            self._put(self.path(table, job, cell.slot), tables[table])
        for table in SCHEMAS.keys() - tables.keys() - {"failures"}:
            self.path(table, job, cell.slot).unlink(missing_ok=True)

    def forget_failure(self, job: Job) -> None:
        """The job went well: what was said of an earlier failure no longer holds."""
        self.path("failures", job, job.slot).unlink(missing_ok=True)

    def write_failure(self, job: Job, failure: Failure, seconds: float) -> None:
        """Store one row that says why a job's cells are not there."""
        rows = failure_table(job, failure, seconds)
        self._put(self.path("failures", job, job.slot), to_bytes("failures", rows, job, {}))

    def _put(self, path: Path, content: bytes) -> None:
        assert self._workspace is not None, "a Dataset writes inside its with block"
        require_space(self.folder, len(content) + _LEAST_SPACE)
        temporary = self._workspace / f"{uuid.uuid4().hex}.part"
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        path.parent.mkdir(parents=True, exist_ok=True)
        os.replace(temporary, path)

    # ------------------------------------------------------------------ the folder itself

    def _check(self, create: bool) -> None:
        marker = self.folder / _MARKER
        if not marker.exists():
            if not create:
                raise InputError(f"{str(self.folder)!r} holds no results of a scan")
            found = self.folder.iterdir() if self.folder.exists() else ()
            there = {path.name for path in found} - {_WORK, _LOCKS, _MARKER}
            if there and not marker.exists():
                raise InputError(
                    f"{str(self.folder)!r} holds other files ({', '.join(sorted(there)[:3])}); "
                    "results go into a new or empty folder, or one of an earlier scan"
                )
            return
        try:
            schema = read_json(marker)["schema"]
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{str(marker)!r} is not what a scan wrote there") from error
        if schema != SCHEMA_VERSION:
            raise InputError(
                f"{str(self.folder)!r} has schema {schema}, this version of ilo_fast writes and "
                f"reads {SCHEMA_VERSION}: use a new folder"
            )


def _told(path: Path) -> dict[str, Any] | None:
    """What a file says of the cell or job it is of; None where it is damaged or gone."""
    try:
        check_endless(path)
        return _cell_of(pq.read_schema(path).metadata or {})
    except (FileNotFoundError, pa.ArrowException, ValueError):
        return None
    except OSError as error:
        if error.errno is not None:  # the system's own; Arrow's of a damaged file have none
            raise
        return None


def _cell_of(metadata: Mapping[bytes, bytes]) -> dict[str, Any]:
    """Slot, key and key parts in a file's metadata; ValueError where they are not there."""
    cell = parse_json(metadata.get(CELL_KEY, b"null"))
    kinds = {"slot": str, "key": str, "parts": dict}
    if not isinstance(cell, dict) or not all(
        isinstance(cell.get(name), kind) for name, kind in kinds.items()
    ):
        raise ValueError("it does not say which result it is of")
    return cell


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Name the file of a folder that turns out to be damaged."""
    try:
        yield
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InputError(
            f"{str(path)!r} cannot be read: {error}; where it is damaged, delete it and run the "
            "scan again"
        ) from error


def read_cell(path: Path, table: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a file of a table says beside its rows: slot, key and key parts, and the run record.

    Raises:
        InputError: naming the file, where it is damaged.
    """
    with reading(path):
        check_endless(path)
        schema = pq.read_schema(path)
        if not schema.equals(SCHEMAS[table]):
            raise ValueError(f"its columns are not those of {table}")
        metadata = schema.metadata or {}
        record = parse_json(metadata.get(RECORD_KEY, b"null"))
        if not isinstance(record, dict):
            raise ValueError("its run record is none")
        json.dumps(record, ensure_ascii=False).encode()  # pages and queries hold UTF-8
        return _cell_of(metadata), record


def read_rows(path: Path, table: str, **options: Any) -> pd.DataFrame:
    """Rows of a file of a table; InputError, naming the file, where it is damaged."""
    read_cell(path, table)
    with reading(path):
        rows = pq.read_table(path, page_checksum_verification=True, **options)
        rows.validate(full=True)
        found: pd.DataFrame = rows.to_pandas()
    return found
