"""A layer's points in two dimensions, by language and by interlingual or fragmented part."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.legend_handler import HandlerTuple
from matplotlib.lines import Line2D

from ilo_fast.corpora.languages import language, order_languages
from ilo_fast.errors import InputError
from ilo_fast.plots.labels import name_marks
from ilo_fast.plots.style import new_axes, new_figure, plain

__all__ = ["plane", "plane_languages", "plane_parts"]

# Okabe and Ito's, those first whose lightness differs most; the last is for all small groups.
_COLOURS = ("#0072B2", "#F0E442", "#000000", "#E69F00", "#D55E00", "#56B4E9")
_REST = "#FFFFFF"
_FAMILIES = {"other": "family unknown"}  # beside "others", the small groups
_SHAPES = ("o", "s", "^", "D", "v", "P", "X", "*", "p", "h", "<", ">", "d")
_MANY = 2000  # points from which on they get smaller and lighter
_MOST_NAMES = 45  # beyond, names would hide the points
_SQUARE = (5.2, 5.4)  # inches, of one map


class _Mark(NamedTuple):
    group: str
    colour: str
    shape: str


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
    figure = new_figure((10, 5.6))
    left, right = figure.subplots(1, 2, sharex=True, sharey=True)
    # names are placed on paper: the axes must have their size before
    figure.subplots_adjust(left=0.03, right=0.995, bottom=0.135, top=0.906, wspace=0.03)
    plane_parts(points, bridges, ax=left)
    plane_languages(points, languages, ax=right)
    for ax in (left, right):
        ax.set_xlabel(axis_names[0], fontsize=9)
    left.set_ylabel(axis_names[1], fontsize=9)
    left.set_title(plain(title), fontsize=10, loc="left")
    return np.array([left, right], dtype=object)


def plane_languages(points: Any, languages: Sequence[str], *, ax: Axes | None = None) -> Axes:
    """Points coloured by family or branch and shaped by language.

    A language's large mark is the median of its points, with its name beside it (up to 45
    languages). Six groups have a colour, the small ones share white.

    Args:
        points: float ``[n, 2]``.
        languages: n codes.
        ax: where to draw, of its final size; a new figure when None.

    Raises:
        InputError: when there is not one finite point per language given.
    """
    table = _points(points, len(languages), "languages")
    ax = new_axes(_SQUARE) if ax is None else ax
    labels = np.array(languages, dtype=object)
    marks = _marks(order_languages(set(languages)))
    medians = np.array([np.median(table[labels == code], axis=0) for code in marks])
    for (code, mark), median in zip(marks.items(), medians, strict=True):
        dark = mark.colour == "#000000"
        x, y = table[labels == code].T
        ax.scatter(
            x,
            y,
            s=_size(len(table)),
            c=mark.colour,
            marker=mark.shape,
            alpha=_alpha(len(table)),
            linewidths=0.3,
            edgecolors="none" if dark else "#555555",
        )
        ax.scatter(
            median[0],
            median[1],
            s=44,
            c=mark.colour,
            marker=mark.shape,
            edgecolors="white" if dark else "black",
            linewidths=0.8,
            zorder=4,
        )
    _bare(ax)
    if len(marks) <= _MOST_NAMES:
        name_marks(ax, medians, [plain(language(code).name) for code in marks], table)
    ax.set_title("by language; large: its median", fontsize=10, loc="left")
    colours = {mark.group: mark.colour for mark in marks.values()}
    if "others" in colours:
        colours["others"] = colours.pop("others")  # to the end
    if len(colours) > 1:
        # A colour says its group, white does not: the small groups are told apart by shape only.
        white = [mark.shape for mark in marks.values() if mark.group == "others"]
        shapes = {group: white[:3] if group == "others" else ["o"] for group in colours}
        handles = [
            tuple(
                Line2D(
                    [], [], linestyle="", marker=shape, color=colour,
                    markersize=6 if len(shapes[group]) == 1 else 4.5,
                    markeredgecolor="black", markeredgewidth=0.6,
                )
                for shape in shapes[group]
            )
            for group, colour in colours.items()
        ]  # fmt: skip
        side_by_side = {tuple: HandlerTuple(ndivide=None, pad=0.3)}
        _legend(ax, handles=handles, labels=list(colours), handler_map=side_by_side, ncols=4)
    return ax


def plane_parts(points: Any, bridges: Any, *, ax: Axes | None = None) -> Axes:
    """Points by part: interlingual filled and dark, fragmented open and light.

    The smaller part is drawn last, so that it shows.

    Args:
        points: float ``[n, 2]``.
        bridges: n truth values: which points are interlingual.
        ax: where to draw; a new figure when None.

    Raises:
        InputError: when there is not one finite point per truth value.
    """
    member = np.asarray(bridges, dtype=bool)
    table = _points(points, len(member), "bridges")
    ax = new_axes(_SQUARE) if ax is None else ax
    size, alpha = _size(len(table)), _alpha(len(table))
    fewer = member if member.mean() <= 0.5 else ~member
    for part, name, fill, edge in (
        (~member, "fragmented", "none", "#D55E00"),
        (member, "interlingual", "#0072B2", "none"),
    ):
        x, y = table[part].T
        ax.scatter(
            x,
            y,
            s=1.4 * size if fill == "none" else size,
            alpha=0.9 if fill == "none" else alpha,
            facecolors=fill,
            edgecolors=edge,
            linewidths=0.8 if fill == "none" else 0,
            zorder=2.5 if part is fewer else 2,
            label=f"{name}, {100 * part.mean():.1f} %",
        )
    _bare(ax)
    _legend(ax, ncols=2)
    return ax


def _marks(codes: Sequence[str]) -> dict[str, _Mark]:
    """Colour by group and shape within it; where a group has too many members, by eights."""
    known = {code: language(code) for code in codes}
    groups = {
        code: one.branch or _FAMILIES.get(one.family, one.family) for code, one in known.items()
    }
    sizes = Counter(groups.values())
    large = [group for group, size in sizes.most_common(len(_COLOURS)) if size > 1]
    colours = dict(zip(large, _COLOURS, strict=False))
    groups = {code: group if group in colours else "others" for code, group in groups.items()}
    if max(Counter(groups.values()).values()) > len(_SHAPES):
        shown = (*_COLOURS, _REST)
        return {
            code: _Mark("", shown[number // 8 % len(shown)], _SHAPES[number % 8])
            for number, code in enumerate(codes)
        }
    used: Counter[str] = Counter()
    marks = {}
    for code, group in groups.items():
        marks[code] = _Mark(group, colours.get(group, _REST), _SHAPES[used[group]])
        used[group] += 1
    return marks


def _points(points: Any, n: int, name: str) -> np.ndarray:
    table = np.asarray(points, dtype=np.float64)
    if table.shape != (n, 2) or n == 0 or not np.isfinite(table).all():
        raise InputError(
            f"points must be finite numbers [n, 2], one for each of the {n} {name}, got shape "
            f"{list(table.shape)}"
        )
    return table


def _size(n: int) -> float:
    return 12.0 if n <= _MANY else max(2.0, 12.0 * (_MANY / n) ** 0.5)


def _alpha(n: int) -> float:
    return 0.6 if n <= _MANY else 0.4


def _legend(ax: Axes, **options: Any) -> None:
    """Below the axes' name."""
    ax.legend(
        fontsize=8,
        frameon=False,
        loc="upper left",
        bbox_to_anchor=(-0.01, -0.05),
        handletextpad=0.2,
        columnspacing=1.2,
        borderaxespad=0,
        **options,
    )


def _bare(ax: Axes) -> None:
    ax.set_xticks([])
    ax.set_yticks([])
    ax.spines[:].set_color("#BBBBBB")
