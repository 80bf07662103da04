"""Bridge, reach and the Interlingual Local Overlap score from neighbours and languages."""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ilo_fast.arguments import at_least_1
from ilo_fast.errors import InputError
from ilo_fast.lists import index_lists, language_codes
from ilo_fast.ops.languages import count_bits, neighbor_languages
from ilo_fast.shown import Shown, counted

__all__ = ["ILOScores", "check_neighbors", "check_threshold", "harmonic", "ilo_scores"]

_POINTS_AT_ONCE = 1 << 22  # of all layers together


@dataclass(frozen=True, eq=False, repr=False)
class ILOScores(Shown):
    """Scores per layer and language.

    Attributes:
        languages: plain str or int, in order of first appearance; sorted from `ilo_fast.ILO`, whose
            points have no order of their own.
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


def ilo_scores(neighbors: Any, languages: Any, *, threshold: int = 3) -> ILOScores:
    """Bridge, reach and ILO of every language (Wilie et al. 2025, arXiv 2503.11280).

    For a point i, ``S_i`` is the set of languages among its k neighbours, its own left out.
    Bridge of a language is the share of its points with ``|S_i| >= threshold``; reach is
    ``|union of S_i| / (languages - 1)``; ILO is their harmonic mean, 0 where either is 0.

    Args:
        neighbors: a :class:`Neighbors`, or an index array ``[n, k]`` or ``[layers, n, k]``.
        languages: n labels, one a point, strings or integers.
        threshold: the paper's t, at least 1. More than k, or than the other languages there are,
            makes bridge and ILO 0 by the definition, with a warning; `ilo_fast.score` refuses that.

    Raises:
        ValueError: not one label a point, a label that is missing or neither string nor integer,
            fewer than 2 languages, indices that are not whole numbers or out of range, a
            threshold below 1.
        TypeError: a threshold that is not an integer.

    >>> import numpy as np
    >>> scores = ilo_scores(np.array([[1, 2], [0, 2], [0, 1]]), ["en", "de", "fr"], threshold=2)
    >>> scores.ilo.tolist()
    [[1.0, 1.0, 1.0]]
    """
    indices = index_lists(neighbors)
    _, n, k = indices.shape
    threshold = at_least_1(threshold, "threshold")
    names, own = language_codes(languages, n, indices.device)
    count = len(names)
    try:
        check_threshold(threshold, k, count)
    except InputError as error:
        warnings.warn(f"bridge and ILO are 0 whatever the points: {error}", stacklevel=2)
    bridging, reached = [], []
    for some in torch.split(indices, max(1, _POINTS_AT_ONCE // n)):
        _, bridges, unions = neighbor_languages(some, own, count, threshold)
        bridging.append(bridges)
        reached.append(count_bits(unions).sum(dim=2))
    points = torch.bincount(own, minlength=count).cpu().numpy()
    reach_count = torch.cat(reached).cpu().numpy()
    bridge = torch.cat(bridging).cpu().numpy() / points
    reach = reach_count / (count - 1)
    ilo = harmonic(bridge, reach)
    return ILOScores(names, points, bridge, reach, ilo, reach_count, threshold, k)


def harmonic(bridge: np.ndarray, reach: np.ndarray) -> np.ndarray:
    """ILO: ``2 B R / (B + R)``, 0 where either is 0, NaN where either is.

    >>> harmonic(np.array([0.5, 0.0]), np.array([1.0, 0.0])).round(3)
    array([0.667, 0.   ])
    """
    total = bridge + reach
    none = np.zeros_like(total)
    return np.asarray(np.divide(2 * bridge * reach, total, out=none, where=total != 0))


def check_neighbors(k: int, languages: int, sentences: int) -> None:
    """That a corpus has more points than k; InputError where not.

    >>> check_neighbors(5, languages=4, sentences=2)
    """
    if k >= languages * sentences:
        raise InputError(
            f"k must be less than the number of points, {languages * sentences} "
            f"({counted(languages, 'language')} × {counted(sentences, 'sentence')}), got {k}"
        )


def check_threshold(threshold: int, k: int, languages: int) -> None:
    """That a point can see ``threshold`` other languages; else every ILO would be 0.

    Raises InputError, saying what would fit, when k or the languages are too few.

    >>> check_threshold(3, k=5, languages=4)
    """
    most = min(k, languages - 1)
    if threshold > most:
        raise InputError(
            f"threshold must be at most {most}, or no point can be a bridge (it has k = {k} "
            f"neighbours and sees at most {counted(languages - 1, 'language')} but its own); "
            f"got {threshold}"
        )
