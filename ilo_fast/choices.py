"""An option that is one of a few names."""

from collections.abc import Collection
from typing import Any

from ilo_fast.errors import InputError

__all__ = ["check_choice"]


def check_choice(value: Any, name: str, choices: Collection[str]) -> None:
    """That the option ``name`` is one of ``choices``.

    Raises:
        InputError: when it is another text.
        TypeError: when it is no text.

    >>> check_choice("max", "how", ("mean", "max"))
    >>> check_choice("min", "how", ("mean", "max"))
    Traceback (most recent call last):
    ilo_fast.errors.InputError: how must be one of mean, max; got 'min'
    """
    expected = f"{name} must be one of {', '.join(choices)}"
    if not isinstance(value, str):
        raise TypeError(f"{expected}; got {type(value).__name__}")
    if value not in choices:
        raise InputError(f"{expected}; got {value!r}")
