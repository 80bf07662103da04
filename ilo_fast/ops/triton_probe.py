# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator,misc"
"""How far a card's float16 products may be off, measured against what the bound allows.

Products are built to lose the most when terms are aligned and cut: one large term, then many
whose bits lie around the cut. The error over the sum of magnitudes must stay below
`Accumulation.gamma` (docs/exactness-gpu.md, "Accumulation"), the one assumption of the proof that
only a card can confirm.
"""

import math

import torch
import triton
import triton.language as tl

from ilo_fast.ops.triton_config import Accumulation

__all__ = ["product", "worst_share"]


@triton.jit
def _product_kernel(a, b, out, dims, SIZE: tl.constexpr, STEP: tl.constexpr):
    """One tile of float16 products summed in float32 by the matrix units, read out unrounded."""
    rows = tl.arange(0, SIZE)
    step = tl.arange(0, STEP)
    acc = tl.zeros((SIZE, SIZE), tl.float32)
    start = 0
    while start < dims:
        left = tl.load(a + rows[:, None] * dims + start + step[None, :])
        right = tl.load(b + rows[None, :] * dims + start + step[:, None])
        acc = tl.dot(left, right, acc)
        start += STEP
    tl.store(out + rows[:, None] * SIZE + rows[None, :], acc)


def product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """float32 ``a @ b.T`` of float16 ``[128, dims]``; dims a multiple of 64."""
    out = torch.empty(128, 128, dtype=torch.float32, device=a.device)
    _product_kernel[(1,)](
        a.contiguous(),
        b.contiguous(),
        out,
        a.shape[1],
        SIZE=128,
        STEP=64,
        num_warps=4,
        enable_fp_fusion=True,
    )
    return out


def worst_share(
    device: torch.device, model: Accumulation, widths: tuple[int, ...] = (64, 640, 4160)
) -> tuple[float, dict[str, int]]:
    """Largest error as a share of the bound (at most 1 where the model holds), and where it is."""
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
            share = float(
                ((product(a, b).double() - exact).abs() / partial / model.gamma(dims)).max()
            )
            if not share <= worst:  # NaN too
                worst, at = share, {"dims": dims, "drop": drop}
    return worst, at
