"""Results print in a line: what they hold, not its numbers."""

import numpy as np
from tables import make_result

from ilo_fast import alignment, ilo_scores, knn, overlap
from ilo_fast.compare import compare
from ilo_fast.sources import from_result


def test_results_of_any_size_print_in_a_line():
    states = np.random.default_rng(0).normal(size=(2, 200, 5))
    languages = [f"language {number}" for number in range(20)] * 10
    found = knn(states, 3)
    assert repr(found).startswith(
        "Neighbors(indices=int64 [2, 200, 3], distances=float32 [2, 200, 3], certified=bool [2, 2"
    )
    for result in (found, ilo_scores(found, languages), alignment.fragments(found, languages)):
        assert len(repr(result)) < 400
        assert "\n" not in repr(result)
    assert "languages=tuple of 20" in repr(ilo_scores(found, languages))


def test_results_with_arrays_are_equal_to_themselves_only():
    found, again = (knn(np.eye(3), 1) for _ in range(2))
    assert found == found
    assert found != again
    assert len({found, again}) == 2


def test_single_numbers_are_shown():
    lists = knn(np.random.default_rng(0).normal(size=(2, 30, 4)), 3)
    best = overlap.layer_overlap(lists, permutations=9).best
    assert repr(best).startswith("Calibration(observed=1, score=0, p_value=0.1, p_lower=1, ")


def test_tables_are_equal_to_themselves_only():
    one, other = make_result(), make_result()
    assert one in [other, one]
    assert one != other
    assert len({one, other}) == 2
    found = compare([from_result(one, "a"), from_result(other, "b")], samples=2)
    assert repr(found).startswith("Comparison(")
    assert repr(found).endswith("rows: pairs [('a', 'b')])")
    assert found != compare([from_result(one, "a"), from_result(other, "b")], samples=2)
