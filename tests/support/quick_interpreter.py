"""Triton's interpreter without its repeated preparations, which take two fifths of its time.

It replaces the language's functions by NumPy's at each launch, and once more at each call of a
device function within one, of which a kernel makes thousands.
"""

from types import SimpleNamespace
from typing import Any


def prepare_once_a_launch() -> None:
    """From now on in this process."""
    import triton.language as tl
    from triton.runtime import interpreter

    prepare = interpreter._patch_lang
    everything = SimpleNamespace(__globals__={"tl": tl, "core": tl.core})

    def once(function: Any) -> Any:
        if tl.core.is_builtin(tl.load):
            return prepare(everything)
        return interpreter._LangPatchScope()  # the launch around this call has done it

    interpreter._patch_lang = once
