"""Results, trainings and states whose differences are known."""

import numpy as np
import pandas as pd
from tables import make_result

from ilo_fast.activations import ActivationStore
from ilo_fast.results import SCORES, Result

LANGUAGES = ("eng_Latn", "deu_Latn", "hin_Deva", "rus_Cyrl", "zho_Hans")


def result(shift=0.0, *, model="tiny", layers=4, languages=LANGUAGES, record=None, **columns):
    """Scores of 0.25 in layer 0 and 0.5 elsewhere, and `shift` more in the Latin languages."""
    table = make_result(layers=layers, languages=languages, model=model).table
    for score in SCORES:
        table[score] = np.where(table["layer"] == 0, 0.25, 0.5)
        table[score] += np.where(table["language"].str.endswith("Latn"), shift, 0.0)
    for name, value in columns.items():
        table[name] = value
    known = {"corpus": {"name": "små", "sha256": "ab"}, "options": {"pool": "mean"}}
    return Result(table, known if record is None else record)


def training(shifts, **options):
    """A table like that of a training's callback: one scoring a step."""
    parts = []
    for step, shift in shifts.items():
        table = result(shift, **options).table
        table["step"] = step
        parts.append(table)
    return Result(pd.concat(parts, ignore_index=True), {"kind": "training"})


def store(seed=0, languages=LANGUAGES, sentences=8, layers=3, dim=6, scale=1.0):
    """States where translations lie near each other, less so the larger the scale."""
    random = np.random.default_rng(seed)
    import torch

    meaning = np.tile(random.normal(size=(sentences, dim)), (len(languages), 1))
    noise = random.normal(size=(layers, len(meaning), dim)) * scale
    states = torch.from_numpy((meaning + noise).astype(np.float32))
    return ActivationStore(
        states,
        tuple(range(layers)),
        languages,
        np.repeat(np.arange(len(languages)), sentences),
        np.tile(np.arange(sentences), len(languages)),
        {"pool": "mean"},
    )
