import numpy as np
import pytest
import torch
from hypothesis import given, settings
from lists_cases import first_seen, problems, random_lists, renumber

import ilo_fast
from ilo_fast.alignment import same_language, translation_hit, translation_mrr

# Points: de0 de1 en0 en1 fr0 fr1
LANGUAGES = ["de", "de", "en", "en", "fr", "fr"]
SENTENCES = [0, 1, 0, 1, 0, 1]
LISTS = np.array([[1, 2], [3, 5], [1, 3], [0, 2], [2, 0], [0, 2]])


def truth(lists, languages, sentences):
    """Hit and mean reciprocal rank per language, point by point."""
    names = first_seen(languages)
    hit, mrr = np.zeros((2, len(lists), len(names)))
    for layer, rows in enumerate(lists):
        for number, name in enumerate(names):
            ranks = []
            for i in np.flatnonzero(np.asarray(languages) == name):
                good = [
                    place
                    for place, j in enumerate(rows[i], 1)
                    if sentences[j] == sentences[i] and languages[j] != languages[i]
                ]
                ranks.append(1 / good[0] if good else 0.0)
            hit[layer, number] = np.mean(np.array(ranks) > 0)
            mrr[layer, number] = np.mean(ranks)
    return hit, mrr


def test_by_hand():
    # de0: en0 second; de1: en1 first; en0: none; en1: none; fr0: en0 first; fr1: none
    np.testing.assert_array_equal(translation_hit(LISTS, LANGUAGES, SENTENCES), [[1, 0, 0.5]])
    np.testing.assert_array_equal(translation_mrr(LISTS, LANGUAGES, SENTENCES), [[0.75, 0, 0.5]])


def test_the_same_sentence_in_the_same_language_is_no_translation():
    lists = [[1], [0], [0]]
    hit = translation_hit(lists, ["de", "de", "en"], [7, 7, 7])
    np.testing.assert_array_equal(hit, [[0, 1]])


def test_one_language_has_no_translations():
    assert translation_hit([[1], [0]], ["de", "de"], [0, 0]).tolist() == [[0.0]]
    assert same_language([[1], [0]], ["de", "de"]).tolist() == [[1.0]]


@settings(max_examples=60, deadline=None)
@given(problems())
def test_against_the_plain_definition(problem):
    lists, languages, sentences = problem
    hit, mrr = truth(lists, languages, sentences)
    np.testing.assert_allclose(translation_hit(*problem), hit, rtol=1e-14)
    np.testing.assert_allclose(translation_mrr(*problem), mrr, rtol=1e-14)
    assert (mrr <= hit).all()
    assert (hit <= lists.shape[2] * mrr + 1e-12).all()


@settings(max_examples=30, deadline=None)
@given(problems())
def test_the_order_of_the_points_changes_nothing(problem):
    lists, languages, sentences = problem
    order = np.random.default_rng(0).permutation(lists.shape[1])
    names, moved_names = first_seen(languages), first_seen(languages[order])
    moved = translation_hit(renumber(lists, order), languages[order], sentences[order])
    back = moved[:, [moved_names.index(name) for name in names]]
    np.testing.assert_allclose(back, translation_hit(*problem), rtol=1e-14)


def test_every_input_kind_gives_the_same():
    lists = random_lists(np.random.default_rng(1), 2, 8, 3)
    languages, sentences = ["a", "b"] * 4, [0, 0, 1, 1, 2, 2, 3, 3]
    expected = translation_hit(lists, languages, sentences)
    codes = torch.tensor([0, 1] * 4)
    for given_lists in (torch.from_numpy(lists), lists.tolist(), lists.astype(np.int32)):
        got = translation_hit(given_lists, codes, np.array(sentences))
        np.testing.assert_array_equal(got, expected)
    read_only = lists.copy()
    read_only.flags.writeable = False
    np.testing.assert_array_equal(translation_hit(read_only, languages, sentences), expected)


def test_neighbors_of_both_libraries_are_taken():
    states = np.random.default_rng(2).normal(size=(2, 12, 4))
    languages, sentences = ["a"] * 6 + ["b"] * 6, list(range(6)) * 2
    for x in (states, torch.from_numpy(states)):
        found = ilo_fast.knn(x, 3)
        np.testing.assert_array_equal(
            translation_hit(found, languages, sentences),
            translation_hit(np.asarray(found.indices), languages, sentences),
        )


@pytest.mark.parametrize(
    ("lists", "languages", "sentences", "message"),
    [
        ([[1], [0]], "ab", [0, 0], "languages must be 2 labels"),
        ([[1.5], [0.0]], ["a", "b"], [0, 0], "integer indices"),
        ([[float("nan")], [0.0]], ["a", "b"], [0, 0], "integer indices"),
        ([[True], [False]], ["a", "b"], [0, 0], "integer indices"),
        ([[2], [0]], ["a", "b"], [0, 0], "point at 0 … 1"),
        ([[-1], [0]], ["a", "b"], [0, 0], "point at 0 … 1"),
        ([1, 0], ["a", "b"], [0, 0], "shape"),
        ([[], []], ["a", "b"], [0, 0], "integer indices|empty axis"),
        ([[1], [0]], ["a"], [0, 0], "one label per point, 2, got 1"),
        ([[1], [0]], ["a", "b"], [0], "sentences must have one label"),
        ([[1], [0]], ["a", None], [0, 0], "strings or integers, got None"),
        ([[1], [0]], np.zeros((2, 1), dtype=int), [0, 0], "one axis"),
        ([[1], [0]], [0.5, 1.0], [0, 0], "strings or integers"),
        ([["x"], ["y"]], ["a", "b"], [0, 0], "numbers|array"),
        ([[1], [0, 2]], ["a", "b"], [0, 0], "array"),
    ],
)
def test_bad_input_says_which(lists, languages, sentences, message):
    with pytest.raises(ValueError, match=message):
        translation_hit(lists, languages, sentences)
