"""Rows against every point in float64: small problems, and rows the filter could not serve."""

import torch

from ilo_fast.ops.centred import MASKED, Centred
from ilo_fast.ops.exact import Lists, rank
from ilo_fast.ops.points import Points
from ilo_fast.ops.workers import mapped

__all__ = ["rank_rows"]

_STRIP_BYTES = 48 << 20  # each worker has one
_CPU_ROWS = 256
_PAIRS = 1 << 20


def rank_rows(points: Points, form: Centred, rows: torch.Tensor, k: int, lists: Lists) -> int:
    """Rank the given distinct points exactly; return the number of pairs compared.

    A strip of rows costs one float64 product. Candidates are the columns whose form value plus
    bound reaches the k-th best form value minus bound: few, or thousands where points are equal
    to float64 rounding; those are then taken a bounded number at a time.
    """
    u = points.u
    best = min(k, u - 1)
    centred = form.rows(points.z)
    lifted = form.b + form.slack
    twice = 2.0 * form.slack

    def serve(some: torch.Tensor) -> int:
        compared = 0
        upper = torch.mm(centred[some], centred.T)
        upper += lifted[some, None]
        upper += lifted
        upper[torch.arange(some.shape[0], device=some.device), some] = MASKED
        kth = torch.topk(upper - twice, best, dim=1).values[:, -1]
        is_open = upper >= (kth - twice[some])[:, None]
        for low, high in _portions(is_open.sum(dim=1)):
            row, col = is_open[low:high].nonzero().unbind(1)
            compared += row.shape[0]
            rank(points, some[low:high][row], col, lists)
        return compared

    strip = max(1, _STRIP_BYTES // (3 * 8 * u))
    if rows.device.type == "cpu":
        strip = min(strip, _CPU_ROWS)  # a share for every worker
    return sum(mapped(serve, torch.split(rows, strip)))


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
