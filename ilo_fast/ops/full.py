"""Rows against every point at once: small problems, and rows the tiled filter could not serve.

A strip of rows is multiplied with all points, in float32 where that decides and in float64 for
the rest. Either way the product and its slack bound every pair's similarity (``Operands``), and
what the bounds leave open goes to the exact stage. The argument is that of docs/exactness.md,
section 5, without bins.
"""

import torch

from ilo_fast.ops.centred import MASKED, Centred, filter_operands
from ilo_fast.ops.exact import Lists, rank
from ilo_fast.ops.points import Points
from ilo_fast.ops.products import multiplied
from ilo_fast.ops.workers import mapped, row_runs

__all__ = ["rank_narrowed", "rank_rows"]

_STRIP_BYTES = 48 << 20  # each worker has one
_CPU_ROWS = 256
_PAIRS = 1 << 20  # ranked at once
_WAITING = 1 << 16  # pairs ranked together: (i, j) and (j, i) are compared once


def rank_narrowed(
    points: Points, form: Centred, k: int, lists: Lists, most: int
) -> tuple[torch.Tensor, int]:
    """Rank what float32 decides; return the other rows and the number of pairs compared.

    A row of more than ``most`` candidates is left to ``rank_rows``.
    """
    every = torch.arange(points.u, device=points.z.device)
    operands = filter_operands(points, form, every, points.u)
    best = min(k, points.u - 1)
    left_over: list[torch.Tensor] = []
    waiting: list[torch.Tensor] = []
    compared = 0

    def serve(some: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        upper = multiplied(operands.left[some], operands.right.T)
        is_open = _open(upper, some, operands.slack, best)
        crowded = is_open.sum(dim=1) > most
        is_open &= ~crowded[:, None]
        pairs = is_open.nonzero()
        pairs[:, 0] += some[0]
        return some[crowded], pairs

    def rank_waiting() -> None:
        rows, cols = torch.cat(waiting).unbind(1)
        rank(points, rows, cols, lists)
        waiting.clear()

    for crowded, pairs in mapped(serve, torch.split(every, _strip_rows(points, 4))):
        left_over.append(crowded)
        waiting.append(pairs)
        compared += pairs.shape[0]
        if sum(map(len, waiting)) > _WAITING:
            rank_waiting()
    if waiting:
        rank_waiting()
    return torch.cat(left_over), compared


def rank_rows(points: Points, form: Centred, rows: torch.Tensor, k: int, lists: Lists) -> int:
    """Rank the given distinct points by float64 products; return the number of pairs compared.

    Candidates of a row are few, or thousands where points are equal to float64 rounding.
    """
    best = min(k, points.u - 1)
    centred = form.rows(points.z)
    lifted = form.b + form.slack
    twice = 2.0 * form.slack

    def serve(some: torch.Tensor) -> int:
        upper = torch.mm(centred[some], centred.T)
        upper += lifted  # the row's own term is common to all its pairs
        return _rank_open(points, some, _open(upper, some, twice, best), lists)

    return sum(mapped(serve, torch.split(rows, _strip_rows(points, 8))))


def _strip_rows(points: Points, entry_bytes: int) -> int:
    strip = max(1, _STRIP_BYTES // (3 * entry_bytes * points.u))
    if points.z.device.type == "cpu":
        strip = min(strip, _CPU_ROWS)  # a share for every worker
    return strip


def _open(upper: torch.Tensor, rows: torch.Tensor, slack: torch.Tensor, best: int) -> torch.Tensor:
    """Pairs ``[R, u]`` that reach the row's best-th largest lower bound."""
    upper[torch.arange(rows.shape[0], device=rows.device), rows] = MASKED
    kth = torch.topk(upper - slack, best, dim=1).values[:, -1]
    return upper >= (kth - slack[rows])[:, None]


def _rank_open(points: Points, rows: torch.Tensor, is_open: torch.Tensor, lists: Lists) -> int:
    """Rank the marked pairs, a bounded number at a time; return how many they are."""
    sizes, pairs = row_runs(is_open.sum(dim=1), _PAIRS)
    for some, marked in zip(torch.split(rows, sizes), torch.split(is_open, sizes), strict=True):
        row, col = marked.nonzero().unbind(1)
        rank(points, some[row], col, lists)
    return sum(pairs)
