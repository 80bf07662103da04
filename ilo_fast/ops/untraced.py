"""Searches inside code that torch compiles: they run as they are, between the compiled parts.

Compiled, the engine would take long to be traced, and its proofs would rest on what a compiler
makes of sums whose order and rounding they count on.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch

__all__ = ["untraced"]

_Arguments = ParamSpec("_Arguments")
_Answer = TypeVar("_Answer")


def untraced(function: Callable[_Arguments, _Answer]) -> Callable[_Arguments, _Answer]:
    """``function``, kept out of ``torch.compile``'s graphs; torch's compiler is not imported."""

    @wraps(function)
    def call(*args: _Arguments.args, **options: _Arguments.kwargs) -> _Answer:
        if torch.compiler.is_dynamo_compiling():
            compiler: Any = torch.compiler
            return compiler.disable(function)(*args, **options)  # type: ignore[no-any-return]
        return function(*args, **options)

    return call
