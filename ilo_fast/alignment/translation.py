"""Are a point's neighbours translations of it?"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ilo_fast.lists import group_mean, index_lists, label_codes, one_metric_per_layer

__all__ = ["translation_hit", "translation_mrr"]


def translation_hit(neighbors: Any, languages: Any, sentences: Any) -> np.ndarray:
    """Share of a language's points with a translation among their k neighbours (hit@k).

    ``hit[l] = mean over points i of l of 1[some j in N_k(i): sentence(j) = sentence(i) and
    lang(j) != lang(i)]``. A copy of the sentence in the point's own language is no
    translation. Cut the lists (``indices[..., :k]``) for a smaller k.

    Args:
        neighbors: a `Neighbors`, or integer indices ``[n, k]`` or ``[layers, n, k]``.
        languages: n labels (strings or integers).
        sentences: n labels; points that share one are translations of each other.

    Returns:
        float64 ``[layers, languages]`` in 0 … 1, languages in order of first appearance.

    Raises:
        InputError: on lists or labels that cannot be used.

    >>> translation_hit([[2], [0], [0], [0]], ["de", "de", "en", "en"], [0, 1, 0, 1])
    array([[0.5, 0.5]])
    """
    indices, names, found = _translations(neighbors, languages, sentences)
    return one_metric_per_layer(
        [group_mean(found(layer).any(dim=1), names[1], len(names[0])) for layer in indices]
    )


def translation_mrr(neighbors: Any, languages: Any, sentences: Any) -> np.ndarray:
    """Mean reciprocal rank of a point's first translation among its k neighbours.

    ``mrr[l] = mean over points i of l of 1 / rank(i)``, rank(i) = 1 … k the place of the
    first neighbour with i's sentence in another language, and 0 where none of the k is one.

    Args, Returns, Raises: as `translation_hit`; 0 <= mrr <= hit@k.

    >>> translation_mrr([[1, 2], [0, 2], [1, 0]], ["de", "de", "en"], [0, 1, 0])
    array([[0.25, 0.5 ]])
    """
    indices, names, found = _translations(neighbors, languages, sentences)
    reciprocal = 1 / torch.arange(
        1, indices.shape[2] + 1, dtype=torch.float64, device=indices.device
    )
    return one_metric_per_layer(
        [
            group_mean((found(layer) * reciprocal).amax(dim=1), names[1], len(names[0]))
            for layer in indices
        ]
    )


def _translations(neighbors: Any, languages: Any, sentences: Any) -> Any:
    """The lists ``[layers, n, k]``, the languages, and a layer's ``[n, k]`` translation flags."""
    indices = index_lists(neighbors)
    n = indices.shape[1]
    names, language = label_codes(languages, n, "languages", indices.device)
    _, sentence = label_codes(sentences, n, "sentences", indices.device)

    def found(layer: Tensor) -> Tensor:
        same_sentence = sentence[layer] == sentence[:, None]
        return same_sentence & (language[layer] != language[:, None])

    return indices, (names, language), found
