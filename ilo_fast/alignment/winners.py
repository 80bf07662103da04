"""Who wins under the scores of `ilo_fast.alignment.similarity`, from the largest entries of rows.

A block of cosines is read three times: its rows' and its columns' largest entries, and a
transposition. The winners are then found among those few, and the rows where an entry that was
left out might still win are looked at whole; the results are those of the plain formulas.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["SCORES", "Hits", "block_hits", "row_hits", "scores_of_hits"]

SCORES = ("retrieval", "xsim_ratio", "xsim_distance", "csls", "mexa")

Hits = dict[str, Tensor]  # retrieval, ratio, distance, csls; above: over all others, strictly

# Entries kept beyond those averaged: room for ties and for what CSLS lifts.
_SPARE = 6


@dataclass(frozen=True)
class _Search:
    """One direction: every row of every matrix looks for its column."""

    rows: Tensor  # cosines [R, S], R = matrices × S
    values: Tensor  # [R, K] the largest, descending
    places: Tensor  # [R, K] their columns
    k: int
    csls_k: int
    tolerance: float

    def row_means(self, k: int) -> Tensor:
        """Mean of the k largest cosines of each row ``[R]``."""
        return self.values[:, :k].mean(dim=1)


def block_hits(matrix: Tensor, k: int, csls_k: int, tolerance: float) -> tuple[Hits, Hits]:
    """Which sentences find their translation in float64 cosines ``[B, S, S]``, in each direction.

    Returns name → bool ``[B, S]`` for source to target and for target to source. 1 <= k,
    csls_k <= S; values within `tolerance` count as equal.
    """
    count, size, _ = matrix.shape
    there, back = (
        _search(rows, k, csls_k, tolerance)
        for rows in (matrix.reshape(-1, size), matrix.transpose(1, 2).reshape(-1, size))
    )
    own = torch.arange(size, device=matrix.device).repeat(count)
    found = []
    for search, other in ((there, back), (back, there)):
        hits = {name: won == own for name, won in _winners(search, other, count).items()}
        hits["above"] = _above_others(search, own)
        found.append({name: hit.view(count, size) for name, hit in hits.items()})
    return found[0], found[1]


def row_hits(
    rows: Tensor,
    own: Tensor,
    xsim_columns: Tensor,
    csls_columns: Tensor,
    k: int,
    csls_k: int,
    tolerance: float,
) -> Hits:
    """`block_hits` of some rows of each matrix: float64 cosines ``[B, R, S]``, name → ``[B, R]``.

    own ``[B, R]``: the column of a row's translation; xsim_columns, csls_columns ``[B, S]``: the
    means of the columns' k and csls_k largest entries, needed of those that may win.
    """
    count, some, size = rows.shape
    search = _search(rows.reshape(-1, size), k, csls_k, tolerance)
    every = torch.arange(size, device=rows.device).expand(count * some, size)
    of_matrix = torch.arange(count, device=rows.device).repeat_interleave(some)
    winners, _ = _choose(
        search, search.rows, every, slice(None), of_matrix, xsim_columns, csls_columns
    )
    hits = {name: won == own.flatten() for name, won in winners.items()}
    hits["above"] = _above_others(search, own.flatten())
    return {name: hit.view(count, some) for name, hit in hits.items()}


def scores_of_hits(there: Hits, back: Hits) -> dict[str, Tensor]:
    """The scores, name → float64 ``[2, B]``, from `block_hits` of both directions."""

    def share(name: str) -> Tensor:
        return torch.stack([way[name].double().mean(dim=1) for way in (there, back)])

    both = (there["above"] & back["above"]).double().mean(dim=1)
    return {
        "retrieval": share("retrieval"),
        "xsim_ratio": 1 - share("ratio"),
        "xsim_distance": 1 - share("distance"),
        "csls": share("csls"),
        "mexa": torch.stack([both, both]),
    }


def _search(rows: Tensor, k: int, csls_k: int, tolerance: float) -> _Search:
    top = rows.topk(min(rows.shape[1], max(k, csls_k) + _SPARE), dim=1)
    return _Search(
        rows=rows,
        values=top.values,
        places=top.indices,
        k=k,
        csls_k=csls_k,
        tolerance=tolerance,
    )


def _above_others(search: _Search, own: Tensor) -> Tensor:
    """Rows whose own entry lies above every other by more than the tolerance, ``[R]``."""
    if search.rows.shape[1] == 1:
        return torch.ones_like(own, dtype=torch.bool)
    is_first = search.places[:, 0] == own
    return is_first & (search.values[:, 0] > search.values[:, 1] + search.tolerance)


def _winners(search: _Search, other: _Search, count: int) -> dict[str, Tensor]:
    """The winning column of each row under each score, int64 ``[R]``."""
    size = search.rows.shape[1]
    xsim_columns = other.row_means(search.k).view(count, size)
    csls_columns = other.row_means(search.csls_k).view(count, size)
    of_matrix = torch.arange(count, device=search.rows.device).repeat_interleave(size)
    winners, sure = _choose(
        search, search.values, search.places, slice(None), of_matrix, xsim_columns, csls_columns
    )
    for name, known in sure.items():
        rows = torch.nonzero(~known)[:, 0]
        if rows.numel():
            every = torch.arange(size, device=rows.device).expand(rows.numel(), size)
            full, _ = _choose(
                search,
                search.rows[rows],
                every,
                rows,
                of_matrix[rows],
                xsim_columns,
                csls_columns,
            )
            winners[name][rows] = full[name]
    return winners


def _choose(
    search: _Search,
    values: Tensor,
    places: Tensor,
    rows: Tensor | slice,
    of_matrix: Tensor,
    xsim_columns: Tensor,
    csls_columns: Tensor,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Winners among the entries given, and where no entry left out can change them.

    Args:
        values, places: cosines and columns ``[R, K]`` of the rows looked at; with fewer entries
            than columns they are the largest, descending.
        rows: which rows of the search these are.
        of_matrix: the matrix each row belongs to ``[R]``.
        xsim_columns, csls_columns: the columns' means ``[B, S]``.
    """
    tolerance = search.tolerance
    complete = places.shape[1] == search.rows.shape[1]
    least = values[:, -1]  # no entry left out is larger
    best = values.amax(dim=1)
    kth = search.values[rows][:, search.k - 1]
    winners = {"retrieval": _first(values >= (best - tolerance)[:, None], places)}
    sure = {"retrieval": least < best - tolerance}

    candidate = values >= (kth - tolerance)[:, None]
    half = (
        search.row_means(search.k)[rows][:, None] + xsim_columns[of_matrix[:, None], places]
    ) / 2
    no_half = half.abs() <= tolerance / 2  # as far as rounding can tell
    divisor = torch.where(no_half, 1.0, half)
    ratio = torch.where(no_half, 0.0, values / divisor)
    ratio_error = tolerance / 2 * (1 + ratio.abs()) / divisor.abs()
    distance = values - half
    winners["ratio"] = _first(_near(ratio, ratio_error, candidate), places)
    winners["distance"] = _first(
        _near(distance, torch.full_like(distance, tolerance), candidate), places
    )
    sure["ratio"] = sure["distance"] = least < kth - tolerance

    scaled = 2 * values - csls_columns[of_matrix[:, None], places]
    error = 1.5 * tolerance
    line = scaled.amax(dim=1) - 2 * error
    winners["csls"] = _first(scaled >= line[:, None], places)
    sure["csls"] = 2 * least - csls_columns.amin(dim=1)[of_matrix] < line - tolerance
    if complete:
        sure = {name: torch.ones_like(known) for name, known in sure.items()}
    return winners, sure


def _near(score: Tensor, error: Tensor, candidate: Tensor) -> Tensor:
    """Candidates that may be as large as the largest, each off by its error at most."""
    line = (score - error).masked_fill(~candidate, -torch.inf).amax(dim=1, keepdim=True)
    return candidate & (score + error >= line)


def _first(near: Tensor, places: Tensor) -> Tensor:
    """The lowest column among the marked entries of each row, int64 ``[R]``."""
    beyond = torch.iinfo(torch.int64).max
    return torch.where(near, places, beyond).amin(dim=1)
