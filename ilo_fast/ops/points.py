"""One layer's points in float64: scaled without rounding, normalised, exact copies merged.

Everything later (the filter, the exact stage, every backend's final values) is defined on these
vectors ``z``. They are computed by elementwise operations in a fixed order only, so equal input
rows give equal ``z`` bit for bit, whatever their position, the batch, the device and the number
of threads.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch

from ilo_fast.ops.workers import for_spans

__all__ = [
    "Duplicates",
    "Points",
    "block_rows",
    "fold_dot",
    "fold_sum",
    "power_of_two",
    "prepare_points",
    "rounded_root",
]

# Of elements below 1, so that squares of all but those near 2**-1000 are in float64's range.
_RAISED = 2.0**480
_BLOCK_ELEMENTS = {"cpu": 1 << 18, "cuda": 1 << 25}  # float64 working set: cache, device


@dataclass(frozen=True)
class Duplicates:
    """Which of the n original points each of the u distinct ones stands for.

    group: ``[n]`` distinct point of every original. members: ``[n]`` originals ordered by group,
    then index. starts, counts: ``[u]`` where a group's members lie.
    """

    group: torch.Tensor
    members: torch.Tensor
    starts: torch.Tensor
    counts: torch.Tensor


@dataclass(frozen=True)
class Points:
    """Distinct points of one layer, ordered by the index of their first copy.

    z: ``[u, d]`` float64; unit rows for cosine, ``x * 2**-exponent`` otherwise (exponent
    is 0 where rows are scaled one by one). zero: ``[u]`` bool, zero vectors under cosine (all
    false otherwise). size: ``[u]`` float64, ``|z|`` up to rounding. n: number of original points.
    duplicates: None when all are distinct. narrow: whether products of two such points' elements
    are exact in float64, as those of floats of at most 32 bits are, scaled and not normalised.
    """

    metric: str
    z: torch.Tensor
    zero: torch.Tensor
    size: torch.Tensor
    exponent: int
    n: int
    duplicates: Duplicates | None
    narrow: bool = False

    @property
    def u(self) -> int:
        """Number of distinct points."""
        return self.z.shape[0]

    def with_copies(self) -> "Points":
        """The same with a row for every original; ``duplicates`` tells them as before."""
        if self.duplicates is None:
            return self
        group = self.duplicates.group
        return replace(self, z=self.z[group], zero=self.zero[group], size=self.size[group])


def fold_sum(terms: torch.Tensor) -> torch.Tensor:
    """Sum over the last dimension in a fixed order, by halving; overwrites ``terms``.

    Only elementwise additions are used, so the result of a row does not depend on the rows beside
    it, and its relative error for non-negative terms is at most ``ceil(log2(d))`` roundings.

    >>> fold_sum(torch.tensor([[1.0, 2.0, 4.0]], dtype=torch.float64))
    tensor([7.], dtype=torch.float64)
    """
    width = terms.shape[-1]
    while width > 1:
        half = (width + 1) // 2
        terms[..., : width - half] += terms[..., half:width]
        width = half
    return terms[..., 0].clone()


def fold_dot(left: torch.Tensor, right: torch.Tensor, exact_products: bool = False) -> torch.Tensor:
    """Inner products over the last dimension, by halving, in twice the precision; overwrites both.

    What every product and every addition loses is kept and added at the end (Dekker, Knuth; Ogita,
    Rump and Oishi 2005), so that the result is off by little more than its own rounding, however
    much of the sum cancels. Magnitudes are at most 1.

    >>> left = torch.tensor([2.0**-40, 1.0, -(2.0**-40), 1.0], dtype=torch.float64)
    >>> fold_dot(left, torch.tensor([1.0, 2.0**-60, 1.0, 0.0], dtype=torch.float64)) == 2.0**-60
    tensor(True)
    """
    if exact_products:
        total, lost = left.mul_(right), right.zero_()
    else:
        total = left * right
        left_high, right_high = _high_half(left), _high_half(right)
        left -= left_high
        right -= right_high
        lost = (left_high * right_high).sub_(total)
        lost += left_high.mul_(right)
        lost += right_high.mul_(left)
        lost += left.mul_(right)
    width = total.shape[-1]
    while width > 1:
        half = (width + 1) // 2
        one, other = total[..., : width - half], total[..., half:width]
        added = one + other
        came = added - one
        error = other - came
        came -= added  # -(added - came): what ``one`` has become
        error += one + came
        error += lost[..., half:width]
        lost[..., : width - half] += error
        total[..., : width - half] = added
        width = half
    return total[..., 0] + lost[..., 0]


def _high_half(numbers: torch.Tensor) -> torch.Tensor:
    """The leading 26 bits, so that products of halves are exact."""
    scaled = numbers * 134217729.0  # 2**27 + 1
    return scaled - (scaled - numbers)


def power_of_two(exponent: torch.Tensor) -> torch.Tensor:
    """``2**exponent`` as float64, exactly, from its bits; exponents in [-1022, 1023].

    >>> power_of_two(torch.tensor([-3, 4]))
    tensor([ 0.1250, 16.0000], dtype=torch.float64)
    """
    return ((exponent.to(torch.int64) + 1023) << 52).view(torch.float64)


def rounded_root(squares: torch.Tensor) -> torch.Tensor:
    """Square roots of float64 numbers, correctly rounded; on a CPU it overwrites ``squares``.

    torch's own on a CPU can be a unit in the last place off (those for AVX-512 are, now and then);
    NumPy's and a card's are IEEE 754's, so points have the same bits on every machine.
    """
    if squares.device.type != "cpu":
        return torch.sqrt(squares)
    numbers = squares.numpy()
    np.sqrt(numbers, out=numbers)
    return squares


def block_rows(device: torch.device, row_elements: int) -> int:
    """Rows of float64 work that stay in cache (CPU) or fill the device (others)."""
    elements = _BLOCK_ELEMENTS.get(device.type, _BLOCK_ELEMENTS["cuda"])
    return max(1, elements // max(1, row_elements))


def prepare_points(
    x: torch.Tensor, row_max: torch.Tensor, metric: str, *, by_row: bool = False
) -> Points:
    """Scale and (cosine) normalise ``x [n, d]`` in float64 and merge exact copies.

    Scaling by powers of two keeps norms from overflowing or vanishing and rounds nothing: a row
    at a time for cosine, the whole layer for the other metrics. ``by_row`` asks for a row at a
    time there, too (queries of inner_product, whose own size orders nothing).
    """
    n, d = x.shape
    cosine = metric == "cosine"
    if cosine or by_row:
        exponents = torch.frexp(row_max).exponent.to(torch.int64)
        exponent = 0
    else:
        exponent = int(torch.frexp(row_max.amax()).exponent)
        exponents = torch.full((n,), exponent, dtype=torch.int64, device=x.device)
    first = -(exponents // 2)
    scale_a, scale_b = power_of_two(first), power_of_two(-exponents - first)
    zero = row_max == 0
    z = torch.empty(n, d, dtype=torch.float64, device=x.device)
    size = torch.empty(n, dtype=torch.float64, device=x.device)

    def prepare(part: slice) -> None:
        rows = x[part].to(torch.float64) * scale_a[part, None]
        rows *= scale_b[part, None]
        rows += 0.0  # -0.0 and 0.0 are the same number: give them the same bits
        terms = rows * _RAISED
        norm = rounded_root(fold_sum(terms.mul_(terms))) * (1.0 / _RAISED)
        if cosine:
            norm = torch.where(zero[part], 1.0, norm)
            rows /= norm[:, None]
        z[part] = rows
        size[part] = norm

    for_spans(prepare, n, block_rows(x.device, d))
    if cosine:
        size = (~zero).to(torch.float64)
    else:
        zero = torch.zeros_like(zero)
    duplicates = _find_duplicates(z)
    if duplicates is not None:
        first_copy = duplicates.members[duplicates.starts]
        z, zero, size = z[first_copy], zero[first_copy], size[first_copy]
    narrow = not cosine and x.dtype != torch.float64
    return Points(metric, z, zero, size, exponent, n, duplicates, narrow)


def _find_duplicates(z: torch.Tensor) -> Duplicates | None:
    """Group bit-identical rows: equal 64-bit hashes first, then a full comparison."""
    n, d = z.shape
    bits = z.view(torch.int64)
    generator = torch.Generator().manual_seed(0)
    odd = (
        torch.randint(-(2**62), 2**62, (d,), generator=generator, device="cpu").to(z.device) * 2 + 1
    )
    hashes = torch.empty(n, dtype=torch.int64, device=z.device)
    step = block_rows(z.device, d)

    def mix(part: slice) -> None:
        rows = bits[part]
        hashes[part] = ((rows ^ (rows >> 29)) * odd).sum(dim=1)  # wraps: exact in any order

    for_spans(mix, n, step)
    order = torch.argsort(hashes, stable=True)
    ordered = hashes[order]
    same = torch.zeros(n, dtype=torch.bool, device=z.device)
    same[1:] = ordered[1:] == ordered[:-1]
    suspects = same.nonzero().squeeze(1)
    if suspects.numel() == 0:
        return None
    for start in range(0, suspects.numel(), step):
        part = suspects[start : start + step]
        same[part] = (z[order[part]] == z[order[part - 1]]).all(dim=1)
    run = torch.cumsum(~same, dim=0) - 1
    first = order[~same]  # stable sort: the lowest index of each run
    if first.numel() == n:
        return None
    rank = torch.empty_like(first)
    rank[torch.argsort(first)] = torch.arange(first.numel(), device=z.device)
    group = torch.empty_like(order)
    group[order] = rank[run]
    counts = torch.bincount(group, minlength=first.numel())
    return Duplicates(
        group=group,
        members=torch.argsort(group, stable=True),
        starts=torch.cumsum(counts, dim=0) - counts,
        counts=counts,
    )
