"""How much would the scores move with other sentences? (a bootstrap over sentences)"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from ilo_fast.alignment.draws import draw_sentences, drawn_scores, mean_of_drawn
from ilo_fast.alignment.intervals import interval
from ilo_fast.arguments import at_least_1, between_0_and_1
from ilo_fast.lists import Label, index_lists, label_codes, language_codes
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
    level = between_0_and_1(level, "level")
    indices = index_lists(neighbors).cpu()
    n = indices.shape[1]
    names, language = language_codes(languages, n)
    sentence_names, sentence = label_codes(sentences, n, "sentences")
    draws = draw_sentences(len(sentence_names), samples, seed)
    scores = drawn_scores(indices, language, sentence, draws, len(names), threshold)
    intervals = {name: _interval(values, name, level) for name, values in scores.items()}
    means_over_languages = {
        name: _interval(mean_of_drawn(values), name, level) for name, values in scores.items()
    }
    return BootstrapIntervals(
        languages=names,
        **intervals,
        mean=means_over_languages,
        samples=samples,
        level=level,
        seed=seed,
    )


def _interval(values: np.ndarray, score: str, level: float) -> Interval:
    """Of the draws around the estimate, which is the first of them."""
    low, high = interval(values[0], values[1:], score, level, (0, 1))
    return Interval(estimate=values[0], low=low, high=high)
