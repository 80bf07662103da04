"""Arrays of any library as torch tensors, results back in kind; the checks of plain arguments."""

import math
import operator
import warnings
from collections.abc import Callable
from importlib import import_module
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch.utils.dlpack import from_dlpack

from ilo_fast.errors import HiddenStateError, InputError

__all__ = [
    "FLOATS",
    "FLUSHED",
    "at_least_0",
    "at_least_1",
    "between_0_and_1",
    "check_seed",
    "flushes",
    "has_subnormal",
    "magnitudes",
    "not_negative",
    "readable",
    "real_number",
    "row_max",
    "tensor_of_dlpack",
    "to_torch",
    "true_or_false",
    "whole_number",
    "with_numbers",
    "without_mask",
]

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
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


def _brief(value: Any) -> str:
    """A value in one line: what was given in the wrong place may be an array of a million."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else f"{text[:60]}… ({type(value).__name__})"


def whole_number(value: Any, name: str) -> int:
    """An integer of any library as Python's; bool is none."""
    if isinstance(value, bool | np.bool_):
        raise TypeError(f"{name} must be an integer; got {_brief(value)}")
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer; got {_brief(value)}") from None


def at_least_0(value: Any, name: str) -> int:
    """`whole_number`, and InputError below 0."""
    number = whole_number(value, name)
    if number < 0:
        raise InputError(f"{name} must be at least 0; got {number}")
    return number


def at_least_1(value: Any, name: str) -> int:
    """`whole_number`, and InputError below 1 or beyond 64 bits."""
    number = whole_number(value, name)
    if number < 1:
        raise InputError(f"{name} must be at least 1; got {number}")
    if number >= 1 << 63:
        raise InputError(f"{name} must be below {1 << 63}; got {number}")
    return number


def check_seed(value: Any, below: int = 1 << 63) -> int:
    """`whole_number`, and InputError where a generator could not begin from it.

    torch's take 64 bits with a sign, NumPy's no negative ones.
    """
    number = whole_number(value, "seed")
    if not 0 <= number < below:
        raise InputError(f"seed must be at least 0 and below {below}; got {number}")
    return number


def real_number(value: Any, name: str) -> float:
    """A number of any library as Python's; neither bool nor NaN is one."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number; got {_brief(value)}")
    if math.isnan(value):
        raise InputError(f"{name} must be a number; got {_brief(value)}")
    return float(value)


def not_negative(value: Any, name: str) -> float:
    """`real_number`, and InputError below 0."""
    number = real_number(value, name)
    if number < 0:
        raise InputError(f"{name} must be at least 0; got {number}")
    return number


def between_0_and_1(value: Any, name: str) -> float:
    """`real_number`, and InputError outside 0 … 1 or at its ends."""
    number = real_number(value, name)
    if not 0 < number < 1:
        raise InputError(f"{name} must lie between 0 and 1, got {number}")
    return number


def true_or_false(value: Any, name: str) -> bool:
    """A truth value of Python or NumPy as Python's: "no" would count as true, 0 as false."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name} must be True or False; got {_brief(value)}")
    return bool(value)


def magnitudes(rows: torch.Tensor) -> torch.Tensor:
    """Largest magnitude of each row of ``[..., d]``, float64 ``[...]``; NaN where a row holds one.

    Raises InputError on subnormal numbers where the processor is set to take them for zero.
    """
    if flushes(rows) and has_subnormal(rows):
        raise InputError(FLUSHED)
    if rows.is_cuda:  # fewer launches than by aminmax
        largest: torch.Tensor = torch.linalg.vector_norm(rows, ord=torch.inf, dim=-1)
        return largest.to(torch.float64)
    low, high = torch.aminmax(rows, dim=-1)
    return torch.maximum(high, -low).to(torch.float64)


def flushes(rows: torch.Tensor) -> bool:
    """Whether arithmetic over a CPU's tensor makes zeros of subnormal numbers, in any thread of it.

    Threads that torch starts for large tensors have the setting of the thread that was first to
    need them, for good: every one of them is asked.
    """
    elements = 1 if rows.numel() <= _GRAIN else _GRAIN * torch.get_num_threads()
    single = torch.float32  # smallest, and flushed as float64 is
    tiny = torch.full((elements,), torch.finfo(single).tiny, dtype=single, device="cpu")
    return bool(((tiny * 0.5).view(torch.int32) == 0).any())


def has_subnormal(rows: torch.Tensor) -> bool:
    """Whether a CPU's tensor holds numbers that such arithmetic would make zeros of."""
    if rows.device.type != "cpu" or rows.dtype not in _NORMAL:
        return False
    # by the bits, as a comparison of flushed numbers sees zeros
    integer, normal = _NORMAL[rows.dtype]
    bits = rows.view(integer) & torch.iinfo(integer).max
    return bool(((bits > 0) & (bits < normal)).any())


def row_max(states: torch.Tensor, single: bool, name: str = "x") -> torch.Tensor:
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


def to_torch(x: Any, name: str = "x") -> tuple[torch.Tensor, Callable[[torch.Tensor], Any]]:
    """The input as a tensor that shares its memory, and a function that converts results back."""
    tensor: torch.Tensor
    in_kind: Callable[[torch.Tensor], Any]
    if isinstance(x, torch.Tensor):
        tensor, in_kind = x, _unchanged
    elif isinstance(x, np.ndarray):
        tensor, in_kind = _from_numpy(x, name), _to_numpy
    elif hasattr(x, "__dlpack__"):
        tensor, in_kind = tensor_of_dlpack(x, name), _dlpack_back(x)
    else:
        raise TypeError(
            f"{name} must be a torch tensor, a NumPy or CuPy array or an object with __dlpack__; "
            f"got {type(x).__name__}{_way_to_array(x, name)}"
        )
    if tensor.dtype not in FLOATS:
        raise TypeError(
            f"{name} must be float16, bfloat16, float32 or float64; got {str(tensor.dtype)[6:]}"
        )
    with_numbers(tensor, name)
    return tensor, in_kind


def tensor_of_dlpack(x: Any, name: str) -> torch.Tensor:
    """A tensor over the memory of an object with ``__dlpack__``."""
    if not hasattr(x, "__dlpack_device__"):  # a tracer's says so only when asked
        raise TypeError(
            f"{name} must hold numbers; got {type(x).__name__}, which stands for them while a "
            "function is traced: what jax.jit, vmap or grad transforms cannot call this"
        )
    tensor: torch.Tensor = from_dlpack(x)
    return tensor


def _way_to_array(x: Any, name: str) -> str:
    """What would make an array of something else, for the error that refuses it."""
    method = next((m for m in ("to_numpy", "toarray") if hasattr(x, m)), None)
    if method is not None:
        return f" (pass {name}.{method}())"
    if not isinstance(x, list | tuple):
        return ""
    of_tensors = any(isinstance(each, torch.Tensor) for each in x)
    return f" (pass {'torch.stack' if of_tensors else 'numpy.array'}({name}))"


def with_numbers(tensor: torch.Tensor, name: str) -> None:
    """Refuse a tensor whose numbers do not lie in memory place by place."""
    if tensor.layout != torch.strided:
        raise TypeError(f"{name} must be dense; got layout {str(tensor.layout)[6:]}")
    if tensor.is_meta:
        raise TypeError(f"{name} must hold numbers; got a tensor on the device meta")


def without_mask(x: np.ndarray[Any, Any], name: str) -> None:
    """Refuse an array whose mask torch would not see."""
    if isinstance(x, np.ma.MaskedArray):
        raise TypeError(
            f"{name} must be an array without a mask; got a NumPy masked array, whose hidden "
            "entries would count (its filled() or compressed() is a plain one)"
        )


def _from_numpy(x: np.ndarray[Any, Any], name: str) -> torch.Tensor:
    without_mask(x, name)
    if x.dtype.kind != "f" or x.dtype.itemsize > 8:
        raise TypeError(f"{name} must be float16, bfloat16, float32 or float64; got {x.dtype}")
    x = readable(x)
    if x.flags.writeable:
        return torch.from_numpy(x)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # read-only memory is fine: it is never written
        return torch.from_numpy(x)


def readable(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The array, or a copy where torch cannot read it: a foreign byte order, strides that are
    negative or no multiple of an entry.

    >>> readable(np.arange(3)[::-1]).strides
    (8,)
    """
    whole = all(stride >= 0 and stride % x.itemsize == 0 for stride in x.strides)
    if x.dtype.isnative and x.flags.aligned and whole:
        return x
    # a copy in any case: an axis of length 1 keeps its negative stride in a contiguous array
    return np.array(x, dtype=x.dtype.newbyteorder("="), order="C")


def _unchanged(result: torch.Tensor) -> torch.Tensor:
    return result


def _to_numpy(result: torch.Tensor) -> np.ndarray[Any, Any]:
    return result.numpy()


def _dlpack_back(x: Any) -> Any:
    """How to hand tensors to the library ``x`` is from: its array namespace, or its module."""
    if hasattr(x, "__array_namespace__"):
        library = x.__array_namespace__()
    else:
        package = type(x).__module__.partition(".")[0]
        # JAX's arrays had no namespace before 0.4.32, and their class belongs to another package
        library = import_module("jax.numpy" if package == "jaxlib" else package)
    if not hasattr(library, "from_dlpack"):
        return _unchanged
    return library.from_dlpack
