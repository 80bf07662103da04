"""`tap`: a model's hidden states, pooled in hooks while the user's own code runs it."""

import inspect
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ilo_fast.activations.capability import counted_otherwise, own_pass
from ilo_fast.activations.hooks import check_states, hooked
from ilo_fast.activations.packing import Segments
from ilo_fast.activations.pooling import PoolSpec, check_pool
from ilo_fast.errors import ModelError
from ilo_fast.layers import LayerSpec, resolve_layers
from ilo_fast.models.structure import find_backbone

__all__ = ["Tap", "tap"]


# Arguments that bring what earlier passes left: `cache` has had the next two's place since
# transformers 5.24; RWKV and XLNet have names of their own.
_CACHES = ("cache", "past_key_values", "cache_params", "state", "mems")


class Tap:
    """The states pooled so far; made by `tap`. ``layers``: those of the states' rows."""

    def __init__(self, layers: tuple[int, ...]) -> None:
        self.layers = layers
        self._passes: list[dict[int, Tensor]] = []  # what each gave, by layer
        self._here = threading.local()  # a thread's own pass: several may run the model at once

    def __repr__(self) -> str:
        return f"Tap(layers={self.layers}, n_points={self.n_points})"

    def begin(self) -> None:
        """A forward pass begins. One before it that another tap stopped has its end here."""
        self.end()
        self._here.rows = {}

    def end(self, *, failed: bool = False) -> None:
        """A forward pass is over: its rows are kept where all layers gave theirs, else none."""
        if not failed:
            self._passes += self._whole()
        self._here.rows = None

    def _whole(self) -> list[dict[int, Tensor]]:
        """This thread's pass once all layers gave their rows, which its end will keep, or none."""
        given = getattr(self._here, "rows", None) or {}
        return [given] if len(given) == len(self.layers) else []

    @property
    def running(self) -> bool:
        """Whether a forward pass is on. Layers that run again in a backward pass, as gradient
        checkpointing has them do, are not in one and give no points."""
        return getattr(self._here, "rows", None) is not None

    def add(self, layer: int, pooled: Tensor) -> None:
        """The pooled rows of the forward pass that is on."""
        self._here.rows[layer] = pooled

    @property
    def n_points(self) -> int:
        """Sentences seen so far."""
        return sum(len(given[self.layers[0]]) for given in (*self._passes, *self._whole()))

    @property
    def states(self) -> Tensor:
        """float32 ``[layers, points, dim]``, points in the order they went through the model.

        On the model's device (on the first layer's, where the layers lie on several).
        """
        passes = [*self._passes, *self._whole()]
        if not passes:
            raise ModelError(
                "tap: no forward pass has gone through the model yet (a model compiled and run "
                "before the tap does not call its hooks)"
            )
        layers = [torch.cat([given[layer] for given in passes]) for layer in self.layers]
        return torch.stack([states.to(layers[0].device) for states in layers])

    def clear(self) -> None:
        """Forget the states pooled so far."""
        self._here.rows = None
        self._passes.clear()


class _Padding(threading.local):
    """Which places of the current batch hold tokens, from the model's own attention mask."""

    def __init__(self, module: nn.Module, model: nn.Module) -> None:
        self._module, self._signature = type(module).__name__, inspect.signature(module.forward)
        self._outer_signature = inspect.signature(model.forward)
        self.mask: Tensor | None = None
        self.outer: Any = None  # the mask that the model was given around what is tapped
        self.batch: int | None = None  # where the arguments tell
        self._made: tuple[Segments, Tensor | None] | None = None

    def note_outer(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Look at what the whole model is given."""
        self.outer = _given(self._outer_signature, args, kwargs).get("attention_mask")

    def note(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Look at what a forward pass is given."""
        given = _given(self._signature, args, kwargs)
        mask, outer, self.outer = given.get("attention_mask"), self.outer, None
        if mask is None and isinstance(outer, Tensor) and not bool(outer.all()):
            raise ModelError(
                f"tap: the model does not hand its attention_mask on to {self._module}, "
                "so padding would be pooled; give it sentences of equal length without a mask"
            )
        if mask is not None and (not isinstance(mask, Tensor) or mask.ndim != 2):
            raise ModelError(
                "tap: expected an attention_mask [batch, tokens], got "
                + (str(list(mask.shape)) if isinstance(mask, Tensor) else type(mask).__name__)
            )
        cached = _cached(given)
        if cached:
            raise ModelError(
                f"tap: the forward pass goes on from {cached}, and a cached prefix "
                "cannot be pooled (use_cache=False runs whole sentences)"
            )
        if given.get("cu_seq_lens_q") is not None or _start_anew(given.get("position_ids"), mask):
            raise ModelError(
                "tap: a row holds several sentences (its position_ids start anew, or there are "
                "cu_seq_lens_q), which would be pooled as one; give each a row of its own"
            )
        inputs = (given.get("input_ids"), given.get("inputs_embeds"))
        self.batch = next((len(one) for one in inputs if isinstance(one, Tensor)), None)
        self.mask, self._made = mask, None

    def packed(self, states: Tensor) -> tuple[Tensor, Segments]:
        """``[batch, tokens, dim]`` to ``[real tokens, dim]`` and where its sentences are."""
        batch, length, dim = states.shape
        if self.batch not in (None, batch):
            raise ModelError(
                f"tap: expected states of {self.batch} sequences within the model, got "
                f"{list(states.shape)}"
            )
        if self._made is None:
            if self.mask is None:
                self._made = Segments((length,) * batch), None
            else:
                mask = self.mask.bool()
                if tuple(mask.shape) != (batch, length):
                    raise ModelError(
                        f"tap: attention_mask {list(mask.shape)} does not fit states of "
                        f"[{batch}, {length}] tokens (a cached prefix cannot be pooled)"
                    )
                counted, summed = torch.stack([mask.sum(1), self.mask.float().sum(1)]).tolist()
                lengths = tuple(map(int, counted))
                if counted != summed:
                    raise ModelError(
                        "tap: attention_mask must hold 1 for tokens and 0 for padding, got other "
                        "numbers (of several sentences in a row, or to be added to scores)"
                    )
                if not all(lengths):
                    raise ModelError(
                        f"tap: sequence {lengths.index(0)} of the batch has no tokens in its "
                        "attention_mask"
                    )
                whole = sum(lengths) == batch * length
                rows = None if whole else mask.flatten().nonzero()[:, 0]
                self._made = Segments(lengths), rows
        segments, rows = self._made
        flat = states.reshape(batch * length, dim)
        return (flat if rows is None else flat[rows.to(flat.device)]), segments


def _given(
    signature: inspect.Signature, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> dict[str, Any]:
    """The arguments of a forward pass by name."""
    try:
        return {**signature.bind_partial(*args, **kwargs).arguments, **kwargs}
    except TypeError:
        return kwargs  # the model itself will say what does not fit


def _start_anew(positions: Any, mask: Tensor | None) -> bool:
    """Whether positions ``[batch, tokens]`` go back from one token of a row to the next."""
    if not isinstance(positions, Tensor) or positions.ndim != 2:
        return False
    anew = positions.diff(dim=1) < 0
    if mask is not None and mask.shape[1] == positions.shape[1]:
        anew = anew & mask[:, 1:].bool() & mask[:, :-1].bool()
    return bool(anew.any())


def _cached(given: dict[str, Any]) -> str:
    """What a forward pass with these arguments goes on from; empty where it starts afresh."""
    cache: Any = next((given[name] for name in _CACHES if given.get(name) is not None), None)
    if hasattr(cache, "get_seq_length"):
        try:
            tokens = int(cache.get_seq_length())
        except ValueError:  # a state space model's, which counts no tokens
            return "a cached state" if cache.has_previous_state() else ""
        return f"{tokens} cached tokens" if tokens else ""
    if hasattr(cache, "has_previous_state"):
        return "a cached state" if cache.has_previous_state() else ""
    if not isinstance(cache, tuple | list) or not cache:
        return ""
    if isinstance(cache[0], tuple):  # of keys and values, a layer each
        return f"{cache[0][0].shape[-2]} cached tokens"
    return "a cached state"


@contextmanager
def tap(
    model: nn.Module,
    layers: LayerSpec = None,
    pool: PoolSpec = "mean",
    *,
    stop_early: bool = False,
) -> Iterator[Tap]:
    """Pool a model's hidden states while your own code runs it.

    Each batch of every forward pass within the block adds its sentences, pooled over the tokens
    that its ``attention_mask`` marks, padding on either side; a pass that fails within its
    layers adds nothing. Hooks sit on the requested layers and around all of them, states are
    pooled inside them as `extract` does, and the hooks go away however the block ends. What the
    model returns, gradients included, is not changed.

    The first tap of a model runs a few tokens through it: where its own ``hidden_states`` are not
    what hooks see (Mamba's, the last of CLIP's text models), `extract` alone can give them. That is
    left out where the model has other hooks already, or wants more than token ids.

    Args:
        model: a transformers model, with or without a head, or PEFT's wrapper of one; of an
            encoder-decoder, the encoder is tapped.
        layers: entries of ``hidden_states``, 0 (embedding output) to L (last, after the final
            norm): a number, a slice, a sequence of those or text such as ``"0,5,10:20"``, each
            layer once; None takes all.
        pool: ``"mean"``, ``"last"``, ``"weighted"`` (by position), or a function of packed states
            ``[tokens, dim]`` and int64 offsets ``[sentences + 1]`` that returns ``[sentences,
            dim]``.
        stop_early: end each forward pass after the deepest layer asked for, with
            `ilo_fast.activations.ForwardStopped`, no `Exception`, which your code must catch
            (``contextlib.suppress(ForwardStopped)``).

    Yields:
        Tap: its ``states`` are float32 ``[layers, points, dim]``, their rows named by its
            ``layers``, in the order given.

    Raises:
        ModelError: when ``model`` gives no hidden states, or some that are not ``[batch, tokens,
            dim]``, or its layers cannot be hooked, or hooks see others than it gives; from within
            a forward pass that goes on from a cache, has several sentences in a row, or whose mask
            does not come to the layers or holds more than 0 and 1.
        InputError: on a layer the model does not have or one named twice, or an unknown pooling.

    >>> import torch, ilo_fast
    >>> from transformers import LlamaConfig, LlamaModel
    >>> model = LlamaModel(LlamaConfig(vocab_size=50, hidden_size=8, intermediate_size=16,
    ...     num_hidden_layers=2, num_attention_heads=2)).eval()
    >>> ids = torch.tensor([[3, 4, 5], [6, 7, 0]])
    >>> mask = torch.tensor([[1, 1, 1], [1, 1, 0]])
    >>> with ilo_fast.tap(model, layers=[0, 2]) as tap:
    ...     _ = model(ids, attention_mask=mask)
    >>> tap.states.shape
    torch.Size([2, 2, 8])
    """
    backbone, chosen_pool = find_backbone(model), check_pool(pool)
    entries = resolve_layers(layers, backbone.n_entries)
    wrong = counted_otherwise(backbone, entries)
    if wrong:
        raise ModelError(
            f"tap: hooks see other states than output_hidden_states at layers {wrong} of "
            f"{type(backbone.module).__name__}; `extract` gives those"
        )
    collected, padding = Tap(entries), _Padding(backbone.module, model)

    # A copy of the model made within the block keeps the hooks: each looks at the module it is on.
    def outset(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if module is model:
            padding.note_outer(args, kwargs)

    def begin(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if module is not backbone.module:
            return
        if own_pass():  # of an extraction within the block
            collected.end()
            return
        collected.begin()
        padding.note(args, kwargs)

    def receive(entry: int, states: Tensor) -> None:
        if not collected.running:
            return
        check_states(backbone, entry, states)
        packed, segments = padding.packed(states.detach())
        collected.add(entry, chosen_pool(packed, segments))
        if stop_early and entry == max(entries):
            collected.end()  # the model goes no further

    def end(module: nn.Module, _: tuple[Any, ...], output: Any) -> None:
        if module is backbone.module:
            collected.end(failed=output is None)

    with ExitStack() as stack:
        if model is not backbone.module:
            outer = model.register_forward_pre_hook(outset, with_kwargs=True)
            stack.callback(outer.remove)
        before = backbone.module.register_forward_pre_hook(begin, with_kwargs=True)
        stack.callback(before.remove)
        stack.enter_context(hooked(backbone, entries, receive, stop_early=stop_early))
        # behind the hook that takes the last entry; also called where the model raises
        after = backbone.module.register_forward_hook(end, always_call=True)
        stack.callback(after.remove)
        yield collected
