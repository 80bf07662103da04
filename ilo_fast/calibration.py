"""A score against its permutation null: p values, and a score whose zero is chance."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ilo_fast.arguments import between_0_and_1, check_seed, not_negative, real_number
from ilo_fast.arrays import real_array
from ilo_fast.errors import InputError
from ilo_fast.shown import Shown

__all__ = ["Calibration", "calibrate", "draw_permutations"]


@dataclass(frozen=True, eq=False, repr=False)
class Calibration(Shown):
    """Observed scores beside their null; every array has the observed scores' shape, float64.

    Attributes:
        observed: the scores as measured.
        score: ``clamp((observed - threshold) / (ceiling - threshold), 0, 1)``: 0 where chance
            explains the score at level alpha, 1 at the ceiling.
        p_value: share of the null at or above the observed score, counting the observed one.
        p_lower: the other tail: share of the null at or below the observed score.
        threshold: the (1 - alpha) order statistic of the null with the observed score in it.
        null_mean, null_std: of the null alone (population standard deviation).
        permutations, alpha: how the null was made.
    """

    observed: np.ndarray
    score: np.ndarray
    p_value: np.ndarray
    p_lower: np.ndarray
    threshold: np.ndarray
    null_mean: np.ndarray
    null_std: np.ndarray
    permutations: int
    alpha: float


def calibrate(
    observed: Any,
    null: Any,
    *,
    alpha: float = 0.05,
    ceiling: float = 1.0,
    tolerance: float = 0.0,
) -> Calibration:
    """Calibrate scores against null draws (Gröger, Wen, Brbić 2026, arXiv 2602.14486).

    With K draws: ``p = (1 + #{null >= s}) / (K + 1)``; the threshold tau is order statistic
    number ``ceil((1 - alpha) (K + 1))`` of the K draws and s together; the calibrated score is
    ``clamp((s - tau) / (ceiling - tau), 0, 1)``, and 0 where tau is at the ceiling.

    Args:
        observed: scores of any shape, one number included.
        null: ``[K, *shape]`` draws of the same scores under the null.
        alpha: level in 0 … 1, both excluded.
        ceiling: the largest value the score can take.
        tolerance: draws this close to the observed score are equal to it: how far apart rounding
            can set two equal scores whose terms were added in another order.

    Returns:
        A `Calibration`.

    Raises:
        InputError: when the shapes do not fit, there is no draw, a value is no finite number, or
            alpha or tolerance is out of range.

    >>> result = calibrate(0.5, [0.1, 0.2, 0.3, 0.1], alpha=0.2)
    >>> float(result.p_value), float(result.threshold), round(float(result.score), 3)
    (0.2, 0.3, 0.286)
    """
    scores, draws = real_array(observed, "observed"), real_array(null, "null")
    if draws.ndim != scores.ndim + 1 or draws.shape[1:] != scores.shape or draws.shape[0] < 1:
        wanted = ", ".join(["draws", *map(str, scores.shape)])
        raise InputError(f"null must have shape [{wanted}], got {list(draws.shape)}")
    alpha, ceiling = between_0_and_1(alpha, "alpha"), real_number(ceiling, "ceiling")
    tolerance = not_negative(tolerance, "tolerance")
    if not (np.isfinite(scores).all() and np.isfinite(draws).all()):
        raise InputError("observed and null must be finite, found NaN or infinity")
    if tolerance:
        draws = np.where(np.abs(draws - scores) <= tolerance, scores, draws)
    count = draws.shape[0]
    # the small step down keeps a product that should be whole, 0.95 * 200, from rounding up
    rank = max(1, math.ceil((1 - alpha) * (count + 1) - 1e-9))
    together = np.concatenate([draws, scores[None]])
    threshold = np.partition(together, rank - 1, axis=0)[rank - 1]
    room = ceiling - threshold
    score = np.divide(scores - threshold, room, out=np.zeros_like(scores), where=room > 0)
    return Calibration(
        observed=scores,
        score=np.clip(score, 0.0, 1.0),
        p_value=(1 + (draws >= scores).sum(axis=0)) / (count + 1),
        p_lower=(1 + (draws <= scores).sum(axis=0)) / (count + 1),
        threshold=threshold,
        null_mean=draws.mean(axis=0),
        null_std=draws.std(axis=0),
        permutations=count,
        alpha=alpha,
    )


def draw_permutations(
    n: int, count: int, seed: int, blocks: np.ndarray | None = None
) -> Iterator[np.ndarray]:
    """Draw `count` seeded permutations of 0 … n - 1, one at a time.

    With `blocks` (an integer per point) points move within their block only. Raises TypeError or
    InputError on a seed that is no whole number of at least 0, with the first draw.

    >>> [order.tolist() for order in draw_permutations(3, 2, seed=0)]
    [[2, 0, 1], [2, 1, 0]]
    """
    generator = np.random.default_rng(check_seed(seed))
    if blocks is None:
        for _ in range(count):
            yield generator.permutation(n)
        return
    home = np.argsort(blocks, kind="stable")  # the points, block by block
    for _ in range(count):
        # random keys sorted within blocks shuffle each block by itself
        order = np.empty(n, dtype=np.int64)
        order[home] = np.lexsort((generator.random(n), blocks))
        yield order
