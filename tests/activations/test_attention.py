"""Packed attention against float64, and what the CUDA kernel would be called with."""

import sys
import types
from contextlib import suppress

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from mask_functions import around, both_ways, causal, chunks, window

from ilo_fast.activations import attention
from ilo_fast.activations.attention import NotPackable, packed_attention
from ilo_fast.activations.masks import PackedMask
from ilo_fast.activations.packing import Segments


def plain_attention(query, key, value, mask, lengths, softcap=None):
    """Float64 NumPy, sentence by sentence, head by head; ``[heads, tokens, dim]``."""
    repeats = query.shape[0] // key.shape[0]
    out = np.zeros((query.shape[1], query.shape[0], value.shape[2]))
    start = 0
    for length in lengths:
        part = slice(start, start + length)
        index = torch.arange(length)
        seen = mask(0, 0, index[:, None], index[None, :]).expand(length, length).numpy()
        for head in range(query.shape[0]):
            scores = query[head, part] @ key[head // repeats, part].T / np.sqrt(query.shape[2])
            if softcap is not None:
                scores = softcap * np.tanh(scores / softcap)
            weights = np.where(seen, np.exp(scores - scores.max()), 0.0)
            weights /= weights.sum(1, keepdims=True)
            out[part, head] = weights @ value[head // repeats, part]
        start += length
    return out


class Fixed(torch.nn.Module):
    """Stands where transformers gives its attention module."""


@settings(max_examples=30, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=6),
    heads=st.sampled_from([(4, 4), (4, 2), (3, 1)]),
    mask=st.sampled_from([causal, both_ways, window(3), around(2), chunks(4)]),
    softcap=st.sampled_from([None, 1.5]),
    seed=st.integers(0, 9),
)
def test_equals_float64(lengths, heads, mask, softcap, seed):
    generator = torch.Generator().manual_seed(seed)
    tokens = sum(lengths)
    query, key, value = (
        torch.randn(1, count, tokens, 8, generator=generator)
        for count in (heads[0], *[heads[1]] * 2)
    )
    segments = Segments(tuple(lengths))
    with attention._enter_row(segments) as kernels:
        out, weights = packed_attention(
            Fixed(), query, key, value, PackedMask(mask), softcap=softcap, sliding_window=99
        )
    assert weights is None
    arrays = (tensor[0].double().numpy() for tensor in (query, key, value))
    expected = plain_attention(*arrays, mask, lengths, softcap)
    np.testing.assert_allclose(out[0].numpy(), expected, rtol=1e-5, atol=1e-5)
    assert kernels == {"sdpa by length" if softcap is None else "soft-capped by length"}


@pytest.mark.parametrize("asks", [True, False])
def test_the_cuda_kernel_gets_the_whole_row(asks, monkeypatch):
    """With the argument for grouped heads where it exists: torch 2.11 has none."""
    calls = []

    def keep(query, *others):
        calls.append((query, *others))
        return query.clone()

    def later(query, key, value, cu_q, cu_k, max_q, max_k, *, scale, window_size, enable_gqa):
        options = {"scale": scale, "window_size": window_size, "enable_gqa": enable_gqa}
        return keep(query, key, value, cu_q, cu_k, max_q, max_k, options)

    def earlier(query, key, value, cu_q, cu_k, max_q, max_k, *, scale, window_size):
        options = {"scale": scale, "window_size": window_size}
        return keep(query, key, value, cu_q, cu_k, max_q, max_k, options)

    varlen_attn = later if asks else earlier
    module = types.SimpleNamespace(varlen_attn=varlen_attn)
    monkeypatch.setitem(sys.modules, "torch.nn.attention.varlen", module)
    monkeypatch.setattr(attention, "_varlen_serves", lambda query, key, value: True)
    query = torch.randn(1, 4, 12, 8).bfloat16()
    key, value = torch.randn(2, 1, 2, 12, 8).bfloat16()
    with attention._enter_row(Segments((7, 3, 2))) as kernels:
        out, _ = packed_attention(Fixed(), query, key, value, PackedMask(window(3)), scaling=0.5)
        packed_attention(Fixed(), query, key, value, PackedMask(causal), scaling=0.5)
        packed_attention(Fixed(), query, key, value, PackedMask(chunks(2)), scaling=0.5)
        packed_attention(Fixed(), query, key, value, PackedMask(causal), softcap=9.0)
    assert out.shape == (1, 12, 4, 8)
    assert torch.equal(out[0], query[0].transpose(0, 1))
    assert len(calls) == 2  # no band, or a soft cap: by length instead
    given_query, given_key, given_value, cu_q, cu_k, max_q, max_k, options = calls[0]
    assert torch.equal(given_query, query[0].transpose(0, 1))
    assert torch.equal(given_key, key[0].transpose(0, 1))
    assert torch.equal(given_value, value[0].transpose(0, 1))
    assert cu_q.dtype == cu_k.dtype == torch.int32
    assert cu_q.tolist() == cu_k.tolist() == [0, 7, 10, 12]
    assert (max_q, max_k) == (7, 7)
    grouping = {"enable_gqa": True} if asks else {}
    assert options == {"scale": 0.5, "window_size": (2, 0), **grouping}
    assert calls[1][-1]["window_size"] == (-1, 0)
    assert kernels == {"varlen_attn", "sdpa by length", "soft-capped by length"}


def test_the_installed_torch_has_the_kernel_with_these_arguments():
    import inspect

    from torch.nn.attention.varlen import varlen_attn

    names = set(inspect.signature(varlen_attn).parameters)
    assert {"scale", "window_size"} <= names


def test_refuses_what_it_cannot_do_exactly():
    query = torch.randn(1, 2, 5, 8)
    mask = PackedMask(causal)
    with pytest.raises(NotPackable, match="outside a packed row"):
        packed_attention(Fixed(), query, query, query, mask)
    with attention._enter_row(Segments((5,))):
        with pytest.raises(NotPackable, match="makes its attention mask itself"):
            packed_attention(Fixed(), query, query, query, None)
        with pytest.raises(NotPackable, match="passes position_bias to its attention"):
            packed_attention(Fixed(), query, query, query, mask, position_bias=torch.ones(1))
        with pytest.raises(NotPackable, match="reshapes its rows"):
            packed_attention(Fixed(), query[:, :, 1:], query, query, mask)


@pytest.mark.gpu
@pytest.mark.skipif(
    not torch.cuda.is_available(), reason="needs a CUDA device: python -m benchmarks gpu"
)
@pytest.mark.parametrize("mask", [causal, both_ways, window(3), around(2)])
def test_the_cuda_kernel_equals_float64(mask):
    lengths = (40, 3, 17, 1, 64)
    generator = torch.Generator().manual_seed(0)
    query, key, value = (
        torch.randn(1, count, sum(lengths), 64, generator=generator).bfloat16()
        for count in (8, 2, 2)
    )
    with attention._enter_row(Segments(lengths)) as kernels:
        moved = [tensor.cuda() for tensor in (query, key, value)]
        out, _ = packed_attention(Fixed(), *moved, PackedMask(mask))
    assert kernels == {"varlen_attn"}
    arrays = (tensor[0].double().numpy() for tensor in (query, key, value))
    expected = plain_attention(*arrays, mask, lengths)
    np.testing.assert_allclose(out[0].cpu().double().numpy(), expected, atol=3e-2)


@pytest.mark.gpu
@pytest.mark.skipif(
    not torch.cuda.is_available(), reason="needs a CUDA device: python -m benchmarks gpu"
)
def test_a_mask_that_holds_tensors_on_the_card():
    """As Llama 4's chunks, which begin after a sentence's padding."""
    from transformers.masking_utils import chunked_causal_mask_function

    here = torch.device("cuda", torch.cuda.current_device())
    none = torch.zeros(1, dtype=torch.int64)
    there = PackedMask(chunked_causal_mask_function(3, none.to(here)))
    host = PackedMask(chunked_causal_mask_function(3, none))
    assert (there.form(8, here), there.window(8, here)) == ("other", None)
    assert torch.equal(there.block(8), host.block(8))
    with pytest.raises(RuntimeError):
        there.block(9)
    query = torch.randn(1, 2, 12, 8)
    with attention._enter_row(Segments((8, 4))):
        moved, _ = packed_attention(Fixed(), *[query.to(here)] * 3, there)
        plain, _ = packed_attention(Fixed(), *[query] * 3, host)
    torch.testing.assert_close(moved.cpu(), plain, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("groups", [1, 2, 6])
def test_repeated_heads_attend_as_grouped_ones(groups):
    """Query head h belongs to group h // (heads / groups), as in torch's grouped attention."""
    torch.manual_seed(0)
    query, grouped = torch.randn(6, 5, 8), torch.randn(groups, 5, 8)
    repeated = attention._every_head(grouped, 6)
    assert repeated.shape == query.shape
    expected = F.scaled_dot_product_attention(
        query[None], grouped[None], grouped[None], enable_gqa=groups != 6
    )
    found = F.scaled_dot_product_attention(query[None], repeated[None], repeated[None])
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    ("device", "flash", "cudnn", "within"),
    [
        ("cuda", True, True, False),
        ("cuda", False, True, True),  # the caller's choice
        ("cuda", True, False, False),
        ("cpu", True, True, True),
    ],
)
def test_cudnn_plans_no_shapes(device, flash, cudnn, within):
    settings = torch.backends.cuda
    before = settings.flash_sdp_enabled(), settings.cudnn_sdp_enabled()
    try:
        settings.enable_flash_sdp(flash)
        settings.enable_cudnn_sdp(cudnn)
        with suppress(ZeroDivisionError), attention.without_plans(torch.device(device)):
            assert settings.cudnn_sdp_enabled() == within
            assert settings.flash_sdp_enabled() == flash
            raise ZeroDivisionError
        assert (settings.flash_sdp_enabled(), settings.cudnn_sdp_enabled()) == (flash, cudnn)
    finally:
        settings.enable_flash_sdp(before[0])
        settings.enable_cudnn_sdp(before[1])
