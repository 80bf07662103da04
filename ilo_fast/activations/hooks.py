"""Hooks on the layers of a model that hand its hidden states over while it runs.

Hidden states are numbered as in transformers' ``hidden_states``: entry 0 is what the first layer
takes in (the embedding output), entry i what layer i takes in, and the last entry what the model
gives out, after its final norm. So entry i < L is read by a hook before layer i, entry L by one
behind the model. Whether a model's own ``hidden_states`` are these, `capability` tries.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from ilo_fast.errors import ModelError
from ilo_fast.models.structure import Backbone

__all__ = ["ForwardStopped", "check_states", "hooked", "misfit"]


class ForwardStopped(BaseException):
    """Ends a forward pass after the deepest layer asked for.

    Not an Exception, so that a model's own ``except Exception`` cannot swallow it.
    """


Receive = Callable[[int, Tensor], None]


def misfit(backbone: Backbone, entry: int, states: Any) -> str | None:
    """Why a hidden state is not ``[batch, tokens, dim]``; None where it is.

    Some models keep several a token, and some project the last to another width.
    """
    if isinstance(states, Tensor) and states.ndim == 3 and states.shape[-1] == backbone.dim:
        return None
    got = list(states.shape) if isinstance(states, Tensor) else type(states).__name__
    return (
        f"model: hidden state {entry} of {type(backbone.module).__name__} must be "
        f"[batch, tokens, {backbone.dim}], got {got}"
    )


def check_states(backbone: Backbone, entry: int, states: Any) -> None:
    """That a hidden state is ``[batch, tokens, dim]``.

    Raises:
        ModelError: naming the model, the entry and what came.
    """
    wrong = misfit(backbone, entry, states)
    if wrong is not None:
        raise ModelError(wrong)


@contextmanager
def hooked(
    backbone: Backbone, entries: tuple[int, ...], receive: Receive, *, stop_early: bool
) -> Iterator[None]:
    """Call ``receive(entry, states)`` on each forward pass; the hooks go when the block ends.

    ``states`` are ``[batch, tokens, dim]`` as they are in the model. With ``stop_early`` the
    forward pass ends with `ForwardStopped` once the deepest entry is received. A copy of the model
    made within the block keeps the hooks, which do nothing there.
    """
    if backbone.blocks is None:
        raise ModelError(
            f"model: the layers of {type(backbone.module).__name__} cannot be hooked one by one"
        )
    deepest = max(entries)
    handles = []

    def before_block(entry: int, block: nn.Module) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if module is not block:
                return
            receive(entry, args[0] if args else kwargs["hidden_states"])
            if stop_early and entry == deepest:
                raise ForwardStopped

        return hook

    def after_model(module: nn.Module, _: tuple[Any, ...], output: Any) -> None:
        if module is backbone.module:
            receive(backbone.n_layers, output[0])

    try:
        for entry in entries:
            if entry < backbone.n_layers:
                block = backbone.blocks[entry]
                handles.append(
                    block.register_forward_pre_hook(before_block(entry, block), with_kwargs=True)
                )
            else:
                handles.append(backbone.module.register_forward_hook(after_model))
        yield
    finally:
        for handle in handles:
            handle.remove()
