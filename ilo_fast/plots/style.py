"""What the pictures share: colours, titles, labels, figures without pyplot, and saving."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import BoundaryNorm
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import ScaledTranslation

from ilo_fast.corpora.languages import language
from ilo_fast.errors import InputError
from ilo_fast.files import expanded
from ilo_fast.plots.fonts import boxes_unsaid, give_fonts
from ilo_fast.shown import counted

if TYPE_CHECKING:
    from ilo_fast.results import Result

__all__ = [
    "CURVES",
    "MAX_MARKED",
    "SCORE_NAMES",
    "cells",
    "check_format",
    "colour_bar",
    "curve_style",
    "interval_bars",
    "label",
    "layer_of",
    "layer_ticks",
    "legend_below",
    "mark_groups",
    "new_axes",
    "new_figure",
    "plain",
    "round_up",
    "save",
    "shortened",
    "shortened_pair",
    "spanned",
    "tidy",
    "title_of",
    "whole_ticks",
]

# Okabe and Ito's colours, which the common colour blindnesses keep apart; dash and marker tell the
# curves apart in grey as well.
CURVES = {
    "ilo": ("ILO", "#000000", "-", "o"),
    "bridge": ("bridge", "#0072B2", "--", "s"),
    "reach": ("reach", "#D55E00", "-.", "^"),
    "translation_hit": ("translation hit", "#009E73", ":", "D"),
}
SCORE_NAMES = {key: curve[0] for key, curve in CURVES.items()} | {
    "same_language": "same-language share"
}
_BAR = 0.15  # inches: a colour bar's width, and its distance
_BAR_WIDTH = 1.3  # points, of an interval's bar
_CAP = 3  # points, at a bar's ends
_BESIDE_MARKER = 3.6  # points from a marker's middle to a bar that leaves its edge free
_BARS = 1.9  # below the curves
_LEGEND, _LEGEND_LINE = 30, 15  # points below the axes, and from line to line
_LONE = 0.2  # layers to each side of the only one
_LONGEST = 38  # characters of a name above a picture
_TITLE_LINE = 54  # characters
MAX_MARKED = 40
"""Curves of more points have no markers."""


def curve_style(column: str, marks: bool) -> dict[str, Any]:
    """Keyword arguments of ``Axes.plot`` for one score's curve; ILO stands out."""
    name, colour, dash, marker = CURVES[column]
    leads = column == "ilo"
    return {
        "linestyle": dash,
        "color": colour,
        "marker": marker if marks else None,
        "markersize": 4.5 if leads else 3.8,
        "markerfacecolor": colour if leads else "white",
        "linewidth": 2.2 if leads else 1.5,
        "zorder": 3 if leads else 2,
        "label": name,
    }


class _WholeFigure(Figure):
    """Saved with all that stands around the axes, as `save` does, where nothing else is asked."""

    def savefig(self, fname: Any, **options: Any) -> None:
        super().savefig(fname, **{"bbox_inches": "tight"} | options)


def new_figure(size: tuple[float, float]) -> Figure:
    """A figure of so many inches; no pyplot, no global state."""
    figure = _WholeFigure(figsize=size)
    FigureCanvasAgg(figure)
    return figure


def new_axes(size: tuple[float, float]) -> Axes:
    """Axes on a figure of their own, of so many inches."""
    return new_figure(size).add_subplot()


def save(ax: Axes, path: str | Path, *, dpi: int = 160) -> Path:
    """Write the figure of ``ax`` to ``path``; the ending chooses the format. Returns the path.

    Names in scripts that Matplotlib's own font lacks are written in an installed font that has
    them; where none has, a UserWarning says which letters are boxes.
    """
    path = expanded(path)
    figure = ax.get_figure(root=True)
    if figure is None:
        raise InputError("the axes belong to no figure")
    boxes = give_fonts(figure.findobj(Text))
    if boxes:
        warnings.warn(
            f"{path.name}: no installed font has {boxes!r}, which are boxes in the picture; "
            "install one that does (such as Noto Sans of the script), or name these languages by "
            "their codes",
            stacklevel=2,
        )
    with boxes_unsaid():
        figure.savefig(path, dpi=dpi, bbox_inches="tight", facecolor="white")
    return path


def check_format(path: str | Path) -> None:
    """Raise InputError unless Matplotlib can write a file with this ending."""
    ending = Path(path).suffix.removeprefix(".").lower()
    known = sorted(FigureCanvasAgg.get_supported_filetypes())
    if ending not in known:
        raise InputError(f"{str(path)!r} must end in one of {', '.join(known)}")


def title_of(result: "Result") -> str:
    """Model, revision in a scan, corpus, step of a training and settings in two short lines."""
    first: pd.Series[Any] = result.table.iloc[0]
    corpus = result.record.get("corpus", {})
    where = f", {shortened(corpus['name'], 20)}" if "name" in corpus else ""
    where += f", step {first['step']}" if "step" in result.table.columns else ""
    revision = f"@{shortened(first['revision'], 20)}" if first.get("revision") else ""
    model = shortened(result.model, _TITLE_LINE - len(where) - len(revision))
    return plain(
        f"{model}{revision}{where}\n{counted(result.table['language'].nunique(), 'language')} × "
        f"{counted(int(first['n_points']), 'sentence')}, {first['metric']}, k = {first['k']}, "
        f"threshold {first['threshold']}"
    )


def shortened(name: str, most: int = _LONGEST) -> str:
    """A name that fits above a picture: a path's last part, the middle of a long one left out.

    >>> shortened("org/model-1b/"), shortened("checkpoint-of-a-long-training", most=16)
    ('model-1b', 'checkpo…training')
    """
    name = name.rstrip("/").rpartition("/")[2]
    if len(name) <= most:
        return name
    end = most // 2
    return f"{name[: most - 1 - end]}…{name[-end:]}"


def shortened_pair(a: str, b: str, most: int = _LONGEST) -> tuple[str, str]:
    """Two names that fit; where nothing is left to tell them apart they say which is which.

    >>> shortened_pair("org/model", "other/model")
    ('model (a)', 'model (b)')
    """
    short_a, short_b = shortened(a, most), shortened(b, most)
    if short_a == short_b and a != b:
        return f"{short_a} (a)", f"{short_b} (b)"
    return short_a, short_b


def layer_of(name: str) -> str:
    """What an axis says of one source's layers."""
    return plain(f"layer of {name}")


class _WholeTicks(MaxNLocator):
    """Whole numbers, at most sixteen, and no more than have room on the axis as it is drawn."""

    def __call__(self) -> Any:
        axis: Any = self.axis
        room = axis.get_tick_space() * 3 / 2  # it allows each three times a letter's size
        self.set_params(nbins=int(min(max(room, 1), 16)))
        return super().__call__()


def whole_ticks(ax: Axes, at: Any) -> None:
    """Whole numbers under curves over layers ``at``."""
    ax.xaxis.set_major_locator(_WholeTicks(integer=True, min_n_ticks=1))
    ax.set_xlim(at.min() - 0.4, at.max() + 0.4)


def layer_ticks(axis: Axis, layers: Sequence[object]) -> None:
    """Numbers of layers along an image: at most some sixteen of them, evenly spread."""
    entries = len(layers)
    wanted = MaxNLocator(integer=True, nbins=min(entries, 16)).tick_values(0, max(entries - 1, 1))
    places = [int(at) for at in wanted if 0 <= at < entries]
    axis.set_ticks(places, labels=[str(layers[at]) for at in places], fontsize=8)


def tidy(ax: Axes) -> None:
    """A light grid across, no box."""
    ax.grid(axis="y", color="#DDDDDD", linewidth=0.7)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)


def plain(text: str) -> str:
    """Text as it stands: Matplotlib takes what is between two dollar signs for mathematics.

    >>> plain("a $b$")
    'a \\\\$b\\\\$'
    """
    return text.replace("$", r"\$")


def label(code: str) -> str:
    """A language's name and code."""
    name = language(code).name
    return plain(code if name == code else f"{name}  {code}")


def mark_groups(ax: Axes, codes: Sequence[str], *, columns: bool = False) -> None:
    """White lines where the script of the rows (and columns) changes, thin ones where only the
    family or branch does."""
    for row in range(1, len(codes)):
        before, here = language(codes[row - 1]), language(codes[row])
        if before.script != here.script:
            width = 1.1 if columns else 1.8
        elif (before.family, before.branch) != (here.family, here.branch):
            width = 0.35 if columns else 0.5
        else:
            continue
        ax.axhline(row - 0.5, color="white", linewidth=width)
        if columns:
            ax.axvline(row - 0.5, color="white", linewidth=width)


def round_up(value: float) -> float:
    """The next of 1, 2, 4, 5, 6, 8 times a power of ten, at least 0.01."""
    if value <= 0.01:
        return 0.01
    power = 10.0 ** np.floor(np.log10(value))
    return float(next(step for step in (1, 2, 4, 5, 6, 8, 10) if value <= step * power) * power)


def spanned(at: Any, *values: Any) -> list[np.ndarray]:
    """Layers and their values as bands and lines are drawn; a lone layer's get a width.

    >>> [part.tolist() for part in spanned([3], [0.5])]
    [[2.8, 3.2], [0.5, 0.5]]
    """
    parts = [np.asarray(part, dtype=np.float64) for part in (at, *values)]
    if len(parts[0]) == 1:
        parts = [np.repeat(part, 2) for part in parts]
        parts[0] = parts[0] + [-_LONE, _LONE]
    return parts


def interval_bars(ax: Axes, column: str, at: Any, low: Any, high: Any) -> None:
    """Upright, capped bars at a score's curve, each score's a little aside from the others'.

    One band can be told from what it crosses in grey, four on each other cannot. Bars lie below all
    curves and beside the markers of their own: on its edge a marker's shape could not be read.
    """
    room = _BESIDE_MARKER if len(at) <= MAX_MARKED else _BAR_WIDTH
    points = {"bridge": -room, "reach": room}.get(column, 0.0)
    aside = ax.transData + ScaledTranslation(points / 72, 0, ax.figure.dpi_scale_trans)
    look: dict[str, Any] = {"color": CURVES[column][1], "zorder": _BARS, "transform": aside}
    low, high = np.asarray(low), np.asarray(high)
    ax.vlines(at, low, high, linewidth=_BAR_WIDTH, **look)
    if len(at) <= MAX_MARKED:
        for ends in (low, high):
            ax.plot(at, ends, linestyle="", marker="_", markersize=_CAP, **look)


def legend_below(ax: Axes, handles: Sequence[Any], line: int = 0) -> Any:
    """A legend in one line, below what the axis says, in lines counted from 0.

    Letters keep their size on axes of any height, and so does the distance.
    """
    down = ScaledTranslation(0, -(_LEGEND + line * _LEGEND_LINE) / 72, ax.figure.dpi_scale_trans)
    return ax.legend(
        handles=list(handles),
        fontsize=8,
        frameon=False,
        ncols=len(handles),
        columnspacing=1.4,
        loc="upper center",
        bbox_to_anchor=(0.5, 0),
        bbox_transform=ax.transAxes + down,
    )


def cells(ax: Axes, values: np.ndarray, colours: str, steps: Any, **options: Any) -> Any:
    """A heat map of as many colours as there are ``steps`` between, without a frame."""
    scale = colormaps[colours]
    norm = BoundaryNorm(steps, scale.N)
    image = ax.imshow(values, interpolation="nearest", cmap=scale, norm=norm, **options)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    return image


def colour_bar(ax: Axes, image: Any, name: str, ticks: Any, **options: Any) -> Any:
    """A bar of the image's colours at its right, as high as it, without a frame."""
    width = _BAR / (ax.get_window_extent().width / ax.figure.dpi)
    beside = ax.inset_axes((1 + width, 0, width, 1))
    bar = ax.figure.colorbar(image, cax=beside, ticks=np.asarray(ticks), **options)
    bar.set_label(name, fontsize=9)
    bar.ax.tick_params(labelsize=8)
    bar.minorticks_off()
    bar.outline.set_visible(False)
    return bar
