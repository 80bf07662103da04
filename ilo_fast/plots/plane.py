"""A layer's points in two dimensions, by language and by interlingual or fragmented part."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ilo_fast.corpora.languages import language, order_languages
from ilo_fast.errors import InputError

__all__ = ["plane", "plane_languages", "plane_parts"]

# Four colours whose lightness differs in grey as well, each with every shape: 32 languages differ.
_COLOURS = ("#000000", "#0072B2", "#E69F00", "#F0E442")
_SHAPES = ("o", "s", "^", "D", "v", "P", "X", "*")
_MANY = 2000  # points from which on they get smaller and lighter
_LEGEND_ROWS = 20


def plane(
    points: Any,
    languages: Sequence[str],
    bridges: Any,
    *,
    title: str = "",
    axis_names: tuple[str, str] = ("", ""),
) -> np.ndarray:
    """Both maps side by side on one figure; see `plane_languages` and `plane_parts`.

    Args:
        points: float ``[n, 2]``.
        languages: n codes.
        bridges: n truth values: which points are interlingual.
        title: above the left map.
        axis_names: of the two coordinates.

    Returns:
        The two axes in an array.
    """
    columns = -(-len(set(languages)) // _LEGEND_ROWS)
    figure = Figure(figsize=(9.4 + 1.7 * columns, 4.9))
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, sharex=True, sharey=True)
    plane_parts(points, bridges, ax=left)
    plane_languages(points, languages, ax=right)
    for ax in (left, right):
        ax.set_xlabel(axis_names[0])
    left.set_ylabel(axis_names[1])
    left.set_title(title, fontsize=10, loc="left")
    figure.subplots_adjust(wspace=0.06)
    return np.array([left, right], dtype=object)


def plane_languages(points: Any, languages: Sequence[str], *, ax: Axes | None = None) -> Axes:
    """Points coloured and shaped by language.

    A language's large mark is the median of its points.

    Args:
        points: float ``[n, 2]``.
        languages: n codes.
        ax: where to draw; a new figure when None.

    Raises:
        InputError: when there is not one finite point per language given.
    """
    table = _points(points, len(languages), "languages")
    ax = _square() if ax is None else ax
    labels = np.array(languages, dtype=object)
    codes = order_languages(set(languages))
    handles = []
    for number, code in enumerate(codes):
        colour = _COLOURS[number // len(_SHAPES) % len(_COLOURS)]
        shape = _SHAPES[number % len(_SHAPES)]
        x, y = table[labels == code].T
        light = colour == _COLOURS[-1]
        ax.scatter(
            x,
            y,
            s=_size(len(table)),
            c=colour,
            marker=shape,
            alpha=_alpha(len(table)),
            linewidths=0.2,
            edgecolors="black" if light else "none",
        )
        ax.scatter(
            np.median(x),
            np.median(y),
            s=62,
            c=colour,
            marker=shape,
            edgecolors="black",
            linewidths=0.7,
            zorder=4,
        )
        handles.append(
            Line2D(
                [], [], linestyle="", marker=shape, color=colour, markersize=6,
                markeredgecolor="black", markeredgewidth=0.5, label=language(code).name,
            )
        )  # fmt: skip
    _bare(ax)
    ax.set_title("by language; large: its median", fontsize=10, loc="left")
    ax.legend(
        handles=handles,
        fontsize=7.5,
        frameon=False,
        ncols=-(-len(codes) // _LEGEND_ROWS),
        loc="center left",
        bbox_to_anchor=(1.01, 0.5),
        handletextpad=0.2,
        columnspacing=0.9,
        labelspacing=0.45,
    )
    return ax


def plane_parts(points: Any, bridges: Any, *, ax: Axes | None = None) -> Axes:
    """Points by part: interlingual filled and dark, fragmented open and light.

    Args:
        points: float ``[n, 2]``.
        bridges: n truth values: which points are interlingual.
        ax: where to draw; a new figure when None.

    Raises:
        InputError: when there is not one finite point per truth value.
    """
    member = np.asarray(bridges, dtype=bool)
    table = _points(points, len(member), "bridges")
    ax = _square() if ax is None else ax
    size, alpha = _size(len(table)), _alpha(len(table))
    for part, name, fill, edge in (
        (~member, "fragmented", "none", "#E69F00"),
        (member, "interlingual", "#0072B2", "none"),
    ):
        x, y = table[part].T
        ax.scatter(
            x,
            y,
            s=size,
            alpha=alpha,
            facecolors=fill,
            edgecolors=edge,
            linewidths=0.8 if fill == "none" else 0,
            label=f"{name}, {part.mean():.1%}",
        )
    _bare(ax)
    ax.legend(fontsize=8, frameon=False, ncols=2, loc="upper left", bbox_to_anchor=(0, -0.1))
    return ax


def _points(points: Any, n: int, name: str) -> np.ndarray:
    table = np.asarray(points, dtype=np.float64)
    if table.shape != (n, 2) or n == 0 or not np.isfinite(table).all():
        raise InputError(
            f"points must be finite numbers [n, 2], one for each of the {n} {name}, got shape "
            f"{list(table.shape)}"
        )
    return table


def _size(n: int) -> float:
    return 14.0 if n <= _MANY else max(2.0, 14.0 * (_MANY / n) ** 0.5)


def _alpha(n: int) -> float:
    return 0.75 if n <= _MANY else 0.45


def _square() -> Axes:
    figure = Figure(figsize=(5, 4.9))
    FigureCanvasAgg(figure)
    return figure.add_subplot()


def _bare(ax: Axes) -> None:
    ax.set_xticks([])
    ax.set_yticks([])
    ax.spines[:].set_color("#BBBBBB")
