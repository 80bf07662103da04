"""Names beside marks, without one name on another."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.patheffects import withStroke

from ilo_fast.plots.fonts import boxes_unsaid, give_fonts

__all__ = ["name_marks"]

# All lengths are points on paper.
_ANGLES = np.linspace(0, 2 * np.pi, 24, endpoint=False)
_DISTANCES = np.arange(5.0, 85.0, 5.0)  # from mark to the edge of its name
_LETTERS = 8
_AIR = 1.5  # around a name
_MARK = 4.0  # half a mark's width
_FAR = 8.0  # from here on a line leads to the mark
_ROUNDS = 3
_ENOUGH = 4000  # dots to tell crowded places by
# What a fault of a place weighs, in points of distance.
_DOT, _ACROSS, _ON_MARK, _ON_NAME, _OUTSIDE = 0.4, 40.0, 100.0, 1e3, 1e4
_LINE: dict[str, Any] = {
    "arrowstyle": "-",
    "linewidth": 0.7,
    "color": "#222222",
    "shrinkA": 0,
    "shrinkB": 3,
    "path_effects": [withStroke(linewidth=1.8, foreground="white")],
}


class _Place(NamedTuple):
    """Where a name is: its middle, the end of a line to it, its box, its distance from the mark."""

    middle: np.ndarray
    edge: np.ndarray
    low: np.ndarray
    high: np.ndarray
    distance: float


def name_marks(ax: Axes, marks: np.ndarray, names: Sequence[str], dots: np.ndarray) -> None:
    """Write each name near its mark, off other names and marks, and off dots where it can.

    A thin line leads to a mark that is not near. Call it when the axes have their size and limits:
    the places are found on paper and stay there.

    Args:
        ax: where the marks are.
        marks: ``[names, 2]``, in data coordinates.
        names: one for each.
        dots: ``[n, 2]``, what is better not covered.
    """
    limits = ax.get_xlim(), ax.get_ylim()
    scale = 72 / ax.figure.dpi
    box = ax.get_window_extent()
    every = max(1, len(dots) // _ENOUGH)  # some stand for all
    where, small = (
        (ax.transData.transform(points) - box.min) * scale for points in (marks, dots[::every])
    )
    room, sizes = np.asarray(box.size) * scale, _sizes(ax, names) * scale
    places: dict[int, _Place] = {}
    # from the outside in, then each again beside all others
    outwards = np.linalg.norm(where - np.median(where, axis=0), axis=1)
    for number in np.argsort(-outwards, kind="stable").tolist() * _ROUNDS:
        rest = [other for other in places if other != number]
        places[number] = _best(
            where[number],
            sizes[number],
            np.delete(where, number, axis=0),
            small,
            every * _DOT,
            room,
            [(where[other], places[other]) for other in rest],
        )
    for number, place in sorted(places.items()):
        offset: dict[str, Any] = {"textcoords": "offset points", "annotation_clip": False}
        if place.distance >= _FAR:  # by itself, to lie below the marks
            edge = tuple(place.edge - where[number])
            ax.annotate("", marks[number], edge, **offset, arrowprops=_LINE, zorder=3)
        name = ax.annotate(
            names[number],
            marks[number],
            tuple(place.middle - where[number]),
            **offset,
            ha="center",
            va="center",
            fontsize=_LETTERS,
            zorder=6,
            path_effects=[withStroke(linewidth=2, foreground="white")],
        )
        give_fonts([name])
    ax.set_xlim(limits[0])
    ax.set_ylim(limits[1])


def _sizes(ax: Axes, names: Sequence[str]) -> np.ndarray:
    """Widths and heights of the names in dots, ``[names, 2]``."""
    figure = ax.get_figure(root=True)
    renderer = FigureCanvasAgg(figure).get_renderer()
    sizes = []
    for name in names:
        text = ax.text(0, 0, name, fontsize=_LETTERS)
        give_fonts([text])
        with boxes_unsaid():
            sizes.append(text.get_window_extent(renderer).size)
        text.remove()
    return np.array(sizes, dtype=np.float64)


def _best(
    mark: np.ndarray,
    size: np.ndarray,
    marks: np.ndarray,
    dots: np.ndarray,
    dot: float,
    room: np.ndarray,
    others: Sequence[tuple[np.ndarray, _Place]],
) -> _Place:
    """The cheapest place: near and on few dots; on names or across lines only where all are."""
    angles, distances = (axis.ravel() for axis in np.meshgrid(_ANGLES, _DISTANCES))
    ways = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    # out of the mark until the box's edge is that far away
    inside = np.min(size / 2 / np.maximum(np.abs(ways), 1e-9), axis=1)
    edges = mark + ways * distances[:, None]
    middles = edges + ways * inside[:, None]
    low, high = middles - size / 2 - _AIR, middles + size / 2 + _AIR
    costs = distances + dot * _count(dots, low, high)
    costs += _ON_MARK * _count(np.vstack([marks, mark]), low - _MARK, high + _MARK)
    costs += _OUTSIDE * ((low < 0) | (high > room)).any(axis=1)
    if others:
        starts = np.array([start for start, _ in others])
        ends, lows, highs = (
            np.array([getattr(place, name) for _, place in others])
            for name in ("edge", "low", "high")
        )
        lines = _along(starts, ends)
        on_names = (low[:, None] < highs) & (lows < high[:, None])
        costs += _ON_NAME * on_names.all(axis=2).sum(axis=1)
    best, lowest = 0, np.inf
    for at in np.argsort(costs, kind="stable"):
        if costs[at] >= lowest:
            break
        line, faults = _along(mark, edges[at]), 0.0
        if others:
            faults += _touch(line, lows[:, None], highs[:, None]).sum()
            faults += _touch(lines, low[at], high[at]).sum()
            faults += _cross(mark, edges[at], starts, ends).sum()
        if distances[at] >= _FAR:
            gaps = np.linalg.norm(line[:, None] - marks, axis=2).min(axis=0)
            faults += (gaps < _MARK).sum() / 2
        cost = costs[at] + _ACROSS * faults
        if cost < lowest:
            best, lowest = at, cost
    return _Place(middles[best], edges[best], low[best], high[best], distances[best])


def _count(points: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """How many points lie in each box."""
    near = (points > low.min(axis=0)) & (points < high.max(axis=0))  # most points are in no box
    x, y = points[near.all(axis=1)].T
    across = (x > low[:, :1]) & (x < high[:, :1])
    return np.asarray((across & (y > low[:, 1:]) & (y < high[:, 1:])).sum(axis=1))


def _along(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Points on the way from a to b, ``[..., 20, 2]``."""
    steps = np.linspace(0, 1, 20)[:, None]
    return np.asarray(a[..., None, :] * (1 - steps) + b[..., None, :] * steps)


def _touch(lines: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Whether lines ``[..., points, 2]`` enter boxes."""
    return np.asarray(((lines > low) & (lines < high)).all(axis=-1).any(axis=-1))


def _cross(a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray) -> np.ndarray:
    """Whether the line a–b crosses each of the lines c–d."""

    def side(p: np.ndarray, q: np.ndarray, r: np.ndarray) -> np.ndarray:
        along, away = q - p, r - p
        return np.asarray(along[..., 0] * away[..., 1] - along[..., 1] * away[..., 0])

    across = (side(a, b, c) * side(a, b, d) < 0) & (side(c, d, a) * side(c, d, b) < 0)
    return np.asarray(across)
