"""Is the most similar sentence the translation? Scores of one similarity matrix.

Every function takes similarities ``[..., S, S]``: entry (i, j) compares sentence i of the
source language with sentence j of the target, so the diagonal holds the translations. All are
float64; two values within `tolerance` of each other count as equal, and among equals the
lower index comes first, as in `knn`.
"""

from typing import Any

import torch
from torch import Tensor

from ilo_fast.arguments import check_choice, not_negative, whole_number
from ilo_fast.arrays import as_tensor
from ilo_fast.errors import InputError

__all__ = ["check_k", "csls_retrieval", "mexa", "retrieval", "xsim_error"]


def retrieval(similarity: Any, *, tolerance: float = 0.0) -> Tensor:
    """P@1: the share of source sentences whose most similar target is their translation.

    ``P@1 = (1 / S) sum_i 1[arg max_j C_ij = i]``.

    Args:
        similarity: ``[..., S, S]``, source rows, target columns.
        tolerance: at least 0; values this close are equal, and the lower index wins.

    Returns:
        float64 ``[...]`` in 0 … 1.

    Raises:
        InputError: when the similarities are not square matrices of finite numbers, or the
            tolerance is below 0.
        TypeError: a tolerance (or a k, where there is one) that is no number.

    >>> retrieval([[0.9, 0.1], [0.8, 0.2]])
    tensor(0.5000, dtype=torch.float64)
    """
    matrix = _square(similarity)
    return _hits(matrix, not_negative(tolerance, "tolerance") / 2)


def mexa(similarity: Any, *, tolerance: float = 0.0) -> Tensor:
    """MEXA: the share of translations above everything else in their row and their column.

    ``mu = (1 / S) sum_i 1[C_ii > max_{j != i} max(C_ij, C_ji)]``, strict (Kargaran, Modarressi,
    Nikeghbal, Diesner, Yvon, Schütze 2024, arXiv 2410.05873).

    Args, Raises: as `retrieval`; a tie is a miss.

    Returns:
        float64 ``[...]`` in 0 … 1, the same for the transposed matrix.

    >>> mexa([[0.9, 0.1], [0.8, 0.85]]), mexa([[0.9, 0.1], [0.8, 0.2]])
    (tensor(1., dtype=torch.float64), tensor(0.5000, dtype=torch.float64))
    """
    matrix, tolerance = _square(similarity), not_negative(tolerance, "tolerance")
    own = matrix.diagonal(dim1=-2, dim2=-1)
    others = matrix.clone()
    others.diagonal(dim1=-2, dim2=-1).fill_(-torch.inf)
    above_row = own > others.amax(dim=-1) + tolerance
    above_column = own > others.amax(dim=-2) + tolerance
    return (above_row & above_column).double().mean(dim=-1)


def xsim_error(
    similarity: Any, *, margin: str = "ratio", k: int = 4, tolerance: float = 0.0
) -> Tensor:
    """xSIM: the share of source sentences whose best margin is not their translation's.

    With r_i the mean of the k largest similarities in row i and c_j in column j, and
    ``b_ij = (r_i + c_j) / 2``: the winner among the k most similar targets of i has the largest
    ``C_ij / b_ij`` (ratio) or ``C_ij - b_ij`` (distance); the error is the share of rows whose
    winner is not i (LASER's xSIM; margins of Artetxe and Schwenk 2019, arXiv 1811.01136).
    Targets as similar as the k-th take part too. Where b is 0, to half the tolerance, the ratio
    is 0.

    Args:
        similarity: ``[..., S, S]`` cosines, source rows, target columns.
        margin: "ratio" or "distance".
        k: neighbours averaged, 1 … S.
        tolerance: at least 0; values this close are equal, and the lower index wins.

    Returns:
        float64 ``[...]`` in 0 … 1; 0 is best.

    Raises:
        InputError, TypeError: on similarities, a margin, a k or a tolerance that cannot be used.

    >>> xsim_error([[0.9, 0.8], [0.7, 0.2]], k=1), xsim_error([[0.9, 0.8], [0.7, 0.6]], k=2)
    (tensor(0.5000, dtype=torch.float64), tensor(0.5000, dtype=torch.float64))
    """
    matrix = _square(similarity)
    check_choice(margin, "margin", ("ratio", "distance"))
    tolerance = not_negative(tolerance, "tolerance")
    rows, columns = _top(matrix, k, -1), _top(matrix, k, -2)
    half = (rows.mean(dim=-1)[..., :, None] + columns.mean(dim=-1)[..., None, :]) / 2
    error: float | Tensor = tolerance  # half of it from C, half from b
    if margin == "distance":
        score = matrix - half
    else:
        no_half = half.abs() <= tolerance / 2  # as far as rounding can tell
        divisor = torch.where(no_half, 1.0, half)
        score = torch.where(no_half, 0.0, matrix / divisor)
        if tolerance:  # to first order, |C / b| moves by (error of C + |C / b| error of b) / |b|
            error = tolerance / 2 * (1 + score.abs()) / divisor.abs()
    candidate = matrix >= rows[..., -1:] - tolerance
    return 1 - _hits(score.masked_fill_(~candidate, -torch.inf), error)


def csls_retrieval(similarity: Any, *, k: int = 10, tolerance: float = 0.0) -> Tensor:
    """P@1 under cross-domain similarity local scaling.

    ``CSLS_ij = 2 C_ij - r_i - c_j``, r_i the mean of the k largest similarities in row i and c_j
    in column j (Conneau, Lample, Ranzato, Denoyer, Jégou 2018, arXiv 1710.04087).

    Args:
        similarity: ``[..., S, S]`` cosines, source rows, target columns.
        k: neighbours averaged, 1 … S.
        tolerance: at least 0; values this close are equal, and the lower index wins.

    Returns:
        float64 ``[...]`` in 0 … 1.

    Raises:
        InputError, TypeError: on similarities, a k or a tolerance that cannot be used.

    >>> csls_retrieval([[0.9, 0.5], [0.7, 0.6]], k=1)
    tensor(1., dtype=torch.float64)
    """
    matrix = _square(similarity)
    columns, tolerance = _top(matrix, k, -2), not_negative(tolerance, "tolerance")
    return _hits(2 * matrix - columns.mean(dim=-1)[..., None, :], 1.5 * tolerance)


def check_k(k: Any, size: int, name: str = "k") -> int:
    """A whole number 1 … size, or an error."""
    number = whole_number(k, name)
    if not 1 <= number <= size:
        raise InputError(f"{name} must be a whole number 1 … {size} (the sentences), got {k!r}")
    return number


def _square(similarity: Any) -> Tensor:
    """Checked similarities as float64 ``[..., S, S]``."""
    matrix = as_tensor(similarity, "similarity")
    if matrix.ndim < 2 or matrix.shape[-1] != matrix.shape[-2] or matrix.shape[-1] == 0:
        raise InputError(f"similarity must have shape [..., S, S], got {list(matrix.shape)}")
    if matrix.is_complex():
        raise InputError(f"similarity must hold real numbers, got dtype {matrix.dtype}")
    matrix = matrix.double()
    if not bool(torch.isfinite(matrix).all()):
        raise InputError("similarity must be finite, found NaN or infinity")
    return matrix


def _top(matrix: Tensor, k: int, axis: int) -> Tensor:
    """The k largest values along an axis, largest first, on the last axis: ``[..., S, k]``."""
    k = check_k(k, matrix.shape[-1])
    if axis == -2:  # contiguous rows are what top-k reads fastest
        matrix = matrix.transpose(-1, -2).contiguous()
    return matrix.topk(k, dim=-1).values


def _hits(score: Tensor, error: float | Tensor) -> Tensor:
    """Share of rows whose winner is on the diagonal.

    A value may be off by `error`; the winner is the first that may be as large as the largest.
    """
    near = score + error >= (score - error).amax(dim=-1, keepdim=True)
    first = near.to(torch.uint8).argmax(dim=-1)
    own = torch.arange(score.shape[-1], device=score.device)
    return (first == own).double().mean(dim=-1)
