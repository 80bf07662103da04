"""The journal of a folder of states: which points each finished batch holds, and its checksum.

Places are those in processing order, which the tokenizer decides; the journal names the points
behind them, so that states can be checked without a tokenizer. Checksums begin at a number of the
folder's key: a journal proves nothing in a folder of another key, even with its own states.
"""

import json
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ilo_fast.files import check_endless

__all__ = ["JOURNAL", "Batch", "beginning", "finished", "gaps", "read_journal"]

JOURNAL = "journal.jsonl"


def beginning(key: Mapping[str, Any]) -> int:
    """What the checksums of a folder of this key begin at."""
    return zlib.crc32(json.dumps(key, sort_keys=True).encode())


@dataclass(frozen=True)
class Batch:
    """A line: places ``start … stop`` in processing order, their points, and the CRC-32 of their
    float32 block ``[layers, points, dim]``, from the folder's `beginning` on."""

    start: int
    stop: int
    points: tuple[int, ...]
    crc32: int

    @classmethod
    def of(cls, start: int, rows: npt.NDArray[np.int64], block: np.ndarray, begin: int) -> "Batch":
        return cls(start, start + len(rows), tuple(rows.tolist()), zlib.crc32(block.data, begin))

    def holds(self, states: Any, begin: int) -> bool:
        """Whether its points' states, of ``[layers, points, dim]``, have its checksum."""
        block = np.ascontiguousarray(states[:, np.array(self.points, dtype=np.int64)])
        return zlib.crc32(block.data, begin) == self.crc32

    def line(self) -> str:
        return json.dumps(asdict(self)) + "\n"

    @classmethod
    def read(cls, line: str) -> "Batch | None":
        """A line's batch; None where the line is damaged."""
        try:
            given = json.loads(line)
        except (ValueError, RecursionError):
            return None
        if not isinstance(given, dict) or given.keys() != {"start", "stop", "points", "crc32"}:
            return None
        start, stop, points, crc32 = (given[name] for name in ("start", "stop", "points", "crc32"))
        if not isinstance(points, list):
            return None
        if any(type(number) is not int for number in (start, stop, crc32, *points)):
            return None
        return cls(start, stop, tuple(points), crc32)


def read_journal(folder: Path, n_points: int) -> tuple[list[Batch], bool]:
    """The finished batches of a folder, and whether the last line is half-written.

    A damaged line counts as missing, a missing journal as empty.
    """
    path = folder / JOURNAL
    check_endless(path)
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    batches: dict[tuple[int, int], Batch] = {}  # the last line of the same places counts
    for line in text.split("\n")[:-1]:
        batch = Batch.read(line)
        if batch is None or not len(batch.points) == batch.stop - batch.start > 0:
            continue
        numbers = (batch.start, batch.stop - 1, *batch.points)
        if min(numbers) >= 0 and max(numbers) < n_points:
            batches[batch.start, batch.stop] = batch
    return list(batches.values()), bool(text) and not text.endswith("\n")


def finished(
    batches: list[Batch], states: Any, begin: int, order: npt.NDArray[np.int64], first: int
) -> list[tuple[int, int]]:
    """The batches among places ``first …``, whose points are ``order``, that hold their checksum.

    Reads those of ``states`` ``[layers, points, dim]`` once. Ascending.
    """
    done = []
    for batch in batches:
        if first <= batch.start and batch.stop <= first + len(order):
            rows = order[batch.start - first : batch.stop - first]
            # A line of other points is damaged, of no use to a reader that has nothing else.
            if tuple(rows.tolist()) == batch.points and batch.holds(states, begin):
                done.append((batch.start, batch.stop))
    return sorted(done)


def gaps(done: list[tuple[int, int]], start: int, stop: int) -> list[tuple[int, int]]:
    """The parts of places ``start … stop`` that no finished batch holds.

    >>> gaps([(0, 2), (5, 6)], 1, 8)
    [(2, 5), (6, 8)]
    """
    parts, place = [], start
    for done_start, done_stop in done:
        if done_stop <= place or done_start >= stop:
            continue
        if done_start > place:
            parts.append((place, done_start))
        place = done_stop
    if place < stop:
        parts.append((place, stop))
    return parts
