"""A model is left as it was: its modes, and the hooks of transformers' own.

The first pass with ``output_hidden_states`` (version 5) puts hooks on the layers for good and
marks the model, so that later passes find them. Taken off together with the mark, they come again
when someone asks for them.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import nn

__all__ = ["evaluating", "foreign_hooks", "no_new_captures", "users_hooks"]

# Outputs have names, and those that nobody reads are not kept from layer to layer.
_PLAIN = {"return_dict": True, "output_hidden_states": False, "_output_attentions": False}
_MARK = "_output_capturing_hooks_installed"
_HOME = "transformers.utils.output_capturing"
# Hooks of theirs do what the weights, the configuration and the adapters say; ours only look.
_KNOWN = {
    "accelerate",
    "ilo_fast",
    "peft",
    "torch",
    "transformers",
    "transformers_modules",
}


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
    return any(getattr(hook, "__module__", None) != _HOME for hook in _hooks(module))


def users_hooks(module: nn.Module) -> list[str]:
    """Each part of a model that has forward hooks of nobody's library, with the hook's name."""
    found = []
    for name, part in module.named_modules():
        for hook in _hooks(part):
            function = hook.func if isinstance(hook, partial) else hook
            home = str(getattr(function, "__module__", None))
            if home.partition(".")[0] not in _KNOWN:
                called = getattr(function, "__qualname__", type(function).__name__)
                found.append(f"{called} on {name or type(part).__name__}")
    return found


def _hooks(module: nn.Module) -> list[Any]:
    return [*module._forward_pre_hooks.values(), *module._forward_hooks.values()]


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode, and outputs as `_PLAIN` says; each part's own settings come back."""
    modes = [(each, each.training) for each in module.modules()]  # parts may differ
    configs = {id(each.config): each.config for each in module.modules() if hasattr(each, "config")}
    # past the setters, which hold one against another
    settings: list[Any] = [vars(each) for each in configs.values()]
    before = [(each, {name: each[name] for name in _PLAIN if name in each}) for each in settings]
    module.eval()
    for each, own in before:
        each.update((name, _PLAIN[name]) for name in own)
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode
        for each, own in before:
            each.update(own)
