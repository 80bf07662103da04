"""The layers of a model compiled by torch, for as long as a block runs.

The compiler fuses what lies between the matrix products: norms, rotary embedding, activations,
residual sums. Each layer's ``forward`` alone is compiled, so hooks around the layers run as ever
and layers of a kind share their graphs; sizes are symbols, so batches of other lengths do too.
torch keeps graphs by the code that they are of, and only so many: copies of the code are compiled,
so that those of a training in the same process stay as they are.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from types import FunctionType, MethodType
from typing import Any

import torch
from torch import nn

__all__ = ["COMPILED", "compiled_layers", "nothing_new"]

COMPILED = f"torch.compile {torch.__version__}"
"""What records call it."""

# torch stops compiling a function after 8 graphs; models of several sizes in one process share one.
_GRAPHS = 64


@contextmanager
def compiled_layers(layers: Iterable[nn.Module]) -> Iterator[str]:
    """``torch.compile`` on the forward of each layer while the block runs.

    Nothing is compiled before a layer first runs; what fails then is raised there.

    Yields:
        str: `COMPILED`, what is in place.
    """
    from torch._dynamo import config

    with ExitStack() as stack:
        stack.enter_context(config.patch(recompile_limit=_GRAPHS))
        for layer in layers:
            stack.callback(_restore, layer, vars(layer).get("forward"))
            layer.forward = torch.compile(_copy(layer.forward), dynamic=True)
        yield COMPILED


@contextmanager
def nothing_new() -> Iterator[None]:
    """Within it, compiled code that wants another graph raises RuntimeError."""
    try:
        with torch.compiler.set_stance("fail_on_recompile"):
            yield
    except RuntimeError as error:
        if "fail_on_recompile" not in str(error):
            raise
        raise RuntimeError("sentences of other lengths would be compiled anew") from error


def _copy(forward: Callable[..., Any]) -> Callable[..., Any]:
    """The same with code of its own, where it is a method and not a wrapper of one."""
    if not isinstance(forward, MethodType) or not isinstance(forward.__func__, FunctionType):
        return forward
    return MethodType(_copied(forward.__func__), forward.__self__)


@cache  # so that a later run finds its graphs
def _copied(function: FunctionType) -> FunctionType:
    code = function.__code__.replace()
    copy = FunctionType(
        code, function.__globals__, function.__name__, function.__defaults__, function.__closure__
    )
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy


def _restore(layer: nn.Module, forward: Any) -> None:
    """Give a layer back the forward of its own (quantisation and offloading put one there)."""
    if forward is None:
        del layer.forward
    else:
        layer.forward = forward
