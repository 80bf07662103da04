import numpy as np
import pytest
from hypothesis import given, settings
from lists_cases import problems

from ilo_fast import ilo_scores
from ilo_fast.alignment import fragments

# Two clumps of mixed languages, 0-3 and 4-7, and 8, 9, who see their own language only.
LANGUAGES = ["a", "b", "c", "d", "a", "b", "c", "d", "a", "a"]
LISTS = np.array(
    [
        [1, 2, 3],
        [0, 2, 3],
        [0, 1, 3],
        [0, 1, 2],
        [5, 6, 7],
        [4, 6, 7],
        [4, 5, 7],
        [4, 5, 6],
        [9, 0, 4],
        [8, 0, 4],
    ]
)


def test_by_hand():
    parts = fragments(LISTS, LANGUAGES, threshold=3)
    assert parts.languages == ("a", "b", "c", "d")
    np.testing.assert_array_equal(parts.bridges, [[True] * 8 + [False] * 2])
    np.testing.assert_array_equal(parts.interlingual, [[0.5, 1, 1, 1]])
    np.testing.assert_array_equal(parts.fragmented, [[0.5, 0, 0, 0]])
    mixed, rest = parts.interlingual_components[0], parts.fragmented_components[0]
    assert mixed.count == 2
    np.testing.assert_array_equal(mixed.sizes, [4, 4])
    np.testing.assert_array_equal(mixed.languages, [[1, 1, 1, 1], [1, 1, 1, 1]])
    np.testing.assert_array_equal(mixed.language_counts, [4, 4])
    np.testing.assert_array_equal(mixed.of_point, [0] * 4 + [1] * 4 + [-1] * 2)
    np.testing.assert_array_equal(rest.sizes, [2])
    np.testing.assert_array_equal(rest.languages, [[2, 0, 0, 0]])
    np.testing.assert_array_equal(rest.of_point, [-1] * 8 + [0] * 2)


def test_an_empty_part_has_no_components():
    parts = fragments([[1], [0]], ["a", "b"], threshold=1)
    assert parts.interlingual_components[0].count == 1
    empty = parts.fragmented_components[0]
    assert empty.count == 0
    assert empty.languages.shape == (0, 2)
    assert (empty.of_point == -1).all()


def test_one_language_is_all_fragments():
    parts = fragments([[1], [0], [0]], ["a"] * 3, threshold=1)
    assert parts.fragmented.tolist() == [[1.0]]
    np.testing.assert_array_equal(parts.fragmented_components[0].sizes, [3])


def flood(rows, member):
    """Component sizes by walking the undirected graph among the members."""
    n = len(rows)
    edges = {i: set() for i in range(n)}
    for i in range(n):
        for j in rows[i]:
            if member[i] and member[j]:
                edges[i].add(int(j))
                edges[int(j)].add(i)
    seen, components = set(), []
    for i in np.flatnonzero(member):
        if i in seen:
            continue
        stack, found = [int(i)], set()
        while stack:
            here = stack.pop()
            if here not in found:
                found.add(here)
                stack.extend(edges[here])
        seen |= found
        components.append(sorted(found))
    return sorted(components, key=lambda points: (-len(points), points[0]))


@settings(max_examples=60, deadline=None)
@given(problems(most_points=14))
def test_against_a_walk_through_the_graph(problem):
    lists, languages, _ = problem
    parts = fragments(lists, languages, threshold=2)
    np.testing.assert_allclose(parts.interlingual, ilo_scores(lists, languages, threshold=2).bridge)
    np.testing.assert_allclose(parts.interlingual + parts.fragmented, 1)
    for layer, rows in enumerate(lists):
        for member, got in (
            (parts.bridges[layer], parts.interlingual_components[layer]),
            (~parts.bridges[layer], parts.fragmented_components[layer]),
        ):
            expected = flood(rows, member)
            assert [
                np.flatnonzero(got.of_point == c).tolist() for c in range(got.count)
            ] == expected
            assert got.sizes.tolist() == [len(points) for points in expected]
            np.testing.assert_array_equal(got.languages.sum(axis=1), got.sizes)
            assert got.language_counts.tolist() == [
                len(set(np.asarray(languages)[points])) for points in expected
            ]


@pytest.mark.parametrize(("bad", "error"), [(0, ValueError), (2.0, TypeError), (True, TypeError)])
def test_a_bad_threshold_is_refused(bad, error):
    with pytest.raises(error, match="threshold"):
        fragments(LISTS, LANGUAGES, threshold=bad)
