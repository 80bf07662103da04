"""Centred kernel alignment by streamed sums: linear, unbiased, and over nearest neighbours.

With linear kernels everything CKA needs is a d × d' cross-covariance and a few sums per point;
no n × n kernel is formed. CKNNA needs the kernels at stored neighbours only.
"""

from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_matrix
from torch import Tensor

from ilo_fast.arguments import true_or_false
from ilo_fast.errors import InputError
from ilo_fast.hsic import Space, cross_products, unbiased_cka, unbiased_hsic_sums
from ilo_fast.lists import no_own_points, paired_lists
from ilo_fast.vectors import state_layers, unit_rows

__all__ = ["NearKernel", "cka", "cknna"]

# Gathered entries held at once, 32 MiB of float64.
_GATHERED = 2**22
# Sums of fourth powers of numbers up to two to this are far from float64's ends.
_PLAIN_EXPONENT = 60
# All inner products are few where there are at most this many points a neighbour.
_FEW_POINTS = 8


def cka(x: Any, y: Any, *, unbiased: bool = False) -> np.ndarray:
    """Linear CKA of every layer of x with every layer of y.

    ``CKA = HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L))`` with ``K = X Xᵀ``, ``L = Y Yᵀ``. Biased
    (Kornblith, Norouzi, Lee, Hinton 2019, arXiv 1905.00414): ``HSIC ∝ |Ycᵀ Xc|_F²`` of centred
    columns. Unbiased (Song, Smola, Gretton, Bedo, Borgwardt 2012, equation 5; Nguyen, Raghu,
    Kornblith 2021, arXiv 2010.15327): with zero diagonals K̃, L̃

        ``HSIC = [tr(K̃ L̃) + 1ᵀK̃1 1ᵀL̃1 / ((n-1)(n-2)) - 2 1ᵀK̃L̃1 / (n-2)] / (n (n-3))``

    where ``tr(K̃ L̃) = |Yᵀ X|_F² - Σ |x_i|² |y_i|²`` and ``K̃1 = X (Xᵀ1) - |x_i|²``. Both are
    invariant to a shift of x or y, so the columns are centred first, in float64. Where rounding
    may be more than 1e-10 of the unbiased self-terms (a few points far longer than the rest), the
    kernels are summed pair by pair instead.

    Args:
        x, y: floating ``[n, d]`` or ``[layers, n, d]``, the same points; d may differ.
        unbiased: the unbiased estimator; needs at least 4 points.

    Returns:
        float64 ``[layers of x, layers of y]``: biased 0 … 1, unbiased up to 1 and near 0 (below
        it too) for unrelated spaces; 1 where y is x. NaN where a space is constant, or its
        unbiased self-term is 0 (points at equal distances) or too small for float64 to tell from
        0 (what is at right angles to a point 1e16 times longer; digits go before). Cost: n d d'
        multiply-adds in float64 a pair of layers, n² (d + d') where the unbiased form takes pairs
        of points.

    Raises:
        InputError: on states that cannot be used or have other points, or too few points.
        HiddenStateError: on NaN or infinity.

    >>> x = [[1.0, 0.0], [0.0, 1.0], [2.0, 1.0], [0.0, 3.0]]
    >>> cka(x, x).round(6), cka(x, x, unbiased=True).round(6)
    (array([[1.]]), array([[1.]]))
    """
    unbiased = true_or_false(unbiased, "unbiased")
    one, two = _same_points(x, y)
    fewest = 4 if unbiased else 2
    if one.shape[1] < fewest:
        raise InputError(f"x and y must have at least {fewest} points, got {one.shape[1]}")
    first = [Space(_scaled(layer)) for layer in one]
    second = first if y is x else [Space(_scaled(layer)) for layer in two]
    if unbiased:
        result = np.array([[unbiased_cka(space, other) for other in second] for space in first])
    else:
        self_one = [_biased(space, space) for space in first]
        self_two = self_one if y is x else [_biased(space, space) for space in second]
        cross = np.array([[_biased(space, other) for other in second] for space in first])
        result = _normalise(cross, np.array(self_one)[:, None], np.array(self_two))
    # rounding leaves a constant space a self-term that is not quite 0
    result[[_constant(layer) for layer in one]] = np.nan
    result[:, [_constant(layer) for layer in two]] = np.nan
    return result


def cknna(x: Any, y: Any, a: Any, b: Any, *, normalize: bool = True) -> np.ndarray:
    """CKNNA: unbiased CKA of the kernels restricted to common nearest neighbours.

    ``CKNNA = H(x, y) / sqrt(H(x, x) H(y, y))`` with ``H(x, y) = HSIC_u(M∘K, M∘L)``,
    ``M_ij = 1[j in A_i and j in B_i]`` (``1[j in A_i]`` in H(x, x)) (Huh, Cheung, Wang, Isola
    2024, arXiv 2405.07987; their public code). The masked kernels are not symmetric, and as in
    that code ``HSIC_u(K, L)`` has ``tr(K̃ L̃)`` and ``1ᵀK̃L̃1``, column sums of K̃ with row sums of
    L̃. They have n k entries at most and are kept as such.

    Args:
        x, y: floating ``[n, d]`` or ``[layers, n, d]``, the same points and layers.
        a, b: their neighbours by inner product (of the rows as normalised), a `Neighbors` or
            integer indices, k >= 2.
        normalize: scale rows to length 1 first, as their `compute_score` does; the neighbours
            are then those by cosine.

    Returns:
        float64 ``[layers]``: 1 where y is x and b is a, near 0 for unrelated spaces. Neither
        symmetric nor bounded by 1 (the masks are one-way), though close to both for many
        points. NaN where a self-term is not positive.

    Raises:
        InputError: on states or lists that cannot be used or do not fit, a point listed as its
            own neighbour, k < 2, or fewer than 4 points.
        HiddenStateError: on NaN or infinity.

    >>> x = [[1.0, 0.1], [1.0, 0.3], [0.2, 1.0], [0.1, 1.0]]
    >>> lists = [[1, 2], [0, 2], [3, 1], [2, 1]]
    >>> cknna(x, x, lists, lists).round(6)
    array([1.])
    """
    normalize = true_or_false(normalize, "normalize")
    one, two = _same_points(x, y)
    first, second = paired_lists(a, b)
    if not len(one) == len(two) == len(first) == len(second):
        raise InputError(
            "x, y, a and b must have the same number of layers, got "
            f"{len(one)}, {len(two)}, {len(first)} and {len(second)}"
        )
    layers, n, k = first.shape
    if one.shape[1] != n:
        raise InputError(f"x and a must have the same points, got {one.shape[1]} and {n}")
    if k < 2 or n < 4:
        raise InputError(f"cknna needs k >= 2 and at least 4 points, got k = {k}, {n} points")
    no_own_points(first, "a")
    no_own_points(second, "b")
    result = np.empty(layers)
    for layer in range(layers):
        near, near_too = first[layer], second[layer]
        left = unit_rows(one[layer]) if normalize else _scaled(one[layer]).double()
        right = unit_rows(two[layer]) if normalize else _scaled(two[layer]).double()
        if k == n - 1:  # nothing is masked, and crowded points leave the sums below rounding
            result[layer] = unbiased_cka(Space(left), Space(right))
            continue
        kernel, other = NearKernel(left, near), NearKernel(right, near_too)
        cross = kernel.cross(other)
        result[layer] = _normalise(np.array(cross), np.array(kernel.own), np.array(other.own))
    return result


class NearKernel:
    """One layer's rows in float64, their kernel at its neighbours, and its HSIC with itself."""

    def __init__(self, rows: Tensor, near: Tensor) -> None:
        self.rows, self.near = rows.detach(), near
        self._values = _kernel_at(self.rows, near)
        own = _sparse_kernel(self._values, near, torch.ones_like(near, dtype=torch.bool))
        self.own = _masked_hsic(own, own)

    def cross(self, other: "NearKernel") -> float:
        """HSIC of two layers' kernels where both list a neighbour."""
        shared = (self.near[:, :, None] == other.near[:, None, :]).any(dim=2)
        theirs = _kernel_at(other.rows, self.near)
        return _masked_hsic(
            _sparse_kernel(self._values, self.near, shared),
            _sparse_kernel(theirs, self.near, shared),
        )


def _same_points(x: Any, y: Any) -> tuple[Tensor, Tensor]:
    """Both states ``[layers, n, d]`` on one device, of the same points."""
    one, two = state_layers(x, "x"), state_layers(y, "y")
    if one.shape[1] != two.shape[1]:
        raise InputError(
            f"x and y must have the same points, got {one.shape[1]} and {two.shape[1]}"
        )
    return one, two.to(one.device)


def _normalise(cross: np.ndarray, one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """cross / sqrt(one two), NaN where a self-term is not positive."""
    ok = (one > 0) & (two > 0)
    scale = np.sqrt(np.where(one > 0, one, 1)) * np.sqrt(np.where(two > 0, two, 1))
    return np.asarray(np.where(ok, cross / scale, np.nan))


def _scaled(layer: Tensor) -> Tensor:
    """The layer by a power of two, which CKA does not see, so that fourth powers stay finite.

    Nothing is rounded but what is below 1e-38 of the largest entry.
    """
    exponent = int(torch.frexp(layer.abs().amax().double()).exponent)
    if abs(exponent) <= _PLAIN_EXPONENT:  # float16 always is
        return layer
    half = -exponent // 2
    return layer * 2.0**half * 2.0 ** (-exponent - half)


def _constant(layer: Tensor) -> bool:
    return bool((layer == layer[0]).all())


def _biased(left: Space, right: Space) -> float:
    """``|Xcᵀ Yc|_F²``: HSIC times (n - 1)², a factor that CKA drops."""
    return float((cross_products(left, right) ** 2).sum())


def _kernel_at(rows: Tensor, columns: Tensor) -> Tensor:
    """Inner products of each row with its listed rows, float64 ``[n, k]``, a block at a time."""
    few = len(rows) <= _FEW_POINTS * columns.shape[1] and len(rows) ** 2 <= _GATHERED
    if few:  # one product costs less than gathering rows
        return (rows @ rows.T).gather(1, columns)
    step = max(1, _GATHERED // (columns.shape[1] * rows.shape[1]))
    parts = [
        torch.einsum("rd,rkd->rk", rows[start : start + step], rows[columns[start : start + step]])
        for start in range(0, len(rows), step)
    ]
    return torch.cat(parts)


def _sparse_kernel(values: Tensor, columns: Tensor, mask: Tensor) -> csr_matrix:
    """The masked kernel ``[n, n]`` from values at the listed columns."""
    n = len(values)
    ends = np.concatenate([[0], mask.sum(dim=1).cumsum(0).cpu().numpy()])
    return csr_matrix((values[mask].cpu().numpy(), columns[mask].cpu().numpy(), ends), shape=(n, n))


def _masked_hsic(k: csr_matrix, other: csr_matrix) -> float:
    """Unbiased HSIC of two sparse kernels without a diagonal, not symmetric."""
    columns = np.asarray(k.sum(axis=0)).ravel()
    rows = np.asarray(other.sum(axis=1)).ravel()
    return unbiased_hsic_sums(
        float(k.multiply(other.T).sum()),
        float(columns.sum()),
        float(rows.sum()),
        float(columns @ rows),
        k.shape[0],
    )
