import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ilo_fast.calibration import calibrate, draw_permutations


def test_by_hand():
    null = np.array([0.1, 0.4, 0.2, 0.3, 0.2, 0.1, 0.0, 0.1, 0.2])
    # with 0.6: ten values, the 80 % order statistic is the eighth, 0.3
    got = calibrate(0.6, null, alpha=0.2)
    assert got.p_value == 0.1
    assert got.p_lower == 1.0
    assert got.threshold == 0.3
    np.testing.assert_allclose(got.score, 0.3 / 0.7)
    np.testing.assert_allclose(got.null_mean, null.mean())
    np.testing.assert_allclose(got.null_std, null.std())
    assert (got.permutations, got.alpha) == (9, 0.2)


def test_the_rank_of_the_threshold_is_not_moved_by_rounding():
    # (1 - 0.1) * 10 is 9.000000000000002 or 9 as it falls; the ninth of ten it is
    got = calibrate(10.0, np.arange(1.0, 10.0), alpha=0.1, ceiling=20)
    assert got.threshold == 9
    for alpha, count in ((0.05, 199), (0.05, 999), (0.01, 99), (0.2, 4), (0.3, 9)):
        null = np.arange(1.0, count + 1)
        threshold = calibrate(count + 1.0, null, alpha=alpha, ceiling=1e9).threshold
        assert threshold == round((1 - alpha) * (count + 1))


def test_each_score_has_its_own_null_threshold_and_room():
    rng = np.random.default_rng(0)
    null = rng.uniform(0, 0.5, size=(98, 3))
    scores = np.array([0.3, 0.9, 2.0])
    got = calibrate(scores, null, alpha=0.305)
    # of 99 values each: 0.695 * 99 is 68.805, 0.695 * 98 would be 68.11; the 69th
    threshold = np.sort(np.vstack([null, scores]), axis=0)[68]
    np.testing.assert_array_equal(got.threshold, threshold)
    expected = [max(0.0, 0.3 - threshold[0]) / (1 - threshold[0])]
    expected += [(0.9 - threshold[1]) / (1 - threshold[1]), 1.0]  # never above 1
    np.testing.assert_allclose(got.score, expected)
    np.testing.assert_allclose(got.null_mean, null.sum(axis=0) / 98)
    spread = np.sqrt(((null - null.sum(axis=0) / 98) ** 2).sum(axis=0) / 98)
    np.testing.assert_allclose(got.null_std, spread)
    # five values, the half is 2.5: the third
    assert calibrate(10.0, [1.0, 2.0, 3.0, 4.0], alpha=0.5, ceiling=20).threshold == 3


def test_a_level_near_one_takes_the_least_of_the_null():
    assert calibrate(0.5, [0.3, 0.1, 0.2], alpha=1 - 1e-12).threshold == 0.1


def test_draws_within_the_tolerance_are_equal_to_the_score():
    above, below = 0.3 + 1e-15, 0.3 - 1e-15
    got = calibrate([0.3, 0.3], [[above, below], [0.1, 0.4]], tolerance=1e-14)
    np.testing.assert_allclose(got.p_value, [2 / 3, 1])
    np.testing.assert_allclose(got.p_lower, [1, 2 / 3])
    assert calibrate(0.5, [0.25], tolerance=0.25).p_value == 1  # as far as the tolerance, too
    assert got.threshold[0] == 0.3
    with pytest.raises(ValueError, match="tolerance must be at least 0"):
        calibrate(0.5, [0.1], tolerance=-1.0)


def test_a_null_at_the_ceiling_leaves_no_score():
    got = calibrate([1.0], np.ones((19, 1)))
    assert (got.score, got.p_value, got.p_lower) == ([0], [1], [1])


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=40),
    st.floats(0, 1),
    st.floats(0.01, 0.99),
)
def test_ranges_and_order(null, score, alpha):
    got = calibrate(score, null, alpha=alpha)
    assert 0 <= got.score <= 1
    assert 1 / (len(null) + 1) <= got.p_value <= 1
    assert got.p_value + got.p_lower >= 1
    assert min(*null, score) <= got.threshold <= max(*null, score)


@pytest.mark.parametrize(
    ("observed", "null", "alpha", "message"),
    [
        (0.5, [], 0.05, "null must have shape"),
        ([0.5], [0.1], 0.05, "null must have shape"),
        ([0.5], [[0.1, 0.2]], 0.05, "null must have shape"),
        (0.5, [0.1], 0.0, "alpha"),
        (0.5, [0.1], 1.0, "alpha"),
        (0.5, [float("nan")], 0.05, "NaN"),
        (float("nan"), [0.1], 0.05, "NaN"),
        (float("inf"), [0.1], 0.05, "infinity"),
        ([0.5, float("nan")], [[0.1, 0.1]], 0.05, "NaN"),
        (0.5, [0.1, -np.inf], 0.05, "infinity"),
        ("half", [0.1], 0.05, "observed must be an array"),
        (0.5, [[0.1], [0.1, 0.2]], 0.05, "null must be an array"),
        ([0.5, 0.5, 0.5], [0.1], 0.05, r"null must have shape \[draws, 3\], got \[1\]"),
    ],
)
def test_bad_input(observed, null, alpha, message):
    with pytest.raises(ValueError, match=message):
        calibrate(observed, null, alpha=alpha)


def test_options_of_the_wrong_type():
    with pytest.raises(ValueError, match="ceiling must be a number"):
        calibrate(0.5, [0.1], ceiling=float("nan"))
    with pytest.raises(TypeError, match="alpha must be a number; got"):
        calibrate(0.5, [0.1], alpha="0.05")


def test_permutations_are_seeded_and_whole():
    first = list(draw_permutations(20, 5, seed=3))
    again = list(draw_permutations(20, 5, seed=3))
    other = list(draw_permutations(20, 5, seed=4))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    np.testing.assert_array_equal(np.sort(first, axis=1), np.tile(np.arange(20), (5, 1)))
    assert len({tuple(order) for order in first}) == 5


def test_permutations_within_blocks_stay_there_and_are_even():
    blocks = np.array([0, 1, 0, 2, 1, 0])
    seen = np.zeros((6, 6))
    for order in draw_permutations(6, 600, seed=0, blocks=blocks):
        np.testing.assert_array_equal(np.sort(order), np.arange(6))
        np.testing.assert_array_equal(blocks[order], blocks)
        seen[np.arange(6), order] += 1
    inside = blocks[:, None] == blocks
    assert (seen[~inside] == 0).all()
    expected = 600 / inside.sum(axis=1, keepdims=True)
    assert (np.abs(seen - expected)[inside] < 80).all()
