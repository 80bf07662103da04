import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from lists_cases import problems, renumber

from ilo_fast.alignment import hubness, k_occurrence


def test_by_hand():
    result = hubness([[1, 2], [2, 3], [1, 3], [1, 2], [1, 2]], hub_factor=1.5)
    np.testing.assert_array_equal(result.occurrence, [[0, 4, 4, 2, 0]])
    assert result.orphans == [0.4]
    assert result.hubs == [0.4]  # 4 > 1.5 × 2
    assert result.hub_entries == [0.8]
    # about the mean 2: -2 2 2 0 -2, third moment 0
    assert result.skewness == [0]


def test_equal_occurrence_has_no_skew():
    result = hubness([[1], [2], [0]])
    assert (result.skewness, result.orphans, result.hubs) == ([0], [0], [0])


@settings(max_examples=60, deadline=None)
@given(problems())
def test_against_scipy(problem):
    lists = problem[0]
    result = hubness(lists)
    k = lists.shape[2]
    for layer, rows in enumerate(lists):
        counts = np.bincount(rows.ravel(), minlength=lists.shape[1])
        np.testing.assert_array_equal(result.occurrence[layer], counts)
        if counts.std() > 0:
            expected = scipy.stats.skew(counts)
            np.testing.assert_allclose(result.skewness[layer], expected, rtol=1e-9, atol=1e-12)
        assert result.orphans[layer] == np.mean(counts == 0)
        assert result.hubs[layer] == np.mean(counts > 2 * k)
        np.testing.assert_allclose(
            result.hub_entries[layer], counts[counts > 2 * k].sum() / counts.sum()
        )
    order = np.random.default_rng(0).permutation(lists.shape[1])
    np.testing.assert_array_equal(k_occurrence(renumber(lists, order)), result.occurrence[:, order])


@pytest.mark.parametrize("bad", [0, -1.0, float("nan")])
def test_a_factor_of_nothing_is_refused(bad):
    with pytest.raises(ValueError, match="hub_factor"):
        hubness([[1], [0]], hub_factor=bad)
