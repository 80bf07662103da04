"""How a model's hidden states can be had without padding: decided by looking and by trying.

Nothing is assumed of an architecture. A few tokens go through the model: once as one sentence,
where every hook must see exactly what ``output_hidden_states`` returns, and twice in the middle of
a packed row: the same sentence must come out the same to rounding, and whatever is around it. What
fails is recorded with its reason, and the next exact way is taken.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from ilo_fast.activations.attention import NotPackable, packed_rows
from ilo_fast.activations.captures import (
    evaluating,
    foreign_hooks,
    no_new_captures,
    users_hooks,
)
from ilo_fast.activations.hooks import hooked, misfit
from ilo_fast.activations.packing import Segments, sent
from ilo_fast.errors import ModelError
from ilo_fast.models.structure import BY_YOURSELF, Backbone, input_device, position_offset

__all__ = [
    "Capability",
    "Forward",
    "counted_otherwise",
    "own_pass",
    "probe",
    "states_apart",
    "trial_states",
]

_PROBE_LENGTHS = (5, 11, 7)
# Share of a dimension's size by which a packed state may differ from the sentence alone: rounding
# reaches a few per cent in 16 bits (measured 2 % on random weights), another sentence's tokens move
# half the dimensions by tens of per cent.
_TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-3, torch.bfloat16: 0.1, torch.float16: 0.1}
# The same between two rows of one shape in which the sentence has other neighbours. Rounding is no
# excuse there: every step takes a token's row as before, and only experts get other numbers of
# tokens at once (3e-7 measured in float32, nothing in 16 bits). A recurrence or a short convolution
# that runs on from the sentence before can change so little that the tolerance above lets it pass.
_NEIGHBOURS = {torch.float64: 1e-12, torch.float32: 1e-5}
_NEIGHBOURS_16_BIT = 1e-3

_tried: WeakKeyDictionary[nn.Module, "_Trial"] = WeakKeyDictionary()
_trying = threading.Lock()
_here = threading.local()


@dataclass(frozen=True)
class Capability:
    """The way chosen for a model.

    ``batches`` is ``"packed"`` or ``"equal lengths"``; ``taps`` is ``"hooks"`` or
    ``"output_hidden_states"``; the reasons say why the first of each was not taken.
    """

    batches: str
    taps: str
    batches_reason: str | None = None
    taps_reason: str | None = None


class Forward:
    """Forward passes of a model; what they take is looked up once, when this is made."""

    def __init__(self, backbone: Backbone) -> None:
        self.module = backbone.module
        self._accepted = frozenset(signature(self.module.forward).parameters)
        self._first_position = position_offset(self.module)
        # Chinese-CLIP cuts its zeros from a buffer of one sentence's length, shorter than a row.
        names = (name for name, _ in self.module.named_buffers())
        self._zeros = "token_type_ids" in self._accepted and any(
            name.endswith("token_type_ids") for name in names
        )

    def __call__(self, ids: Tensor, segments: Segments | None, **extra: Any) -> Any:
        """One pass of ``ids``: a packed row ``[1, tokens]`` of ``segments``, or ``[b, n]``.

        The attention mask is all ones (nothing is padding): given, so that no model guesses it.
        """
        inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": torch.ones_like(ids), **extra}
        if segments is not None:
            if "position_ids" not in self._accepted:
                raise NotPackable(f"{type(self.module).__name__} takes no position_ids")
            positions = segments.positions(self._first_position)
            inputs["position_ids"] = sent(positions, ids.device)[None]
            if self._zeros:
                inputs["token_type_ids"] = torch.zeros_like(ids)
        # XLNet's cache has a name of its own
        inputs.update(dict.fromkeys(self._accepted & {"use_cache", "use_mems"}, False))
        _here.passing = True
        try:
            return self.module(**inputs)
        finally:
            _here.passing = False


def own_pass() -> bool:
    """Whether the model is run by this package in this thread, not by its user."""
    return getattr(_here, "passing", False)


def _vocabulary(backbone: Backbone) -> int:
    config: Any = backbone.module.config
    return int(getattr(config.get_text_config(), "vocab_size", 0))


def _probe_ids(backbone: Backbone, device: torch.device) -> Tensor:
    """Arbitrary tokens that are neither padding nor among the lowest, where special ones lie."""
    config, vocabulary = backbone.module.config, _vocabulary(backbone)
    if not vocabulary:
        raise ModelError(
            f"model: {type(backbone.module).__name__} reads no token ids (its configuration names "
            "no vocab_size)"
        )
    generator = torch.Generator().manual_seed(0)
    low = min(10, vocabulary - 1)
    ids = torch.randint(
        low, vocabulary, (1, sum(_PROBE_LENGTHS)), generator=generator, device="cpu"
    )
    padding = getattr(config, "pad_token_id", None)
    if padding is not None and padding >= low:
        ids[ids == padding] = low if padding != low else low - 1
    return ids.to(device)


def _one_of(row: Tensor) -> Tensor:
    """The middle one of the probe's three sentences, of ids or states ``[1, tokens, …]``."""
    first, middle, _ = _PROBE_LENGTHS
    return row[:, first : first + middle]


@dataclass(frozen=True)
class _Trial:
    """Entries of ``hidden_states`` that hooks see otherwise, and those that cannot be pooled, each
    with the reason."""

    apart: frozenset[int]
    misfits: dict[int, str]


def probe(backbone: Backbone, device: torch.device, entries: Sequence[int]) -> Capability:
    """Try hooks and packing on a few tokens of this model, in its own dtype.

    Raises:
        ModelError: when the model returns no hidden states, or one of ``entries`` is not ``[batch,
            tokens, dim]``.
    """
    ids = _probe_ids(backbone, device)
    taps_reason = None
    try:
        truth, wrong = _try_hooks(backbone, _one_of(ids))
        if wrong:
            taps_reason = f"hooks see other states than output_hidden_states at entries {wrong}"
    except ModelError as error:
        if backbone.blocks is not None:
            raise
        truth, taps_reason = _hidden_states(backbone, _one_of(ids)), str(error)
    _check_fit(_misfits(backbone, truth), entries)
    if taps_reason is not None:
        return Capability("equal lengths", "output_hidden_states", taps_reason, taps_reason)
    reason = _why_not_packed(backbone, ids, truth)
    return Capability("packed" if reason is None else "equal lengths", "hooks", reason)


def counted_otherwise(backbone: Backbone, entries: Sequence[int]) -> list[int]:
    """Those of ``entries`` that are not what hooks see; a model is tried once.

    Mamba's and RWKV's begin behind the first layer, the last of CLIP's text models is the one
    before the final norm. None of a model that cannot be tried without changing what its user
    sees or does: other hooks on the layers (a steering one, FSDP's, another tap's), and a user's
    anywhere, would run too, and may themselves be the difference; a model may want more than ids.

    Raises:
        ModelError: when it returns no hidden states, or one of ``entries`` is not ``[batch, tokens,
            dim]``.
    """
    with _trying:  # the tap of another thread waits, so that its hooks do not see this one's tokens
        if backbone.module not in _tried:
            found = _try_counting(backbone)
            if found is None:
                return []
            _tried[backbone.module] = found
        trial = _tried[backbone.module]
    _check_fit(trial.misfits, entries)
    return [entry for entry in entries if entry in trial.apart]


def _misfits(backbone: Backbone, states: Sequence[Tensor]) -> dict[int, str]:
    found = ((entry, misfit(backbone, entry, each)) for entry, each in enumerate(states))
    return {entry: why for entry, why in found if why is not None}


def _check_fit(misfits: dict[int, str], entries: Sequence[int]) -> None:
    for entry in sorted(entries):
        if entry in misfits:
            others = "; layers can leave it out" if len(misfits) == 1 else ""
            raise ModelError(misfits[entry] + others)


def _try_counting(backbone: Backbone) -> _Trial | None:
    module, blocks = backbone.module, backbone.blocks
    if blocks is None or any(foreign_hooks(each) for each in (module, *blocks)):
        return None
    if users_hooks(module):  # within the layers or before them: they would count its tokens
        return None
    if not _vocabulary(backbone):
        return None
    with (
        torch.no_grad(),
        torch.compiler.set_stance("force_eager"),  # compiled now, it would run without hooks
        evaluating(module),
        no_new_captures(module),
    ):
        try:
            ids = _probe_ids(backbone, input_device(module))
            truth, wrong = _try_hooks(backbone, _one_of(ids))
            return _Trial(frozenset(wrong), _misfits(backbone, truth))
        except ModelError:
            raise
        except (AttributeError, NotImplementedError, TypeError, ValueError):
            return None


def trial_states(
    backbone: Backbone, device: torch.device, *, shorter: bool = False
) -> tuple[Tensor, ...]:
    """Hidden states of one short arbitrary sentence as the model gives them; copies."""
    ids = _one_of(_probe_ids(backbone, device))
    ids = ids[:, : _PROBE_LENGTHS[0]] if shorter else ids
    return tuple(states.clone() for states in _hidden_states(backbone, ids))


def states_apart(ours: Sequence[Tensor], truth: Sequence[Tensor]) -> str | None:
    """None where hidden states agree to rounding, else which does not and by how much.

    NaN is no verdict: extraction itself names it.
    """
    return _apart(ours, truth, _TOLERANCE.get(truth[0].dtype, 0.1))


def _apart(ours: Sequence[Tensor], truth: Sequence[Tensor], tolerance: float) -> str | None:
    for entry, (one, other) in enumerate(zip(ours, truth, strict=True)):
        share = _relative_error(one[0], other[0])
        if share > tolerance:
            return f"hidden state {entry} by {share:.2g} of its size"
    return None


def _hidden_states(backbone: Backbone, ids: Tensor) -> tuple[Tensor, ...]:
    output = Forward(backbone)(ids, None, output_hidden_states=True)
    states = getattr(output, "hidden_states", None)
    name = type(backbone.module).__name__
    if states is None:
        raise ModelError(
            f"model: {name} returned no hidden_states though output_hidden_states=True asked for "
            f"them; {BY_YOURSELF}"
        )
    if len(states) != backbone.n_entries:
        raise ModelError(
            f"model: {name} returned {len(states)} hidden states, expected {backbone.n_entries}, "
            f"the embedding output and one for each of the {backbone.n_layers} layers that its "
            f"configuration counts, so their layers cannot be told; {BY_YOURSELF}"
        )
    return tuple(states)


def _try_hooks(backbone: Backbone, ids: Tensor) -> tuple[tuple[Tensor, ...], list[int]]:
    """The hidden states of a sentence, and the entries at which hooks see others."""
    entries, seen = tuple(range(backbone.n_entries)), _Seen()
    with hooked(backbone, entries, seen.keep, stop_early=False):
        truth = _hidden_states(backbone, ids)
    wrong = [e for e in entries if e not in seen.states or not _same(seen.states[e], truth[e])]
    return truth, wrong


class _Seen:
    """Copies of what hooks see, by entry."""

    def __init__(self) -> None:
        self.states: dict[int, Tensor] = {}

    def keep(self, entry: int, states: Tensor) -> None:
        self.states[entry] = states.detach().clone()


def _same(ours: Tensor, truth: Tensor) -> bool:
    return ours.shape == truth.shape and torch.equal(
        ours.nan_to_num(), truth.to(ours.device).nan_to_num()
    )


def _why_not_packed(backbone: Backbone, ids: Tensor, truth: tuple[Tensor, ...]) -> str | None:
    """None when a packed row gives the middle sentence's states, else what stands in the way."""
    entries, seen = tuple(range(backbone.n_entries)), _Seen()

    def middle(row: Any, ids: Tensor, lengths: tuple[int, ...]) -> list[Tensor]:
        segments = Segments(lengths)
        with hooked(backbone, entries, seen.keep, stop_early=False), row(segments):
            Forward(backbone)(ids, segments)
        start = lengths[0]
        return [seen.states[entry][:, start : start + lengths[1]] for entry in entries]

    try:
        with packed_rows(backbone.module) as row:
            ours = middle(row, ids, _PROBE_LENGTHS)
            apart = states_apart(ours, truth)
            if apart is not None:
                return f"a packed row changes {apart}"
            turned = torch.cat(torch.split(ids, list(_PROBE_LENGTHS), dim=1)[::-1], dim=1)
            again = middle(row, turned, _PROBE_LENGTHS[::-1])
    except NotPackable as error:
        return str(error)
    except (AttributeError, TypeError, RuntimeError, ValueError, KeyError, IndexError) as error:
        # a model that handles its masks itself trips over ours; its own way still works
        said = (str(error).splitlines() or [""])[0]
        return f"a packed row fails: {type(error).__name__}: {said[:200]}"
    tolerance = _NEIGHBOURS.get(truth[0].dtype, _NEIGHBOURS_16_BIT)
    apart = _apart(again, ours, tolerance)
    return None if apart is None else f"the sentences beside one in a packed row change {apart}"


def _relative_error(ours: Tensor, truth: Tensor) -> float:
    """Median over dimensions of the error's norm by the state's: no massive one hides the rest."""
    ours, truth = ours.double(), truth.double().to(ours.device)
    size = truth.norm(dim=0).clamp_min(torch.finfo(torch.float32).tiny)
    share = (ours - truth).norm(dim=0) / size
    return float(share.median().item())
