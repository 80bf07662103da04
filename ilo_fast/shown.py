"""How results print: their arrays by dtype and shape, single numbers as they are; and counts."""

import dataclasses
from typing import Any

__all__ = ["Shown", "counted"]

_LONGEST = 60  # characters of one field


class Shown:
    """Gives a dataclass a ``repr`` of one line; arrays may be large, or on a card.

    >>> import dataclasses, numpy as np
    >>> @dataclasses.dataclass(frozen=True, eq=False, repr=False)
    ... class Found(Shown):
    ...     indices: np.ndarray
    ...     metric: str
    >>> Found(np.zeros((31, 997), dtype=np.int64), "cosine")
    Found(indices=int64 [31, 997], metric='cosine')
    """

    def __repr__(self) -> str:
        fields = dataclasses.fields(self)  # type: ignore[arg-type]  # of the subclass
        shown = (f"{field.name}={_short(getattr(self, field.name))}" for field in fields)
        return f"{type(self).__name__}({', '.join(shown)})"


def counted(count: int, noun: str) -> str:
    """A number and what it counts, for people.

    >>> counted(1, "job"), counted(1997, "sentence")
    ('1 job', '1,997 sentences')
    """
    return f"{count:,} {noun}{'s' * (count != 1)}"


def _short(value: Any) -> str:
    if type(value).__module__ == "numpy" and value.shape == ():  # none that is on a card
        return f"{value.item():.4g}" if value.dtype.kind == "f" else repr(value.item())
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"
    text = "" if hasattr(value, "named_modules") else repr(value)
    if 0 < len(text) <= _LONGEST:
        return text
    if isinstance(value, tuple | list | dict):
        return f"{type(value).__name__} of {len(value)}"
    return f"<{type(value).__name__}>"
