"""Bootstrap draws over parallel sentences, and every language's scores under each."""

import numpy as np
import torch
from torch import Tensor

from ilo_fast.alignment.seen import seen_languages
from ilo_fast.alignment.translation import first_translation
from ilo_fast.arguments import check_seed
from ilo_fast.ilo import harmonic

__all__ = ["draw_sentences", "drawn_scores", "mean_of_drawn"]


def draw_sentences(sentences: int, samples: int, seed: int) -> Tensor:
    """How often each draw takes each sentence, int64 ``[1 + samples, sentences]``.

    A draw takes as many as there are, with replacement. The first row takes each once: what comes
    of it is the estimate itself.
    """
    chances = np.full(sentences, 1 / sentences)
    draws = np.random.default_rng(check_seed(seed)).multinomial(sentences, chances, samples)
    return torch.from_numpy(np.concatenate([np.ones((1, sentences), dtype=draws.dtype), draws]))


def drawn_scores(
    indices: Tensor, language: Tensor, sentence: Tensor, draws: Tensor, count: int, threshold: int
) -> dict[str, np.ndarray]:
    """Bridge, reach, ILO, translation hit and same-language share of each draw's points.

    The points of a sentence drawn w times count w times; reach is the union over the points drawn.

    Args:
        indices: neighbour lists ``[layers, n, k]`` on the CPU.
        language, sentence: codes of the points ``[n]``.
        draws: of `draw_sentences`.
        count: languages.
        threshold: other languages a point must see to bridge.

    Returns:
        Score name → float64 ``[draws, layers, languages]``; NaN where a draw has no point of a
        language.
    """
    layers = indices.shape[0]
    # which languages each point sees, bool [n, layers, languages]
    seen = torch.stack([seen_languages(layer, language, count) for layer in indices], dim=1)
    per_point = _per_point(indices, seen, language, sentence, threshold)  # [3, layers, n]
    scores = {
        name: np.empty((len(draws), layers, count))
        for name in ("bridge", "reach", "ilo", "translation_hit", "same_language")
    }
    for code in range(count):
        points = torch.nonzero(language == code)[:, 0]
        weight = draws[:, sentence[points]].double()
        drawn = weight.sum(dim=1)
        values = per_point[:, :, points].reshape(-1, points.numel())
        means = (weight @ values.T / drawn[:, None]).view(-1, 3, layers).numpy()
        scores["bridge"][:, :, code] = means[:, 0]
        scores["translation_hit"][:, :, code] = means[:, 1]
        scores["same_language"][:, :, code] = means[:, 2]
        # whole numbers below 2^24: float32 counts them exactly
        reached = weight.float() @ seen[points].view(points.numel(), -1).float() > 0
        others = reached.view(-1, layers, count).sum(dim=2).double()
        others /= count - 1
        others[drawn == 0] = torch.nan
        scores["reach"][:, :, code] = others.numpy()
    scores["ilo"] = harmonic(scores["bridge"], scores["reach"])
    return scores


def mean_of_drawn(values: np.ndarray) -> np.ndarray:
    """Mean over languages, the last axis, that have a value; NaN where none has one.

    >>> mean_of_drawn(np.array([[0.5, np.nan, 1.0], [np.nan, np.nan, np.nan]]))
    array([0.75,  nan])
    """
    known = ~np.isnan(values)
    count = known.sum(axis=-1)
    total = np.where(known, values, 0.0).sum(axis=-1)
    return np.asarray(np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0))


def _per_point(
    indices: Tensor, seen: Tensor, language: Tensor, sentence: Tensor, threshold: int
) -> Tensor:
    """Bridges, has a translation, same-language share: float64 ``[3, layers, n]``."""
    k = indices.shape[2]
    bridges = seen.sum(dim=2) >= threshold
    rows = []
    for number, layer in enumerate(indices):
        hit = first_translation(layer, language, sentence) < k
        same = (language[layer] == language[:, None]).double().mean(dim=1)
        rows.append(torch.stack([bridges[:, number].double(), hit.double(), same]))
    return torch.stack(rows, dim=1)
