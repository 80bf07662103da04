"""The checks of plain arguments: numbers, truth values, one of a few names."""

import math
import operator
from collections.abc import Collection
from numbers import Real
from typing import Any

import numpy as np

from ilo_fast.errors import InputError

__all__ = [
    "at_least_0",
    "at_least_1",
    "between_0_and_1",
    "check_choice",
    "check_seed",
    "not_negative",
    "real_number",
    "true_or_false",
    "whole_number",
]


def whole_number(value: Any, name: str) -> int:
    """An integer of any library as Python's; bool is none."""
    if isinstance(value, bool | np.bool_):
        raise TypeError(f"{name} must be an integer; got {_brief(value)}")
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer; got {_brief(value)}") from None


def at_least_0(value: Any, name: str) -> int:
    """`whole_number`, and InputError below 0."""
    number = whole_number(value, name)
    if number < 0:
        raise InputError(f"{name} must be at least 0; got {number}")
    return number


def at_least_1(value: Any, name: str) -> int:
    """`whole_number`, and InputError below 1 or beyond 64 bits."""
    number = whole_number(value, name)
    if number < 1:
        raise InputError(f"{name} must be at least 1; got {number}")
    if number >= 1 << 63:
        raise InputError(f"{name} must be below {1 << 63}; got {number}")
    return number


def check_seed(value: Any, below: int = 1 << 63) -> int:
    """`whole_number`, and InputError where a generator could not begin from it.

    torch's take 64 bits with a sign, NumPy's no negative ones.
    """
    number = whole_number(value, "seed")
    if not 0 <= number < below:
        raise InputError(f"seed must be at least 0 and below {below}; got {number}")
    return number


def real_number(value: Any, name: str) -> float:
    """A number of any library as Python's; neither bool nor NaN is one."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number; got {_brief(value)}")
    if math.isnan(value):
        raise InputError(f"{name} must be a number; got {_brief(value)}")
    return float(value)


def not_negative(value: Any, name: str) -> float:
    """`real_number`, and InputError below 0."""
    number = real_number(value, name)
    if number < 0:
        raise InputError(f"{name} must be at least 0; got {number}")
    return number


def between_0_and_1(value: Any, name: str) -> float:
    """`real_number`, and InputError outside 0 … 1 or at its ends."""
    number = real_number(value, name)
    if not 0 < number < 1:
        raise InputError(f"{name} must lie between 0 and 1, got {number}")
    return number


def true_or_false(value: Any, name: str) -> bool:
    """A truth value of Python or NumPy as Python's: "no" would count as true, 0 as false."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name} must be True or False; got {_brief(value)}")
    return bool(value)


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


def _brief(value: Any) -> str:
    """A value in one line: what was given in the wrong place may be an array of a million."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else f"{text[:60]}… ({type(value).__name__})"
