# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator,misc"
"""One tile's float16 products as the filter sums them, for a trial of the card's matrix units.

How these sum is the one assumption of the proof that only a card can confirm
(docs/exactness-gpu.md, "Accumulation"); `ilo_fast.ops.half_products.worst_share` tries them.
"""

import torch
import triton
import triton.language as tl

__all__ = ["product"]


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
