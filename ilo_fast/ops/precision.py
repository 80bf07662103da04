"""The one place that keeps float32 products IEEE float32.

TF32 on CUDA, bfloat16 inside oneDNN and autocast all make ``torch.mm`` of float32 tensors far less
precise than the certificate's bound assumes. Each can be switched on globally by the caller's
program, so the engine switches them off around its own products and puts them back.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

__all__ = ["UNIT_ROUNDOFF_32", "UNIT_ROUNDOFF_64", "gamma", "ieee_products"]

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
_INSIDE = {"cpu": 0, "cuda": 0}  # blocks open in all threads: the setting is the process's
_BEFORE: dict[str, Any] = {}


@contextmanager
def _full_precision(kind: str) -> Iterator[None]:
    """The first block in sets the precision, the last one out puts back what it was."""
    backends: Any = torch.backends
    switch = backends.cuda.matmul if kind == "cuda" else backends.mkldnn.matmul
    with _LOCK:
        if not _INSIDE[kind]:
            _BEFORE[kind] = switch.fp32_precision
            switch.fp32_precision = "ieee"
        _INSIDE[kind] += 1
    try:
        yield
    finally:
        with _LOCK:
            _INSIDE[kind] -= 1
            if not _INSIDE[kind]:
                switch.fp32_precision = _BEFORE.pop(kind)


@contextmanager
def ieee_products(device: torch.device) -> Iterator[None]:
    """Run float32 and float64 matrix products of ``device`` in full IEEE precision.

    >>> with ieee_products(torch.device("cpu")):
    ...     torch.backends.mkldnn.matmul.fp32_precision
    'ieee'
    """
    # Inference tensors could not be written by worker threads.
    with (
        _full_precision("cuda" if device.type == "cuda" else "cpu"),
        torch.inference_mode(False),
        torch.no_grad(),
        torch.autocast(device.type, enabled=False),
    ):
        yield
