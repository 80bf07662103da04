"""The picture of a kind, from whatever holds what it shows."""

from typing import TYPE_CHECKING

import numpy as np

from ilo_fast.alignment import fragments, neighbor_counts
from ilo_fast.arguments import check_choice, check_seed
from ilo_fast.errors import InputError
from ilo_fast.overlap import layer_overlap
from ilo_fast.plane import pca, umap
from ilo_fast.sources import Source

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["KINDS", "picture"]

KINDS = ("layers", "languages", "neighbours", "overlap", "map")
"""What `picture` draws."""


def picture(
    source: Source,
    kind: str,
    *,
    score: str = "ilo",
    layer: int | None = None,
    method: str = "pca",
    seed: int = 0,
) -> "Axes":
    """Draw one of `KINDS`.

    ``layers``: curves over layers. ``languages``: one score, languages against layers.
    ``neighbours``: who neighbours whom in one layer. ``overlap``: shared neighbours of all pairs of
    layers. ``map``: one layer's points in two dimensions, by part and by language.

    Args:
        source: what `ilo_fast.sources.read_sources` gives. ``neighbours`` and ``overlap`` need
            neighbour lists, ``map`` stored states.
        kind: one of `KINDS`.
        score: of ``languages``.
        layer: of ``neighbours`` and ``map``, by its number (none counts from the end); None takes
            the layer of the highest mean ILO, the first where several share it.
        method: of ``map``: ``pca`` or ``umap``.
        seed: of UMAP.

    Returns:
        The axes; those on the left where there are two.

    Raises:
        InputError: on an unknown kind, score, layer or method, or a source without what it needs.
    """
    from ilo_fast import plots
    from ilo_fast.plots.style import shortened

    check_choice(kind, "kind", KINDS)
    check_choice(method, "method", ("pca", "umap"))
    seed = check_seed(seed, below=1 << 32)  # what UMAP takes
    if kind == "layers":
        metrics = source.result.companions.get("layer_metrics")
        return plots.layers(source.result, metrics=metrics)
    if kind == "languages":
        return plots.languages(source.result, score=score)
    if kind == "map" and source.states is None:
        raise InputError(
            f"kind 'map' needs hidden states, which {source.name} does not hold: give a folder "
            "that `ilo-fast score --states` keeps them in"
        )
    if source.lists is None:
        raise InputError(
            f"kind {kind!r} needs neighbour lists, which {source.name} does not hold: score with "
            "`--metrics neighbors` (a scan: `keep_neighbors: true`), or give a folder of stored "
            "states"
        )
    metric, k = source.settings["metric"], source.lists.shape[2]
    if kind == "overlap":
        return plots.overlap(
            layer_overlap(source.lists).values,
            (source.layers, source.layers),
            names=(source.name, source.name),
            chance=k / (source.lists.shape[1] - 1),
            k=k,
            metric=metric,
        )
    at = _place(source, layer)
    title = f"{shortened(source.name)}, layer {source.layers[at]}\n{metric}, k = {k}"
    if kind == "neighbours":
        counts = neighbor_counts(source.lists[at], source.language_ids)[0]
        even = 100 / len(source.languages)
        title += f"; neighbours spread evenly: {even:.2g} % each"
        return plots.neighbors(counts, source.languages, title=title)
    return _map(source, at, title, method, seed)


def _map(source: Source, at: int, title: str, method: str, seed: int) -> "Axes":
    from ilo_fast import plots

    assert source.states is not None
    assert source.lists is not None
    store, metric = source.states, source.settings["metric"]
    states = store.states[store.layers.index(source.layers[at])]
    axis_names = ("", "")
    if method == "umap":
        points = umap(states, metric="cosine" if metric == "cosine" else "euclidean", seed=seed)
        title += ": UMAP"
    else:
        points, shares = pca(states, normalise=metric == "cosine")
        first, second = (f"{100 * share:.0f} % of the variance" for share in shares)
        axis_names = (f"1st component, {first}", f"2nd component, {second}")
    threshold = source.settings["threshold"]
    title += f", threshold {threshold}"
    parts = fragments(source.lists[at], source.language_ids, threshold=threshold)
    labels = [source.languages[number] for number in source.language_ids]
    both = plots.plane(points, labels, parts.bridges[0], title=title, axis_names=axis_names)
    axes: Axes = both[0]
    return axes


def _place(source: Source, layer: int | None) -> int:
    """The row of a layer, or of the one where languages overlap most."""
    if layer is None:
        return int(np.argmax(source.values["ilo"].mean(axis=1)))
    if layer not in source.layers:
        raise InputError(f"layer must be one of {list(source.layers)}, got {layer!r}")
    return source.layers.index(layer)
