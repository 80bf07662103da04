import numpy as np
import pytest
from hypothesis import given, settings
from lists_cases import first_seen, problems

from ilo_fast import ilo_scores
from ilo_fast.alignment import language_order, neighbor_counts, reach_graph, same_language

LANGUAGES = ["de", "de", "en", "fr"]
LISTS = [[1, 2], [0, 2], [0, 1], [2, 0]]


def test_by_hand():
    assert language_order(LANGUAGES) == ("de", "en", "fr")
    np.testing.assert_array_equal(same_language(LISTS, LANGUAGES), [[0.5, 0, 0]])
    np.testing.assert_array_equal(
        neighbor_counts(LISTS, LANGUAGES), [[[2, 2, 0], [2, 0, 0], [1, 1, 0]]]
    )
    graph = reach_graph(LISTS, LANGUAGES)
    np.testing.assert_array_equal(graph, [[[0, 1, 0], [1, 0, 0], [1, 1, 0]]])
    assert graph.dtype == bool
    at_two = reach_graph(LISTS, LANGUAGES, min_count=2)
    np.testing.assert_array_equal(at_two, [[[0, 1, 0], [1, 0, 0], [0, 0, 0]]])


@settings(max_examples=60, deadline=None)
@given(problems())
def test_against_the_plain_definitions(problem):
    lists, languages, _ = problem
    names = first_seen(languages)
    counts = np.zeros((len(lists), len(names), len(names)), dtype=int)
    for layer, rows in enumerate(lists):
        for i, row in enumerate(rows):
            for j in row:
                counts[layer, names.index(languages[i]), names.index(languages[j])] += 1
    np.testing.assert_array_equal(neighbor_counts(lists, languages), counts)
    own = np.diagonal(counts, axis1=1, axis2=2) / counts.sum(axis=2)
    np.testing.assert_allclose(same_language(lists, languages), own, rtol=1e-14)
    reached = reach_graph(lists, languages).sum(axis=2)
    np.testing.assert_array_equal(reached, ilo_scores(lists, languages).reach_count)


@pytest.mark.parametrize(
    ("bad", "error"),
    [(0, ValueError), (-1, ValueError), (1.5, TypeError), (True, TypeError), (None, TypeError)],
)
def test_a_minimum_below_one_is_refused(bad, error):
    with pytest.raises(error, match="min_count"):
        reach_graph(LISTS, LANGUAGES, min_count=bad)


@pytest.mark.parametrize("none", [None, 3, (label for label in "ab")])
def test_an_order_needs_labels(none):
    with pytest.raises(TypeError, match="languages must be a sequence of labels, got"):
        language_order(none)
