"""How scores changed from before a training to after it, with intervals."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from ilo_fast.alignment.draws import draw_sentences, drawn_scores, mean_of_drawn
from ilo_fast.alignment.intervals import interval
from ilo_fast.arguments import at_least_1, between_0_and_1
from ilo_fast.errors import InputError
from ilo_fast.lists import Label, index_lists, label_codes, language_codes
from ilo_fast.results import SCORES

__all__ = ["Change", "score_change"]


@dataclass(frozen=True)
class Change:
    """After minus before, the mean over a group of languages; float64 arrays ``[layers]``.

    ``estimate`` is the mean over runs, ``low`` and ``high`` its interval over sentences, ``runs``
    ``[runs, layers]`` the change of each run on its own, whose spread is that between seeds.
    """

    estimate: np.ndarray
    low: np.ndarray
    high: np.ndarray
    runs: np.ndarray


def score_change(
    before: Any,
    after: Sequence[Any],
    languages: Any,
    sentences: Any,
    *,
    groups: Mapping[str, Sequence[Label]] | None = None,
    threshold: int = 3,
    samples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, dict[str, Change]]:
    """Change of bridge, reach, ILO, translation hit and same-language share, layer by layer.

    A paired bootstrap: each draw takes as many parallel sentences as there are, with replacement
    and in all their languages at once, and scores the neighbours before and after on that same
    draw; the interval is that of `ilo_fast.alignment.intervals`: the middle ``level`` of the
    differences, and for reach and ILO their spread around the estimate. Pairing takes out what the
    choice of sentences does to both sides alike. The neighbour lists themselves are fixed, and
    runs are averaged, not drawn: the interval is about sentences, `Change.runs` about seeds.

    Args:
        before: neighbour indices ``[layers, n, k]`` (or a `Neighbors`) of the model before
            training.
        after: the same of each trained model, one a seed, over the same points.
        languages, sentences: n labels each; points that share a sentence are translations of each
            other.
        groups: names of groups to the languages in them; ``"all"`` is added. Default: ``"all"``
            alone.
        threshold: other languages a point must see to bridge.
        samples: bootstrap draws.
        level: coverage of the intervals, between 0 and 1.
        seed: of the draws.

    Returns:
        dict: group name → score name → `Change`. A draw that takes no point of a group's languages
        (possible where languages have different sentences) is left out of its interval.

    Raises:
        InputError: on shapes that differ, languages in a group that are unknown or there twice,
            fewer than two languages, no run at all, or a threshold, samples or level out of range.
        TypeError: on an `after` or `groups` of another form.

    >>> before, after = [[[2], [3], [0], [1]]], [[[1], [0], [3], [2]]]
    >>> got = score_change(before, after, ["a", "a", "b", "b"], [0, 1, 0, 1], threshold=1)
    >>> got["all"]["translation_hit"].estimate, got["all"]["translation_hit"].high
    (array([-1.]), array([-1.]))
    """
    start = index_lists(before, "before").cpu()
    if not isinstance(after, Iterable):
        raise TypeError(
            f"after must be a sequence of neighbours, one a run; got {type(after).__name__}"
        )
    samples, threshold = at_least_1(samples, "samples"), at_least_1(threshold, "threshold")
    level = between_0_and_1(level, "level")
    ends = [index_lists(run, f"after[{number}]").cpu() for number, run in enumerate(after)]
    if not ends:
        raise InputError("after must hold the neighbours of at least one run, got none")
    for number, run in enumerate(ends):
        if run.shape != start.shape:
            raise InputError(
                f"after[{number}] must have before's shape {list(start.shape)}, got "
                f"{list(run.shape)}"
            )
    n = start.shape[1]
    names, language = language_codes(languages, n)
    found, sentence = label_codes(sentences, n, "sentences")
    chosen = _groups(groups, names)

    draws = draw_sentences(len(found), samples, seed)

    def scores(indices: Tensor) -> dict[str, np.ndarray]:
        return drawn_scores(indices, language, sentence, draws, len(names), threshold)

    base, runs = scores(start), [scores(run) for run in ends]
    result: dict[str, dict[str, Change]] = {}
    for group, members in chosen.items():
        result[group] = {}
        for name in SCORES:
            # [runs, draws, layers]; the first draw takes every sentence once
            moved = np.stack(
                [mean_of_drawn((run[name] - base[name])[:, :, members]) for run in runs]
            )
            mean = moved.mean(axis=0)
            low, high = interval(mean[0], mean[1:], name, level, (-1, 1))
            result[group][name] = Change(mean[0], low, high, moved[:, 0])
    return result


def _groups(
    groups: Mapping[str, Sequence[Label]] | None, names: tuple[Label, ...]
) -> dict[str, list[int]]:
    chosen = {"all": list(range(len(names)))}
    if not isinstance(groups, Mapping | None):
        raise TypeError(f"groups must map names to languages, got {type(groups).__name__}")
    for group, named in (groups or {}).items():
        if isinstance(named, str) or not isinstance(named, Iterable):
            raise TypeError(f"groups[{group!r}] must be languages, got {named!r}")
        members = list(named)
        known = [names.index(member) for member in members if member in names]
        if not members or len(set(known)) < len(members):
            raise InputError(
                f"groups[{group!r}] must name languages among {list(names)}, each once, got "
                f"{members}"
            )
        chosen[group] = known
    return chosen
