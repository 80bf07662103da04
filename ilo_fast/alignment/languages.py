"""Which languages are a point's neighbours in?"""

from typing import Any

import numpy as np

from ilo_fast.lists import group_mean, index_lists, label_codes, one_metric_per_layer

__all__ = ["same_language"]


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
