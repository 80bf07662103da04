"""Bridge, reach and the Interlingual Local Overlap score from neighbours and languages."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.dlpack import from_dlpack

from ilo_fast.errors import InputError
from ilo_fast.neighbors import Neighbors
from ilo_fast.ops.languages import count_bits, neighbor_languages

__all__ = ["ILOScores", "check_threshold", "ilo_scores"]

_POINTS_AT_ONCE = 1 << 22  # of all layers together


@dataclass(frozen=True)
class ILOScores:
    """Scores per layer and language.

    Attributes:
        languages: in order of first appearance.
        n_points: int64 ``[languages]``.
        bridge, reach, ilo: float64 ``[layers, languages]``, shares in [0, 1].
        reach_count: int64 ``[layers, languages]``, languages reached.
        threshold, k: other languages a point must see to bridge; neighbours a point.

    All arrays are NumPy's; one layer gives ``layers == 1``.
    """

    languages: tuple[Any, ...]
    n_points: np.ndarray[Any, np.dtype[np.int64]]
    bridge: np.ndarray[Any, np.dtype[np.float64]]
    reach: np.ndarray[Any, np.dtype[np.float64]]
    ilo: np.ndarray[Any, np.dtype[np.float64]]
    reach_count: np.ndarray[Any, np.dtype[np.int64]]
    threshold: int
    k: int


def ilo_scores(neighbors: Any, languages: Sequence[Any], *, threshold: int = 3) -> ILOScores:
    """Bridge, reach and ILO of every language (Wilie et al. 2025, arXiv 2503.11280).

    For a point i, ``S_i`` is the set of languages among its k neighbours, its own left out.
    Bridge of a language is the share of its points with ``|S_i| >= threshold``; reach is
    ``|union of S_i| / (languages - 1)``; ILO is their harmonic mean, 0 where either is 0.

    Args:
        neighbors: a :class:`Neighbors`, or an index array ``[n, k]`` or ``[layers, n, k]``.
        languages: n labels, one a point.
        threshold: the paper's t, at least 1. More than k, or than the other languages there are,
            makes bridge and ILO 0 by the definition; `ilo_fast.score` refuses that.

    Raises:
        ValueError: not one label a point, fewer than 2 languages, indices out of range, a
            threshold below 1.
        TypeError: indices that are not whole numbers, a threshold that is not an integer.

    >>> import numpy as np
    >>> scores = ilo_scores(np.array([[1, 2], [0, 2], [0, 1]]), ["en", "de", "fr"], threshold=2)
    >>> scores.ilo.tolist()
    [[1.0, 1.0, 1.0]]
    """
    indices = _indices(neighbors)
    _, n, k = indices.shape
    if isinstance(threshold, bool) or not isinstance(threshold, int | np.integer):
        raise TypeError(f"threshold must be an integer; got {threshold!r}")
    if threshold < 1:
        raise InputError(f"threshold must be at least 1; got {threshold}")
    names, codes = _codes(languages, n)
    count = len(names)
    own = torch.from_numpy(codes).to(indices.device)
    bridging, reached = [], []
    for some in torch.split(indices, max(1, _POINTS_AT_ONCE // n)):
        _, bridges, unions = neighbor_languages(some, own, count, int(threshold))
        bridging.append(bridges)
        reached.append(count_bits(unions).sum(dim=2))
    points = np.bincount(codes, minlength=count).astype(np.int64)
    reach_count = torch.cat(reached).cpu().numpy()
    bridge = torch.cat(bridging).cpu().numpy() / points
    reach = reach_count / (count - 1)
    total = bridge + reach
    ilo = np.where(
        (bridge > 0) & (reach > 0), 2 * bridge * reach / np.where(total > 0, total, 1), 0
    )
    return ILOScores(names, points, bridge, reach, ilo, reach_count, int(threshold), k)


def check_threshold(threshold: int, k: int, languages: int) -> None:
    """That a point can see ``threshold`` other languages; else every ILO would be 0.

    Raises InputError, saying what would fit, when k or the languages are too few.

    >>> check_threshold(3, k=5, languages=4)
    """
    most = min(k, languages - 1)
    if threshold > most:
        raise InputError(
            f"threshold must be at most {most}, or no point can be a bridge (it has k = {k} "
            f"neighbours and sees at most {languages - 1} languages but its own); got {threshold}"
        )


def _indices(neighbors: Any) -> torch.Tensor:
    """Neighbour indices as an int64 tensor ``[layers, n, k]``."""
    array = neighbors.indices if isinstance(neighbors, Neighbors) else neighbors
    if isinstance(array, torch.Tensor):
        indices = array
    elif hasattr(array, "__dlpack__") and not isinstance(array, np.ndarray):
        indices = from_dlpack(array)
    else:
        array = np.asarray(array)
        if array.dtype.kind not in "iu":
            raise TypeError(f"neighbour indices must be whole numbers; got {array.dtype}")
        indices = torch.from_numpy(np.array(array, dtype=np.int64))
    if indices.is_floating_point() or indices.is_complex() or indices.dtype == torch.bool:
        raise TypeError(f"neighbour indices must be whole numbers; got {str(indices.dtype)[6:]}")
    if indices.ndim not in (2, 3) or 0 in indices.shape:
        raise InputError(
            f"neighbors must be [n, k] or [layers, n, k] and not empty; got {list(indices.shape)}"
        )
    indices = (indices[None] if indices.ndim == 2 else indices).to(torch.int64)
    n = indices.shape[1]
    low, high = int(indices.min()), int(indices.max())
    if low < 0 or high >= n:
        raise InputError(f"neighbour indices must lie in 0..{n - 1}; got {low}..{high}")
    return indices


def _codes(
    languages: Sequence[Any], n: int
) -> tuple[tuple[Any, ...], np.ndarray[Any, np.dtype[np.int64]]]:
    """Distinct labels in order of first appearance and each point's position among them."""
    if isinstance(languages, str | bytes):
        raise TypeError("languages must be a sequence of n labels, not one string")
    labels = languages.tolist() if hasattr(languages, "tolist") else list(languages)
    if len(labels) != n:
        raise InputError(f"languages must give one label a point: {n} points, {len(labels)} labels")
    order: dict[Hashable, int] = {}
    codes = np.fromiter((order.setdefault(label, len(order)) for label in labels), np.int64, n)
    if len(order) < 2:
        raise InputError(
            f"languages must name at least 2 languages; got {len(order)}: {list(order)[:1]}"
        )
    return tuple(order), codes
