"""Arrays of any library as torch tensors, and results back in kind."""

import warnings
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from ilo_fast.errors import InputError

__all__ = [
    "FLOATS",
    "as_tensor",
    "no_table",
    "readable",
    "real_array",
    "to_torch",
    "with_numbers",
    "without_mask",
]

_CPU = 1  # DLPack's number of it
_UNREADABLE = (BufferError, RuntimeError, TypeError, ValueError)  # each library raises another

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def to_torch(x: Any, name: str = "x") -> tuple[Tensor, Callable[[Tensor], Any]]:
    """Floating-point input as a tensor that shares its memory, and what converts results back."""
    tensor: Tensor
    in_kind: Callable[[Tensor], Any]
    if isinstance(x, Tensor):
        tensor, in_kind = x, _unchanged
    elif isinstance(x, np.ndarray):
        tensor, in_kind = _from_numpy(x, name), _to_numpy
    elif hasattr(x, "__dlpack__"):
        tensor, in_kind = _from_dlpack(x, name), _dlpack_back(x)
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


def _from_dlpack(x: Any, name: str) -> Tensor:
    """A tensor over the memory of an object with ``__dlpack__``."""
    if not hasattr(x, "__dlpack_device__"):  # a tracer's says so only when asked
        raise TypeError(
            f"{name} must hold numbers; got {type(x).__name__}, which stands for them while a "
            "function is traced: what jax.jit, vmap or grad transforms cannot call this"
        )
    strides = getattr(x, "strides", None)
    try:
        # negative strides end the process in torch; NumPy reads them, but no bfloat16
        if x.__dlpack_device__()[0] == _CPU:
            with suppress(*_UNREADABLE):
                return _shared(np.from_dlpack(x))
        if isinstance(strides, tuple) and any(stride < 0 for stride in strides):
            raise TypeError("negative strides, which a copy has not")
        return from_dlpack(x)
    except _UNREADABLE as error:
        raise TypeError(
            f"{name} must be readable through DLPack; got {type(x).__name__}: {error}"
        ) from error


def no_table(x: Any, name: str) -> None:
    """Refuse a table (of pandas, polars): a column of layers or labels would be a dimension."""
    if hasattr(x, "to_numpy") and not hasattr(x, "__dlpack__"):
        way = _way_to_array(x, name)
        raise TypeError(f"{name} must be an array; got {type(x).__name__}{way}")


def _way_to_array(x: Any, name: str) -> str:
    """What would make an array of something else, for the error that refuses it."""
    method = next((m for m in ("to_numpy", "toarray") if hasattr(x, m)), None)
    if method is not None:
        return f" (pass {name}.{method}())"
    if not isinstance(x, list | tuple):
        return ""
    of_tensors = any(isinstance(each, Tensor) for each in x)
    return f" (pass {'torch.stack' if of_tensors else 'numpy.array'}({name}))"


def as_tensor(value: Any, name: str) -> Tensor:
    """Numbers of any dtype, in an array of any library or a list, as a tensor without gradient."""
    if isinstance(value, Tensor):
        with_numbers(value, name)
        return value.detach()
    if isinstance(value, np.ndarray):
        without_mask(value, name)
        try:
            return _shared(value)
        except TypeError as error:
            raise InputError(f"{name} must hold numbers, got dtype {value.dtype}") from error
    if hasattr(value, "__dlpack__"):
        return _from_dlpack(value, name)
    try:
        return torch.from_numpy(np.array(value))
    except (RuntimeError, TypeError, ValueError) as error:  # RuntimeError: tensors with gradients
        raise InputError(f"{name} must be an array, got {type(value).__name__}") from error


def real_array(value: Any, name: str) -> np.ndarray:
    """Real numbers as float64 NumPy, of any shape.

    Raises:
        InputError: when they are none.

    >>> real_array(torch.tensor([1.0, 0.5], dtype=torch.bfloat16), "scores")
    array([1. , 0.5])
    """
    tensor = as_tensor(value, name)
    if tensor.is_complex():
        raise InputError(f"{name} must hold real numbers, got dtype {tensor.dtype}")
    return np.asarray(tensor.double().cpu().numpy())


def with_numbers(tensor: Tensor, name: str) -> None:
    """Refuse a tensor whose numbers do not lie in memory place by place."""
    if hasattr(tensor, "full_tensor"):  # known by that: a DTensor's class is slow to import
        raise TypeError(
            f"{name} must hold all its numbers; got a DTensor, spread over processes (its "
            "full_tensor() does; knn_sharded takes each one's to_local())"
        )
    if tensor.is_nested:
        raise TypeError(f"{name} must be dense; got a nested tensor")
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


def _from_numpy(x: np.ndarray[Any, Any], name: str) -> Tensor:
    without_mask(x, name)
    if x.dtype.name not in ("float16", "bfloat16", "float32", "float64"):
        raise TypeError(f"{name} must be float16, bfloat16, float32 or float64; got {x.dtype}")
    return _shared(x)


def _shared(x: np.ndarray[Any, Any]) -> Tensor:
    """A tensor over an array's memory, where torch can read it."""
    if x.dtype.name == "bfloat16":  # ml_dtypes' own, which JAX brings: torch knows its bits alone
        return _shared(x.view(np.int16)).view(torch.bfloat16)
    x = readable(x)
    if x.flags.writeable:
        return torch.from_numpy(x)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # read-only memory is fine: it is never written
        return torch.from_numpy(x)


def _unchanged(result: Tensor) -> Tensor:
    return result


def _to_numpy(result: Tensor) -> np.ndarray[Any, Any]:
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
