"""Open GGUF files quickly.

transformers opens a GGUF file three times (configuration, weights, tokenizer), and each time the
``gguf`` reader makes two NumPy views for every vocabulary entry: together most of a minute for a
vocabulary of 262,144 tokens. It also makes the table of tensor names, always the same, once for
every module of the model: 395 times for 30 layers. Within :func:`fast_gguf` the arrays of the
header are cut in one pass, a file is opened once and the table made once; what transformers reads
from it is the same.
"""

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from ilo_fast.errors import ModelError

__all__ = ["fast_gguf"]

_STRING, _ARRAY = 8, 9  # numbers of GGUFValueType in the file format


def _fast_reader_class(base: Any) -> Any:
    class FastReader(base):  # type: ignore[misc]
        def _get_field_parts(self, orig_offs: int, raw_type: int) -> Any:
            if int(raw_type) != _ARRAY or self.byte_order != "I":
                return super()._get_field_parts(orig_offs, raw_type)
            kind, count = struct.unpack_from("<IQ", self.data, orig_offs)
            value_type = type(self).value_type
            scalar = self.gguf_scalar_to_np.get(value_type(kind))
            if kind != _STRING and scalar is None:
                return super()._get_field_parts(orig_offs, raw_type)
            start = orig_offs + 12
            parts: list[Any]
            if scalar is None:
                view, end, parts = memoryview(self.data), start, []
                for _ in range(count):
                    (length,) = struct.unpack_from("<Q", view, end)
                    parts.append(bytes(view[end + 8 : end + 8 + length]))
                    end += 8 + length
            else:
                dtype = np.dtype(scalar)
                end = start + dtype.itemsize * count
                parts = list(np.asarray(self.data[start:end]).view(dtype).reshape(-1, 1))
            types = [value_type(_ARRAY), value_type(kind)] if count else [value_type(_ARRAY)]
            return end - orig_offs, parts, list(range(len(parts))), types

    return FastReader


@contextmanager
def fast_gguf(path: Path) -> Iterator[str | None]:
    """Within it, ``gguf.GGUFReader(path)`` answers from one fast read of ``path``.

    Yields the licence the file names in its header, or None.

    Raises:
        ModelError: when the ``gguf`` extra is not installed or the file is not a GGUF file.
    """
    try:
        # transformers needs accelerate to fill the weights in
        import_module("accelerate")
        gguf: Any = import_module("gguf")
    except ImportError as error:
        raise ModelError(
            f"model: {path.name} needs the gguf extra: pip install 'ilo-fast[gguf]' ({error})"
        ) from error
    plain = gguf.GGUFReader
    fast = _fast_reader_class(plain)
    fast.value_type = gguf.GGUFValueType
    try:
        reader = fast(path)
    except (ValueError, IndexError, KeyError, struct.error) as error:
        raise ModelError(
            f"model: {path} is not a readable GGUF file, or not all of one: {error}"
        ) from error

    def open_once(other: Any, mode: str = "r") -> Any:
        same = mode == "r" and Path(other).resolve() == path.resolve()
        return reader if same else plain(other, mode)

    field = reader.fields.get("general.license")
    # its loader draws a progress bar of its own that no setting turns off
    loader: Any = import_module("transformers.modeling_gguf_pytorch_utils")
    bar = getattr(loader, "tqdm", None)
    table = gguf.get_tensor_name_map
    gguf.GGUFReader, gguf.get_tensor_name_map = open_once, cache(table)
    if bar is not None:
        loader.tqdm = lambda items, **_: items
    try:
        yield bytes(field.parts[field.data[0]]).decode() if field is not None else None
    finally:
        gguf.GGUFReader, gguf.get_tensor_name_map = plain, table
        if bar is not None:
            loader.tqdm = bar
