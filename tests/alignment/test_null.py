from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from lists_cases import problems, random_lists

from ilo_fast import ilo_scores
from ilo_fast.alignment import ilo_null
from ilo_fast.calibration import calibrate, draw_permutations


def exact_ilo(scores):
    """ILO of each language as rationals, object [layers, languages]: equal ones are equal."""
    bridging = np.rint(scores.bridge * scores.n_points).astype(int)
    ilo = np.empty(bridging.shape, dtype=object)
    for place in np.ndindex(ilo.shape):
        bridge = Fraction(int(bridging[place]), int(scores.n_points[place[1]]))
        reach = Fraction(int(scores.reach_count[place]), len(scores.languages) - 1)
        ilo[place] = 2 * bridge * reach / (bridge + reach) if bridge and reach else Fraction(0)
    return ilo


# Its second layer has one mean ILO in two orders of languages, which floats set an ulp apart.
EQUAL_MEANS = (
    np.array(
        [
            [[2, 3], [4, 3], [6, 4], [1, 4], [5, 6], [2, 1], [1, 0]],
            [[3, 4], [5, 6], [5, 1], [1, 5], [2, 5], [2, 0], [1, 4]],
        ]
    ),
    np.array([2, 0, 3, 0, 1, 1, 3]),
    np.array([6, 0, 3, 1, 1, 4, 2]),
)


@settings(max_examples=40, deadline=None)
@given(problems(most_points=10))
@example(EQUAL_MEANS)
def test_every_draw_is_the_score_of_shuffled_languages(problem):
    lists, languages, _ = problem
    threshold, draws = 2, 7
    got = ilo_null(lists, languages, threshold=threshold, permutations=draws, seed=5)
    observed = ilo_scores(lists, languages, threshold=threshold)
    assert got.languages == observed.languages
    null = {name: [] for name in ("bridge", "reach", "ilo", "mean_ilo")}
    for order in draw_permutations(lists.shape[1], draws, seed=5):
        shuffled = np.empty_like(languages)
        shuffled[order] = languages
        drawn = ilo_scores(lists, shuffled, threshold=threshold)
        places = [drawn.languages.index(name) for name in observed.languages]
        ilo = exact_ilo(drawn)[:, places]
        null["bridge"].append(drawn.bridge[:, places])
        null["reach"].append(drawn.reach[:, places])
        null["ilo"].append(ilo.astype(float))
        null["mean_ilo"].append(ilo.mean(axis=1).astype(float))
    ilo = exact_ilo(observed)
    measured = {"bridge": observed.bridge, "reach": observed.reach}
    measured |= {"ilo": ilo.astype(float), "mean_ilo": ilo.mean(axis=1).astype(float)}
    for name, values in null.items():
        expected = calibrate(measured[name], values)
        for field in ("observed", "p_value", "p_lower", "threshold", "null_mean", "score"):
            np.testing.assert_allclose(
                getattr(getattr(got, name), field), getattr(expected, field), atol=1e-12
            )


@pytest.mark.parametrize("languages", [31, 32, 33, 64, 65, 130, 300])
def test_any_number_of_languages_fits_the_bits(languages):
    generator = np.random.default_rng(languages)
    n = languages + 50
    lists = random_lists(generator, 1, n, 5)
    labels = np.concatenate([np.arange(languages), generator.integers(languages, size=50)])
    got = ilo_null(lists, labels, permutations=3)
    expected = ilo_scores(lists, labels)
    np.testing.assert_allclose(got.bridge.observed, expected.bridge)
    np.testing.assert_allclose(got.reach.observed, expected.reach)
    np.testing.assert_allclose(got.ilo.observed, expected.ilo)


def test_clustered_languages_are_below_the_null_and_mixed_ones_within():
    generator = np.random.default_rng(0)
    languages = np.repeat(np.arange(6), 30)
    rows = np.stack([generator.choice(np.flatnonzero(languages == own), 5) for own in languages])
    clustered = ilo_null(rows, languages, permutations=99)
    assert (clustered.bridge.p_lower == 0.01).all()
    assert (clustered.bridge.p_value == 1).all()
    assert (clustered.ilo.score == 0).all()
    mixed = ilo_null(random_lists(generator, 1, 180, 5), languages, permutations=99)
    assert 0.01 < mixed.mean_ilo.p_value[0] < 1
    assert abs(mixed.mean_ilo.observed - mixed.mean_ilo.null_mean) < 5 * mixed.mean_ilo.null_std


def test_translations_in_every_language_beat_the_null():
    sentences, languages = np.tile(np.arange(40), 6), np.repeat(np.arange(6), 40)
    lists = np.stack(
        [
            np.flatnonzero((sentences == s) & (languages != own))
            for s, own in zip(sentences, languages, strict=True)
        ]
    )
    got = ilo_null(lists, languages, threshold=5, permutations=99)
    assert (got.bridge.observed == 1).all()
    assert (got.bridge.p_value == 0.01).all()
    assert (got.bridge.score == 1).all()
    # within a sentence every shuffle gives each neighbour another language again: nothing left
    within = ilo_null(lists, languages, threshold=5, permutations=99, sentences=sentences)
    assert (within.bridge.p_value == 1).all()
    assert (within.bridge.null_mean == 1).all()


def test_partners_that_never_change_show_in_reach_where_neighbours_are_translations():
    sentences, own = np.tile(np.arange(20), 8), np.repeat(np.arange(8), 20)
    lists = np.stack([(own + step) % 8 * 20 + sentences for step in (1, 2, 3)], axis=1)
    within = ilo_null(lists, own, permutations=99, sentences=sentences)
    assert (within.bridge.observed == within.bridge.null_mean).all()
    np.testing.assert_allclose(within.reach.observed, 3 / 7)
    assert (within.reach.null_mean > 0.99).all()
    assert (within.ilo.p_lower == 0.01).all()


def test_the_same_seed_gives_the_same_null():
    lists = random_lists(np.random.default_rng(0), 1, 30, 4)
    languages = np.arange(30) % 5
    one, two = (ilo_null(lists, languages, permutations=20, seed=s) for s in (1, 1))
    other = ilo_null(lists, languages, permutations=20, seed=2)
    np.testing.assert_array_equal(one.ilo.null_mean, two.ilo.null_mean)
    assert not np.array_equal(one.ilo.null_mean, other.ilo.null_mean)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"languages": ["a"] * 4}, "at least 2"),
        ({"threshold": 0}, "threshold"),
        ({"permutations": 0}, "permutations"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"alpha": 2.0}, "alpha"),
        ({"sentences": [0, 1]}, "sentences must have one label"),
    ],
)
def test_bad_input(change, message):
    arguments = {"neighbors": [[1], [0], [3], [2]], "languages": list("abab")} | change
    arguments.setdefault("permutations", 3)
    with pytest.raises(ValueError, match=message):
        ilo_null(**arguments)


def test_a_number_of_permutations_that_is_not_whole():
    with pytest.raises(TypeError, match="permutations must be an integer"):
        ilo_null([[1], [0]], ["a", "b"], permutations=2.5)
