"""A model is left as it was: its modes, and the hooks of transformers' own.

The first pass with ``output_hidden_states`` (version 5) puts hooks on the layers for good and
marks the model, so that later passes find them. Taken off together with the mark, they come again
when someone asks for them.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

__all__ = ["evaluating", "foreign_hooks", "no_new_captures"]

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


def foreign_hooks(module: nn.Module) -> bool:
    """Whether a module has forward hooks that are not transformers' capturing ones."""
    hooks = (*module._forward_pre_hooks.values(), *module._forward_hooks.values())
    return any(getattr(hook, "__module__", None) != _HOME for hook in hooks)


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode; each part's own comes back."""
    modes = [(each, each.training) for each in module.modules()]  # parts may differ
    module.eval()
    try:
        yield
    finally:
        for each, mode in modes:
            each.training = mode
