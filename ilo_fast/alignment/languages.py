"""Which languages are a point's neighbours in?"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ilo_fast.arguments import at_least_1
from ilo_fast.lists import Label, group_mean, index_lists, label_codes, one_metric_per_layer

__all__ = ["language_order", "neighbor_counts", "reach_graph", "same_language"]


def language_order(languages: Any) -> tuple[Label, ...]:
    """The different labels in order of first appearance: what the axes of every result mean.

    Args:
        languages: a sequence of labels, strings or integers, or a 1-d array of them.

    Raises:
        InputError: on one string, or a label that is neither a string nor an integer.

    >>> language_order(["de", "en", "de"])
    ('de', 'en')
    """
    try:
        count = len(languages)
    except TypeError:
        raise TypeError(
            f"languages must be a sequence of labels, got {type(languages).__name__}"
        ) from None
    return label_codes(languages, count)[0]


def same_language(neighbors: Any, languages: Any) -> np.ndarray:
    """Mean share of a point's k neighbours that are in its own language, per language.

    ``same[l] = mean over points i of l of |{j in N_k(i): lang(j) = l}| / k``. Chance, for
    shuffled labels, is ``(n_l - 1) / (n - 1)``.

    Args:
        neighbors: a `Neighbors`, or integer indices ``[n, k]`` or ``[layers, n, k]``.
        languages: n labels (strings or integers).

    Returns:
        float64 ``[layers, languages]`` in 0 … 1, languages in order of first appearance.

    Raises:
        InputError: on lists or labels that cannot be used.

    >>> same_language([[1, 2], [0, 2], [0, 1]], ["de", "de", "en"])
    array([[0.5, 0. ]])
    """
    indices = index_lists(neighbors)
    names, language = label_codes(languages, indices.shape[1], "languages", indices.device)
    return one_metric_per_layer(
        [
            group_mean(
                (language[layer] == language[:, None]).double().mean(dim=1), language, len(names)
            )
            for layer in indices
        ]
    )


def neighbor_counts(neighbors: Any, languages: Any) -> np.ndarray:
    """Who neighbours whom: how many neighbours the points of one language have in another.

    ``counts[a, b] = sum over points i of a of |{j in N_k(i): lang(j) = b}|``; row a sums to
    ``n_a k``, and column b to how often points of b are neighbours.

    Args:
        neighbors: a `Neighbors`, or integer indices ``[n, k]`` or ``[layers, n, k]``.
        languages: n labels (strings or integers).

    Returns:
        int64 ``[layers, languages, languages]``, in order of first appearance.

    Raises:
        InputError: on lists or labels that cannot be used.

    >>> neighbor_counts([[1, 2], [0, 2], [0, 1]], ["de", "de", "en"])
    array([[[2, 2],
            [2, 0]]])
    """
    indices = index_lists(neighbors)
    names, language = label_codes(languages, indices.shape[1], "languages", indices.device)
    return one_metric_per_layer([_counts(layer, language, len(names)) for layer in indices])


def reach_graph(neighbors: Any, languages: Any, *, min_count: int = 1) -> np.ndarray:
    """Which languages reach which: an edge a → b where some point of a has a neighbour in b.

    The rows' sums over n - 1 are the reach R of the ILO score, at ``min_count=1``; a higher
    minimum (neighbours, not points) shows the edges that do not hang on one sentence.

    Args:
        neighbors: a `Neighbors`, or integer indices ``[n, k]`` or ``[layers, n, k]``.
        languages: n labels (strings or integers).
        min_count: neighbours that make an edge.

    Returns:
        bool ``[layers, languages, languages]``, false on the diagonal.

    Raises:
        InputError: on lists, labels or a minimum that cannot be used.

    >>> reach_graph([[1, 2], [0, 2], [0, 1]], ["de", "de", "en"]).tolist()
    [[[False, True], [True, False]]]
    """
    min_count = at_least_1(min_count, "min_count")
    edges = neighbor_counts(neighbors, languages) >= min_count
    edges[:, np.arange(edges.shape[1]), np.arange(edges.shape[1])] = False
    return edges


def _counts(layer: Tensor, language: Tensor, groups: int) -> Tensor:
    """Neighbour counts ``[languages, languages]`` of one layer's lists ``[n, k]``."""
    pairs = language[:, None] * groups + language[layer]
    return torch.bincount(pairs.flatten(), minlength=groups * groups).view(groups, groups)
