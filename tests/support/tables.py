"""Made-up results to draw, write and print."""

import json

import numpy as np
import pandas as pd

from ilo_fast.results import Result

RECORD = {"corpus": {"name": "små", "sha256": "ab"}, "seed": 0, "timeline": {"load": 0.5}}


def make_result(layers=3, languages=("eng_Latn", "hin_Deva", "ell_Grek"), model="tiny", seed=0):
    """Random shares for every (layer, language)."""
    random = np.random.default_rng(seed)
    rows = layers * len(languages)
    shares = random.random((rows, 6))
    table = pd.DataFrame(
        {
            "model": [model] * rows,
            "layer": np.repeat(np.arange(layers), len(languages)),
            "language": list(languages) * layers,
            "n_points": 40,
            "k": 5,
            "threshold": 3,
            "metric": "cosine",
            "bridge": shares[:, 0],
            "reach": shares[:, 1],
            "reach_count": random.integers(0, 3, rows),
            "ilo": shares[:, 2],
            "translation_hit": shares[:, 3],
            "same_language": shares[:, 4],
            "certified": shares[:, 5],
        }
    )
    return Result(table, json.loads(json.dumps(RECORD)))
