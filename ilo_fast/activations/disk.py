"""States in a folder: written batch by batch, taken up again after a kill, never mixed up.

The folder holds

- ``store.json``: what the states are of (the key), shape and token budget. Written before
  any batch.
- ``states.partial``: a safetensors file at its full size, filled as batches end. It becomes
  ``states.safetensors`` when the last one is there.
- ``journal.jsonl``: one line a finished batch, ``{"start", "stop", "points", "crc32"}``: its places
  in processing order, the points there and the checksum of their float32 block under the key. A
  line is written after the data.
- ``record.json``: how the states were made. Written when the last batch is in.

One run at a time writes there: it holds a lock of the operating system on the folder, gone with
its process; one that finds nothing to do takes none. A folder is taken up again only under the same
key. Batches without a journal line, or whose data does not have the checksum, are done again;
`open_store`, which cannot make any, names them.
"""

import errno
import json
import math
import os
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ilo_fast.activations.journal import (
    JOURNAL,
    Batch,
    beginning,
    finished,
    gaps,
    read_journal,
)
from ilo_fast.activations.lock import lock_folder
from ilo_fast.activations.manifest import check_key, damaged, describes, read_json
from ilo_fast.activations.space import human
from ilo_fast.activations.store import ActivationStore
from ilo_fast.environment import free_disk
from ilo_fast.errors import InputError
from ilo_fast.files import expanded, write_text

__all__ = ["DiskSink", "is_finished", "open_store"]

_FORMAT = 4
_STORE, _RECORD = "store.json", "record.json"
_PARTIAL, _WHOLE = "states.partial", "states.safetensors"
_OURS = (_STORE, JOURNAL, _PARTIAL, "lost+found")  # what may lie there before the first batch


def _safetensors_header(layers: tuple[int, ...], points: int, dim: int) -> bytes:
    """The head of a safetensors file with one F32 ``[points, dim]`` tensor a layer, in order."""
    size = points * dim * 4
    entries = {
        f"layer.{layer}": {
            "dtype": "F32",
            "shape": [points, dim],
            "data_offsets": [row * size, (row + 1) * size],
        }
        for row, layer in enumerate(layers)
    }
    text = json.dumps(entries).encode()
    text += b" " * (-(len(text) + 8) % 64)  # data on a 64-byte boundary
    return len(text).to_bytes(8, "little") + text


def _file_size(header: bytes, shape: tuple[int, int, int]) -> int:
    return len(header) + 4 * math.prod(shape)


def _map(path: Path, shape: tuple[int, int, int], header: bytes, mode: Any) -> Any:
    need = _file_size(header, shape)
    size = path.stat().st_size if path.is_file() else 0
    if size != need:
        raise damaged(path.parent, path.name, f"it has {size} bytes, its states take {need}")
    with path.open("rb") as file:
        if file.read(len(header)) != header:
            raise damaged(path.parent, path.name, f"its head is not that of {_STORE}")
    return np.memmap(path, dtype="<f4", mode=mode, offset=len(header), shape=shape)


def _allocate(descriptor: int, size: int) -> None:
    """Give a file real blocks: a disk that fills up later would kill a mapped write outright."""
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(descriptor, 0, size)
            return
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
                raise
    os.ftruncate(descriptor, size)  # a file system that cannot allocate ahead


class DiskSink:
    """Write states into a folder, or go on where an earlier run stopped.

    ``key`` holds whatever decides the states; ``budget`` is the token budget to cut batches by,
    which a folder begun earlier overrides (``self.budget``): batches must be cut alike to give the
    same bits.

    Raises:
        InputError: when the folder holds states under another key, or damaged files, or another run
            is writing there, or the disk has no room for them.
    """

    def __init__(
        self,
        folder: Path,
        key: dict[str, Any],
        layers: tuple[int, ...],
        points: int,
        dim: int,
        budget: int,
    ) -> None:
        self.folder, self.shape = folder, (len(layers), points, dim)
        self._header = _safetensors_header(layers, points, dim)
        self._done: list[tuple[int, int]] = []
        wanted = {"format": _FORMAT, "shape": list(self.shape), "layers": list(layers), **key}
        wanted = json.loads(json.dumps(wanted))
        self._begins_at = beginning(wanted)
        self._journal: TextIO | None = None
        self._lock: int | None = None
        if not is_finished(folder):
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except (FileExistsError, NotADirectoryError) as error:
                raise InputError(f"folder: {error.filename} is no folder") from error
            self._lock = lock_folder(folder)
        try:
            self._open_up(wanted, budget)
        except BaseException:
            self.close()
            raise

    def _open_up(self, wanted: dict[str, Any], budget: int) -> None:
        folder, whole = self.folder, self.folder / _WHOLE
        if (folder / _STORE).is_file():
            self.budget = self._take_up(wanted)
        else:
            self._begin(wanted, budget)
            self.budget = budget
        self.complete = whole.is_file()
        self._path = whole if self.complete else folder / _PARTIAL
        # a finished folder may lie where nothing can be written; batches found damaged need that
        self._writable = not self.complete
        self._states = self._open("r+" if self._writable else "r")
        self._batches, self._cut_short = read_journal(folder, self.shape[1])

    def _open(self, mode: str) -> Any:
        return _map(self._path, self.shape, self._header, mode)

    def _begin(self, wanted: dict[str, Any], budget: int) -> None:
        others = sorted(path.name for path in self.folder.iterdir())
        # A run that ended before it wrote store.json has recorded no batch: nothing is lost.
        journal = self.folder / JOURNAL
        if _WHOLE in others or (JOURNAL in others and journal.stat().st_size):
            raise InputError(
                f"folder: {self.folder} holds states without their {_STORE}; give another folder "
                "or delete it"
            )
        foreign = [name for name in others if not name.startswith((".", *_OURS))]
        if foreign:
            raise InputError(
                f"folder: states want a folder of their own, {self.folder} holds {foreign[0]!r}"
                + (f" and {len(foreign) - 1} more" if foreign[1:] else "")
            )
        need = _file_size(self._header, self.shape)
        free = free_disk(self.folder)
        if need > free:
            raise InputError(
                f"folder: the states take {human(need)} ({need} bytes), "
                f"{human(free)} are free in {self.folder}"
            )
        partial = self.folder / _PARTIAL
        try:
            with partial.open("wb") as file:
                file.write(self._header)
                file.flush()
                _allocate(file.fileno(), need)
        except BaseException:
            partial.unlink(missing_ok=True)  # a disk that filled up meanwhile gets its room back
            raise
        journal.write_text("")
        write_text(self.folder / _STORE, json.dumps({"key": wanted, "budget": budget}, indent=1))

    def _of_some_layers(
        self, held: dict[str, Any], wanted: dict[str, Any], different: list[str]
    ) -> str:
        """What to do where a finished folder has the layers asked for among others."""
        layers = held.get("layers")
        if different != ["layers", "shape"] or not is_finished(self.folder):
            return ""
        if not isinstance(layers, list) or not all(layer in layers for layer in wanted["layers"]):
            return ""
        return (
            ". It has these layers among others: `ilo-fast score --states` without MODEL, in "
            "Python ilo_fast.score_states, scores some of those kept"
        )

    def _take_up(self, wanted: dict[str, Any]) -> int:
        stored = read_json(self.folder, _STORE, "key", "budget")
        different = sorted(
            name
            for name in {*stored["key"], *wanted}
            if stored["key"].get(name) != wanted.get(name)
        )
        if different:
            raise InputError(
                f"folder: {self.folder} holds states of another run, they differ in "
                f"{', '.join(different)}; give another folder or delete this one"
                + self._of_some_layers(stored["key"], wanted, different)
            )
        if type(stored["budget"]) is not int or stored["budget"] < 1:
            raise damaged(self.folder, _STORE, "its budget must be a whole number above 0")
        return stored["budget"]

    def check(self, order: npt.NDArray[np.int64], first: int) -> None:
        """Verify the finished batches among places ``first …`` whose points are ``order``.

        `missing` then answers for these places.
        """
        self._done = finished(self._batches, self._states, self._begins_at, order, first)

    def whole_record(self) -> dict[str, Any] | None:
        """How the states of a `complete` folder were made, where all have their checksums."""
        record = self.earlier_record()
        if record is None or _damaged(self._batches, self._states, self._begins_at):
            return None
        return record

    def write(self, start: int, rows: npt.NDArray[np.int64], block: Tensor) -> None:
        if not self._writable:
            self._lock = lock_folder(self.folder)
            self._states, self._writable = self._open("r+"), True
        if self._journal is None:
            self._journal = (self.folder / JOURNAL).open("a", encoding="utf-8")
            self._journal.write("\n" * self._cut_short)
        data = np.ascontiguousarray(block.numpy())
        self._states[:, rows] = data
        self._journal.write(Batch.of(start, rows, data, self._begins_at).line())
        self._journal.flush()

    def missing(self, start: int, stop: int) -> list[tuple[int, int]]:
        return gaps(self._done, start, stop)

    def earlier_record(self) -> dict[str, Any] | None:
        """How the states were made, where an earlier run finished them."""
        return read_json(self.folder, _RECORD) if (self.folder / _RECORD).is_file() else None

    def finish(self, record: dict[str, Any]) -> Tensor:
        try:
            if self._writable:
                self._states.flush()
            if self._journal is not None:
                self._journal.close()
            if self._journal is not None or not (self.folder / _RECORD).is_file():
                write_text(self.folder / _RECORD, json.dumps(record, indent=1, default=str))
            if not self.complete:
                os.replace(self._path, self.folder / _WHOLE)
            return _read_states(self.folder, self.shape, self._header)
        finally:
            self.close()

    def close(self) -> None:
        """Let go of the folder, which another run may then take up."""
        if self._journal is not None:
            self._journal.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _read_states(folder: Path, shape: tuple[int, int, int], header: bytes) -> Tensor:
    # copy-on-write: a tensor needs a writable view, the file must not change under it
    return torch.from_numpy(_map(folder / _WHOLE, shape, header, "c"))


def is_finished(folder: Path) -> bool:
    """Whether a folder's states were all written once."""
    return (folder / _WHOLE).is_file()


def open_store(folder: str | Path) -> ActivationStore:
    """Open a finished folder of states, as `extract` or ``ilo-fast score --states`` left it.

    Every state is read once to compare its checksum: opening takes about as long as reading the
    file.

    Raises:
        InputError: when the folder holds no finished states, damaged ones, or those of another
            version.
        TypeError: what is no path.
    """
    if not isinstance(folder, str | os.PathLike):
        raise TypeError(f"folder must be a path, got {type(folder).__name__}")
    folder = expanded(folder)
    if not is_finished(folder) or not (folder / _STORE).is_file():
        if not folder.is_dir():
            what = f"{folder} is no folder" if folder.exists() else f"there is no folder {folder}"
            raise InputError(f"states: {what}")
        unfinished = (folder / _PARTIAL).is_file() and (folder / _STORE).is_file()
        how = "; the command that began them goes on there" if unfinished else ""
        raise InputError(f"states: {folder} holds no finished states ({_WHOLE}){how}")
    key = read_json(folder, _STORE, "key", "budget")["key"]
    if key.get("format") != _FORMAT:
        raise InputError(
            f"states: {folder} holds states of format {key.get('format')}, this version reads "
            f"format {_FORMAT}; make them again in another folder"
        )
    check_key(folder, _STORE, key)
    record = read_json(folder, _RECORD)
    if not describes(record.get("about", {})):
        raise damaged(folder, _RECORD, f"its about cannot be {record['about']!r:.80}")
    _, points, dim = shape = tuple(key["shape"])
    layers, languages = tuple(key["layers"]), tuple(key["languages"])
    sentences = points // len(languages)
    states = _read_states(folder, shape, _safetensors_header(layers, points, dim))
    _check_states(folder, states, beginning(key))
    return ActivationStore(
        states=states,
        layers=layers,
        languages=languages,
        language_ids=np.repeat(np.arange(len(languages), dtype=np.int64), sentences),
        sentence_ids=np.tile(np.arange(sentences, dtype=np.int64), len(languages)),
        record={
            "weights_sha256": key["model"],
            "corpus_sha256": key["corpus"],
            **record,
            "states": "read",
        },
        folder=folder,
    )


def _damaged(batches: list[Batch], states: Any, begin: int) -> list[tuple[int, int]]:
    """Places whose states ``[layers, points, dim]`` are under no checksum of a batch."""
    points = states.shape[1]
    done = [batch for batch in batches if batch.holds(states, begin)]
    # By points: a line damaged into other places must not hide the lines that hold those.
    if len({int(point) for batch in done for point in batch.points}) == points:
        return []
    # or some point is there twice, another not at all
    return gaps(sorted((batch.start, batch.stop) for batch in done), 0, points) or [(0, points)]


def _check_states(folder: Path, states: Tensor, begin: int) -> None:
    """That every state is under the checksum of its batch."""
    batches, _ = read_journal(folder, states.shape[1])
    bad = _damaged(batches, states.numpy(), begin)
    if bad:
        places = ", ".join(f"{start} to {stop - 1}" for start, stop in bad[:3])
        more = f" and {len(bad) - 3} more" if bad[3:] else ""
        raise InputError(
            f"states: {_WHOLE} in {folder} is damaged: the states at places {places}{more} do not "
            f"have their checksum in {JOURNAL}; the command that made them (`ilo-fast score "
            "--states`, or `extract`) makes these batches again"
        )
