"""The tests' own yardstick: does it accept the right lists and refuse the wrong ones?"""

import numpy as np
import pytest
from knn_oracle import assert_same_lists, exact_distances, nearest

# Row 0: point 3 at 1, points 1 and 4 at 2, point 2 at 5.
LINE = np.array([[0.0], [2.0], [5.0], [1.0], [-2.0]])


@pytest.fixture
def distances():
    return exact_distances(LINE, "euclidean")


def lists_with(distances, row_zero, k=3):
    lists = nearest(distances, k)
    lists[0] = row_zero
    return lists


def test_distances_by_hand():
    assert exact_distances(LINE, "euclidean")[0].tolist() == [0, 2, 5, 1, 2]
    points = np.array([[3.0, 0.0], [0.0, 2.0], [-1.0, 0.0], [0.0, 0.0]])
    assert exact_distances(points, "cosine")[0].tolist() == [0, 1, 2, 1]
    assert exact_distances(points, "inner_product")[0].tolist() == [-9, 0, 3, 0]


def test_cosine_distances_do_not_cancel():
    points = np.array([[1.0, 0.0], [1.0, 1e-12]])
    assert float(exact_distances(points, "cosine")[0, 1]) == pytest.approx(0.5e-24, rel=1e-10)


def test_nearest_lists_are_accepted(distances):
    assert nearest(distances, 3)[0].tolist() == [3, 1, 4]
    assert_same_lists(nearest(distances, 3), distances, 0.0)
    assert_same_lists(nearest(distances, 5, False), distances, 0.0, exclude_self=False)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([0, 3, 1], "its own list"),
        ([3, 3, 1], "twice"),
        ([3, 1, 5], "out of range"),
        ([1, 3, 4], "place 0"),
        ([3, 1, 2], "place 2"),
        ([3, 4, 1], "not by index"),
    ],
)
def test_wrong_lists_are_refused(distances, row, message):
    with pytest.raises(AssertionError, match=message):
        assert_same_lists(lists_with(distances, row), distances, 0.0)


def test_a_higher_index_among_equals_at_the_end_is_refused(distances):
    with pytest.raises(AssertionError, match="higher index was kept"):
        assert_same_lists(lists_with(distances, [3, 4], k=2), distances, 0.0)


def test_swaps_within_the_tolerance_pass(distances):
    near = distances.copy()
    near[0, 4] -= 1e-15
    assert_same_lists(lists_with(near, [3, 1, 4]), near, 1e-14)
    with pytest.raises(AssertionError, match="place 1"):
        assert_same_lists(lists_with(near, [3, 1, 4]), near, 1e-16)
