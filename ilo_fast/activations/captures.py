"""Forward hooks that transformers leaves on a model whose hidden states it was asked for.

The first pass with ``output_hidden_states`` (version 5) puts hooks on the layers for good and
marks the model, so that later passes find them. Taken off together with the mark, they come again
when someone asks for them.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

__all__ = ["no_new_captures"]

_MARK = "_output_capturing_hooks_installed"
_HOME = "transformers.utils.output_capturing"


@contextmanager
def no_new_captures(model: nn.Module) -> Iterator[None]:
    """Take off the capturing hooks that came within the block; those from before it stay."""
    marked = {module for module in model.modules() if _MARK in vars(module)}
    hooks = {module: set(module._forward_hooks) for module in model.modules()}
    try:
        yield
    finally:
        # without a new mark to take off with them, hooks would be missed later
        if any(_MARK in vars(module) and module not in marked for module in model.modules()):
            for module in model.modules():
                if module not in marked:
                    vars(module).pop(_MARK, None)
                for number, hook in list(module._forward_hooks.items()):
                    if number not in hooks[module] and hook.__module__ == _HOME:
                        del module._forward_hooks[number]
