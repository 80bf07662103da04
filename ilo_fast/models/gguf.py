"""Open GGUF files quickly.

transformers opens a GGUF file three times (configuration, weights, tokenizer), and each time the
``gguf`` reader makes two NumPy views for every vocabulary entry and transformers one Python object
of each: together most of a minute for a vocabulary of 262,144 tokens. It also makes the table of
tensor names, always the same, once for every module of the model: 395 times for 30 layers. Within
:func:`fast_gguf` the arrays of the header become lists in one pass, a file is opened once and the
table made once; what transformers reads from it is the same.
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
    """A reader whose arrays are one part each, a list of Python values, where ``base``'s have one
    part a value. Arrays of one value stay as they are: transformers takes the value out of them."""

    class FastReader(base):  # type: ignore[misc]
        def _get_field_parts(self, orig_offs: int, raw_type: int) -> Any:
            if int(raw_type) != _ARRAY or self.byte_order != "I":
                return super()._get_field_parts(orig_offs, raw_type)
            kind, count = struct.unpack_from("<IQ", self.data, orig_offs)
            value_type = type(self).value_type
            scalar = self.gguf_scalar_to_np.get(value_type(kind))
            if count < 2 or (kind != _STRING and scalar is None):
                return super()._get_field_parts(orig_offs, raw_type)
            start = orig_offs + 12
            if scalar is None:
                view, end, values = memoryview(self.data), start, []
                for _ in range(count):
                    (length,) = struct.unpack_from("<Q", view, end)
                    values.append(str(view[end + 8 : end + 8 + length], "utf-8"))
                    end += 8 + length
            else:
                dtype = np.dtype(scalar)
                end = start + dtype.itemsize * count
                values = np.asarray(self.data[start:end]).view(dtype).tolist()
                if len(values) != count:
                    raise ValueError(f"an array of {count} values ends after {len(values)}")
            return end - orig_offs, [values], [0], [value_type(_ARRAY), value_type(kind)]

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
    # its loader draws a progress bar of its own that no setting turns off
    loader: Any = import_module("transformers.modeling_gguf_pytorch_utils")
    bar: Any = getattr(loader, "tqdm", None)
    parse: Any = getattr(loader, "_gguf_parse_value", None)
    plain = reader_class = gguf.GGUFReader
    if parse is not None:  # else a transformers that reads fields in a way unknown here
        reader_class = _fast_reader_class(plain)
        reader_class.value_type = gguf.GGUFValueType
    try:
        reader = reader_class(path)
    except (ValueError, IndexError, KeyError, struct.error) as error:
        raise ModelError(
            f"model: {path} is not a readable GGUF file, or not all of one: {error}"
        ) from error

    # dequantising cuts tensors into thousands of slices, each dear while it is a memory map's
    reader.tensors = [part._replace(data=np.asarray(part.data)) for part in reader.tensors]

    def open_once(other: Any, mode: str = "r") -> Any:
        same = mode == "r" and Path(other).resolve() == path.resolve()
        return reader if same else plain(other, mode)

    def parse_once(value: Any, types: Any) -> Any:
        return list(value) if isinstance(value, list) else parse(value, types)

    field = reader.fields.get("general.license")
    table = gguf.get_tensor_name_map
    gguf.GGUFReader, gguf.get_tensor_name_map = open_once, cache(table)
    if bar is not None:
        loader.tqdm = lambda items, **_: items
    if parse is not None:
        loader._gguf_parse_value = parse_once
    try:
        yield bytes(field.parts[field.data[0]]).decode() if field is not None else None
    finally:
        gguf.GGUFReader, gguf.get_tensor_name_map = plain, table
        if bar is not None:
            loader.tqdm = bar
        if parse is not None:
            loader._gguf_parse_value = parse
