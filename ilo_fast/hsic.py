"""Unbiased HSIC of linear kernels: by sums where float64 bears their cancellation, else in pairs.

The sums cost n d d' multiply-adds and no kernel, but they take ``Σ |x_i|² |y_i|²`` from
``|Yᵀ X|_F²``. Where a few points are far longer than the rest, or the points are nearly
orthogonal, that leaves rounding. Then the kernels are formed a strip at a time and centred off
the diagonal (Székely, Rizzo 2014, arXiv 1310.2926, equation 2.4), where HSIC is a plain sum of
products: n² (d + d') multiply-adds.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

__all__ = ["Space", "cross_products", "unbiased_cka", "unbiased_hsic_sums"]

# Rows turned to float64 at once.
_ROWS = 4096
# Kernel entries held at once, 32 MiB of float64.
_PAIRS = 2**22
_UNIT = 2.0**-53
# Rounding of the sums, as a share of the self-terms, above which the pairs decide.
_BORNE = 1e-10


@dataclass(frozen=True, eq=False)
class Space:
    """One layer's points ``[n, d]``, floating, and what its pairs with others have in common."""

    points: Tensor

    @cached_property
    def mean(self) -> tuple[Tensor, Tensor]:
        """The mean, rounded, and the mean of what it leaves, float64 ``[d]`` each.

        The second counts where points differ by hardly more than the first's rounding.
        """
        mean = self.points.mean(dim=0, dtype=torch.float64)
        blocks = torch.split(self.points, _ROWS)
        left = torch.stack([(block.double() - mean).sum(dim=0) for block in blocks]).sum(dim=0)
        return mean, left / len(self.points)

    def centred(self) -> Iterator[Tensor]:
        """Float64 rows about their mean, some at a time."""
        mean, left = self.mean
        for block in torch.split(self.points, _ROWS):
            yield block.double() - mean - left

    @cached_property
    def summed(self) -> tuple[Tensor, Tensor]:
        """``|x_i|²`` and the row sums of K̃, ``x_i · Σ x - |x_i|²``, float64 ``[n]`` each, of rows
        about their mean."""
        total = torch.stack([rows.sum(dim=0) for rows in self.centred()]).sum(dim=0)
        sizes, sums = [], []
        for rows in self.centred():
            size = (rows * rows).sum(dim=1)
            sizes.append(size)
            sums.append(rows @ total - size)
        return torch.cat(sizes), torch.cat(sums)

    @cached_property
    def centre(self) -> Tensor:
        """A centre that few long rows do not move, float64 ``[d]``."""
        return self.points.median(dim=0).values.double()

    @cached_property
    def kernel_sums(self) -> Tensor:
        """Row sums of K̃ about ``centre``, float64 ``[n]``, without the diagonal ever added."""
        return torch.cat([self._kernel(*strip).sum(dim=1) for strip in self.strips()])

    @cached_property
    def self_term(self) -> float:
        """HSIC with itself; 0 where float64 cannot tell it from 0."""
        value, rounding = _by_sums(self, self)
        if rounding <= _BORNE * value:
            return value
        value = _by_pairs(self, self)
        n, d = self.points.shape
        blocks = [block.double() - self.centre for block in torch.split(self.points, _ROWS)]
        sizes = torch.cat([(rows * rows).sum(dim=1) for rows in blocks]).sort().values
        products = 2 * float((sizes[1:] * sizes.cumsum(0)[:-1]).sum())  # of two rows, |x_i|² |x_j|²
        noise = 4 * _UNIT * math.sqrt(d * products)  # root of the entries' squared errors
        return value if math.sqrt(value * n * (n - 3)) > noise else 0.0

    def strips(self) -> list[tuple[int, int]]:
        """Spans of rows whose kernel entries are held at once."""
        n = len(self.points)
        step = max(1, _PAIRS // n)
        return [(start, min(start + step, n)) for start in range(0, n, step)]

    def centred_kernel(self, start: int, stop: int) -> Tensor:
        """Rows of the kernel, centred off the diagonal and 0 on it."""
        n, sums = len(self.points), self.kernel_sums / (len(self.points) - 2)
        kernel = self._kernel(start, stop)
        kernel -= sums[start:stop, None]
        kernel -= sums - sums.sum() / (n - 1)
        kernel.diagonal(start).zero_()
        return kernel

    def _kernel(self, start: int, stop: int) -> Tensor:
        rows = self.points[start:stop].double() - self.centre
        parts = torch.split(self.points, _ROWS)
        kernel = torch.cat([rows @ (part.double() - self.centre).T for part in parts], dim=1)
        kernel.diagonal(start).zero_()
        return kernel


def unbiased_cka(one: Space, two: Space) -> float:
    """``HSIC(x, y) / sqrt(HSIC(x, x) HSIC(y, y))``; NaN where a self-term is 0."""
    scale = math.sqrt(one.self_term) * math.sqrt(two.self_term)
    if scale == 0:
        return math.nan
    if one is two:
        return 1.0
    value, rounding = _by_sums(one, two)
    if rounding > _BORNE * scale:
        value = _by_pairs(one, two)
    return value / scale


def cross_products(left: Space, right: Space) -> Tensor:
    """``Xcᵀ Yc`` in float64, some rows at a time."""
    shape, device = (left.points.shape[1], right.points.shape[1]), left.points.device
    total = torch.zeros(shape, dtype=torch.float64, device=device)
    for rows, other in zip(left.centred(), right.centred(), strict=True):
        total.addmm_(rows.T, other)
    return total


def unbiased_hsic_sums(trace: float, sum_k: float, sum_l: float, chain: float, n: int) -> float:
    """Unbiased HSIC (Song et al. 2012, equation 5) from the sums of zero-diagonal kernels.

    Args:
        trace: ``tr(K̃ L̃)``.
        sum_k, sum_l: ``1ᵀK̃1`` and ``1ᵀL̃1``.
        chain: ``1ᵀK̃L̃1``.
        n: points, at least 4.

    >>> unbiased_hsic_sums(trace=12.0, sum_k=12.0, sum_l=12.0, chain=36.0, n=4)
    0.0
    """
    value = trace + sum_k * sum_l / ((n - 1) * (n - 2)) - 2 * chain / (n - 2)
    return value / (n * (n - 3))


def _by_sums(one: Space, two: Space) -> tuple[float, float]:
    """HSIC and how much of it rounding may be: sums of n terms err by about sqrt(n) roundings."""
    n = len(one.points)
    (sizes, sums), (sizes_too, sums_too) = one.summed, two.summed
    product = float((cross_products(one, two) ** 2).sum())
    diagonal, chain = float(sizes @ sizes_too), float(sums @ sums_too)
    value = unbiased_hsic_sums(
        product - diagonal, float(sums.sum()), float(sums_too.sum()), chain, n
    )
    summed = product + diagonal + float(sizes.sum()) * float(sizes_too.sum()) / n
    return value, 4 * _UNIT * math.sqrt(n) * summed / (n * (n - 3))


def _by_pairs(one: Space, two: Space) -> float:
    """HSIC as the sum of products of both kernels' centred entries."""
    n = len(one.points)
    total = 0.0
    for strip in one.strips():
        left = one.centred_kernel(*strip)
        right = left if two is one else two.centred_kernel(*strip)
        total += float((left * right).sum())
    return total / (n * (n - 3))
