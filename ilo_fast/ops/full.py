"""Rows against every point in float64: small problems, and rows the filter could not serve."""

import torch

from ilo_fast.ops.centred import MASKED, Centred
from ilo_fast.ops.exact import rank
from ilo_fast.ops.points import Points

__all__ = ["rank_rows"]

_STRIP_BYTES = 96 << 20
_PAIRS = 1 << 21


def rank_rows(
    points: Points,
    form: Centred,
    rows: torch.Tensor,
    *,
    order: torch.Tensor | None,
    k: int,
    length: int,
    exclude_self: bool,
    out_indices: torch.Tensor,
    out_values: torch.Tensor,
) -> int:
    """Rank the given rows (positions in the form's order) exactly; return the pairs compared.

    A strip of rows costs one float64 product. Candidates are the columns whose form value plus
    bound reaches the k-th best form value minus bound; there are few of them, or thousands where
    the points are equal to float64 rounding: they are then taken a bounded number at a time.
    """
    u = points.u
    best = min(k, u - 1)
    lifted = form.b + form.slack
    twice = 2.0 * form.slack
    strip = max(1, _STRIP_BYTES // (3 * 8 * u))
    compared = 0
    for start in range(0, rows.shape[0], strip):
        some = rows[start : start + strip]
        upper = torch.mm(form.d[some], form.d.T)
        upper += lifted[some, None]
        upper += lifted
        upper[torch.arange(some.shape[0], device=some.device), some] = MASKED
        kth = torch.topk(upper - twice, best, dim=1).values[:, -1]
        open_pairs = upper >= (kth - twice[some])[:, None]
        per_row = open_pairs.sum(dim=1)
        for low, high in _portions(per_row):
            row, col = open_pairs[low:high].nonzero().unbind(1)
            row = some[low:high][row]
            if order is not None:
                row, col = order[row], order[col]
            compared += row.shape[0]
            rank(
                points,
                row,
                col,
                length=length,
                exclude_self=exclude_self,
                out_indices=out_indices,
                out_values=out_values,
            )
    return compared


def _portions(per_row: torch.Tensor) -> list[tuple[int, int]]:
    """Cut rows into runs of at most ``_PAIRS`` pairs (or one row)."""
    portions, start, held = [], 0, 0
    for row, count in enumerate(per_row.tolist()):
        if held and held + count > _PAIRS:
            portions.append((start, row))
            start, held = row, 0
        held += count
    portions.append((start, per_row.shape[0]))
    return portions
