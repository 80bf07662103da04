"""The score table's rows of one layer: what a search tells about each language."""

from typing import Any

import torch

from ilo_fast.alignment import same_language, translation_hit
from ilo_fast.corpora import Corpus
from ilo_fast.ilo import ilo_scores
from ilo_fast.neighbors import Neighbors

__all__ = ["layer_rows"]


def layer_rows(
    found: Neighbors, corpus: Corpus, *, model: str, layer: int, threshold: int
) -> dict[str, list[Any]]:
    """Columns of `ilo_fast.results.COLUMNS` for one layer's neighbours, a row a language."""
    ids, sentences = corpus.language_ids, corpus.sentence_ids
    scores = ilo_scores(found, ids, threshold=threshold)
    count = corpus.n_languages
    certified = torch.as_tensor(found.certified).view(count, -1).double().mean(dim=1)
    return {
        "model": [model] * count,
        "layer": [layer] * count,
        "language": list(corpus.languages),
        "n_points": scores.n_points.tolist(),
        "k": [found.k] * count,
        "threshold": [threshold] * count,
        "metric": [found.metric] * count,
        "bridge": scores.bridge[0].tolist(),
        "reach": scores.reach[0].tolist(),
        "reach_count": scores.reach_count[0].tolist(),
        "ilo": scores.ilo[0].tolist(),
        "translation_hit": translation_hit(found, ids, sentences)[0].tolist(),
        "same_language": same_language(found, ids)[0].tolist(),
        "certified": certified.tolist(),
    }
