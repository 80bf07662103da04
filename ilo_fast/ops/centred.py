"""The symmetric centred form of every metric, and the slack that makes it a proof.

With a centre ``m`` and ``d_i = s (z_i - m)`` every metric's similarity of a pair is, up to a
constant, ``G_ij = d_i . d_j + b_i + b_j``:

* cosine, euclidean: ``b_i = -|d_i|^2 / 2``, so ``G_ij = -|d_i - d_j|^2 / 2``, which is small for
  near neighbours (a zero vector under cosine has ``- s^2 / 2`` more);
* inner_product: ``b_i = s m . d_i`` (the constant ``s^2 |m|^2`` ranks nothing).

``slack`` is a per-point bound: the exact stage's value of a pair, its tie tolerance included,
differs from the form evaluated in float64 by at most ``slack_i + slack_j``. Derivations:
docs/exactness.md.
"""

import math
from dataclasses import dataclass

import torch

from ilo_fast.ops.exact import tie_slack
from ilo_fast.ops.points import Points, block_rows
from ilo_fast.ops.precision import UNIT_ROUNDOFF_32, UNIT_ROUNDOFF_64, gamma

__all__ = ["MASKED", "Centred", "centre", "filter_operands"]

MASKED = -1.0e30  # finite: far below any form value (|d| <= 1), far from overflow

_LARGEST_EXPONENT = 400  # the scale's square must stay finite


@dataclass(frozen=True)
class Centred:
    """d ``[u, dim]``, b, norm (``|d|``, rounded up) and slack ``[u]``, all float64."""

    d: torch.Tensor
    b: torch.Tensor
    norm: torch.Tensor
    slack: torch.Tensor


def centre(points: Points, order: torch.Tensor | None = None) -> Centred:
    """Centre and scale the points, in the order given (a permutation) or their own."""
    middle = _middle(points)
    d = points.z - middle
    norm = torch.linalg.vector_norm(d, dim=1)
    # A power of two puts the largest norm in [1/2, 1): nothing else is rounded.
    largest = float(norm.amax())
    scale = 2.0 ** min(-math.frexp(largest)[1], _LARGEST_EXPONENT)
    if order is not None:
        torch.index_select(points.z, 0, order, out=d)
        d -= middle
        norm = norm[order]
    d *= scale
    dim = d.shape[1]
    norm = norm * (scale * (1.0 + gamma(dim + 8, UNIT_ROUNDOFF_64)))
    squared = norm * norm
    if points.metric == "inner_product":
        b = (d @ middle).mul_(scale)
        evaluation = squared + 3.0 * scale * torch.linalg.vector_norm(middle) * norm
    else:
        b = torch.empty_like(norm)
        step = block_rows(d.device, dim)
        for start in range(0, d.shape[0], step):
            rows = d[start : start + step]
            b[start : start + step] = (rows * rows).sum(dim=1).mul_(-0.5)
        zero = points.zero if order is None else points.zero[order]
        b -= zero * (0.5 * scale * scale)
        evaluation = squared + zero * (scale * scale)
    slack = tie_slack(points, norm, scale, order).mul_(3.0)
    slack += evaluation.mul_(gamma(dim + 16, UNIT_ROUNDOFF_64))
    return Centred(d, b, norm, slack)


def _middle(points: Points) -> torch.Tensor:
    """A centre that one far outlier cannot drag away (any centre is correct, some are slow)."""
    z = points.z
    if points.metric == "cosine":
        return z.mean(dim=0)
    sample = z[:: max(1, z.shape[0] // 512)]
    middle = sample.median(dim=0).values
    away = torch.empty(z.shape[0], dtype=torch.float64, device=z.device)
    step = block_rows(z.device, z.shape[1])
    for start in range(0, z.shape[0], step):
        rows = z[start : start + step] - middle
        away[start : start + step] = torch.linalg.vector_norm(rows, dim=1)
    near = away <= 8.0 * away.median()
    return (near.to(torch.float64) @ z) / near.sum()


def filter_operands(form: Centred, padded: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """float32 operands of the filter product and the slack of each point.

    Returns ``left [padded, d + 2] = (d, b', 1)``, ``right [d + 2, padded] = (d, 1, b')^T`` and
    ``slack32 [padded]`` such that for every pair the float32 product ``t_ij`` (any summation
    order) satisfies ``t_ij - slack32_i - slack32_j <= v_ij`` and ``v_ij + tie_ij <= t_ij``, where
    ``v_ij`` is minus the exact stage's value in the form's units. Rows past the points are masked.
    """
    points, dim = form.d.shape
    relative = gamma(dim + 16, UNIT_ROUNDOFF_32)
    error = (0.5 * form.norm * form.norm + form.b.abs()) * (relative * (1.0 + 4.0 * relative))
    error += form.slack + 4.0 * (dim + 4) * 2.0**-126  # products and inputs lost to underflow
    lifted = _round_up(form.b + error)
    slack = _round_up(lifted.to(torch.float64) - form.b + error)
    left = torch.zeros(padded, dim + 2, dtype=torch.float32, device=form.d.device)
    left[:points, :dim] = form.d
    left[:points, dim] = lifted
    left[points:, dim] = MASKED
    left[:, dim + 1] = 1.0
    right = torch.empty(dim + 2, padded, dtype=torch.float32, device=form.d.device)
    right[:dim] = left[:, :dim].T
    right[dim] = 1.0
    right[dim + 1] = left[:, dim]
    slack32 = torch.zeros(padded, dtype=torch.float32, device=form.d.device)
    slack32[:points] = slack
    return left, right, slack32


def _round_up(values: torch.Tensor) -> torch.Tensor:
    """float64 to float32, never below the value."""
    rounded = values.to(torch.float32)
    above = torch.nextafter(rounded, torch.full_like(rounded, torch.inf))
    return torch.where(rounded.to(torch.float64) < values, above, rounded)
