"""Synthetic hidden states with the structure of real ones."""

from typing import Any

import numpy as np

__all__ = ["synthetic_states"]


def synthetic_states(
    languages: int, sentences: int, dim: int
) -> np.ndarray[Any, np.dtype[np.float32]]:
    """float32 ``[languages * sentences, dim]``, language-major.

    A point is the sum of its sentence's vector, its language's vector and noise of its own, with
    a spectrum that decays over dimensions, plus two massive dimensions that dominate the norm, as
    hidden states of language models have them: cosines crowd near 1 and the neighbours of a point
    are partly translations, partly sentences of its own language.
    """
    generator = np.random.default_rng(0)
    sentence = generator.normal(size=(sentences, dim))
    language = generator.normal(size=(languages, dim))
    spectrum = 1 / np.sqrt(1 + np.arange(dim) / 20)
    states = np.empty((languages, sentences, dim), dtype=np.float32)
    for number in range(languages):
        own = generator.normal(size=(sentences, dim))
        states[number] = (0.7 * sentence + 0.6 * language[number] + 0.5 * own) * spectrum
    massive, second = 3 % dim, 17 % dim
    states[..., massive] += 60 + 3 * generator.normal(size=(languages, sentences))
    states[..., second] -= 25
    return states.reshape(-1, dim)
