"""Attention within the sentences of a packed row, through transformers' attention interface.

A model set to this implementation hands us the queries, keys and values of the whole row; each
sentence attends to itself alone. What it may see of itself (causal, both ways, a sliding window,
chunks) is the model's own mask function, which transformers passes to the mask interface: it is
kept as a function, so no mask over the whole row is ever built.

Where it runs:

- CUDA, 16-bit, no soft cap: ``torch.nn.attention.varlen.varlen_attn`` over the whole row, grouped
  heads as they are, the sliding window as (left, right).
- Everywhere else: ``scaled_dot_product_attention`` over each run of sentences of equal length, so
  still no padding; models with a soft cap on the scores: the formula itself, in float32.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from inspect import signature
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ilo_fast.activations.masks import PackedMask
from ilo_fast.activations.packing import Group, Segments

__all__ = ["NAME", "NotPackable", "packed_attention", "packed_rows", "without_plans"]

NAME = "ilo_fast_packed"

# What models pass along that does not change the result: places already in the rotary embedding,
# and switches for outputs that are not asked for.
_WITHOUT_EFFECT = frozenset(
    {
        "cache_position",
        "deterministic",
        "is_causal",  # the mask function says it too, and says more
        "output_attentions",
        "output_hidden_states",
        "position_ids",
        "return_dict",
        "sliding_window",  # likewise
        "use_cache",
    }
)
_VARLEN_HEAD_DIM = 256  # the widest head of the CUDA kernel behind varlen_attn


class NotPackable(Exception):
    """This model's attention cannot run on packed rows; the message says why."""


@dataclass
class _Row:
    """The packed row now in the model, and the ways its attention was computed."""

    segments: Segments
    kernels: set[str]


_row: ContextVar[_Row | None] = ContextVar("ilo_fast_packed_row", default=None)


@contextmanager
def packed_rows(module: Any) -> Iterator[Callable[[Segments], AbstractContextManager[set[str]]]]:
    """Within it, ``module`` attends within the sentences of packed rows.

    Yields a function of the row's segments, for ``with row(segments) as kernels: module(...)``;
    ``kernels`` then names the ways the attention was computed.

    Raises:
        NotPackable: when the model does not take its attention from the interface.
    """
    from transformers import AttentionInterface, AttentionMaskInterface

    can_set = getattr(module, "_can_set_attn_implementation", None)
    if not getattr(module, "_supports_attention_backend", False) or can_set is None:
        raise NotPackable(f"{type(module).__name__} does not use transformers' attention interface")
    if not can_set():
        raise NotPackable(f"{type(module).__name__} cannot change its attention implementation")
    # Layers may be compiled: the loop over lengths would be so anew for every row.
    outside_graphs = torch.compiler.disable(packed_attention)  # type: ignore[no-untyped-call]
    AttentionInterface.register(NAME, outside_graphs)
    AttentionMaskInterface.register(NAME, _packed_mask)
    before = module.config._attn_implementation
    module.set_attn_implementation(NAME)
    try:
        yield _enter_row
    finally:
        module.set_attn_implementation(before)


@contextmanager
def without_plans(device: torch.device) -> Iterator[None]:
    """Within it, attention on a card leaves cuDNN's kernels alone where flash attention may serve.

    torch 2.15 prefers cuDNN, whose plans it keeps by shape (numbers of sentences and tokens, the
    longest: aten/native/cudnn/MHA.cpp), and no two batches share theirs. Read there, not timed.
    """
    settings: Any = torch.backends.cuda
    set_aside = (
        device.type == "cuda" and settings.flash_sdp_enabled() and settings.cudnn_sdp_enabled()
    )
    if not set_aside:
        yield
        return
    settings.enable_cudnn_sdp(False)
    try:
        yield
    finally:
        settings.enable_cudnn_sdp(True)


@contextmanager
def _enter_row(segments: Segments) -> Iterator[set[str]]:
    row = _Row(segments, set())
    token = _row.set(row)
    try:
        yield row.kernels
    finally:
        _row.reset(token)


def _packed_mask(*args: Any, mask_function: Any = None, **kwargs: Any) -> PackedMask:
    """The mask interface: keep the model's mask function instead of building a mask."""
    if args or mask_function is None:
        raise NotPackable("this version of transformers passes no mask function")
    return PackedMask(mask_function)


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Any,
    dropout: float = 0.0,
    scaling: float | None = None,
    softcap: float | None = None,
    **other: Any,
) -> tuple[Tensor, None]:
    """The attention interface: query, key and value ``[1, heads, tokens, head_dim]`` of one row.

    Returns the output ``[1, tokens, heads, head_dim]`` and no weights.
    """
    row = _row.get()
    if row is None:
        raise NotPackable("the packed attention ran outside a packed row")
    if not isinstance(attention_mask, PackedMask):
        raise NotPackable(f"{type(module).__name__} makes its attention mask itself")
    unknown = sorted(k for k, v in other.items() if k not in _WITHOUT_EFFECT and v is not None)
    if unknown:
        raise NotPackable(f"{type(module).__name__} passes {', '.join(unknown)} to its attention")
    if query.shape[0] != 1 or query.shape[2] != row.segments.n_tokens or dropout:
        raise NotPackable(f"{type(module).__name__} reshapes its rows of tokens")
    return _attend(query[0], key[0], value[0], attention_mask, scaling, softcap, row)[None], None


def _attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: PackedMask,
    scaling: float | None,
    softcap: float | None,
    row: _Row,
) -> Tensor:
    if softcap is None and _varlen_serves(query, key, value):
        window = mask.window(row.segments.longest, query.device)
        if window is not None:
            row.kernels.add("varlen_attn")
            return _varlen(query, key, value, row.segments, window, scaling)
    row.kernels.add("sdpa by length" if softcap is None else "soft-capped by length")
    heads, tokens, _ = query.shape
    if query.is_cuda and softcap is None:
        key, value = _every_head(key, heads), _every_head(value, heads)
    out = query.new_empty((tokens, heads, value.shape[-1]))
    for group in row.segments.groups:
        parts = [_sentences(tensor, group) for tensor in (query, key, value)]
        if softcap is None:
            attended = _sdpa(*parts, mask=mask, scaling=scaling)
        else:
            attended = _soft_capped(*parts, mask=mask, scaling=scaling, softcap=softcap)
        shape = (group.count, group.length, heads, value.shape[-1])
        out[group.start : group.end].view(shape).copy_(attended.transpose(1, 2))
    return out


def _sentences(tensor: Tensor, group: Group) -> Tensor:
    """``[count, heads, length, head_dim]``, a view of ``[heads, tokens, head_dim]``."""
    rows = tensor[:, group.start : group.end]
    heads, _, head_dim = tensor.shape
    return rows.view(heads, group.count, group.length, head_dim).transpose(0, 1)


def _every_head(tensor: Tensor, heads: int) -> Tensor:
    """Keys or values ``[kv_heads, tokens, head_dim]`` repeated for each of ``heads`` queries.

    The fused kernel behind ``scaled_dot_product_attention`` that takes float32 on CUDA takes no
    grouped heads: with those, every run of sentences would be half a dozen plain kernels.
    """
    groups, tokens, width = tensor.shape
    if groups == heads:
        return tensor
    return tensor[:, None].expand(groups, heads // groups, tokens, width).reshape(-1, tokens, width)


def _sdpa(
    query: Tensor, key: Tensor, value: Tensor, *, mask: PackedMask, scaling: float | None
) -> Tensor:
    length = query.shape[2]
    form = mask.form(length, query.device)
    return F.scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=mask.block_on(length, query.device) if form == "other" else None,
        is_causal=form == "causal",
        scale=scaling,
        enable_gqa=query.shape[1] != key.shape[1],
    )


def _soft_capped(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    mask: PackedMask,
    scaling: float | None,
    softcap: float,
) -> Tensor:
    """softmax(c · tanh(scores / c)) · values, as transformers' eager attention computes it."""
    repeats = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(repeats, 1), value.repeat_interleave(repeats, 1)
    scores = query @ key.transpose(2, 3) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    scores = torch.tanh(scores / softcap) * softcap
    seen = mask.block_on(query.shape[2], query.device)
    scores = scores.masked_fill(~seen, torch.finfo(scores.dtype).min)
    return scores.softmax(-1, dtype=torch.float32).to(query.dtype) @ value


def _varlen_serves(query: Tensor, key: Tensor, value: Tensor) -> bool:
    width = query.shape[-1]
    return (
        query.is_cuda
        and query.dtype in (torch.float16, torch.bfloat16)
        and query.dtype == key.dtype == value.dtype
        and width == value.shape[-1]
        and width % 8 == 0
        and width <= _VARLEN_HEAD_DIM
        and query.stride(-1) == key.stride(-1) == value.stride(-1) == 1
        and _is_ampere(query.device)
    )


@cache
def _is_ampere(device: torch.device) -> bool:
    """Whether a card is new enough for the kernel; asked by every layer."""
    return torch.cuda.get_device_capability(device) >= (8, 0)


def _varlen(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    segments: Segments,
    window: tuple[int, int],
    scaling: float | None,
) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    offsets = segments.offsets_on(query.device, torch.int32)
    options: dict[str, Any] = {"scale": scaling, "window_size": window}
    if query.shape[0] != key.shape[0] and _grouping_is_asked_for(varlen_attn):
        options["enable_gqa"] = True
    attended = varlen_attn(
        query.transpose(0, 1),
        key.transpose(0, 1),
        value.transpose(0, 1),
        offsets,
        offsets,
        segments.longest,
        segments.longest,
        **options,
    )
    assert isinstance(attended, Tensor)
    return attended


@cache
def _grouping_is_asked_for(varlen_attn: Callable[..., Any]) -> bool:
    """torch 2.11 takes grouped heads as they are and knows no ``enable_gqa``; later ones ask."""
    return "enable_gqa" in signature(varlen_attn).parameters
