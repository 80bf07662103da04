"""Float32 products on a CPU, by the faster of the two libraries that torch brings.

``torch.mm`` gives float32 matrices to MKL, which leaves the AVX-512 units of AMD's processors idle.
oneDNN, which torch multiplies 16-bit matrices with, uses them whoever made them: on an AMD EPYC it
is more than twice as fast (benchmarks/results/cpu.json). Its sums are of float32 products in
some order, as the bounds of `ilo_fast.ops.precision` want them, and it is tried against these once
a process. torch has no public name for its float32 product; its own compiler calls it as here.
"""

import math
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ilo_fast.environment import cpu_facts
from ilo_fast.ops.precision import full_precision, worst_share
from ilo_fast.ops.trial import agrees, passed

__all__ = ["fast_linears", "multiplied", "obstacle", "serves"]

_ROWS = 64  # oneDNN keeps a kernel for every number of rows it meets
# Of a model's sums at a time, at most: oneDNN's, a term after another, would stray further than
# MKL's, which are made of blocks.
_TERMS = 256


def obstacle(device: torch.device) -> str:
    """Why oneDNN does not multiply float32 matrices on a device, "" where it does.

    >>> obstacle(torch.device("cuda"))
    "oneDNN's products are the CPU's"
    """
    if device.type != "cpu":
        return "oneDNN's products are the CPU's"
    backends: Any = torch.backends
    if not backends.mkl.is_available():
        return "this torch has another library than MKL, of which nothing is known"
    if "AuthenticAMD" not in (cpu_facts().get("vendor_id") or platform.processor()):
        return "the processor is not AMD's, MKL's products are at full speed"
    if backends.cpu.get_cpu_capability() != "AVX512":
        return "the processor has no AVX-512"
    if not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return "this torch has no oneDNN"
    return ""


def serves(device: torch.device) -> bool:
    """Whether oneDNN multiplies float32 matrices on a device, once it was tried there."""
    onednn: Any = torch.backends.mkldnn
    return onednn.enabled and not obstacle(device) and passed(_trial, device)


def multiplied(left: Tensor, right: Tensor, out: Tensor | None = None) -> Tensor:
    """``left @ right.T`` of rows ``[M, K]`` and ``[N, K]``: ``out`` itself, or memory of its own.

    ``out.copy_`` of what it returns is ``out`` in any case, and copies nothing where it is already.
    """
    if left.dtype == torch.float32 and serves(left.device):
        return _onednn(left, right)
    return torch.mm(left, right.T, out=out)


@contextmanager
def fast_linears(device: torch.device) -> Iterator[str]:
    """Within it, this thread's float32 linear layers on a device are multiplied by the faster one.

    Without gradients. Layers of quantised, sparse or other special weights are left alone.

    Yields:
        str: ``"oneDNN"`` or ``"torch"``.
    """
    if not serves(device):
        yield "torch"
        return
    with _Linears():
        yield "oneDNN"


class _Linears(TorchFunctionMode):
    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is F.linear and not kwargs and _plain(*args) and args[1].dim() == 2:
            return _linear(*args)
        return func(*args, **(kwargs or {}))


def _plain(*operands: Tensor | None) -> bool:
    """Whether the input, weight and bias of a linear layer are float32 numbers in CPU memory."""
    return all(
        operand is None
        or (
            type(operand) in (Tensor, nn.Parameter)  # others may hold anything
            and operand.dtype == torch.float32
            and operand.device.type == "cpu"
            and operand.layout == torch.strided
            and operand.numel() > 0
        )
        for operand in operands
    )


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    rows = x.reshape(-1, x.shape[-1])
    count, width = rows.shape
    zeros = rows.new_zeros(-count % _ROWS, width)
    parts = math.ceil(width / _TERMS)
    rows_of, zeros_of, rights = (t.tensor_split(parts, 1) for t in (rows, zeros, weight))
    lefts = [torch.cat(both) for both in zip(rows_of, zeros_of, strict=True)]
    made = _onednn(lefts[0], rights[0], bias)
    for left, right in zip(lefts[1:], rights[1:], strict=True):
        made += _onednn(left, right)
    return made[:count].view(*x.shape[:-1], weight.shape[0])


def _onednn(left: Tensor, right: Tensor, bias: Tensor | None = None) -> Tensor:
    weight = right.contiguous()  # strided ones take seconds
    product: Tensor = torch.ops.mkldnn._linear_pointwise(left, weight, bias, "none", [], "")
    return product


@cache
def _trial(device: torch.device) -> str:
    def compare() -> bool:
        with full_precision("cpu"):
            return worst_share(device, lambda left, right: _onednn(left, right.T)) <= 1.0

    return agrees("oneDNN's float32 products", device, compare)
