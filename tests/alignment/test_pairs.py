import numpy as np
import pytest
import torch

from ilo_fast.alignment import (
    aggregate_layers,
    csls_retrieval,
    mexa,
    pair_scores,
    pairs,
    retrieval,
    xsim_error,
)
from ilo_fast.errors import HiddenStateError


def parallel(layers=2, languages=4, sentences=12):
    """Hidden states with a shared part per sentence, one per language, and a common offset."""
    generator = np.random.default_rng(0)
    shared = generator.normal(size=(layers, 1, sentences, 6))
    own = generator.normal(size=(layers, languages, 1, 6))
    states = 3 + shared + own + 0.7 * generator.normal(size=(layers, languages, sentences, 6))
    labels = np.repeat(np.arange(languages), sentences)
    return states.reshape(layers, -1, 6), labels, np.tile(np.arange(sentences), languages)


def cosine(x, y):
    x, y = (z / np.linalg.norm(z, axis=1, keepdims=True) for z in (x, y))
    return x @ y.T


def check_pair(got, layer, a, b, similarity):
    for (source, target), matrix in (((a, b), similarity), ((b, a), similarity.T)):
        place = (layer, source, target)
        assert got.retrieval[place] == pytest.approx(float(retrieval(matrix)))
        assert got.xsim_ratio[place] == pytest.approx(float(xsim_error(matrix)))
        distance = xsim_error(matrix, margin="distance")
        assert got.xsim_distance[place] == pytest.approx(float(distance))
        assert got.csls[place] == pytest.approx(float(csls_retrieval(matrix)))
        assert got.mexa[place] == pytest.approx(float(mexa(matrix)))


@pytest.mark.parametrize("block", [1, 300, 2**21])
def test_every_pair_from_its_own_cosines(block, monkeypatch):
    monkeypatch.setitem(pairs._BLOCK_WORDS, "cpu", block)
    states, languages, sentences = parallel()
    got = pair_scores(states, languages, sentences)
    assert got.languages == (0, 1, 2, 3)
    np.testing.assert_array_equal(got.sentences, np.full((4, 4), 12))
    for layer in range(2):
        for a in range(4):
            assert np.isnan(got.mexa[layer, a, a])
            for b in range(a + 1, 4):
                similarity = cosine(states[layer][languages == a], states[layer][languages == b])
                check_pair(got, layer, a, b, similarity)


def test_a_pivot_scores_its_pairs_only():
    states, languages, sentences = parallel()
    names = np.array(["de", "en", "fr", "sw"])[languages]
    every = pair_scores(states, names, sentences)
    got = pair_scores(states, names, sentences, pivot="en")
    for name in ("retrieval", "xsim_ratio", "xsim_distance", "csls", "mexa"):
        table, whole = getattr(got, name), getattr(every, name)
        np.testing.assert_array_equal(table[:, 1], whole[:, 1])
        np.testing.assert_array_equal(table[:, :, 1], whole[:, :, 1])
        assert np.isnan(table[:, [0, 2, 3]][:, :, [0, 2, 3]]).all()
    np.testing.assert_array_equal(got.mexa_to("en"), every.mexa_to("en"))
    with pytest.raises(ValueError, match="pivot"):
        got.mexa_to("de")
    with pytest.raises(ValueError, match="pivot"):
        every.mexa_to("xx")


def test_the_order_of_the_points_changes_nothing():
    states, languages, sentences = parallel(layers=1)
    order = np.random.default_rng(1).permutation(len(languages))
    order = np.concatenate([[0], order[order != 0]])  # sentence and language 0 still come first
    got = pair_scores(states[:, order], languages[order], sentences[order])
    expected = pair_scores(states, languages, sentences)
    places = [expected.languages.index(name) for name in got.languages]
    for name in ("retrieval", "csls", "mexa", "xsim_ratio"):
        whole = getattr(expected, name)[:, places][:, :, places]
        np.testing.assert_allclose(getattr(got, name), whole, atol=1e-12)


def test_languages_with_other_sentences_use_those_they_share():
    states, languages, sentences = parallel(layers=1, languages=3, sentences=20)
    gone = (languages == 1) & (sentences % 4 == 0) | (languages == 2) & (sentences > 15)
    got = pair_scores(states[:, ~gone], languages[~gone], sentences[~gone])
    np.testing.assert_array_equal(got.sentences, [[20, 15, 16], [15, 15, 12], [16, 12, 16]])
    for a, b in ((0, 1), (0, 2), (1, 2)):
        both = [
            s
            for s in range(20)
            if not gone[(languages == a) & (sentences == s)]
            and not gone[(languages == b) & (sentences == s)]
        ]
        rows = [states[0][(languages == which)][both] for which in (a, b)]
        check_pair(got, 0, a, b, cosine(*rows))


def test_copies_tie_however_the_product_rounds():
    """Sentence 1 is sentence 0 again in both languages, at full FLORES-like width."""
    generator = np.random.default_rng(0)
    states = generator.normal(size=(30, 640)) + 5
    states[1] = states[0]
    states[16] = states[15] * 3.7  # the same direction, another length
    got = pair_scores(states, ["a"] * 15 + ["b"] * 15, list(range(15)) * 2, k=2)
    # sentences 0 and 1 tie in every search: one of two can win, MEXA has neither
    assert got.mexa[0, 0, 1] <= 13 / 15
    mirrored = pair_scores(states.copy(), ["a"] * 15 + ["b"] * 15, list(range(15)) * 2, k=2)
    np.testing.assert_array_equal(got.retrieval, mirrored.retrieval)
    same = pair_scores(np.concatenate([states[:15]] * 2), ["a"] * 15 + ["b"] * 15, [*range(15)] * 2)
    assert same.retrieval[0, 0, 1] == pytest.approx(14 / 15)
    assert same.mexa[0, 0, 1] == pytest.approx(13 / 15)


def test_identical_spaces_are_aligned_and_zero_rows_match_nothing():
    generator = np.random.default_rng(0)
    rows = generator.normal(size=(12, 5))
    languages, sentences = ["a"] * 12 + ["b"] * 12, [*range(12)] * 2
    same = pair_scores(np.concatenate([rows, rows]), languages, sentences)
    assert same.mexa[0, 0, 1] == 1
    assert same.xsim_ratio[0, 0, 1] == 0
    silent = rows.copy()
    silent[3] = 0
    got = pair_scores(np.concatenate([silent, silent]), languages, sentences)
    assert got.mexa[0, 0, 1] == pytest.approx(11 / 12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_low_precision_states_are_scored_in_float64(dtype):
    states, languages, sentences = parallel(layers=1)
    low = torch.from_numpy(states).to(dtype)
    got = pair_scores(low, languages, sentences)
    expected = pair_scores(low.double().numpy(), languages, sentences)
    np.testing.assert_array_equal(got.mexa, expected.mexa)


def test_huge_and_tiny_states_do_not_overflow():
    states, languages, sentences = parallel(layers=1)
    expected = pair_scores(states, languages, sentences)
    for scale in (1e200, 1e-200):
        got = pair_scores(states * scale, languages, sentences)
        np.testing.assert_allclose(got.csls, expected.csls)


def test_layers_are_aggregated_as_published():
    scores = np.array([[0.25, np.nan], [0.75, np.nan]])
    np.testing.assert_array_equal(aggregate_layers(scores), [0.5, np.nan])
    np.testing.assert_array_equal(aggregate_layers(scores, "max"), [0.75, np.nan])
    with pytest.raises(ValueError, match="how must be one of mean, max; got 'median'"):
        aggregate_layers(scores, "median")
    with pytest.raises(ValueError, match="layer axis"):
        aggregate_layers(3.0)
    for none in ("0.5", [[1.0], [1.0, 2.0]], scores * 1j):
        with pytest.raises(ValueError, match="scores must"):
            aggregate_layers(none)
    low = torch.from_numpy(scores).bfloat16()
    np.testing.assert_array_equal(aggregate_layers(low), [0.5, np.nan])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"languages": [0] * 24}, "at least 2"),
        ({"languages": [0] * 23}, "one label per point"),
        ({"sentences": [0] * 24}, "different within a language"),
        ({"pivot": 7}, "pivot must be one of"),
        ({"k": 13}, "k must be a whole number 1 … 12"),
        ({"csls_k": 0}, "csls_k"),
        ({"states": np.zeros((24, 0))}, "shape"),
        ({"states": np.zeros(24)}, "shape"),
        ({"states": np.zeros((24, 2), dtype=int)}, "floating"),
        ({"sentences": list(range(24))}, "name translations alike, .* none in common"),
    ],
)
def test_bad_input(change, message):
    states, languages, sentences = parallel(layers=1, languages=2)
    arguments = {"states": states, "languages": languages, "sentences": sentences} | change
    with pytest.raises(ValueError, match=message):
        pair_scores(**arguments)


def test_k_may_be_of_any_library_but_no_real_number():
    data = parallel(layers=1, languages=2)
    assert type(pair_scores(*data, k=np.int64(4), csls_k=torch.tensor(3)).csls_k) is int
    for name in ("k", "csls_k"):
        with pytest.raises(TypeError, match=f"^{name} must be an integer; got 4.0"):
            pair_scores(*data, **{name: 4.0})


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_name_layer_and_row(bad):
    states, languages, sentences = parallel()
    states[1, 7, 2] = bad
    with pytest.raises(HiddenStateError, match="layer 1, row 7"):
        pair_scores(states, languages, sentences)
