"""Points as vectors ``[layers, n, d]``: whether they are finite, how large, of length 1."""

import math
from typing import Any

import torch
from torch import Tensor

from ilo_fast.arrays import FLOATS, as_tensor, no_table
from ilo_fast.errors import HiddenStateError, InputError

__all__ = [
    "FLUSHED",
    "flushes",
    "has_subnormal",
    "magnitudes",
    "rounding_tolerance",
    "row_max",
    "state_layers",
    "unit_rows",
]

FLUSHED = (
    "the points hold subnormal numbers, which torch.set_flush_denormal(True) makes zeros of: their "
    "neighbours would be wrong; call torch.set_flush_denormal(False) before (where that was done, "
    "threads that torch started earlier still make zeros of them: do without it in this process)"
)
_GRAIN = 1 << 15  # elements that torch gives a thread at least
_CHECK_ELEMENTS = {"cpu": 1 << 24, "cuda": 1 << 30}  # at once: a card's launches cost, too
# float type → the integers of its size, and the bits of its smallest normal number
_NORMAL = {
    torch.float64: (torch.int64, 1 << 52),
    torch.float32: (torch.int32, 1 << 23),
    torch.bfloat16: (torch.int16, 1 << 7),
}
# Rows turned to float64 at once, beside the result.
_ROWS = 4096


def state_layers(states: Any, name: str = "states") -> Tensor:
    """Hidden states as ``[layers, n, d]`` in their own floating dtype, checked to be finite.

    Raises:
        InputError: when they are not floating numbers ``[n, d]`` or ``[layers, n, d]``.
        HiddenStateError: on NaN or infinity; the message names layer and row.
        TypeError: on a table, as `ilo_fast.knn` raises.

    >>> state_layers([[1.0, 0.0], [0.0, 1.0]]).shape
    torch.Size([1, 2, 2])
    """
    no_table(states, name)
    tensor = as_tensor(states, name)
    if tensor.dtype not in FLOATS:
        raise InputError(
            f"{name} must hold floating-point numbers (float16, bfloat16, float32 or float64), got "
            f"dtype {tensor.dtype}"
        )
    if tensor.ndim == 2:
        tensor = tensor.unsqueeze(0)
    if tensor.ndim != 3 or 0 in tensor.shape:
        raise InputError(
            f"{name} must have shape [n, d] or [layers, n, d] with no empty axis, "
            f"got {list(tensor.shape)}"
        )
    for number, layer in enumerate(tensor):
        if not bool(torch.isfinite(torch.stack(torch.aminmax(layer))).all()):  # NaN is both
            bad = torch.nonzero(~torch.isfinite(layer).all(dim=1))
            raise HiddenStateError(
                f"{name} hold NaN or infinity at layer {number}, row {int(bad[0, 0])}"
            )
    return tensor


def row_max(states: Tensor, single: bool, name: str = "x") -> Tensor:
    """`magnitudes` of ``[layers, n, d]``, float64 ``[layers, n]``; raises on NaN and infinity."""
    layers, n, d = states.shape
    elements = _CHECK_ELEMENTS.get(states.device.type, _CHECK_ELEMENTS["cuda"])
    if states.numel() <= elements:
        largest = magnitudes(states)
    else:
        largest = torch.empty(layers, n, dtype=torch.float64, device=states.device)
        step = max(1, elements // d)
        together = max(1, step // max(1, n))  # whole layers, or a part of one
        for first in range(0, layers, together):
            for start in range(0, n, step):
                part = slice(first, first + together), slice(start, start + step)
                largest[part] = magnitudes(states[part])
    # NaN and infinity both reach the largest of all: one number is read back, the rest only then.
    if largest.numel() and not math.isfinite(float(largest.amax())):
        bad = ~torch.isfinite(largest)
        layer, row = bad.nonzero()[0].tolist()
        kind = "NaN" if bool(torch.isnan(largest[layer, row])) else "infinity"
        where = f"row {row}" if single else f"layer {layer}, row {row}"
        raise HiddenStateError(
            f"{name} must be finite; found {kind} in {where} (rows that hold NaN or infinity, in "
            f"all: {int(bad.sum())})"
        )
    return largest


def magnitudes(rows: Tensor) -> Tensor:
    """Largest magnitude of each row of ``[..., d]``, float64 ``[...]``; NaN where a row holds one.

    Raises InputError on subnormal numbers where the processor is set to take them for zero.
    """
    if rows.is_cuda:  # fewer launches than by aminmax
        largest: Tensor = torch.linalg.vector_norm(rows, ord=torch.inf, dim=-1)
        return largest.to(torch.float64)
    if flushes(rows) and has_subnormal(rows):
        raise InputError(FLUSHED)
    low, high = torch.aminmax(rows, dim=-1)
    return torch.maximum(high, -low).to(torch.float64)


def flushes(rows: Tensor) -> bool:
    """Whether arithmetic over a CPU's tensor makes zeros of subnormal numbers, in any thread of it.

    Threads that torch starts for large tensors have the setting of the thread that was first to
    need them, for good: every one of them is asked.
    """
    elements = 1 if rows.numel() <= _GRAIN else _GRAIN * torch.get_num_threads()
    single = torch.float32  # smallest, and flushed as float64 is
    tiny = torch.full((elements,), torch.finfo(single).tiny, dtype=single, device="cpu")
    return bool(((tiny * 0.5).view(torch.int32) == 0).any())


def has_subnormal(rows: Tensor) -> bool:
    """Whether a CPU's tensor holds numbers that such arithmetic would make zeros of."""
    if rows.device.type != "cpu" or rows.dtype not in _NORMAL:
        return False
    # by the bits, as a comparison of flushed numbers sees zeros
    integer, normal = _NORMAL[rows.dtype]
    bits = rows.view(integer) & torch.iinfo(integer).max
    return bool(((bits > 0) & (bits < normal)).any())


def unit_rows(layer: Tensor) -> Tensor:
    """Rows scaled to length 1 in float64; a zero row stays zero (similar to nothing).

    >>> unit_rows(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
    tensor([[0.6000, 0.8000],
            [0.0000, 0.0000]], dtype=torch.float64)
    """
    unit = torch.empty(layer.shape, dtype=torch.float64, device=layer.device)
    for start in range(0, len(layer), _ROWS):
        rows = layer[start : start + _ROWS].double()
        # scale by the largest entry first: squares of very large or small ones leave float64
        largest = rows.abs().amax(dim=1, keepdim=True)
        rows = rows / torch.where(largest > 0, largest, 1)
        length = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
        unit[start : start + _ROWS] = rows / torch.where(length > 0, length, 1)
    return unit


def rounding_tolerance(d: int) -> float:
    """How far two equal float64 cosines of d-dimensional float64 rows can come out apart.

    Scaling a row to length 1 errs by at most (d / 2 + 4) u relative to its length, the product
    of two such rows by a further d u, u = 2^-53: (2 d + 8) u for one cosine, to first order,
    and twice that, with a unit to spare, for the difference of two.
    """
    return (4 * d + 20) * 2.0**-53
