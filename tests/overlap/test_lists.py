import numpy as np
import pytest
import torch
from hypothesis import given, settings
from lists_cases import problems, random_lists, renumber

from ilo_fast import overlap
from ilo_fast.overlap import (
    cycle_knn,
    edit_distance_knn,
    jaccard,
    label_overlap,
    lcs_knn,
    mutual_knn,
    neighborhood_overlap,
    rank_similarity,
)

METRICS = [mutual_knn, jaccard, rank_similarity, cycle_knn, lcs_knn, edit_distance_knn]
SYMMETRIC = [metric for metric in METRICS if metric is not cycle_knn]

A = [[1, 2, 3], [0, 2, 3], [3, 1, 0], [4, 0, 1], [0, 1, 2]]
B = [[1, 2, 3], [2, 0, 4], [0, 1, 4], [2, 0, 1], [3, 2, 1]]
# common neighbours: 3, 2, 2, 2, 2


def test_by_hand():
    np.testing.assert_allclose(mutual_knn(A, B), [11 / 15])
    np.testing.assert_array_equal(neighborhood_overlap(A, B), mutual_knn(A, B))
    np.testing.assert_allclose(jaccard(A, B), [(1 + 4 * 2 / 4) / 5])
    # ranks (a, b): row 1: 0 (1, 2), 2 (2, 1); row 2: 1 (2, 2), 0 (3, 1); row 3: 0 (2, 2), 1 (3, 3);
    # row 4: 1 (2, 3), 2 (3, 2); each over H(2) = 1.5
    rows = [
        1,
        (2 / (2 * 3) + 2 / (2 * 3)) / 1.5,
        (2 / (1 * 4) + 2 / (3 * 4)) / 1.5,
        (2 / (1 * 4) + 2 / (1 * 6)) / 1.5,
        (2 / (2 * 5) + 2 / (2 * 5)) / 1.5,
    ]
    np.testing.assert_allclose(rank_similarity(A, B), [np.mean(rows)])
    # longest common subsequences: 123; 0 or 2; 1 or 0; 0 1; 2 or 1
    np.testing.assert_allclose(lcs_knn(A, B), [(3 + 1 + 1 + 2 + 1) / 5])
    # edits: 023 → 204: drop 0, put 0 for 3, add 4, or three swaps, 3; 310 → 014: 3 → 0, 0 → 4;
    # 401 → 201: one; 012 → 321: three swaps, or drop 0, 1 → 3, add 1: 3
    np.testing.assert_allclose(edit_distance_knn(A, B), [1 - (0 + 3 + 2 + 1 + 3) / 5 / 3])
    # is i in A_j for some j of B_i: 0: 1 has 0; 1: 2 has 1; 2: 0 has 2; 3: 2 has 3; 4: 3 has 4
    np.testing.assert_allclose(cycle_knn(A, B), [1])
    np.testing.assert_allclose(cycle_knn([[1], [2], [0]], [[1], [2], [0]]), [0])


def levenshtein(one, two):
    if not one or not two:
        return len(one) + len(two)
    return min(
        levenshtein(one[1:], two) + 1,
        levenshtein(one, two[1:]) + 1,
        levenshtein(one[1:], two[1:]) + (one[0] != two[0]),
    )


def longest_common(one, two):
    if not one or not two:
        return 0
    if one[0] == two[0]:
        return 1 + longest_common(one[1:], two[1:])
    return max(longest_common(one[1:], two), longest_common(one, two[1:]))


def rank_truth(one, two):
    common = set(one) & set(two)
    if not common:
        return 0.0
    total = 0.0
    for j in common:
        r, s = one.index(j) + 1, two.index(j) + 1
        total += 2 / ((1 + abs(r - s)) * (r + s))
    return total / sum(1 / m for m in range(1, len(common) + 1))


@settings(max_examples=60, deadline=None)
@given(problems(most_points=7))
def test_against_the_plain_definitions(problem):
    lists = problem[0]
    first, second = lists.tolist()
    k = lists.shape[2]
    pairs = list(zip(first, second, strict=True))
    expected = {
        mutual_knn: [len({*x} & {*y}) / k for x, y in pairs],
        jaccard: [len({*x} & {*y}) / len({*x} | {*y}) for x, y in pairs],
        rank_similarity: [rank_truth(x, y) for x, y in pairs],
        cycle_knn: [any(i in first[j] for j in y) for i, (_, y) in enumerate(pairs)],
        lcs_knn: [longest_common(x, y) for x, y in pairs],
        edit_distance_knn: [1 - levenshtein(x, y) / k for x, y in pairs],
    }
    for metric, values in expected.items():
        np.testing.assert_allclose(metric(first, second), [np.mean(values)], atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(problems())
def test_properties(problem):
    lists = problem[0]
    a, b = lists
    k = lists.shape[2]
    order = np.random.default_rng(0).permutation(len(a))
    for metric in METRICS:
        value = metric(a, b)[0]
        assert 0 <= value <= (k if metric is lcs_knn else 1)
        moved = metric(renumber(a[None], order), renumber(b[None], order))[0]
        np.testing.assert_allclose(moved, value, atol=1e-12)
    for metric in SYMMETRIC:
        np.testing.assert_allclose(metric(a, b), metric(b, a), atol=1e-12)
        np.testing.assert_allclose(metric(a, a), [k if metric is lcs_knn else 1], atol=1e-12)
    assert jaccard(a, b) <= mutual_knn(a, b) + 1e-12
    assert lcs_knn(a, b) <= k * mutual_knn(a, b) + 1e-12


def test_layers_pair_up_and_blocks_of_rows_add_up(monkeypatch):
    lists = random_lists(np.random.default_rng(0), 3, 25, 4)
    other = random_lists(np.random.default_rng(1), 3, 25, 4)
    for metric in METRICS:
        whole = metric(lists, other)
        each = [metric(one, two)[0] for one, two in zip(lists, other, strict=True)]
        np.testing.assert_allclose(whole, each)
        monkeypatch.setattr(overlap.lists, "_COMPARE_ENTRIES", 7 * 16)
        np.testing.assert_allclose(metric(torch.from_numpy(lists), other), whole)
        monkeypatch.undo()


def test_label_overlap_by_hand():
    lists, labels = [[1, 2], [0, 2], [0, 1], [2, 1]], ["x", "x", "x", "y"]
    # shares 1, 1, 1, 0: classes alike 1/2, points alike 3/4
    np.testing.assert_allclose(label_overlap(lists, labels), [0.5])
    np.testing.assert_allclose(label_overlap(lists, labels, weighted=False), [0.75])
    np.testing.assert_allclose(label_overlap(lists, ["x"] * 4), [1])


def test_the_weighting_is_asked_for_by_true_or_false():
    with pytest.raises(TypeError, match="weighted must be True or False; got None"):
        label_overlap([[1], [0]], ["x", "y"], weighted=None)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        ([[1], [0]], [[1], [0], [0]], "same points and k"),
        ([[1], [0], [0]], [[1, 2], [0, 2], [0, 1]], "same points and k"),
        ([[1, 1], [0, 0]], [[1, 0], [0, 1]], "a must name a point once"),
        ([[1, 0], [0, 1]], [[1, 1], [0, 1]], "b must name a point once"),
        ([[1], [0]], [[2], [0]], "b must point at"),
        ([[1], [0]], [[-1], [0]], "b must point at"),
        ([[1.0], [0.0]], [[1], [0]], "a must hold integer"),
        ([[[1], [0]]] * 2, [[[1], [0]]] * 3, "same number of layers"),
    ],
)
def test_bad_input(metric, a, b, message):
    with pytest.raises(ValueError, match=message):
        metric(a, b)
