"""Products of float16 matrices summed in float32 by a card's matrix units, through its library.

The library (cuBLAS) chooses the order of a sum and may cut it in parts; the units align, cut and
add as `ilo_fast.ops.triton_config.Accumulation` says. `sum_bound` covers both, and products are
tried against it once a process and card, as float32's are in `ilo_fast.ops.precision`.
"""

import math
from collections.abc import Callable
from functools import cache, partial

import torch
from torch import Tensor

from ilo_fast.ops.trial import agrees, passed
from ilo_fast.ops.triton_config import Accumulation, accumulation

__all__ = [
    "half_products",
    "obstacle",
    "one_product",
    "served_sums",
    "sum_bound",
    "worst_share",
]

_MOST_PARTS = 64  # of one sum, added up in the end
_TRIED = (64, 640, 4160)


def obstacle(device: torch.device) -> str:
    """Why float16 products cannot serve a device, "" when they can.

    >>> obstacle(torch.device("cpu"))
    'float16 products need a CUDA card, not cpu'
    """
    if device.type != "cuda":
        return f"float16 products need a CUDA card, not {device.type}"
    if torch.version.hip:
        return "how the matrix units of AMD's cards sum is not known"
    if torch.cuda.get_device_capability(device)[0] < 7:
        return "compute capability 7.0 or newer is needed"
    return ""


def served_sums(device: torch.device) -> Accumulation | None:
    """How a device sums float16 products that may serve there; None where they may not."""
    if obstacle(device) or not passed(_trial, device):
        return None
    return accumulation(torch.cuda.get_device_capability(device)[0])


def half_products(left: Tensor, right: Tensor, out: Tensor) -> None:
    """``left @ right`` of float16 ``[B, M, K]`` and ``[B, K, N]`` to out, float32 ``[B, M, N]``."""
    if left.is_cuda:
        torch.bmm(left, right, torch.float32, out=out)
    else:  # no CPU has such products: float32 holds each, and rounds sums less
        torch.bmm(left.float(), right.float(), out=out)


def sum_bound(sums: Accumulation, terms: int) -> float:
    """Relative error of a sum of products, per unit of the largest partial sum in any order.

    >>> sum_bound(Accumulation(16, 24, ""), 4096) < 4e-4
    True
    """
    steps = -(-terms // sums.terms)
    return sums.gamma(sums.terms * (steps + min(steps, _MOST_PARTS)))


def worst_share(
    product: Callable[[Tensor, Tensor], Tensor],
    device: torch.device,
    bound: Callable[[int], float],
    widths: tuple[int, ...] = _TRIED,
) -> tuple[float, dict[str, int]]:
    """Largest error as a share of the bound (at most 1 where it holds), and where it is.

    ``product`` gives float32 ``a @ b.T`` of float16 ``[128, dims]``. Operands are built to lose
    the most when terms are aligned and cut: one large term, then many whose bits lie around the
    cut. The error is held against the sum of magnitudes (docs/exactness-gpu.md, "Accumulation").
    """
    generator = torch.Generator().manual_seed(0)
    single = torch.float32  # whatever torch.set_default_dtype says
    worst, at = 0.0, {"dims": 0, "drop": 0}
    for dims in widths:
        random = torch.rand(128, dims - 1, generator=generator, dtype=single, device="cpu")
        noise = (1 + random).to(device)
        for drop in range(18, 30):  # small terms at 2^-drop of the first
            a = torch.ones(128, dims, dtype=single, device=device)
            b = torch.full((128, dims), 2.0 ** -(drop / 2), dtype=single, device=device)
            a[:, 1:] = 2.0 ** -(drop - math.floor(drop / 2)) * noise
            b[:, 1:] = 2.0 ** -math.floor(drop / 2)
            b[:, 0] = 1
            if drop % 2:
                b[:64, 1::2] *= -1
            a, b = a.half(), b.half()
            exact = a.double() @ b.double().T
            partial = a.double().abs() @ b.double().abs().T
            off = (product(a, b).double() - exact).abs()
            share = float((off / partial / bound(dims)).max())
            if not share <= worst:  # NaN too
                worst, at = share, {"dims": dims, "drop": drop}
    return worst, at


def one_product(a: Tensor, b: Tensor) -> Tensor:
    """float32 ``a @ b.T``, for trials."""
    out = torch.empty(1, a.shape[0], b.shape[0], dtype=torch.float32, device=a.device)
    half_products(a[None], b.T[None], out)
    return out[0]


@cache
def _trial(device: torch.device) -> str:
    """Why the library's products should not serve on a device, "" when they may."""

    def compare() -> bool:
        sums = accumulation(torch.cuda.get_device_capability(device)[0])
        share, _ = worst_share(one_product, device, partial(sum_bound, sums))
        return share <= 1.0

    return agrees("float16 products of the card's library", device, compare)
