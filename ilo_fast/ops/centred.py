"""The symmetric centred form of every metric, and the slack that makes it a proof.

With a centre ``m`` and ``d_i = s (z_i - m)`` every metric's similarity of a pair is, up to a
constant, ``G_ij = d_i . d_j + b_i + b_j``:

* cosine, euclidean: ``b_i = -|d_i|^2 / 2``, so ``G_ij = -|d_i - d_j|^2 / 2``, which is small for
  near neighbours (a zero vector under cosine has ``- s^2 / 2`` more);
* inner_product: ``b_i = s m . d_i`` (the constant ``s^2 |m|^2`` ranks nothing).

One product of ``(d, b, 1)`` and ``(d, 1, b)`` gives it for both directions of a pair at once.
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
from ilo_fast.ops.workers import for_spans

__all__ = [
    "LARGEST_EXPONENT",
    "MASKED",
    "Centred",
    "Operands",
    "centre",
    "filter_operands",
    "lifted_terms",
    "round_up",
]

MASKED = -1.0e30  # finite: far below any form value (|d| <= 1), far from overflow
# The scale's square must stay finite, and what it makes of the exact stage's tolerance must be in
# float32's range: with euclidean that shrinks with the points' spread, with the others it does not,
# and points that lie closer together than 2**-60 are level anyway.
LARGEST_EXPONENT = {"cosine": 60, "inner_product": 60, "euclidean": 400}
# Medians cost far more than sums: some points stand for all, fewer of them in many dimensions.
_FEWEST_SAMPLED, _MOST_SAMPLED = 16, 512
_SAMPLED_ELEMENTS = 1 << 17


@dataclass(frozen=True)
class Centred:
    """Centre ``[d]``, scale, and per point ``[u]`` b, norm (``|d|``, rounded up) and slack."""

    middle: torch.Tensor
    scale: float
    b: torch.Tensor
    norm: torch.Tensor
    slack: torch.Tensor

    def rows(self, z: torch.Tensor) -> torch.Tensor:
        """The centred, scaled vectors of some rows of z."""
        return (z - self.middle).mul_(self.scale)


@dataclass(frozen=True)
class Operands:
    """What the float32 filter multiplies, points in the filter's order, padded with masked rows.

    left ``[padded, d + 2] = (d, b', 1)``, right ``[d + 2, padded] = (d, 1, b')^T``, slack
    ``[padded]``, all float32. For every pair of points the product ``t_ij``, summed in any order,
    satisfies ``t_ij - slack_i - slack_j <= v_ij`` and ``v_ij + 2 tie_ij <= t_ij``, where ``v_ij``
    is minus the exact stage's value in the form's units and ``tie_ij`` that value's error bound.
    """

    left: torch.Tensor
    right: torch.Tensor
    slack: torch.Tensor


def centre(points: Points, frame: Centred | None = None) -> Centred:
    """Choose a centre and bound what the centred form leaves uncertain.

    ``frame`` is other points' form, whose centre and scale to take: queries and what they are
    compared with share one.
    """
    z = points.z
    dim = z.shape[1]
    middle = _middle(points) if frame is None else frame.middle
    norm = torch.empty_like(points.size)
    dot = torch.empty_like(points.size)
    inner = points.metric == "inner_product"

    def measure(part: slice) -> None:
        rows = z[part] - middle
        norm[part] = torch.linalg.vector_norm(rows, dim=1)
        if inner:
            dot[part] = rows @ middle

    for_spans(measure, z.shape[0], block_rows(z.device, dim))
    # A power of two puts the largest norm in [1/2, 1): nothing else is rounded.
    scale = 2.0 ** min(-math.frexp(float(norm.amax()))[1], LARGEST_EXPONENT[points.metric])
    scale = scale if frame is None else frame.scale
    norm.mul_(scale)
    evaluation = gamma(dim + 16, UNIT_ROUNDOFF_64)
    slack = tie_slack(points, norm, scale).mul_(3.0)
    squared = norm * norm
    norm.mul_(1.0 + gamma(dim + 8, UNIT_ROUNDOFF_64))
    if inner:
        b = dot.mul_(scale * scale)
        slack += evaluation * 3.0 * scale * torch.linalg.vector_norm(middle) * norm
    else:
        zero = points.zero.to(torch.float64) * (scale * scale)
        b = (squared + zero).mul_(-0.5)
        slack += evaluation * zero
    slack += squared.mul_(2.0 * evaluation)
    return Centred(middle, scale, b, norm, slack)


def _middle(points: Points) -> torch.Tensor:
    """A centre that one far outlier cannot drag away (any centre is correct, some are slow)."""
    z = points.z
    if points.metric == "cosine":
        return z.mean(dim=0)
    rows = max(_FEWEST_SAMPLED, min(_MOST_SAMPLED, _SAMPLED_ELEMENTS // z.shape[1]))
    middle = z[:: -(-z.shape[0] // rows)].median(dim=0).values
    away = torch.empty_like(points.size)

    def measure(part: slice) -> None:
        away[part] = torch.linalg.vector_norm(z[part] - middle, dim=1)

    for_spans(measure, z.shape[0], block_rows(z.device, z.shape[1]))
    near = (away <= 8.0 * away.median()).to(torch.float64)
    return (near @ z) / near.sum()


def lifted_terms(points: Points, form: Centred) -> tuple[torch.Tensor, torch.Tensor]:
    """``b'`` and slack of `Operands`, float32 ``[u]``: the float32 error is folded into ``b'``."""
    dim = points.z.shape[1]
    relative = gamma(dim + 16, UNIT_ROUNDOFF_32)
    error = 0.5 * form.norm * form.norm + form.b.abs() + form.slack
    error *= relative * (1.0 + 4.0 * relative)
    error += form.slack + 4.0 * (dim + 4) * 2.0**-126  # products and inputs lost to underflow
    lifted = round_up(form.b + error)
    return lifted, round_up(lifted.to(torch.float64) - form.b + error)


def filter_operands(points: Points, form: Centred, order: torch.Tensor, padded: int) -> Operands:
    """Cast the centred form to float32 with its error folded into ``b'``.

    ``order``: a point a row; one may have several.
    """
    count, dim, device = order.shape[0], points.z.shape[1], points.z.device
    lifted, slack = lifted_terms(points, form)
    lifted, slack = lifted[order], slack[order]
    left = torch.empty(padded, dim + 2, dtype=torch.float32, device=device)
    right = torch.empty_like(left)

    def cast(part: slice) -> None:
        left[part, :dim] = form.rows(points.z[order[part]])
        left[part, dim] = lifted[part]
        left[part, dim + 1] = 1.0
        right[part, :dim] = left[part, :dim]
        right[part, dim] = 1.0
        right[part, dim + 1] = left[part, dim]

    for_spans(cast, count, block_rows(device, dim))
    left[count:], right[count:] = 0.0, 0.0
    left[count:, dim] = right[count:, dim + 1] = MASKED
    left[count:, dim + 1] = right[count:, dim] = 1.0
    padded_slack = torch.zeros(padded, dtype=torch.float32, device=device)
    padded_slack[:count] = slack
    return Operands(left, right.T, padded_slack)


def round_up(values: torch.Tensor) -> torch.Tensor:
    """float64 to float32, never below the value."""
    rounded = values.to(torch.float32)
    above = torch.nextafter(rounded, torch.full_like(rounded, torch.inf))
    return torch.where(rounded.to(torch.float64) < values, above, rounded)
