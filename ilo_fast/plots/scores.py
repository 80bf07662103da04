"""Curves over layers, and languages against layers."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes

from ilo_fast.arguments import check_choice
from ilo_fast.corpora.languages import order_languages
from ilo_fast.errors import InputError
from ilo_fast.plots.style import (
    CURVES,
    MAX_MARKED,
    SCORE_NAMES,
    cells,
    colour_bar,
    curve_style,
    interval_bars,
    label,
    layer_ticks,
    legend_below,
    mark_groups,
    new_axes,
    spanned,
    tidy,
    title_of,
    whole_ticks,
)

if TYPE_CHECKING:
    from ilo_fast.results import Result

__all__ = ["languages", "layers"]

_BAND = (0.1, 0.9)


def layers(
    result: "Result", *, metrics: pd.DataFrame | None = None, ax: Axes | None = None
) -> Axes:
    """Curves over layers of ILO, bridge, reach and translation hit@k, means over languages.

    The grey band holds the middle 80 % of the languages' ILO (10th to 90th percentile).

    Args:
        result: of one model.
        metrics: one row a layer, as the companion table ``layer_metrics`` has them. With
            ``<score>_low`` and ``<score>_high`` ILO gets the band, and the others the bars, of
            their intervals over sentences, in place of the languages' spread; with ``ilo_null``,
            ILO gets the line of its permutation null, where languages mix perfectly.
        ax: where to draw; a new figure when None.

    Returns:
        The axes; their figure is ``axes.figure``.

    Raises:
        InputError: when the result holds no model, several, or a layer and language twice.
    """
    title = title_of(result)
    _check_rows(result.table)
    means = result.layers()
    ax = new_axes((7.2, 4.4)) if ax is None else ax
    at = means["layer"].to_numpy()
    more = None if metrics is None else metrics.set_index("layer").loc[at]
    intervals = more if more is not None and "ilo_low" in more.columns else None
    if intervals is not None:
        wide, low, high = spanned(at, intervals["ilo_low"], intervals["ilo_high"])
        alpha, said = 0.18, "interval over sentences (of the others: bars)"
    else:
        by_layer = result.table.groupby("layer")["ilo"]
        bottom, top = (by_layer.quantile(share) for share in _BAND)
        wide, low, high = spanned(bottom.index, bottom, top)
        alpha, said = 0.13, "middle 80 % of languages (ILO)"
    handles: list[Artist] = [
        ax.fill_between(wide, low, high, color="#000000", alpha=alpha, linewidth=0, label=said)
    ]
    if intervals is not None:
        for column in list(CURVES)[1:]:
            ends = intervals[f"{column}_low"], intervals[f"{column}_high"]
            interval_bars(ax, column, at, *ends)
    curves = []
    for column in CURVES:
        curves += ax.plot(
            at, means[column].to_numpy(), **curve_style(column, len(at) <= MAX_MARKED)
        )
    if more is not None and "ilo_null" in more.columns:
        handles += ax.plot(
            *spanned(at, more["ilo_null"]),
            color="#777777",
            linestyle=(0, (1, 1)),
            linewidth=2.5,
            zorder=1,
            label="ILO, languages shuffled (mixed evenly)",
        )
    ax.set_ylim(0, 1.02)
    whole_ticks(ax, at)
    ax.set_xlabel("layer (0: embeddings)")
    ax.set_ylabel("share, mean over languages")
    ax.set_title(title, fontsize=10, loc="left")
    tidy(ax)
    # the curves in one line, what is around them in the next
    first = legend_below(ax, curves)
    legend_below(ax, handles, 1)
    ax.add_artist(first)
    first.set_clip_on(False)  # adding it clips it to the axes
    return ax


def languages(result: "Result", *, score: str = "ilo", ax: Axes | None = None) -> Axes:
    """A heat map of one score, languages (by script and family) against layers.

    White lines part the scripts, thin ones families and branches.

    Args:
        result: of one model.
        score: a column of shares: ``ilo``, ``bridge``, ``reach``, ``translation_hit`` or
            ``same_language``.
        ax: where to draw; a new figure when None.

    Returns:
        The axes; their figure is ``axes.figure``.

    Raises:
        InputError: when the result holds no model, several, or a layer and language twice, or
            ``score`` is not one of those.
    """
    check_choice(score, "score", SCORE_NAMES)
    title = title_of(result)
    _check_rows(result.table)
    grid = result.table.pivot(index="language", columns="layer", values=score)
    grid = grid.loc[order_languages(grid.index.tolist())]
    count, entries = grid.shape
    if ax is None:
        ax = new_axes((max(5.6, 3.0 + 0.23 * entries), max(2.6, 1.5 + 0.205 * count)))
    # even steps of lightness: reads in grey and colour-blind
    image = cells(ax, grid.to_numpy(), "viridis", np.linspace(0, 1, 21), aspect="auto")
    codes = grid.index.tolist()
    ax.set_yticks(range(count), labels=[label(code) for code in codes], fontsize=8)
    mark_groups(ax, codes)
    layer_ticks(ax.xaxis, grid.columns.tolist())
    ax.set_xlabel("layer (0: embeddings)")
    ax.set_title(title, fontsize=10, loc="left")
    colour_bar(ax, image, SCORE_NAMES[score], np.linspace(0, 1, 6))
    return ax


def _check_rows(table: pd.DataFrame) -> None:
    """One row a layer and language: several steps or settings at once are no picture."""
    counts = table.groupby(["layer", "language"], sort=False).size()
    twice = counts[counts > 1]
    if len(twice):
        layer, language = twice.index[0]
        more = f" (and {len(twice) - 1} more layers and languages)" if len(twice) > 1 else ""
        raise InputError(
            "the result must hold one row a layer and language to be drawn, it holds "
            f"{twice.iloc[0]} of layer {layer} of {language}{more}"
        )
