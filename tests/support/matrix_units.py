"""float16 products summed as a card's matrix units do: terms aligned, cut, added to float32."""

import torch

__all__ = ["aligned_and_cut"]


def aligned_and_cut(
    a: torch.Tensor,
    b: torch.Tensor,
    bits: int,
    terms: int = 16,
    parts: int = 1,
    so_far: torch.Tensor | None = None,
) -> torch.Tensor:
    """float32 ``a @ b.T`` of float16 ``[m, K]`` and ``[n, K]``, added to ``so_far`` (of one part).

    ``terms`` exact products a step and the sum so far are aligned to the largest magnitude and cut
    after ``bits`` bits, the sum of a step after float32's 24; ``parts`` of K are added in the end.
    """
    total = torch.zeros(len(a), len(b), dtype=torch.float32)
    span = -(-a.shape[1] // parts)
    for first in range(0, a.shape[1], span):
        part = (torch.zeros_like(total) if so_far is None else so_far).double()
        for start in range(first, min(first + span, a.shape[1]), terms):
            step = slice(start, min(start + terms, first + span, a.shape[1]))
            added = a[:, None, step].double() * b[None, :, step].double()
            added = torch.cat([added, part[..., None]], dim=2)
            unit = _unit(added.abs().amax(dim=2, keepdim=True), bits)
            part = ((added / unit).trunc() * unit).sum(dim=2)
            unit = _unit(part.abs(), 23)
            part = (part / unit).trunc() * unit
        total = total + part.float()
    return total


def _unit(largest: torch.Tensor, bits: int) -> torch.Tensor:
    return 2.0 ** (largest.clamp_min(1e-300).log2().floor() - bits)
