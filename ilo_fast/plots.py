"""Pictures of a result, as Matplotlib axes on figures of their own (no pyplot, no global state)."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import BoundaryNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ilo_fast.corpora.languages import language, order_languages, script_of
from ilo_fast.errors import InputError

if TYPE_CHECKING:
    from ilo_fast.results import Result

__all__ = ["languages", "layers", "save"]

# Okabe and Ito's colours, which the common colour blindnesses keep apart; dash and marker tell the
# curves apart in grey as well.
_CURVES = {
    "ilo": ("ILO", "#000000", "-", "o"),
    "bridge": ("bridge", "#0072B2", "--", "s"),
    "reach": ("reach", "#D55E00", "-.", "^"),
    "translation_hit": ("translation hit", "#009E73", ":", "D"),
}
_NAMES = {key: curve[0] for key, curve in _CURVES.items()} | {
    "same_language": "same-language share"
}
_BAND = (0.1, 0.9)
_MAX_MARKED = 40


def layers(result: "Result", *, ax: Axes | None = None) -> Axes:
    """Curves over layers of ILO, bridge, reach and translation hit@k, means over languages.

    The grey band holds the middle 80 % of the languages' ILO (10th to 90th percentile).

    Args:
        result: of one model.
        ax: where to draw; a new figure when None.

    Returns:
        The axes; their figure is ``axes.figure``.

    Raises:
        InputError: when the result holds no model or several.
    """
    title = _title(result)
    means = result.layers()
    ax = _axes((7.2, 4.4)) if ax is None else ax
    by_layer = result.table.groupby("layer")["ilo"]
    low, high = (by_layer.quantile(share) for share in _BAND)
    at = means["layer"].to_numpy()
    marks = len(at) <= _MAX_MARKED
    band = ax.fill_between(
        low.index.to_numpy(),
        low.to_numpy(),
        high.to_numpy(),
        color="#000000",
        alpha=0.13,
        linewidth=0,
        label="middle 80 % of languages (ILO)",
    )
    curves = []
    for column, (label, colour, dash, marker) in _CURVES.items():
        curves += ax.plot(
            at,
            means[column].to_numpy(),
            dash,
            color=colour,
            marker=marker if marks else None,
            markersize=4.5 if column == "ilo" else 3.8,
            markerfacecolor=colour if column == "ilo" else "white",
            linewidth=2.2 if column == "ilo" else 1.5,
            zorder=3 if column == "ilo" else 2,
            label=label,
        )
    ax.set_ylim(0, 1.02)
    _whole_ticks(ax, at)
    ax.set_xlabel("layer (0: embeddings)")
    ax.set_ylabel("share, mean over languages")
    ax.set_title(title, fontsize=10, loc="left")
    ax.grid(axis="y", color="#DDDDDD", linewidth=0.7)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(
        handles=[curves[0], band, *curves[1:]],
        fontsize=8,
        frameon=False,
        ncols=5,
        columnspacing=1.4,
        loc="upper center",
        bbox_to_anchor=(0.5, -0.13),
    )
    return ax


def languages(result: "Result", *, score: str = "ilo", ax: Axes | None = None) -> Axes:
    """A heat map of one score, languages (by script and family) against layers.

    Args:
        result: of one model.
        score: a column of shares: ``ilo``, ``bridge``, ``reach``, ``translation_hit`` or
            ``same_language``.
        ax: where to draw; a new figure when None.

    Returns:
        The axes; their figure is ``axes.figure``.

    Raises:
        InputError: when the result holds no model or several, or ``score`` is not one of those.
    """
    if score not in _NAMES:
        raise InputError(f"score must be one of {', '.join(_NAMES)}, got {score!r}")
    title = _title(result)
    grid = result.table.pivot(index="language", columns="layer", values=score)
    grid = grid.loc[order_languages(grid.index.tolist())]
    count, entries = grid.shape
    if ax is None:
        ax = _axes((max(5.6, 3.0 + 0.23 * entries), max(2.6, 1.5 + 0.205 * count)))
    colours = colormaps["viridis"]  # even steps of lightness: reads in grey and colour-blind
    image = ax.imshow(
        grid.to_numpy(),
        aspect="auto",
        interpolation="nearest",
        cmap=colours,
        norm=BoundaryNorm(np.linspace(0, 1, 21), colours.N),
    )
    codes = grid.index.tolist()
    ax.set_yticks(range(count), labels=[_label(code) for code in codes], fontsize=8)
    for row in range(1, count):  # a line where the script changes
        if script_of(codes[row]) != script_of(codes[row - 1]):
            ax.axhline(row - 0.5, color="white", linewidth=1.5)
    wanted = MaxNLocator(integer=True, nbins=min(entries, 16)).tick_values(0, max(entries - 1, 1))
    places = [int(at) for at in wanted if 0 <= at < entries]
    ax.set_xticks(places, labels=[str(grid.columns[at]) for at in places], fontsize=8)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    ax.set_xlabel("layer (0: embeddings)")
    ax.set_title(title, fontsize=10, loc="left")
    figure = ax.figure
    bar = figure.colorbar(image, ax=ax, ticks=np.linspace(0, 1, 6), pad=0.02, fraction=0.05)
    bar.set_label(_NAMES[score], fontsize=9)
    bar.ax.tick_params(labelsize=8)
    bar.minorticks_off()
    bar.outline.set_visible(False)
    return ax


def save(ax: Axes, path: str | Path, *, dpi: int = 160) -> Path:
    """Write the figure of ``ax`` to ``path``; the ending chooses the format. Returns the path."""
    path = Path(path)
    figure = ax.get_figure(root=True)
    if figure is None:
        raise InputError("the axes belong to no figure")
    figure.savefig(path, dpi=dpi, bbox_inches="tight", facecolor="white")
    return path


def _axes(size: tuple[float, float]) -> Axes:
    figure = Figure(figsize=size)
    FigureCanvasAgg(figure)
    return figure.add_subplot()


def _title(result: "Result") -> str:
    """Model, corpus and settings in two short lines."""
    model = result.model.rstrip("/").rpartition("/")[2]
    first: pd.Series[Any] = result.table.iloc[0]
    corpus = result.record.get("corpus", {})
    where = f", {corpus['name']}" if "name" in corpus else ""
    return (
        f"{model}{where}\n{result.table['language'].nunique()} languages × {first['n_points']} "
        f"sentences, {first['metric']}, k = {first['k']}, threshold {first['threshold']}"
    )


def _whole_ticks(ax: Axes, at: Any) -> None:
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=16, min_n_ticks=1))
    ax.set_xlim(at.min() - 0.4, at.max() + 0.4)


def _label(code: str) -> str:
    name = language(code).name
    return code if name == code else f"{name}  {code}"
