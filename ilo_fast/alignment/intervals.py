"""Intervals of a score from bootstrap draws over sentences."""

import warnings
from statistics import NormalDist

import numpy as np

__all__ = ["UNIONS", "interval"]

UNIONS = frozenset({"reach", "ilo"})
"""Scores with a union in them, whose draws lean to one side of the estimate."""


def interval(
    estimate: np.ndarray, draws: np.ndarray, score: str, level: float, bounds: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """Both ends, where a share ``level`` of the draws ``[draws, ...]`` lies around ``estimate``.

    Means over points get percentiles. A draw repeats sentences, so it takes about 63 % of the
    different ones, and a union over those is smaller: the draws of `UNIONS` tell how much the score
    spreads but not where it lies. They get the estimate plus and minus their standard deviation
    times the normal quantile, cut to ``bounds``, much as ecology has it for species seen
    (Chao et al. 2014, doi 10.1890/13-0133.1). NaN marks a draw without a value, and an interval of
    which no draw has one.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "All-NaN slice|Degrees of freedom", RuntimeWarning)
        if score not in UNIONS:
            low, high = np.nanquantile(draws, [(1 - level) / 2, (1 + level) / 2], axis=0)
            return low, high
        spread = np.nanstd(draws, axis=0)
    # by the lower tail, which is above 0 for the largest level below 1
    reach = -NormalDist().inv_cdf((1 - level) / 2) * spread
    return np.maximum(estimate - reach, bounds[0]), np.minimum(estimate + reach, bounds[1])
