"""A CUDA card that is none: tensors that say "cuda" and lie in host memory.

For checks of the code around kernels on machines without a card: which tensors meet which, what
is copied where, which streams and generators are named. As on a card, an operation that mixes
host and card raises, and so do NumPy views and host random generators. Triton kernels run under
the interpreter, the CUDA C++ ones by the host's compiler. It says nothing about speed, nor about
what only a card's own arithmetic can show.

Used as a pytest plugin in a process of its own (tests/test_emulated_card.py): installing it
replaces parts of torch.cuda for good. It leans on private parts of torch, as its fake tensors do.
"""

import contextlib
import ctypes
import re
import subprocess
import sys
import tempfile
import threading
import types
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from cuda_words import WORDS
from torch.overrides import TorchFunctionMode
from torch.utils._mode_utils import no_dispatch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

HERE = torch.device("cuda", 0)
_COPIES = {"aten::_to_copy", "aten::copy_", "aten::lift_fresh"}
_PRODUCTS = {"aten::mm", "aten::bmm", "aten::addmm", "aten::baddbmm", "aten::mv", "aten::dot"}

# torch asks for a device guard before Python sees a call; this build has none for CUDA.
_GUARD = """
#include <c10/core/impl/DeviceGuardImplInterface.h>
using namespace c10;
static impl::NoOpDeviceGuardImpl<DeviceType::CUDA> none;
static struct Once {
  Once() { impl::device_guard_impl_registry[static_cast<size_t>(DeviceType::CUDA)].store(&none); }
} once;
"""
_GRID = """
extern "C" void run(long long blocks, long long rows, long long threads, PARAMETERS) {
  gridDim = {blocks * threads, rows, 1};
  blockDim = {1, 1, 1};
  for (blockIdx.y = 0; blockIdx.y < rows; ++blockIdx.y)
    for (blockIdx.x = 0; blockIdx.x < gridDim.x; ++blockIdx.x) KERNEL(NAMES);
}
"""


def _built(source: str, options: list[str]) -> ctypes.CDLL:
    with tempfile.TemporaryDirectory(prefix="emulated-card-") as folder:  # loaded, it can go
        code, library = Path(folder, "code.cpp"), Path(folder, "code.so")
        code.write_text(source)
        files = [str(code), "-o", str(library)]
        subprocess.run(["g++", "-O1", "-shared", "-fPIC", *files, *options], check=True)
        return ctypes.CDLL(str(library))


class Card(torch.Tensor):
    """A tensor "on the card"; ``host`` holds its numbers."""

    host: torch.Tensor

    @staticmethod
    def __new__(cls, host: torch.Tensor) -> "Card":
        with torch.inference_mode(host.is_inference()):  # a view there of what was made outside
            made = torch.Tensor._make_wrapper_subclass(
                cls, host.shape, strides=host.stride(), storage_offset=host.storage_offset(),
                dtype=host.dtype, layout=host.layout, device="meta", dispatch_device=True,
            )  # fmt: skip
        made.host = host
        return made

    @classmethod
    def __torch_function__(
        cls, function: Any, kinds: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if function in (torch.Tensor.data_ptr, torch.Tensor.untyped_storage, torch.Tensor.tolist):
            return function(args[0].host)
        if function is torch.Tensor.numpy or getattr(function, "__name__", "") == "__array__":
            raise TypeError("can't convert cuda:0 device type tensor to numpy")
        with torch._C.DisableTorchFunctionSubclass():
            return function(*args, **(kwargs or {}))

    @classmethod
    def __torch_dispatch__(
        cls, function: Any, kinds: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        return _run(function, args, kwargs or {})


def _on_card(device: Any) -> bool:
    return device is not None and torch.device(device).type == "cuda"


def _host(value: Any) -> Any:
    return value.host if isinstance(value, Card) else value


def _run(function: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """An operator on host memory, refused where a card would refuse it."""
    if function is torch.ops.prim.device.default:
        return HERE if isinstance(args[0], Card) else args[0].device
    name = function._schema.name
    operator = torch._library.custom_ops.OPDEFS.get(name)
    if operator is not None:  # registered in Python: its CUDA implementation, with these tensors
        kernels = operator._backend_fns
        with torch._C._EnableTorchFunction(), _Indexed(), _Dispatch():
            return kernels.get("cuda", kernels.get(None))(*args, **kwargs)
    if function is torch.ops.aten.bmm.dtype_out:
        return _half_products(*args, **kwargs)
    if name == "aten::_flash_attention_forward":
        return _attention(*args, **kwargs)
    if name == "aten::_cudnn_attention_forward":  # preferred since torch 2.15
        return _cudnn_attention(*args, **kwargs)
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    cards = [tensor for tensor in tensors if isinstance(tensor, Card)]
    strangers = [t for t in tensors if not isinstance(t, Card) and t.ndim]
    target = kwargs.get("device")
    indexed = name in ("aten::index", "aten::index_put_", "aten::_index_put_impl_")
    if cards and strangers and name not in _COPIES:
        values = args[2:3] if indexed else strangers  # indices may lie on the host
        if not isinstance(args[0], Card) or any(value is t for value in values for t in strangers):
            raise RuntimeError(f"Expected all tensors to be on the same device: {function}")
    if name in _PRODUCTS and cards and not cards[0].dtype.is_floating_point:
        raise RuntimeError(f'"{name}" not implemented for {cards[0].dtype} on CUDA')
    lies_there = _on_card(target) if target is not None else bool(cards)
    if lies_there and kwargs.get("generator") is not None:
        raise RuntimeError("Expected a 'cuda' device type for generator but found 'cpu'")
    plain = {**kwargs, "device": torch.device("cpu")} if _on_card(target) else dict(kwargs)
    if plain.get("pin_memory"):
        plain["pin_memory"] = False
    result = function(*tree_map(_host, args), **tree_map(_host, plain))
    if name == "aten::copy_":
        return args[0]
    wrappers = {id(card.host): card for card in cards}

    def wrapped(value: Any) -> Any:
        if not isinstance(value, torch.Tensor) or not lies_there:
            return value
        known = wrappers.get(id(value))
        if known is None:
            return Card(value)
        if known.shape != value.shape:  # squeeze_ and its like
            with no_dispatch():
                before = torch._C._meta_in_tls_dispatch_include()
                torch._C._set_meta_in_tls_dispatch_include(True)
                function(known, *args[1:], **kwargs)
                torch._C._set_meta_in_tls_dispatch_include(before)
        return known

    return tree_map(wrapped, result)


def _half_products(left: Card, right: Card, dtype: torch.dtype, *, out: Card) -> Card:
    """float16 products summed in float32, which torch has for CUDA alone."""
    assert left.dtype == right.dtype == torch.float16
    assert dtype == out.dtype == torch.float32
    torch.bmm(left.host.float(), right.host.float(), out=out.host)
    return out


def _attention(
    query: Card, key: Card, value: Card, offsets: Card, _: Card, longest: int, *rest: Any,
    scale: float | None = None, window_size_left: int | None = None,
    window_size_right: int | None = None, **more: Any,
) -> tuple[Card, ...]:  # fmt: skip
    """What torch's variable-length kernel computes and asks of its arguments; self-attention."""
    for tensor in (query, key, value):
        assert tensor.dtype in (torch.float16, torch.bfloat16)
        assert tensor.host.stride(-1) == 1
        assert tensor.shape[-1] % 8 == 0
    assert offsets.dtype == torch.int32
    assert offsets.host.is_contiguous()
    bounds = offsets.host.tolist()
    assert longest >= max(end - start for start, end in pairwise(bounds))
    q, k, v = (tensor.host.double() for tensor in (query, key, value))
    k, v = (t.repeat_interleave(q.shape[1] // k.shape[1], 1) for t in (k, v))
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    left, right = (-1 if side is None else side for side in (window_size_left, window_size_right))
    right = 0 if rest[2] else right  # rest: longest key, dropout, causal, debug mask
    out = torch.full_like(query.host, torch.nan)
    for start, end in pairwise(bounds):
        scores = torch.einsum("qhd,khd->hqk", q[start:end], k[start:end]) * scale
        at = torch.arange(end - start)
        distance = at[:, None] - at
        hidden = torch.zeros_like(distance, dtype=torch.bool)
        if left >= 0:
            hidden |= distance > left
        if right >= 0:
            hidden |= -distance > right
        weights = scores.masked_fill(hidden, -torch.inf).softmax(-1)
        out[start:end] = torch.einsum("hqk,khd->qhd", weights, v[start:end]).to(out.dtype)
    zero = torch.zeros((), dtype=torch.int64)
    return Card(out), Card(torch.zeros(q.shape[1], len(q))), Card(zero), Card(zero), Card(zero)


def _cudnn_attention(
    query: Card, key: Card, value: Card, _: None, offsets: Card, others: Card, longest: int,
    longest_key: int, sums: bool, dropout: float = 0.0, causal: bool = False, *rest: Any,
    scale: float | None = None, **more: Any,
) -> tuple[Any, ...]:  # fmt: skip
    """The same with the arguments and results of cuDNN's, which knows no window."""
    given = (query, key, value, offsets, others, longest, longest_key, dropout, causal)
    out, made, zero, *_ = _attention(*given, scale=scale)
    return out, made, offsets, others, longest, longest_key, zero, zero, zero


class _Dispatch(TorchDispatchMode):
    def __torch_dispatch__(
        self, function: Any, kinds: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        leaves = tree_leaves((args, kwargs))
        if any(isinstance(leaf, Card) for leaf in leaves) or _on_card(kwargs.get("device")):
            return _run(function, args, kwargs)
        if kwargs.get("pin_memory"):
            kwargs["pin_memory"] = False
        return function(*args, **kwargs)


class _Indexed(TorchFunctionMode):
    """ "cuda" → "cuda:0", and the calls that look for a real card before they are dispatched."""

    def __torch_function__(
        self, function: Any, kinds: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if function is torch.device:
            return function(*args, **kwargs)
        args, kwargs = tree_map(_indexed, args), tree_map(_indexed, kwargs)
        if function is torch.Tensor.cuda:
            return args[0].to(HERE)
        if function is torch.Tensor.cpu:
            return args[0].to("cpu")
        if function is torch.Tensor.pin_memory:
            return args[0]
        if function is torch.Tensor.to:
            return _to(*args, **kwargs)
        if function in (torch.tensor, torch.as_tensor) and _on_card(kwargs.get("device")):
            del kwargs["device"]
            return function(*args, **kwargs).to(HERE)
        return function(*args, **kwargs)


def _indexed(value: Any) -> Any:
    named = isinstance(value, torch.device) and value.type == "cuda"
    return HERE if named or (isinstance(value, str) and value == "cuda") else value


def _to(tensor: torch.Tensor, *args: Any, copy: bool = False, **kwargs: Any) -> torch.Tensor:
    other = kwargs.get("other", args[0] if args else None)
    if isinstance(other, torch.Tensor):
        device, dtype = other.device, other.dtype
    else:
        device, dtype, _, _ = torch._C._nn._parse_to(*args, **kwargs)
    device, dtype = device or tensor.device, dtype or tensor.dtype
    if (device, dtype) == (tensor.device, tensor.dtype) and not copy:
        return tensor
    moved = _host(tensor).to(dtype=dtype, copy=True)
    return Card(moved) if _on_card(device) else moved


class _Stream:
    cuda_stream = 0
    device = HERE

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def _nothing(self, *args: Any) -> None:
        pass

    synchronize = wait_stream = wait_event = record_event = record = wait = _nothing


class _Current:
    """`torch.cuda.device` and `cupy.cuda.Device` as contexts."""

    def __init__(self, device: Any, *args: Any) -> None:
        assert _on_card(device) if isinstance(device, torch.device) else device in (0, -1)

    def __enter__(self) -> None:
        pass

    def __exit__(self, *args: Any) -> None:
        pass


class _RawModule:
    """`cupy.RawModule`: the kernel as a loop over its threads."""

    def __init__(self, code: str, options: tuple[str, ...], backend: str) -> None:
        self._code, self._options = code, [*options]

    def get_function(self, name: str) -> Any:
        found = re.search(rf"void {name}\(([^{{]*)\)\s*{{", self._code)
        assert found is not None
        parameters = re.sub(r"//.*", "", found[1])
        names = re.findall(r"(\w+)\s*(?:,|$)", parameters.strip())
        grid = _GRID.replace("PARAMETERS", parameters).replace("NAMES", ", ".join(names))
        library = _built(WORDS + self._code + grid.replace("KERNEL", name), self._options)

        def launch(blocks: Any, threads: Any, values: Any) -> None:
            assert len(values) == len(names)
            numbers = (*blocks, *threads, *values)
            library.run(*(ctypes.c_longlong(int(number)) for number in numbers))

        return launch


def _replace_triton() -> None:
    from quick_interpreter import prepare_once_a_launch
    from triton.runtime import interpreter
    from triton.tools.tensor_descriptor import TensorDescriptor

    call = interpreter.GridExecutor.__call__

    def reachable(value: Any) -> Any:
        if isinstance(value, torch.Tensor) and not isinstance(value, Card):
            raise ValueError("Pointer argument cannot be accessed from Triton (cpu tensor?)")
        if isinstance(value, TensorDescriptor):
            size = value.base.element_size()
            assert all(stride * size % 16 == 0 for stride in value.strides[:-1])
            assert value.strides[-1] == 1
            assert max(value.block_shape) <= 256
            return TensorDescriptor(
                value.base.host, value.shape, value.strides, value.block_shape, value.padding
            )
        return _host(value)

    def launch(self: Any, *args: Any, **kwargs: Any) -> Any:
        return call(self, *map(reachable, args), **{k: reachable(v) for k, v in kwargs.items()})

    interpreter.GridExecutor.__call__ = launch
    prepare_once_a_launch()


def install() -> None:
    """Put the card into this process."""
    include = Path(torch.__file__).parent / "include"
    library = Path(torch.__file__).parent / "lib"
    _built(_GUARD, ["-std=c++20", f"-I{include}", f"-L{library}", "-lc10"])
    card = types.SimpleNamespace(
        name="emulated", major=9, minor=0, total_memory=80 << 30, multi_processor_count=132
    )
    constants = {
        "_lazy_init": None, "is_available": True, "is_initialized": True, "device_count": 1,
        "current_device": 0, "get_device_capability": (9, 0), "get_device_properties": card,
        "get_device_name": card.name, "mem_get_info": (60 << 30, 80 << 30), "synchronize": None,
        "empty_cache": None, "current_stream": _Stream(), "default_stream": _Stream(),
        "_sleep": None, "memory_allocated": 0, "max_memory_allocated": 0, "memory_reserved": 0,
        "reset_peak_memory_stats": None,
    }  # fmt: skip
    for name, constant in constants.items():
        setattr(torch.cuda, name, lambda *args, _constant=constant, **kwargs: _constant)
    torch.cuda.stream = lambda stream: contextlib.nullcontext()
    torch.cuda.Stream = torch.cuda.Event = _Stream
    torch.cuda.device = _Current
    torch.Tensor.record_stream = lambda tensor, stream: None
    cupy = types.ModuleType("cupy")
    cupy.__spec__ = types.SimpleNamespace()
    cupy.RawModule = _RawModule
    cupy.cuda = types.SimpleNamespace(
        Device=_Current,
        Stream=types.SimpleNamespace(from_external=lambda stream: contextlib.nullcontext()),
    )
    sys.modules["cupy"] = cupy
    _replace_triton()
    run = threading.Thread.run

    def run_there(thread: threading.Thread) -> None:
        with _Indexed(), _Dispatch():
            run(thread)

    threading.Thread.run = run_there
    _Indexed().__enter__()
    _Dispatch().__enter__()


def pytest_configure() -> None:
    """pytest's call to a plugin; an import alone must change nothing."""
    install()
    from ilo_fast.ops import triton_trial

    # the trial's thousands of points take the interpreter minutes; tests name the engine
    triton_trial.doubt = lambda device, request: "the card is emulated"
