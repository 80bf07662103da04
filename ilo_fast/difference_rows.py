"""The rows of a comparison: differences per layer, language group and score, with intervals."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from ilo_fast.finetune.change import score_change
from ilo_fast.groups import Group
from ilo_fast.results import SCORES
from ilo_fast.sources import Source

__all__ = ["COLUMNS", "difference_rows"]

_TYPES: dict[str, Any] = {
    "a": object,
    "b": object,
    "step_a": object,
    "step_b": object,
    "layer": np.int64,
    "layer_b": np.int64,
    "kind": object,
    "group": object,
    "languages": np.int64,
    "score": object,
    "k": np.int64,
    "threshold": np.int64,
    "metric": object,
    "value_a": np.float64,
    "value_b": np.float64,
    "difference": np.float64,
    "low": np.float64,
    "high": np.float64,
    "over": object,
}

COLUMNS = tuple(_TYPES)
"""The columns of `ilo_fast.compare.Comparison.table`."""


def difference_rows(
    a: Source,
    b: Source,
    matched: Sequence[tuple[int, int]],
    groups: Sequence[Group],
    *,
    samples: int,
    level: float,
    seed: int,
) -> pd.DataFrame:
    """b minus a: a row for each group, score and matched pair of layers, columns `COLUMNS`.

    With neighbour lists on both sides the interval is `score_change`'s, over sentences; otherwise
    it is over the group's languages, and NaN for a single one.
    """
    at_a, at_b = (list(side) for side in zip(*matched, strict=True))
    places = {group.key: [a.languages.index(name) for name in group.members] for group in groups}
    # b's languages are a's, perhaps in another order
    order = [b.languages.index(name) for name in a.languages]
    values_a = {score: a.values[score][at_a] for score in SCORES}
    values_b = {score: b.values[score][at_b][:, order] for score in SCORES}
    over_sentences = a.lists is not None and b.lists is not None
    changes: dict[str, Any] = {}
    if over_sentences:
        assert a.lists is not None
        assert b.lists is not None
        labels = np.array(a.languages, dtype=object)[a.language_ids]
        changes = score_change(
            a.lists[at_a],
            [b.lists[at_b]],
            labels,
            a.sentence_ids,
            groups={group.key: group.members for group in groups},
            threshold=a.settings["threshold"],
            samples=samples,
            level=level,
            seed=seed,
        )
    parts = []
    for group in groups:
        members = places[group.key]
        for score in SCORES:
            one, two = values_a[score][:, members], values_b[score][:, members]
            if over_sentences:
                found = changes[group.key][score]
                low, high, over = found.low, found.high, "sentences"
            else:
                low, high = _over_languages(two - one, samples, level, seed)
                over = "languages" if len(members) > 1 else "none"
            parts.append(
                {
                    "a": a.name,
                    "b": b.name,
                    "step_a": a.step,
                    "step_b": b.step,
                    "layer": [a.layers[at] for at in at_a],
                    "layer_b": [b.layers[at] for at in at_b],
                    "kind": group.kind,
                    "group": group.name,
                    "languages": len(members),
                    "score": score,
                    **{name: a.settings[name] for name in ("k", "threshold", "metric")},
                    "value_a": one.mean(axis=1),
                    "value_b": two.mean(axis=1),
                    "difference": (two - one).mean(axis=1),
                    "low": low,
                    "high": high,
                    "over": over,
                }
            )
    size = len(matched)
    table = pd.DataFrame(
        {
            name: np.concatenate(
                [np.broadcast_to(np.asarray(part[name], dtype=kind), size) for part in parts]
            )
            for name, kind in _TYPES.items()
        }
    )
    for column in ("step_a", "step_b"):
        table[column] = table[column].astype("Int64")
    return table


def _over_languages(
    differences: np.ndarray, samples: int, level: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Percentile interval of the mean over languages ``[layers]``; NaN for a single one."""
    layers, count = differences.shape
    if count < 2:
        nothing = np.full(layers, np.nan)
        return nothing, nothing
    drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), samples)
    low, high = np.quantile(
        differences @ drawn.T / count, [(1 - level) / 2, (1 + level) / 2], axis=1
    )
    return low, high
