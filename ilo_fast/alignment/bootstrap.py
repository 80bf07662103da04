"""How much would the scores move with other sentences? (a bootstrap over sentences)"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ilo_fast.alignment.intervals import check_level, interval
from ilo_fast.alignment.seen import seen_languages
from ilo_fast.alignment.translation import first_translation
from ilo_fast.arrays import at_least_1
from ilo_fast.errors import InputError
from ilo_fast.lists import Label, index_lists, label_codes
from ilo_fast.shown import Shown

__all__ = ["BootstrapIntervals", "Interval", "bootstrap_intervals"]


@dataclass(frozen=True, eq=False, repr=False)
class Interval(Shown):
    """A score with its interval; float64 arrays of one shape."""

    estimate: np.ndarray
    low: np.ndarray
    high: np.ndarray


@dataclass(frozen=True, eq=False, repr=False)
class BootstrapIntervals(Shown):
    """Intervals of the per-language scores ``[layers, languages]`` and of their means ``[layers]``.

    Attributes:
        languages: in order of first appearance.
        bridge, reach, ilo, translation_hit, same_language: `Interval` of each language.
        mean: `Interval` of the mean over languages, by the same five names.
    """

    languages: tuple[Label, ...]
    bridge: Interval
    reach: Interval
    ilo: Interval
    translation_hit: Interval
    same_language: Interval
    mean: dict[str, Interval]
    samples: int
    level: float
    seed: int


def bootstrap_intervals(
    neighbors: Any,
    languages: Any,
    sentences: Any,
    *,
    threshold: int = 3,
    samples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> BootstrapIntervals:
    """Intervals from resampling parallel sentences, with the neighbours fixed.

    A draw takes as many sentences as there are, with replacement, and takes a sentence in all
    its languages at once, so what translations share stays shared. The points of a sentence
    drawn w times count w times: bridge, translation hit and same-language share become
    weighted means, and reach the union over the points drawn. Neighbour lists are not
    recomputed: the interval tells how much the scores hang on which points are counted, and
    not how they would change in a space with other points.

    Bridge, translation hit and same-language share get percentiles of the draws. A draw holds
    fewer different sentences than there are, and a union over fewer can only shrink, so reach,
    and ILO with it, get the estimate plus and minus the draws' spread (see
    `ilo_fast.alignment.intervals`): for the score at this number of sentences, not at more.

    Args:
        neighbors: a `Neighbors`, or integer indices ``[n, k]`` or ``[layers, n, k]``.
        languages: n labels (strings or integers), at least two different ones.
        sentences: n labels; points that share one are translations of each other.
        threshold: other languages a point must see to bridge.
        samples: bootstrap draws.
        level: coverage of the interval, between 0 and 1.
        seed: of the draws.

    Returns:
        A `BootstrapIntervals`. A draw that takes no point of a language (possible where
        languages have different sentences) is left out of that language's interval, and the
        mean over languages is then over the others.

    Raises:
        InputError: on lists, labels or numbers that cannot be used, or a single language.

    >>> lists = [[2], [3], [0], [0]]
    >>> got = bootstrap_intervals(lists, ["a", "a", "b", "b"], [0, 1, 0, 1], threshold=1)
    >>> got.translation_hit.estimate, got.translation_hit.low, got.translation_hit.high
    (array([[1. , 0.5]]), array([[1., 0.]]), array([[1., 1.]]))
    """
    samples = at_least_1(samples, "samples")
    threshold = at_least_1(threshold, "threshold")
    level = check_level(level)
    indices = index_lists(neighbors).cpu()
    layers, n, _ = indices.shape
    names, language = label_codes(languages, n)
    if len(names) < 2:
        raise InputError("languages must hold at least two different languages, got one")
    sentence_names, sentence = label_codes(sentences, n, "sentences")
    # which languages each point sees, bool [n, layers, languages]
    seen = torch.stack([seen_languages(layer, language, len(names)) for layer in indices], dim=1)
    per_point = _per_point(indices, seen, language, sentence, threshold)  # [3, layers, n]

    count = len(sentence_names)
    draws = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), samples)
    # the last row takes every sentence once: the estimate itself
    weights = torch.from_numpy(np.concatenate([draws, np.ones((1, count), dtype=draws.dtype)]))
    scores = {
        name: np.empty((samples + 1, layers, len(names)))
        for name in ("bridge", "reach", "ilo", "translation_hit", "same_language")
    }
    for code in range(len(names)):
        points = torch.nonzero(language == code)[:, 0]
        weight = weights[:, sentence[points]].double()
        drawn = weight.sum(dim=1)
        values = per_point[:, :, points].reshape(-1, points.numel())
        means = (weight @ values.T / drawn[:, None]).view(samples + 1, 3, layers).numpy()
        scores["bridge"][:, :, code] = means[:, 0]
        scores["translation_hit"][:, :, code] = means[:, 1]
        scores["same_language"][:, :, code] = means[:, 2]
        # whole numbers below 2^24: float32 counts them exactly
        reached = weight.float() @ seen[points].view(points.numel(), -1).float() > 0
        others = reached.view(samples + 1, layers, len(names)).sum(dim=2).double()
        others /= len(names) - 1
        others[drawn == 0] = torch.nan
        scores["reach"][:, :, code] = others.numpy()
    bridge, reach = scores["bridge"], scores["reach"]
    total = bridge + reach
    np.divide(2 * bridge * reach, total, out=scores["ilo"], where=total != 0)
    scores["ilo"][total == 0] = 0
    intervals = {name: _interval(values, name, level) for name, values in scores.items()}
    means_over_languages = {
        name: _interval(np.nanmean(values, axis=2), name, level) for name, values in scores.items()
    }
    return BootstrapIntervals(
        languages=names,
        **intervals,
        mean=means_over_languages,
        samples=samples,
        level=level,
        seed=seed,
    )


def _per_point(
    indices: Tensor, seen: Tensor, language: Tensor, sentence: Tensor, threshold: int
) -> Tensor:
    """Bridges, has a translation, same-language share: float64 ``[3, layers, n]``."""
    k = indices.shape[2]
    bridges = seen.sum(dim=2) >= threshold
    rows = []
    for number, layer in enumerate(indices):
        hit = first_translation(layer, language, sentence) < k
        same = (language[layer] == language[:, None]).double().mean(dim=1)
        rows.append(torch.stack([bridges[:, number].double(), hit.double(), same]))
    return torch.stack(rows, dim=1)


def _interval(values: np.ndarray, score: str, level: float) -> Interval:
    """Of the draws, all but the last row, around the estimate, the last row."""
    low, high = interval(values[-1], values[:-1], score, level, (0, 1))
    return Interval(estimate=values[-1], low=low, high=high)
