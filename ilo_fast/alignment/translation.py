"""Are a point's neighbours translations of it?"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ilo_fast.lists import group_mean, index_lists, label_codes, one_metric_per_layer

__all__ = ["first_translation", "translation_hit", "translation_mrr"]


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
    indices = index_lists(neighbors)
    _, n, k = indices.shape
    names, language = label_codes(languages, n, "languages", indices.device)
    _, sentence = label_codes(sentences, n, "sentences", indices.device)
    return one_metric_per_layer(
        [
            group_mean(first_translation(layer, language, sentence) < k, language, len(names))
            for layer in indices
        ]
    )


def translation_mrr(neighbors: Any, languages: Any, sentences: Any) -> np.ndarray:
    """Mean reciprocal rank of a point's first translation among its k neighbours.

    ``mrr[l] = mean over points i of l of 1 / rank(i)``, rank(i) = 1 … k the place of the
    first neighbour with i's sentence in another language, and 0 where none of the k is one.

    Args, Returns, Raises: as `translation_hit`; mrr <= hit@k <= k mrr.

    >>> translation_mrr([[1, 2], [0, 2], [1, 0]], ["de", "de", "en"], [0, 1, 0])
    array([[0.25, 0.5 ]])
    """
    indices = index_lists(neighbors)
    _, n, k = indices.shape
    names, language = label_codes(languages, n, "languages", indices.device)
    _, sentence = label_codes(sentences, n, "sentences", indices.device)
    value = 1 / torch.arange(1, k + 2, dtype=torch.float64, device=indices.device)
    value[k] = 0  # no translation in the list
    return one_metric_per_layer(
        [
            group_mean(value[first_translation(layer, language, sentence)], language, len(names))
            for layer in indices
        ]
    )


def first_translation(layer: Tensor, language: Tensor, sentence: Tensor) -> Tensor:
    """Place 0 … k - 1 of the first translation in each of the lists ``[n, k]``, k for none."""
    found = (sentence[layer] == sentence[:, None]) & (language[layer] != language[:, None])
    nowhere = torch.ones_like(found[:, :1])  # a column of true at place k
    return torch.cat([found, nowhere], dim=1).byte().argmax(dim=1)
