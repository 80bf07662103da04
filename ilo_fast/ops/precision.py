"""The one place that keeps float32 products IEEE float32, and sums of float16 products float32.

TF32 on CUDA, bfloat16 inside oneDNN and autocast all make ``torch.mm`` of float32 tensors far less
precise than the certificate's bound assumes, and float16 sums would do that to float16 products.
Each can be switched on globally by the caller's program, so the engine switches them off around its
own products and puts them back. What it cannot switch (environment variables of the libraries
behind ``torch.mm``, another thread of the program) it notices: products are tried once a process
and device, and the switches are read again at the end.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor

from ilo_fast.errors import InputError

__all__ = [
    "UNIT_ROUNDOFF_32",
    "UNIT_ROUNDOFF_64",
    "full_precision",
    "gamma",
    "ieee_products",
    "worst_share",
]

UNIT_ROUNDOFF_32 = 2.0**-24
UNIT_ROUNDOFF_64 = 2.0**-53


def gamma(terms: int, unit_roundoff: float) -> float:
    """Bound of the relative error of a sum of products of ``terms`` terms in any order.

    ``terms * u / (1 - terms * u)``: Higham, Accuracy and Stability of Numerical Algorithms,
    2nd ed., lemma 3.1. Holds with or without fused multiply-add and for every blocking.

    >>> gamma(384, UNIT_ROUNDOFF_32) < 2.3e-5
    True
    """
    product = terms * unit_roundoff
    if product >= 0.5:
        raise ValueError(f"no useful bound for {terms} terms at unit roundoff {unit_roundoff:g}")
    return product / (1.0 - product)


_LOCK = threading.Lock()
_INSIDE = {"cpu": 0, "cuda": 0}  # blocks open in all threads: the settings are the process's
_BEFORE: dict[str, list[Any]] = {}
_HALF_REDUCTIONS = "allow_fp16_reduced_precision_reduction"


def _switches(kind: str) -> list[tuple[Any, str, Any]]:
    """torch's settings of products on a kind of device, and what proofs need of each."""
    backends: Any = torch.backends
    if kind == "cpu":
        return [(backends.mkldnn.matmul, "fp32_precision", "ieee")]
    products = backends.cuda.matmul
    return [
        (products, "fp32_precision", "ieee"),
        (products, "allow_fp16_accumulation", False),
        (products, _HALF_REDUCTIONS, False),
    ]


def _set(holder: Any, name: str, value: Any) -> None:
    if name == _HALF_REDUCTIONS:  # set alone, it would allow sums in parts again
        value = value, holder.allow_fp16_reduced_precision_reduction_split_k
    setattr(holder, name, value)


@contextmanager
def full_precision(kind: str) -> Iterator[None]:
    """The first block in sets the precision, the last one out puts back what it was.

    Where another thread has set it meanwhile, what was computed proves nothing: that is raised, and
    the other's choice stays.
    """
    switches = _switches(kind)
    with _LOCK:
        if not _INSIDE[kind]:
            _BEFORE[kind] = [getattr(holder, name) for holder, name, _ in switches]
            for holder, name, needed in switches:
                _set(holder, name, needed)
        _INSIDE[kind] += 1
    try:
        yield
        if any(getattr(holder, name) != needed for holder, name, needed in switches):
            raise RuntimeError(
                "another thread changed torch's matmul precision during a search, whose products "
                "then prove nothing; set it before"
            )
    finally:
        with _LOCK:
            _INSIDE[kind] -= 1
            if not _INSIDE[kind]:
                for (holder, name, needed), before in zip(switches, _BEFORE.pop(kind), strict=True):
                    if getattr(holder, name) == needed:
                        _set(holder, name, before)


def worst_share(device: torch.device, product: Callable[[Tensor, Tensor], Tensor]) -> float:
    """Largest error of float32 products as a share of their bound; NaN where they are not finite.

    ``product`` multiplies float32 matrices of the device, whose switches are set.

    Few terms show operands that are rounded, many of them sums that are; rows and columns of
    unlike magnitude show algorithms that are exact to the whole matrix's norm only.
    """
    generator = torch.Generator().manual_seed(0)
    worst = 0.0
    for terms in (16, 256):
        left, right = (
            (1.0 + torch.rand(64, terms, generator=generator, dtype=torch.float32, device="cpu"))
            * 2.0 ** torch.randint(-12, 13, (64, 1), generator=generator, device="cpu")
            for _ in range(2)
        )
        left, right = left.to(device), right.to(device).T
        exact = left.double() @ right.double()
        off = (product(left, right).double() - exact).abs() / exact
        share = float(off.amax()) / gamma(terms, UNIT_ROUNDOFF_32)
        worst = max(worst, share) if share == share else share
    return worst


@cache
def _share_of_torch(device: torch.device) -> float:
    return worst_share(device, torch.mm)


def _tried(device: torch.device) -> None:
    """Raise unless float32 products of a device keep to `gamma`, full precision being asked for."""
    share = _share_of_torch(device)
    if not share <= 1.0:
        raise InputError(
            f"float32 products on {device} are off by {share:.2g} times the bound of IEEE "
            "arithmetic, so no neighbour could be proved; a setting outside torch makes them "
            "coarser (DNNL_DEFAULT_FPMATH_MODE, NVIDIA_TF32_OVERRIDE and the like): take it back"
        )


@contextmanager
def ieee_products(device: torch.device) -> Iterator[None]:
    """Run float32 and float64 matrix products of ``device`` in full IEEE precision.

    >>> with ieee_products(torch.device("cpu")):
    ...     torch.backends.mkldnn.matmul.fp32_precision
    'ieee'
    """
    # Inference tensors could not be written by worker threads.
    with (
        full_precision("cuda" if device.type == "cuda" else "cpu"),
        torch.inference_mode(False),
        torch.no_grad(),
        torch.autocast(device.type, enabled=False),
    ):
        _tried(device)
        yield
