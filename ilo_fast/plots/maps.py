"""Language × language and layer × layer heat maps."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from ilo_fast.corpora.languages import order_languages
from ilo_fast.errors import InputError
from ilo_fast.plots.style import (
    cells,
    colour_bar,
    label,
    layer_of,
    layer_ticks,
    mark_groups,
    new_axes,
    plain,
    round_up,
    shortened_pair,
)

__all__ = ["neighbors", "overlap"]

_LONGEST_BESIDE = 30  # characters of a name along the side of a small picture

# Steps that show both a language's hold on its own points and the few per cent elsewhere.
_SHARES = (0.0, 0.005, 0.01, 0.02, 0.035, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.6, 0.8, 1.0)


def neighbors(
    counts: Any, languages: Sequence[str], *, title: str = "", ax: Axes | None = None
) -> Axes:
    """Who neighbours whom: each row shows in which languages a language's neighbours are.

    Rows and columns are ordered by script and family; white lines part the scripts, thin ones
    families and branches.

    Args:
        counts: ``[languages, languages]``, of one layer, as `ilo_fast.alignment.neighbor_counts`
            counts them; each row is shown as shares of its sum.
        languages: codes, in the order of `counts`.
        title: above the picture.
        ax: where to draw; a new figure when None.

    Returns:
        The axes.

    Raises:
        InputError: when `counts` is not one row and column a language, or a row is empty.
    """
    table = np.asarray(counts, dtype=np.float64)
    size = len(languages)
    if table.shape != (size, size):
        raise InputError(
            f"counts must have a row and a column per language, [{size}, {size}], got "
            f"{list(table.shape)}"
        )
    totals = table.sum(axis=1, keepdims=True)
    if not (totals > 0).all() or not np.isfinite(table).all():
        raise InputError("counts must be finite, with at least one neighbour in every row")
    codes = order_languages(languages)
    order = [list(languages).index(code) for code in codes]
    shares = (table / totals)[np.ix_(order, order)]
    if ax is None:
        ax = new_axes((max(4.6, 3.4 + 0.2 * size), max(3.4, 1.9 + 0.2 * size)))
    image = cells(ax, shares, "viridis", _SHARES)
    ax.set_yticks(range(size), labels=[label(code) for code in codes], fontsize=8)
    ax.set_xticks(range(size), labels=[plain(code) for code in codes], fontsize=7.5, rotation=90)
    mark_groups(ax, codes, columns=True)
    ax.set_xlabel("language of the neighbours")
    ax.set_ylabel("language of the points")
    ax.set_title(plain(title), fontsize=10, loc="left")
    bar = colour_bar(ax, image, "share of the row's neighbours", _SHARES, spacing="uniform")
    bar.ax.set_yticklabels([f"{100 * share:g} %" for share in _SHARES])
    return ax


def overlap(
    values: Any,
    layers: tuple[Sequence[int], Sequence[int]],
    *,
    names: tuple[str, str] = ("", ""),
    chance: float | None = None,
    k: int | None = None,
    metric: str | None = None,
    title: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Shared neighbours of every layer of a with every layer of b; b's best match is dotted.

    The colours go to 1, or less high where no two layers share half of their neighbours.

    Args:
        values: ``[layers of a, layers of b]``, as `ilo_fast.overlap.layer_overlap` has them; NaN
            leaves its place white.
        layers: the numbers of a's and of b's layers.
        names: of a (upwards) and b (rightwards).
        chance: the overlap of unrelated lists, said in the title.
        k, metric: of the lists, said in the title.
        title: in place of the standard one.
        ax: where to draw; a new figure when None.

    Returns:
        The axes.

    Raises:
        InputError: when `values` does not have a row and a column per layer.
    """
    table = np.asarray(values, dtype=np.float64)
    rows, columns = len(layers[0]), len(layers[1])
    if table.shape != (rows, columns):
        raise InputError(
            f"values must have a row and a column per layer, [{rows}, {columns}], got "
            f"{list(table.shape)}"
        )
    if ax is None:
        ax = new_axes((max(4.4, 2.2 + 0.15 * columns), max(3.4, 1.4 + 0.15 * rows)))
    most = round_up(float(table.max(where=np.isfinite(table), initial=0)))
    limit = most if most <= 0.5 else 1.0
    image = cells(ax, table, "viridis", np.linspace(0, limit, 21), origin="lower")
    if names[0] != names[1]:  # of one source with itself the best match is itself
        best = np.where(np.isnan(table), -np.inf, table).argmax(axis=1)
        edge = ["white" if table[row, at] < 0.6 * limit else "black" for row, at in enumerate(best)]
        ax.scatter(best, np.arange(rows), s=9, c=edge, linewidths=0)
    upwards, rightwards = shortened_pair(*names, _LONGEST_BESIDE)
    for axis, numbers, name in ((ax.xaxis, layers[1], rightwards), (ax.yaxis, layers[0], upwards)):
        layer_ticks(axis, numbers)
        axis.set_label_text(layer_of(name) if name else "layer (0: embeddings)")
    if title is None:
        title = _overlap_title(k, metric, chance, dotted=names[0] != names[1])
    ax.set_title(plain(title), fontsize=10, loc="left")
    colour_bar(ax, image, "mutual k-NN", MaxNLocator(5, steps=[1, 2, 5, 10]).tick_values(0, limit))
    return ax


def _overlap_title(k: int | None, metric: str | None, chance: float | None, *, dotted: bool) -> str:
    """What is shown and of which lists; below it, how to read it."""
    shown, hints = "share of neighbours in common", []
    settings = ", ".join(part for part in (metric, k and f"k = {k}") if part)
    if settings:
        shown += f": {settings}"
    if chance is not None:
        hints.append(f"unrelated lists: {chance:.2g}")
    if dotted:
        hints.append("dots: each row's best match")
    return f"{shown}\n{'; '.join(hints)}".rstrip()
