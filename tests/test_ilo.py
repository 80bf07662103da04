"""Bridge, reach and ILO against the definitions, written out point by point."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from lists_cases import first_seen, problems

from ilo_fast import ilo_scores, knn


def by_definition(lists, languages, threshold):
    """(bridge, reach, reach_count, ilo), each a list over languages in order of appearance."""
    names = list(dict.fromkeys(languages))
    rows = []
    for name in names:
        sets = [
            {languages[j] for j in neighbours} - {name}
            for neighbours, language in zip(lists, languages, strict=True)
            if language == name
        ]
        bridge = sum(len(seen) >= threshold for seen in sets) / len(sets)
        count = len(set().union(*sets))
        reach = count / (len(names) - 1)
        ilo = 2 * bridge * reach / (bridge + reach) if bridge > 0 and reach > 0 else 0.0
        rows.append((bridge, reach, count, ilo))
    return [list(column) for column in zip(*rows, strict=True)]


def check(scores, lists, languages, threshold):
    assert list(scores.languages) == first_seen(languages)
    for layer, layer_lists in enumerate(lists):
        bridge, reach, count, ilo = by_definition(layer_lists.tolist(), list(languages), threshold)
        assert scores.bridge[layer].tolist() == bridge
        assert scores.reach[layer].tolist() == reach
        assert scores.reach_count[layer].tolist() == count
        np.testing.assert_allclose(scores.ilo[layer], ilo, rtol=1e-15)


@settings(max_examples=80, deadline=None)
@given(problems())
def test_property_definitions(problem):
    lists, languages, _ = problem
    for threshold in (1, 2, 3):
        check(
            ilo_scores(lists, languages, threshold=threshold), lists, languages.tolist(), threshold
        )


def test_of_neighbors_and_of_arrays():
    generator = np.random.default_rng(0)
    x = torch.from_numpy(generator.normal(size=(2, 40, 4)))
    languages = ["a", "b", "c", "d"] * 10
    found = knn(x)
    scores = ilo_scores(found, languages)
    for other in (found.indices, found.indices.numpy(), found.indices.to(torch.int32)):
        np.testing.assert_array_equal(ilo_scores(other, languages).ilo, scores.ilo)
    assert scores.k == 5
    assert scores.threshold == 3
    assert scores.bridge.shape == scores.reach_count.shape == (2, 4)
    assert scores.n_points.tolist() == [10] * 4
    assert (scores.ilo.dtype, scores.reach_count.dtype) == (np.float64, np.int64)
    check(scores, found.indices.numpy(), languages, 3)
    single = ilo_scores(found.indices[0], languages)
    assert single.ilo.shape == (1, 4)


def test_unequal_counts_and_mixed_labels():
    languages = ["en", "en", "en", "en", 7, "fr"]
    lists = np.array([[[4, 5], [0, 2], [1, 3], [0, 1], [0, 5], [0, 1]]])
    scores = ilo_scores(lists, languages, threshold=2)
    assert scores.languages == ("en", 7, "fr")
    assert scores.n_points.tolist() == [4, 1, 1]
    assert scores.bridge.tolist() == [[0.25, 1.0, 0.0]]
    assert scores.reach.tolist() == [[1.0, 1.0, 0.5]]
    assert scores.ilo.tolist() == [[0.4, 1.0, 0.0]]


def test_own_language_does_not_count_even_with_self_kept():
    x = np.random.default_rng(1).normal(size=(30, 3))
    languages = np.arange(30) % 3
    kept = knn(x, 6, exclude_self=False)
    check(ilo_scores(kept, languages, threshold=2), kept.indices[None], languages.tolist(), 2)


def test_many_languages_some_layers_at_a_time(monkeypatch):
    monkeypatch.setattr("ilo_fast.ilo._POINTS_AT_ONCE", 650)
    generator = np.random.default_rng(2)
    lists = generator.integers(0, 300, size=(3, 300, 9))
    languages = np.concatenate([np.arange(200), generator.integers(0, 200, size=100)])
    check(ilo_scores(lists, languages), lists, languages.tolist(), 3)


@pytest.mark.parametrize(
    ("languages", "message"),
    [
        ([], "one label per point, 3, got 0"),
        (["a", "b"], "one label per point, 3, got 2"),
        (["a", "a", "a"], "at least 2 languages; got 1: 'a'"),
        ("abc", "must be 3 labels, got one str"),
        (["a", "b", None], "strings or integers, got None"),
        (["a", "b", float("nan")], "strings or integers, got nan"),
        ([["a"], ["b"], ["c"]], r"strings or integers, got \['a'\]"),
        (np.array([["a"], ["b"], ["c"]]), r"one axis, got shape \[3, 1\]"),
        (torch.tensor(1), r"one axis, got shape \[\]"),
    ],
)
def test_bad_languages(languages, message):
    with pytest.raises(ValueError, match=f"languages .*{message}"):
        ilo_scores(np.array([[1], [2], [0]]), languages)


def test_a_threshold_beyond_64_bits_is_named():
    with pytest.raises(ValueError, match=f"threshold must be below {1 << 63}; got {10**30}"):
        ilo_scores([[1], [0]], ["a", "b"], threshold=10**30)
    with pytest.warns(UserWarning, match="threshold must be at most 1"):
        scores = ilo_scores([[1], [0]], ["a", "b"], threshold=(1 << 63) - 1)
    assert scores.bridge.tolist() == [[0, 0]]


def test_languages_that_are_no_labels_at_all():
    with pytest.raises(TypeError, match="languages must be 3 labels, got NoneType"):
        ilo_scores(np.array([[1], [2], [0]]), None)


@pytest.mark.parametrize(
    ("neighbors", "message"),
    [
        (np.array([[1.0], [0.0]]), "integer indices, got dtype torch.float64"),
        (torch.tensor([[True], [False]]), "integer indices, got dtype torch.bool"),
        (np.array([1, 0]), r"\[n, k\] or \[layers, n, k\]"),
        (np.zeros((2, 0), dtype=int), "no empty axis"),
        (np.array([[2], [0]]), "point at 0 … 1 .*found 0 … 2"),
        (np.array([[-1], [0]]), "point at 0 … 1 .*found -1 … 0"),
    ],
)
def test_bad_neighbors(neighbors, message):
    with pytest.raises(ValueError, match=f"neighbors .*{message}"):
        ilo_scores(neighbors, ["a", "b"])


@pytest.mark.parametrize(
    ("threshold", "error"), [(0, ValueError), (-1, ValueError), (2.5, TypeError), (True, TypeError)]
)
def test_bad_threshold(threshold, error):
    with pytest.raises(error, match="threshold must be"):
        ilo_scores(np.array([[1], [0]]), ["a", "b"], threshold=threshold)


@pytest.mark.parametrize("threshold", [3, 4, 9])
def test_a_threshold_out_of_reach_gives_no_bridges(threshold):
    """By the definition, as in the public code; `score` refuses it."""
    lists = np.array([[1, 2], [0, 2], [0, 1]])
    message = "bridge and ILO are 0 whatever the points: threshold must be at most 2, or no point"
    with pytest.warns(UserWarning, match=message) as warned:
        scores = ilo_scores(lists, ["en", "de", "fr"], threshold=threshold)
    assert warned[0].filename == __file__
    assert scores.bridge.tolist() == scores.ilo.tolist() == [[0.0, 0.0, 0.0]]
    assert scores.reach.tolist() == [[1.0, 1.0, 1.0]]
