"""The exact stage: values every backend agrees on, ties, and the final order.

``pair_values`` is the definition of how far two points are: an elementwise formula in float64,
symmetric, the same bit for bit wherever the pair turns up. ``tie_error`` bounds its rounding (and
that of the normalisation). ``rank`` orders candidates by value, takes values that are equal to
within that rounding as equal, and lets the lower index win among equals. docs/exactness.md has the
derivations.
"""

import math
from dataclasses import dataclass

import torch

from ilo_fast.ops.points import Points, block_rows, fold_dot, fold_sum, power_of_two, rounded_root
from ilo_fast.ops.precision import UNIT_ROUNDOFF_64
from ilo_fast.ops.workers import for_spans

__all__ = [
    "Lists",
    "empty_lists",
    "expand",
    "pair_values",
    "rank",
    "rank_values",
    "tie_error",
    "tie_slack",
]

_TINY = 2.0**-1000  # below every scaled value that is not an underflow itself
_PADDED_ELEMENTS = 1 << 22
_ONCE_DIMENSIONS = 32  # with fewer, a value costs less than looking its pair up


def pair_values(
    points: Points, rows: torch.Tensor, cols: torch.Tensor, left: Points | None = None
) -> torch.Tensor:
    """Float64 values ``[pairs]`` of pairs of distinct points; smaller is nearer.

    ``|z_i - z_j|^2 / 2`` for cosine (which is 1 - cos; exactly 1 with a zero vector) and for
    euclidean, ``-<z_i, z_j>`` for inner_product, all in units of the scaled ``z``. An inner product
    may cancel, and the smaller of two candidates' bounds decides whether they tie (``_tiers``): it
    is summed in twice the precision, as a long point's plain sum would be off by more than a short
    one's bound. What that leaves of a sum may still be more than the bound of a zero vector, which
    is none: a value no larger than it is 0. ``rows`` are of ``left``, by default the same points as
    ``cols``.
    """
    left = points if left is None else left
    values = torch.empty(rows.shape[0], dtype=torch.float64, device=rows.device)

    def compare(part: slice) -> None:
        terms = left.z.index_select(0, rows[part])
        other = points.z.index_select(0, cols[part])
        if points.metric == "inner_product":
            exact_products = left.narrow and points.narrow
            sums = fold_dot(terms, other, exact_products)
            sizes = left.size[rows[part]] * points.size[cols[part]]
            nothing = sums.abs() <= sizes * _residue(points)
            values[part] = 0.0 - sums.masked_fill_(nothing, 0.0)
        else:
            terms.sub_(other)
            values[part] = fold_sum(terms.mul_(terms)).mul_(0.5)

    held = 4 if points.metric == "inner_product" else 1  # sums in twice the precision hold more
    for_spans(compare, rows.shape[0], block_rows(rows.device, held * points.z.shape[1]))
    if points.metric == "cosine":
        values[left.zero[rows] | points.zero[cols]] = 1.0
    return values


def _values_once(points: Points, rows: torch.Tensor, cols: torch.Tensor) -> torch.Tensor:
    """``pair_values`` with (i, j) and (j, i), which are one value, computed once."""
    if points.z.shape[1] < _ONCE_DIMENSIONS:
        return pair_values(points, rows, cols)
    low, high = torch.minimum(rows, cols), torch.maximum(rows, cols)
    pairs, place = torch.unique(low * points.u + high, return_inverse=True)
    return pair_values(points, pairs // points.u, pairs % points.u)[place]


def tie_error(
    points: Points,
    values: torch.Tensor,
    rows: torch.Tensor,
    cols: torch.Tensor,
    left: Points | None = None,
) -> torch.Tensor:
    """Proven bound of the rounding error of ``pair_values``, normalisation included."""
    u = UNIT_ROUNDOFF_64
    depth = _depth(points)
    if points.metric == "cosine":
        rounding = 2.0 * (depth + 5) * u * values
        rounding += 3.0 * u * rounded_root(2.0 * values)
        return rounding.add_((depth + 5) ** 2 * u * u)
    if points.metric == "euclidean":
        return values * ((depth + 5) * u) + _TINY
    sizes = points.size if left is None else left.size
    return sizes[rows] * points.size[cols] * ((depth + 3) * u) + _TINY


def tie_slack(points: Points, centred_norm: torch.Tensor, scale: float) -> torch.Tensor:
    """Per-point ``t`` with ``tie_error(i, j) <= t_i + t_j`` in units of the scaled, centred form.

    ``centred_norm`` is ``scale * |z - m|`` for any centre ``m``: distances between points are at
    most the sum of their distances to the centre.
    """
    u = UNIT_ROUNDOFF_64
    depth = _depth(points)
    squared = centred_norm * centred_norm
    if points.metric == "cosine":
        slack = 2.0 * (depth + 5) * u * squared + 3.0 * u * scale * centred_norm
        slack += 0.5 * ((depth + 5) * u * scale) ** 2
        # A zero vector's value is 1 by definition, the centred form's (1 + |z_j|^2) / 2.
        slack += points.zero.to(torch.float64) * ((depth + 8) * u * scale * scale)
    elif points.metric == "euclidean":
        slack = (depth + 5) * u * squared
    else:
        slack = 0.5 * (depth + 3) * u * (points.size * scale) ** 2
    return slack.mul_(1.01).add_(_TINY * max(1.0, scale * scale))


@dataclass(frozen=True)
class Lists:
    """Where ``rank`` writes: original indices and values ``[u, length]`` of distinct points."""

    indices: torch.Tensor
    values: torch.Tensor
    exclude_self: bool

    @property
    def length(self) -> int:
        """Entries a row: k, or k + 1 where self is to be dropped from among copies."""
        return self.indices.shape[1]


def empty_lists(points: Points, k: int, exclude_self: bool) -> Lists:
    """Room for every distinct point's list."""
    length = k + 1 if exclude_self and points.duplicates is not None else k
    device = points.z.device
    return Lists(
        torch.full((points.u, length), -1, dtype=torch.int64, device=device),
        torch.full((points.u, length), torch.inf, dtype=torch.float64, device=device),
        exclude_self,
    )


def rank(points: Points, rows: torch.Tensor, cols: torch.Tensor, lists: Lists) -> None:
    """Order candidate pairs of distinct points and write their rows' lists.

    rows, cols: ``[pairs]`` int64, distinct points, no pair of a point with itself (added here
    where it counts). For every row that occurs, its pairs must include every column that could
    be among its first ``lists.length`` or tie with the last of them. Rows that do not occur are
    left alone.
    """
    if points.duplicates is not None or not lists.exclude_self:
        own = torch.unique(rows)
        if lists.exclude_self and points.duplicates is not None:
            own = own[points.duplicates.counts[own] > 1]
        rows, cols = torch.cat([rows, own]), torch.cat([cols, own])
    order = torch.argsort(rows, stable=True)
    rows, cols = rows[order], cols[order]
    values = _values_once(points, rows, cols)
    rank_values(points, rows, cols, values, tie_error(points, values, rows, cols), lists)


def rank_values(
    points: Points,
    rows: torch.Tensor,
    cols: torch.Tensor,
    values: torch.Tensor,
    errors: torch.Tensor,
    lists: Lists,
) -> None:
    """`rank` of candidates whose values and error bounds are known, ``rows`` ascending.

    Of ``points`` only ``n`` and ``duplicates`` are read: columns may be of other processes.
    """
    present, counts = torch.unique_consecutive(rows, return_counts=True)
    flat = (cols, values, errors)
    starts = torch.cumsum(counts, dim=0) - counts
    # Rows of like length share one padded table; most rows have a handful of candidates.
    size = torch.ceil(torch.log2(counts.clamp(min=4).to(torch.float64))).to(torch.int64)
    for power in torch.unique(size).tolist():
        of_size = (size == power).nonzero().squeeze(1)
        for some in torch.split(of_size, max(1, _PADDED_ELEMENTS >> power)):
            _rank_padded(points, present[some], starts[some], counts[some], flat, lists)


def _rank_padded(
    points: Points,
    present: torch.Tensor,
    starts: torch.Tensor,
    counts: torch.Tensor,
    flat: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    lists: Lists,
) -> None:
    length = lists.length
    width = int(counts.max())
    place = torch.arange(width, device=starts.device)
    valid = place < counts[:, None]
    source = torch.where(valid, starts[:, None] + place, 0)
    cols, values, errors = (tensor[source] for tensor in flat)
    values = torch.where(valid, values, torch.inf)
    values, by_value = torch.sort(values, dim=1)
    cols, errors, valid = (t.gather(1, by_value) for t in (cols, errors, valid))
    tier, leader, tied = _tiers(values, errors, length)
    duplicates = points.duplicates
    if duplicates is None:
        _write(points.n, present, (tier, cols, leader, valid), lists, ordered=not tied)
        return
    copies = min(int(duplicates.counts[cols].max()), length)
    copy = torch.arange(copies, device=cols.device)
    at_once = max(1, _PADDED_ELEMENTS // (width * copies))
    for part in torch.split(torch.arange(present.shape[0], device=cols.device), at_once):
        here = cols[part, :, None]
        exists = valid[part, :, None] & (copy < duplicates.counts[here])
        slot = torch.where(exists, duplicates.starts[here] + copy, 0)
        spread = (
            tier[part, :, None].expand_as(slot).flatten(1),
            duplicates.members[slot].flatten(1),
            leader[part, :, None].expand_as(slot).flatten(1),
            exists.flatten(1),
        )
        _write(points.n, present[part], spread, lists)


def _tiers(
    values: torch.Tensor, errors: torch.Tensor, length: int
) -> tuple[torch.Tensor, torch.Tensor, bool]:
    """Tier of every sorted candidate, the value of the tier's first member, whether any share one.

    A tier is a candidate (the first not yet in one; of equal values the one of the smallest bound,
    which is not self's alone where a point has copies) and all others whose value is its own to
    within twice the smaller of the two error bounds. Only the first ``length`` tiers matter.
    """
    rows, width = values.shape
    tier = torch.arange(width, device=values.device).expand(rows, width).clone()
    leader = values.clone()
    heads = min(length, width - 1)
    gap = values[:, 1 : heads + 1] - values[:, :heads]
    tied = (gap <= 2.0 * errors[:, :heads]).any(dim=1).nonzero().squeeze(1)
    if tied.numel() == 0:
        return tier, leader, False
    value, error = values[tied], errors[tied]
    free = torch.isfinite(value)
    made = torch.full_like(tier[tied], length)
    lead = value.clone()
    for number in range(min(length, width)):
        first = free.to(torch.uint8).argmax(dim=1, keepdim=True)
        at = value.gather(1, first)
        equal = free & (value == at)
        bound = torch.where(equal, error, torch.inf).amin(dim=1, keepdim=True)
        member = free & (value - at <= 2.0 * torch.minimum(bound, error))
        made = torch.where(member, number, made)
        lead = torch.where(member, at, lead)
        free &= ~member
        if number % 8 == 7 and not bool(free.any()):
            break
    tier[tied], leader[tied] = made, lead
    return tier, leader, True


def _write(
    n: int,
    present: torch.Tensor,
    candidates: tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor],
    lists: Lists,
    ordered: bool = False,
) -> None:
    """Sort candidates (tier, index, value, valid) by tier, then index; store the first ones."""
    tier, index, value, valid = candidates
    keep = min(lists.length, tier.shape[1])
    if ordered:
        best = torch.arange(keep, device=index.device).expand(index.shape[0], keep)
    else:
        key = torch.where(valid, tier * n + index, torch.iinfo(torch.int64).max)
        best = torch.topk(key, keep, dim=1, largest=False, sorted=True).indices
    found = valid.gather(1, best)
    lists.indices[present, :keep] = torch.where(found, index.gather(1, best), -1)
    lists.values[present, :keep] = torch.where(found, value.gather(1, best), torch.inf)


def expand(
    points: Points,
    lists: Lists,
    k: int,
    *,
    exponents: torch.Tensor | None = None,
    scores: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Lists of distinct points to lists of originals: indices int64, distances float32 [n, k].

    ``exponents [n]`` are those of rows that stand in units of their own, with inner_product;
    ``scores`` asks for what FAISS's flat indices return in place of distances, rounded once:
    squared euclidean distances, inner products, and so cosine similarities.
    """
    indices, values = lists.indices, lists.values
    duplicates = points.duplicates
    if duplicates is not None:
        indices, values = indices[duplicates.group], values[duplicates.group]
        if lists.exclude_self:
            own = indices == torch.arange(points.n, device=indices.device)[:, None]
            past_self = torch.cumsum(own, dim=1)[:, :k]
            source = torch.arange(k, device=indices.device) + past_self
            indices, values = indices.gather(1, source), values.gather(1, source)
    return indices, _distances(points, values, exponents, scores)


def _distances(
    points: Points, values: torch.Tensor, exponents: torch.Tensor | None, scores: bool
) -> torch.Tensor:
    """float32 distances from float64 values; beyond float32's range they are inf or 0."""
    if points.metric == "cosine":
        return (1.0 - values if scores else values).to(torch.float32)
    doublings = torch.tensor(points.exponent, device=values.device)
    if points.metric == "euclidean":
        values = 2.0 * values if scores else rounded_root(2.0 * values)
    elif scores:
        values = 0.0 - values  # 0.0 and not -0.0 where points are orthogonal
    if points.metric == "inner_product" or scores:
        doublings = doublings + (doublings if exponents is None else exponents[:, None])
    first = doublings // 2
    second = first // 2, first - first // 2
    third = (doublings - first) // 2, doublings - first - (doublings - first) // 2
    for step in (*second, *third):  # 2**2046 needs more than one float64 factor
        values = values * power_of_two(step)
    return values.to(torch.float32)


def _depth(points: Points) -> int:
    """Roundings of ``fold_sum`` over the points' dimensions."""
    return max(1, math.ceil(math.log2(points.z.shape[1])))


def _residue(points: Points) -> float:
    """What either engine's inner product can be off where the true one is 0, a share of the norms'
    product: the larger bound, the Triton kernels' (docs/exactness-gpu.md, "Ties")."""
    roundings = points.z.shape[1] / 16 + 2 * _depth(points) + 4
    return 0.5 * (roundings * UNIT_ROUNDOFF_64) ** 2
