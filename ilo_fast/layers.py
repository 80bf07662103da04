"""Which entries of ``hidden_states`` to take: numbers and Python slices, as text or objects."""

import re
from collections import Counter
from collections.abc import Sequence
from operator import index
from typing import Any, Protocol, TypeVar

from ilo_fast.errors import InputError

__all__ = ["LayerSpec", "parse_layers", "resolve_layers"]


class _Array(Protocol):
    """Integers in an array of any library."""

    def tolist(self) -> Any: ...


LayerSpec = str | int | slice | Sequence[int | slice] | _Array | None

Part = TypeVar("Part", int, int | slice)

_PART = re.compile(r"(?P<number>-?\d+)|(?P<start>-?\d+)?:(?P<stop>-?\d+)?(?::(?P<step>-?\d+)?)?")


def parse_layers(layers: LayerSpec) -> tuple[int | slice, ...] | None:
    """Check the form of a choice of layers, before any model is there to count them.

    ``layers`` is None (all), a number, a slice, a sequence of those, an array of integers, or text
    such as ``"0,5,10:20"``: numbers and slices as Python reads them, separated by commas. The start
    of a slice is included, its stop is not, and negative numbers count from the end (-1 is the
    last entry, after the final norm). A number that is there twice is an error here already.

    >>> from ilo_fast.layers import parse_layers
    >>> parse_layers("0,5,10:20")
    (0, 5, slice(10, 20, None))
    """
    if layers is None:
        return None
    if isinstance(layers, str):
        return _once(tuple(_parse_part(part, layers) for part in layers.split(",")))
    if hasattr(layers, "tolist"):  # an array, known by that: importing torch here would be slow
        layers = layers.tolist()
    if isinstance(layers, Sequence):
        parts = tuple(_part(part) for part in layers)
        if not parts:
            raise InputError("layers must name at least one layer, got none")
        return _once(parts)
    return (_part(layers),)


def resolve_layers(layers: LayerSpec, entries: int) -> tuple[int, ...]:
    """The entries of ``hidden_states`` chosen, in the order given.

    ``entries`` is how many the model has: its number of layers + 1. Raises InputError for a number
    outside -entries … entries - 1, a layer named twice, and a slice that selects nothing.

    >>> from ilo_fast.layers import resolve_layers
    >>> resolve_layers("0,-1,10:20:4", 31)
    (0, 30, 10, 14, 18)
    """
    parts = parse_layers(layers)
    if parts is None:
        return tuple(range(entries))
    chosen: list[int] = []
    for part in parts:
        if isinstance(part, slice):
            selected = range(entries)[part]
            if not selected:
                raise InputError(
                    f"layers {_show(part)} selects none of the model's layers 0 … {entries - 1}"
                )
            chosen += selected
        else:
            if not -entries <= part < entries:
                raise InputError(f"layer {part} is not one of the model's layers 0 … {entries - 1}")
            chosen.append(part % entries)
    return _once(tuple(chosen))


def _once(parts: tuple[Part, ...]) -> tuple[Part, ...]:
    numbers = Counter(part for part in parts if not isinstance(part, slice))
    twice = [layer for layer, count in numbers.items() if count > 1]
    if twice:
        raise InputError(f"layers must name each layer once, got {twice[0]} more often")
    return parts


def _part(value: object) -> int | slice:
    try:
        if isinstance(value, slice):
            _ = range(0)[value]
            return value
        if isinstance(value, bool):
            raise TypeError  # a mask names no layers
        return index(value)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(
            f"layers must be numbers, slices or text such as '0,5,10:20', got {value!r}"
        ) from None
    except ValueError:
        raise InputError(f"layers: the step of a slice must not be 0, got {value!r}") from None


def _parse_part(part: str, whole: str) -> int | slice:
    match = _PART.fullmatch(part.strip())
    if match is None:
        raise InputError(
            f"layers must be numbers and slices such as '0,5,10:20', got {part!r} in {whole!r}"
        )
    if match["number"] is not None:
        return int(match["number"])
    start, stop, step = (
        None if text is None else int(text) for text in match.group("start", "stop", "step")
    )
    if step == 0:
        raise InputError(f"layers: the step of a slice must not be 0, got {part!r} in {whole!r}")
    return slice(start, stop, step)


def _show(part: slice) -> str:
    ends = f"{'' if part.start is None else part.start}:{'' if part.stop is None else part.stop}"
    return ends if part.step is None else f"{ends}:{part.step}"
