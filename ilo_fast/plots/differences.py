"""How two results differ: curves over layers, and groups of languages against layers."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

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
    layer_of,
    layer_ticks,
    legend_below,
    new_axes,
    plain,
    round_up,
    shortened_pair,
    spanned,
    tidy,
    whole_ticks,
)
from ilo_fast.shown import counted

__all__ = ["differences", "group_differences"]

_LINE = 50  # characters of two names that go on one line


def differences(rows: pd.DataFrame, *, group: str = "all", ax: Axes | None = None) -> Axes:
    """Curves over layers of b minus a, in ILO, bridge, reach and translation hit.

    The intervals are a band around ILO and bars at the others.

    Args:
        rows: of one pair, from `ilo_fast.compare.Comparison.of`.
        group: a language group's name.
        ax: where to draw; a new figure when None.

    Returns:
        The axes.

    Raises:
        InputError: when there are rows of several pairs, or none of the group.
    """
    a, b = _pair(rows)
    # a script that is also a branch's or family's name: the first kind serves
    chosen = rows[rows["group"] == group]
    if chosen.empty:
        raise InputError(f"group must be one of {rows['group'].unique().tolist()}, got {group!r}")
    chosen = chosen[chosen["kind"] == chosen["kind"].iloc[0]]
    ax = new_axes((7.2, 4.4)) if ax is None else ax
    ax.axhline(0, color="#555555", linewidth=1)
    at = np.array(sorted(chosen["layer"].unique()))
    curves: list[Any] = []
    for score, (_, colour, _, _) in CURVES.items():
        part = chosen[chosen["score"] == score].set_index("layer").loc[at]
        if score == "ilo":
            wide, bottom, top = spanned(at, part["low"], part["high"])
            ax.fill_between(wide, bottom, top, color=colour, alpha=0.18, linewidth=0)
        else:
            interval_bars(ax, score, at, part["low"], part["high"])
        curves += ax.plot(
            at, part["difference"].to_numpy(), **curve_style(score, len(at) <= MAX_MARKED)
        )
    ends = chosen[chosen["score"].isin(CURVES)][["difference", "low", "high"]].to_numpy(np.float64)
    low, high = min(-0.01, float(np.nanmin(ends))), max(0.01, float(np.nanmax(ends)))
    room = 0.06 * (high - low)
    ax.set_ylim(low - room, high + room)
    whole_ticks(ax, at)
    ax.set_xlabel("layer (0: embeddings)" if _same_layers(chosen) else layer_of(a))
    ax.set_ylabel("difference of shares")
    over = chosen["over"].iloc[0]
    bands = "" if over == "none" else f"; band and bars: interval over {over}"
    which = "mean over languages" if group == "all" else group
    ax.set_title(f"{_minus(b, a)}\n{which}{bands}\n{_settings(chosen)}", fontsize=10, loc="left")
    tidy(ax)
    legend_below(ax, curves)
    return ax


def group_differences(
    rows: pd.DataFrame, *, by: str = "family", score: str = "ilo", ax: Axes | None = None
) -> Axes:
    """A heat map of b minus a, language groups against layers.

    A sign stands where the interval leaves zero out, so that the direction reads in grey too.

    Args:
        rows: of one pair, from `ilo_fast.compare.Comparison.of`.
        by: ``script``, ``family``, ``branch`` or ``language``.
        score: one of `ilo_fast.results.SCORES`.
        ax: where to draw; a new figure when None.

    Returns:
        The axes.

    Raises:
        InputError: when there are rows of several pairs, or none of this kind and score.
    """
    a, b = _pair(rows)
    chosen = rows[rows["kind"].isin(["all", by]) & (rows["score"] == score)]
    if by not in rows["kind"].unique() or chosen.empty:
        raise InputError(
            f"by and score must be among {rows['kind'].unique().tolist()} and "
            f"{rows['score'].unique().tolist()}, got {by!r} and {score!r}"
        )
    names = list(dict.fromkeys(zip(chosen["group"], chosen["languages"], strict=True)))
    layers = sorted(chosen["layer"].unique())
    grid = {
        column: chosen.pivot(index="group", columns="layer", values=column)
        .loc[[name for name, _ in names], layers]
        .to_numpy(dtype=np.float64)
        for column in ("difference", "low", "high")
    }
    if ax is None:
        size = (max(5.6, 3.0 + 0.23 * len(layers)), max(2.4, 1.6 + 0.215 * len(names)))
        ax = new_axes(size)
    limit = round_up(float(np.abs(grid["difference"]).max()))
    # orange and purple part for the colour-blind
    image = cells(ax, grid["difference"], "PuOr_r", np.linspace(-limit, limit, 20), aspect="auto")
    _signs(ax, grid, limit)
    ax.axhline(0.5, color="black", linewidth=1)
    shown = [_group_label(name, count, by) for name, count in names]
    ax.set_yticks(range(len(names)), labels=shown, fontsize=8)
    layer_ticks(ax.xaxis, layers)
    ax.set_xlabel("layer (0: embeddings)" if _same_layers(chosen) else layer_of(a))
    signed = "\n+ and −: the interval leaves out 0" if np.isfinite(grid["low"]).any() else ""
    title = f"{SCORE_NAMES[score]}: {_minus(b, a)}\n{_settings(chosen)}{signed}"
    ax.set_title(title, fontsize=10, loc="left")
    bar = colour_bar(ax, image, "difference", np.linspace(-limit, limit, 5))
    bar.ax.set_yticklabels(
        [f"{tick:+.3g}".replace("-", "−") if tick else "0" for tick in bar.get_ticks()]
    )
    return ax


def _signs(ax: Axes, grid: dict[str, np.ndarray], limit: float) -> None:
    """Plus and minus in the cells whose interval leaves out zero."""
    for sign, sure in (("+", grid["low"] > 0), ("−", grid["high"] < 0)):
        for row, column in zip(*np.nonzero(sure), strict=True):
            dark = abs(grid["difference"][row, column]) > 0.6 * limit
            ax.text(
                column,
                row,
                sign,
                ha="center",
                va="center",
                fontsize=7,
                color="white" if dark else "black",
            )


def _group_label(name: str, count: int, by: str) -> str:
    if name == "all":
        return f"all {counted(count, 'language')}"
    if by == "language":
        return label(name)
    return plain(f"{name}  ({count})")


def _pair(rows: pd.DataFrame) -> tuple[str, str]:
    """The names of a and b, as the picture shows them."""
    found = rows[["a", "b"]].drop_duplicates()
    if len(found) != 1:
        raise InputError(f"rows must be of one pair, got {len(found)}")
    return shortened_pair(str(found["a"].iloc[0]), str(found["b"].iloc[0]))


def _minus(b: str, a: str) -> str:
    """On one line where that is short."""
    return plain(f"{b} minus {a}" if len(a) + len(b) <= _LINE else f"{b}\nminus {a}")


def _settings(rows: pd.DataFrame) -> str:
    """What both sides were scored with, as the table says it."""
    first: pd.Series[Any] = rows.iloc[0]
    return f"{first['metric']}, k = {first['k']}, threshold {first['threshold']}"


def _same_layers(rows: pd.DataFrame) -> bool:
    return bool((rows["layer"] == rows["layer_b"]).all())
