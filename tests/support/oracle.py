"""The ILO pipeline written plainly in float64 NumPy, from the paper's definitions: the truth."""

import numpy as np

RELATIVE = 1e-13
"""Similarities this close to each other are equal to float64 rounding."""


def hidden_means(model, tokenizer, texts):
    """float64 [entries, n, d]: one sentence at a time, mean over all its tokens."""
    import torch

    points = []
    for text in texts:
        encoded = tokenizer(text, return_tensors="pt")
        with torch.no_grad():
            states = model(**encoded, output_hidden_states=True, use_cache=False).hidden_states
        points.append([state[0].double().numpy().mean(axis=0) for state in states])
    return np.stack([np.stack(entry) for entry in zip(*points, strict=True)])


def cosines(points):
    """float64 [n, n]; a zero vector is similar to nothing."""
    norms = np.linalg.norm(points, axis=1, keepdims=True)
    unit = points / np.where(norms == 0, 1, norms)
    return unit @ unit.T


def neighbours(similarities, k):
    """int64 [n, k]: most similar first, equal ones by index, self left out by index."""
    lists = []
    for i, row in enumerate(similarities):
        others = [j for j in range(len(row)) if j != i]
        others.sort(key=lambda j: (-row[j], j))
        lists.append(others[:k])
    return np.array(lists)


def scores(lists, languages, sentences, threshold):
    """{language: (bridge, reach, reach_count, ilo, translation_hit, same_language)}."""
    names = list(dict.fromkeys(languages))
    found = {}
    for name in names:
        points = [i for i, language in enumerate(languages) if language == name]
        others = [{languages[j] for j in lists[i]} - {name} for i in points]
        bridge = np.mean([len(seen) >= threshold for seen in others])
        reached = len(set().union(*others))
        reach = reached / (len(names) - 1)
        ilo = 2 * bridge * reach / (bridge + reach) if bridge and reach else 0.0
        hit = np.mean(
            [
                any(sentences[j] == sentences[i] and languages[j] != name for j in lists[i])
                for i in points
            ]
        )
        same = np.mean([[languages[j] == name for j in lists[i]] for i in points])
        found[name] = (bridge, reach, reached, ilo, hit, same)
    return found


def differing_rows(lists, expected, similarities, tolerance):
    """Rows whose neighbours differ from ``expected`` by more than a swap of near-equal ones.

    A row is forgiven when, place by place, the two neighbours' similarities are within
    ``tolerance``.
    """
    rows = np.arange(len(lists))[:, None]
    gaps = np.abs(similarities[rows, lists] - similarities[rows, expected]).max(axis=1)
    return np.flatnonzero(gaps > tolerance)
