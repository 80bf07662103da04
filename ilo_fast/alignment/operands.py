"""What a product of points multiplies so that it bounds their cosines, in float32 or float16.

In the centred form of `ilo_fast.ops.centred` a pair has ``G_ij = unit * (C_ij - 1)``. One matrix
product of the operands gives ``t_ij >= G_ij``, and ``t_ij`` less the two points' slacks is never
above ``G_ij``: what rounding may lose is measured or bounded per point and added to the point's
own term. float32 serves every device. On a card whose matrix units sum float16 products the way
`ilo_fast.ops.triton_config.accumulation` says, those units take float16; its looser bounds leave a
few more pairs to float64. Derivations: docs/exactness.md, section 9.
"""

import math
import threading
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.functional import pad

from ilo_fast.ops.centred import Centred, centre, filter_operands, round_up
from ilo_fast.ops.half_products import half_products, served_sums, sum_bound
from ilo_fast.ops.points import Points, block_rows
from ilo_fast.ops.precision import UNIT_ROUNDOFF_64, gamma
from ilo_fast.ops.products import multiplied
from ilo_fast.ops.triton_config import Accumulation
from ilo_fast.ops.workers import for_spans

__all__ = ["BoundedPoints", "bounded_points", "half_points"]

_PARTS = 3  # float16 numbers that carry a point's own term
_LARGEST = 2.0**14  # of float16 operands' own terms, but for their errors: a quarter of the range
_LAST_PLACE = 2.0**-19  # more than what is left of a point's own term after its parts


@dataclass(frozen=True)
class BoundedPoints:
    """One layer's points by index, and one masked row behind the last.

    left, right ``[n + 1, K]``, float32 or float16, slack float32 ``[n + 1]``: a cosine is at most
    ``1 + left_i . right_j / unit``, at least that less ``(slack_i + slack_j) / unit``. rounding:
    what one more float32 operation on a product may lose. rows: float64 unit rows of points
    ``[u, d]``; row_of ``[n]``, the row a point has.
    """

    left: Tensor
    right: Tensor
    slack: Tensor
    unit: float
    rounding: float
    rows: Tensor
    row_of: Tensor
    # A worker's blocks: fresh memory for each would cost as much as the product.
    held: threading.local = field(default_factory=threading.local)

    def block(self, name: str, shape: tuple[int, int, int]) -> Tensor:
        """Uninitialised float32, the calling worker's own until it asks for this name again."""
        size = shape[0] * shape[1] * shape[2]
        held: Tensor | None = getattr(self.held, name, None)
        if held is None or held.numel() < size:
            held = self.slack.new_empty(size)
            setattr(self.held, name, held)
        return held[:size].view(shape)

    def products(self, own: Tensor, other: Tensor) -> Tensor:
        """``left_i . right_j`` of points ``[P, S]`` and ``[P, S]``: float32 ``[P, S, S]``.

        The calling worker's own until it asks again.
        """
        left, right = self.left[own], self.right[other]
        out = self.block("form", (*own.shape, other.shape[1]))
        if left.dtype == torch.float16:
            half_products(left, right.transpose(1, 2), out)
        elif left.is_cuda:
            torch.bmm(left, right.transpose(1, 2), out=out)
        elif len(own) == 1:
            return multiplied(left[0], right[0], out[0])[None]
        else:
            for pair, product in enumerate(out):
                product.copy_(multiplied(left[pair], right[pair], product))
        return out

    def exact(self, index: Tensor) -> Tensor:
        """float64 unit rows ``[..., d]`` of points."""
        return self.rows[self.row_of[index]]


def bounded_points(points: Points, row_of: Tensor) -> BoundedPoints:
    """The operands of a layer's distinct points under cosine; row_of ``[n]``, each point's own."""
    form = centre(points)
    sums = served_sums(points.z.device)
    if sums is not None:
        return half_points(points, form, row_of, sums)
    made = filter_operands(points, form, row_of, row_of.shape[0] + 1)
    return BoundedPoints(
        left=made.left,
        right=made.right.T,
        slack=made.slack,
        unit=form.scale**2,
        rounding=_rounding(made.left[:-1, -2]),
        rows=points.z,
        row_of=row_of,
    )


def half_points(points: Points, form: Centred, row_of: Tensor, sums: Accumulation) -> BoundedPoints:
    """The same in float16, for products that are summed in float32 as ``sums`` says.

    Rows are ``(h, b1, b2, b3, 1, 1, 1)`` on the left and ``(h, 1, 1, 1, b1, b2, b3)`` on the right:
    h is the centred point rounded to float16, ``b1 + b2 + b3`` its own term, error folded in.
    """
    (u, dim), n, device = points.z.shape, row_of.shape[0], points.z.device
    width = -(-(dim + 2 * _PARTS) // 16) * 16
    # The longest row is below 2^7; shorter where rows lie so close that the tolerance is longer.
    extent = float((0.5 * form.norm.square() + form.b.abs() + form.slack).amax())
    reach = 2.0 ** min(7, math.floor(math.log2(_LARGEST / max(extent, 2.0**-100)) / 2))
    half = torch.empty(u, dim, dtype=torch.float16, device=device)
    lost, size = torch.empty_like(form.norm), torch.empty_like(form.norm)

    def cast(part: slice) -> None:
        wide = form.rows(points.z[part]).mul_(reach)
        half[part] = wide
        lost[part] = torch.linalg.vector_norm(wide.sub_(half[part]), dim=1)
        size[part] = torch.linalg.vector_norm(half[part].double(), dim=1)

    for_spans(cast, u, block_rows(device, dim))
    summed = 1.0 + gamma(dim + 8, UNIT_ROUNDOFF_64)
    size = torch.maximum(size * summed, form.norm * reach)
    lost *= summed
    own = form.b * reach**2
    # A pair loses lost_i size_j + size_i lost_j, by way of the ratio of the two in all points.
    ratio = (lost.square().sum() / size.square().sum().clamp_min(1e-300)).sqrt().clamp_min(1e-9)
    error = 0.5 * summed * (lost.square() / ratio + size.square() * ratio)
    error += form.slack * reach**2
    relative = sum_bound(sums, width)
    error += relative * (0.5 * size.square() + 1.01 * own.abs())
    error = error.mul_(1.0 + 2.0 * relative).add_(_LAST_PLACE)
    parts = torch.empty(u, _PARTS, dtype=torch.float16, device=device)
    rest = own + error
    for part in range(_PARTS):
        parts[:, part] = rest
        rest = rest - parts[:, part].double()
    left = torch.zeros(n + 1, width, dtype=torch.float16, device=device)
    left[:n, :dim] = half[row_of]
    right = left.clone()
    term, one = slice(dim, dim + _PARTS), slice(dim + _PARTS, dim + 2 * _PARTS)
    left[:n, term] = right[:n, one] = parts[row_of]
    left[n, term] = right[n, one] = -torch.finfo(torch.float16).max
    left[:, one] = right[:, term] = 1.0
    lifted = parts.double().sum(dim=1)
    return BoundedPoints(
        left=left,
        right=right,
        slack=pad(round_up(lifted - own + error)[row_of], (0, 1)),
        unit=(form.scale * reach) ** 2,
        rounding=_rounding(lifted),
        rows=points.z,
        row_of=row_of,
    )


def _rounding(terms: Tensor) -> float:
    """No product, nor a mean of products, is larger than four times the largest own term."""
    return 2.0**-20 * float(terms.abs().amax())
