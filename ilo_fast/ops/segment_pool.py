"""Pool a packed row of tokens into one float32 vector a sentence.

Tokens of all sentences lie end to end; sentence ``s`` is rows ``offsets[s] … offsets[s + 1] - 1``.
With n tokens h_1 … h_n in a sentence:

- ``mean``: (1 / n) Σ_t h_t
- ``weighted``: Σ_t t·h_t / Σ_t t, later tokens count for more (the position-weighted pooling of
  MEXA, arXiv 2410.05873, after SGPT, arXiv 2202.08904)
- ``last``: h_n

Sums are accumulated in float64 on a CPU, in float32 elsewhere (float64 states: in float64), and
rounded to float32. The truth is plain torch, which sums a sentence at a time on a CPU; CUDA tensors
go to a Triton kernel that reads every state once.
"""

from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from ilo_fast.ops.trial import agrees, passed

__all__ = ["MODES", "obstacle", "segment_pool", "segment_pool_torch"]

MODES = ("mean", "weighted", "last")


def obstacle(device: torch.device) -> str:
    """Why the kernel cannot serve a device, "" when it can.

    >>> obstacle(torch.device("cpu"))
    'Triton needs a CUDA device, not cpu'
    """
    if device.type != "cuda":
        return f"Triton needs a CUDA device, not {device.type}"
    return "" if find_spec("triton") else "the package triton is not installed"


def segment_pool(states: Tensor, offsets: Tensor, mode: str = "mean") -> Tensor:
    """Pool packed states into one vector a sentence.

    Args:
        states: ``[tokens, dim]``, any floating dtype.
        offsets: int64 ``[sentences + 1]`` on the same device, rising from 0 to ``tokens``.
            Sentences of zero tokens have no mean: their rows are NaN (0 / 0), as in ``torch.mean``.
        mode: ``"mean"``, ``"weighted"`` or ``"last"``.

    Returns:
        Tensor: float32 ``[sentences, dim]``.

    >>> import torch
    >>> states = torch.tensor([[1.0], [3.0], [10.0]])
    >>> segment_pool(states, torch.tensor([0, 2, 3])).tolist()
    [[2.0], [10.0]]
    >>> segment_pool(states, torch.tensor([0, 2, 3]), "last").tolist()
    [[3.0], [10.0]]
    """
    pooled: Tensor = _segment_pool(states, offsets, mode)
    return pooled


def segment_pool_torch(states: Tensor, offsets: Tensor, mode: str) -> Tensor:
    """The same in plain torch on any device; what the kernel is tested against."""
    lengths = offsets.diff()
    if mode == "last":
        return _last(states, offsets, lengths)
    wide = states if states.dtype == torch.float64 else states.float()
    weights = lengths
    if mode == "weighted":
        first = torch.repeat_interleave(offsets[:-1], lengths, output_size=states.shape[0])
        position = torch.arange(1, states.shape[0] + 1, device=states.device) - first
        wide = wide * position.to(wide.dtype)[:, None]
        weights = lengths * (lengths + 1) // 2
    total = torch.segment_reduce(wide, "sum", lengths=lengths, axis=0, unsafe=True)
    return (total / weights.to(wide.dtype)[:, None]).float()


def _last(states: Tensor, offsets: Tensor, lengths: Tensor) -> Tensor:
    rows = states[(offsets[1:] - 1).clamp_min(0)].float()
    return rows.masked_fill((lengths == 0)[:, None], float("nan"))


@torch.library.custom_op("ilo_fast::segment_pool", mutates_args=(), device_types=None)
def _segment_pool(states: Tensor, offsets: Tensor, mode: str) -> Tensor:
    return segment_pool_torch(states, offsets, mode)


@_segment_pool.register_kernel("cpu")
def _segment_pool_cpu(states: Tensor, offsets: Tensor, mode: str) -> Tensor:
    """A sentence at a time, in float64."""
    lengths = offsets.diff()
    if mode == "last":
        return _last(states, offsets, lengths)
    sentences = torch.split(states, lengths.tolist())
    if mode == "mean":
        sums, weights = [tokens.sum(0, dtype=torch.float64) for tokens in sentences], lengths
    else:
        position = torch.arange(1, states.shape[0] + 1, dtype=torch.float64)
        sums = [position[: len(tokens)] @ tokens.double() for tokens in sentences]
        weights = lengths * (lengths + 1) // 2
    total = torch.stack(sums) if sums else states.new_empty(states[:0].shape, dtype=torch.float64)
    return (total / weights[:, None]).float()


@_segment_pool.register_kernel("cuda")
def _segment_pool_cuda(states: Tensor, offsets: Tensor, mode: str) -> Tensor:
    plain = mode == "last" or states.dtype == torch.float64  # no sum, or none in float32
    if plain or obstacle(states.device) or not passed(_trial, states.device, states.dtype, mode):
        return segment_pool_torch(states, offsets, mode)
    return launch(states, offsets, mode)


@cache
def _trial(device: torch.device, dtype: torch.dtype, mode: str) -> str:
    """Why the kernel should not serve on a device, "" when it may."""
    lengths = torch.tensor([1, 16, 0, 33, 40], device=device)
    offsets = torch.nn.functional.pad(lengths.cumsum(0), (1, 0))
    states = (torch.arange(90 * 130, dtype=torch.float32, device=device) * 0.7).sin()
    states = states.view(90, 130).to(dtype)
    states[:, 64] *= 3000

    def compare() -> bool:
        found, wide = launch(states, offsets, mode), states.double()
        truth = segment_pool_torch(wide, offsets, mode)
        # a rounding of float32 for each addend, its weight, the quotient and the truth itself
        roundings = (
            (lengths + 3)[:, None] * 2.0**-24 * segment_pool_torch(wide.abs(), offsets, mode)
        )
        near = (found.double() - truth).abs() <= roundings
        return bool((near | (found.isnan() & truth.isnan())).all())

    return agrees(f"segment_pool ({mode} of {dtype})", device, compare)


@_segment_pool.register_fake
def _segment_pool_fake(states: Tensor, offsets: Tensor, mode: str) -> Tensor:
    return states.new_empty((offsets.shape[0] - 1, states.shape[1]), dtype=torch.float32)


@cache
def _kernel() -> Any:
    return import_module("ilo_fast.ops.triton_segment_pool").segment_pool_kernel


def launch(states: Tensor, offsets: Tensor, mode: str) -> Tensor:
    """Run the Triton kernel: ``mean`` or ``weighted``, states up to 32 bits wide."""
    sentences, dim = offsets.shape[0] - 1, states.shape[1]
    out = torch.empty((sentences, dim), dtype=torch.float32, device=states.device)
    if sentences == 0 or dim == 0:
        return out
    states = states if states.stride(1) == 1 else states.contiguous()
    # 128 columns: whole 256- to 512-byte rows of 16- or 32-bit states, and enough programs to fill
    # the device at a few hundred sentences; 16 rows are loaded at a time.
    block_dim, block_tokens = 128, 16
    grid = (sentences, -(-dim // block_dim))
    # Triton launches on the current device, which a model's layers need not lie on.
    with torch.cuda.device(states.device if states.is_cuda else -1):
        _kernel()[grid](
            states,
            offsets,
            out,
            dim,
            states.stride(0),
            WEIGHTED=mode == "weighted",
            BLOCK_TOKENS=block_tokens,
            BLOCK_DIM=block_dim,
            num_warps=4,
            enable_fp_fusion=False,  # said, as defaults differ: sums are the same everywhere
        )
    return out
