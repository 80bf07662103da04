import numpy as np
import pytest
from hypothesis import given, settings
from lists_cases import first_seen, problems, random_lists
from scipy.stats import norm

from ilo_fast import ilo_scores
from ilo_fast.alignment import bootstrap_intervals, same_language, translation_hit

NAMES = ("bridge", "reach", "ilo", "translation_hit", "same_language")


@settings(max_examples=30, deadline=None)
@given(problems())
def test_the_estimates_are_the_scores(problem):
    lists, languages, _ = problem
    got = bootstrap_intervals(*problem, threshold=2, samples=3)
    scores = ilo_scores(lists, languages, threshold=2)
    assert got.languages == scores.languages
    for name in ("bridge", "reach", "ilo"):
        np.testing.assert_allclose(getattr(got, name).estimate, getattr(scores, name), atol=1e-14)
    hit, same = translation_hit(*problem), same_language(lists, languages)
    np.testing.assert_allclose(got.translation_hit.estimate, hit, atol=1e-14)
    np.testing.assert_allclose(got.same_language.estimate, same, atol=1e-14)
    for name in NAMES:
        each = getattr(got, name).estimate
        np.testing.assert_allclose(got.mean[name].estimate, each.mean(axis=1), atol=1e-14)


def plainly(lists, languages, sentences, threshold, samples, level, seed):
    """The same draws, each scored by repeating the drawn points."""
    count = len(first_seen(sentences))
    codes = np.array([first_seen(sentences).index(s) for s in sentences])
    names = first_seen(languages)
    draws = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), samples)
    values = {name: np.full((samples, len(lists), len(names)), np.nan) for name in NAMES}
    for number, draw in enumerate(draws):
        for layer, rows in enumerate(lists):
            for column, name in enumerate(names):
                points = np.repeat(np.arange(len(codes)), draw[codes])
                points = points[languages[points] == name]
                if points.size == 0:
                    continue
                seen = [set(languages[rows[i]]) - {name} for i in points]
                bridge = np.mean([len(s) >= threshold for s in seen])
                reach = len(set().union(*seen)) / (len(names) - 1)
                values["bridge"][number, layer, column] = bridge
                values["reach"][number, layer, column] = reach
                both = bridge + reach
                values["ilo"][number, layer, column] = 2 * bridge * reach / both if both else 0
                values["translation_hit"][number, layer, column] = np.mean(
                    [
                        any(sentences[j] == sentences[i] and languages[j] != name for j in rows[i])
                        for i in points
                    ]
                )
                values["same_language"][number, layer, column] = np.mean(
                    [np.mean(languages[rows[i]] == name) for i in points]
                )
    return values


def ends(estimate, draws, name, level):
    """Percentiles; of a union the estimate and the draws' spread, as a plain normal interval."""
    if name in ("reach", "ilo"):
        spread = norm.ppf((1 + level) / 2) * np.nanstd(draws, axis=0)
        return np.clip([estimate - spread, estimate + spread], 0, 1)
    return np.nanquantile(draws, [(1 - level) / 2, (1 + level) / 2], axis=0)


@pytest.mark.parametrize("uneven", [False, True])
def test_against_repeated_points(uneven):
    generator = np.random.default_rng(3)
    languages, sentences = np.repeat(np.arange(4), 6), np.tile(np.arange(6), 4)
    if uneven:  # one language has lost sentences, another has one twice
        keep = np.array([i for i in range(24) if i not in (1, 2, 3, 9)] + [23])
        languages, sentences = languages[keep], sentences[keep]
    lists = random_lists(generator, 2, len(languages), 4)
    got = bootstrap_intervals(
        lists, languages, sentences, threshold=2, samples=40, level=0.8, seed=9
    )
    draws = plainly(lists, languages, sentences, 2, 40, 0.8, 9)
    for name in NAMES:
        one = getattr(got, name)
        expected = ends(one.estimate, draws[name], name, 0.8)
        np.testing.assert_allclose([one.low, one.high], expected, atol=1e-12)
        one = got.mean[name]
        expected = ends(one.estimate, np.nanmean(draws[name], axis=2), name, 0.8)
        np.testing.assert_allclose([one.low, one.high], expected, atol=1e-12)


def test_intervals_of_a_union_hold_what_they_promise():
    """Against a truth in closed form: neighbours' languages drawn apart from each other."""
    generator = np.random.default_rng(0)
    languages, sentences, k = 16, 20, 5
    chances = generator.dirichlet(np.full(languages, 0.3), size=languages)
    # reach at this number of sentences: a language is missed by all their neighbours
    met = 1 - (1 - chances) ** (sentences * k)
    truth = met[~np.eye(languages, dtype=bool)].mean()
    labels = np.repeat(np.arange(languages), sentences)
    numbers = np.tile(np.arange(sentences), languages)
    held, percentiles_held = 0, 0
    for trial in range(40):
        seen = np.array([generator.choice(languages, k, p=chances[own]) for own in labels])
        lists = seen * sentences + generator.integers(0, sentences, seen.shape)
        got = bootstrap_intervals(lists, labels, numbers, samples=200, seed=trial).mean["reach"]
        held += int(got.low[0] <= truth <= got.high[0])
        drawn = generator.multinomial(sentences, np.full(sentences, 1 / sentences), 200) > 0
        sees = np.zeros((languages, sentences, languages), dtype=bool)
        sees[labels[:, None], numbers[:, None], seen] = True
        sees[np.arange(languages), :, np.arange(languages)] = False
        reached = np.einsum("ds,lsm->dlm", drawn.astype(int), sees.astype(int)) > 0
        low, high = np.quantile(reached.sum(axis=(1, 2)), [0.025, 0.975])
        percentiles_held += int(low <= truth * languages * (languages - 1) <= high)
    assert held >= 34
    assert percentiles_held <= 20  # what they would do


def test_intervals_are_ordered_and_hold_the_estimate():
    lists = random_lists(np.random.default_rng(0), 1, 60, 5)
    languages, sentences = np.repeat(np.arange(6), 10), np.tile(np.arange(10), 6)
    got = bootstrap_intervals(lists, languages, sentences, samples=200)
    for name in NAMES:
        interval = getattr(got, name)
        assert (interval.low >= 0).all()
        assert (interval.low <= interval.high).all()
        assert (interval.high <= 1).all()
        if name in ("reach", "ilo", "same_language"):
            assert (interval.low <= interval.estimate).all()
            assert (interval.estimate <= interval.high).all()
    wider = bootstrap_intervals(lists, languages, sentences, samples=200, level=0.99)
    assert (wider.bridge.low <= got.bridge.low).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"languages": ["a"] * 4}, "at least 2"),
        ({"samples": 0}, "samples"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"level": 1.0}, "level"),
        ({"threshold": 0}, "threshold"),
        ({"sentences": [0]}, "sentences"),
    ],
)
def test_bad_input(change, message):
    arguments = {
        "neighbors": [[1], [0], [3], [2]],
        "languages": list("abab"),
        "sentences": [0, 0, 1, 1],
    } | change
    with pytest.raises(ValueError, match=message):
        bootstrap_intervals(**arguments)


def test_a_number_of_samples_that_is_not_whole():
    with pytest.raises(TypeError, match="samples must be an integer"):
        bootstrap_intervals([[1], [0]], ["a", "b"], [0, 0], samples=1.0)


@pytest.mark.filterwarnings("error")
def test_a_language_that_no_draw_took_has_no_interval():
    # 30 sentences, of which language b has one
    languages, sentences = ["a"] * 30 + ["b"], [*range(30), 0]
    lists = [[30]] * 30 + [[0]]
    seed = next(
        s for s in range(99) if np.random.default_rng(s).multinomial(30, [1 / 30] * 30)[0] == 0
    )
    got = bootstrap_intervals(lists, languages, sentences, threshold=1, samples=1, seed=seed)
    for name in NAMES:
        one = getattr(got, name)
        np.testing.assert_array_equal(np.isnan([one.low, one.high]), [[[False, True]]] * 2)
        assert np.isfinite([got.mean[name].low, got.mean[name].high]).all()


def test_every_level_below_one():
    lists, languages, sentences = [[2], [3], [0], [0]], ["a", "a", "b", "b"], [0, 1, 0, 1]
    for level in (np.nextafter(1, 0), np.nextafter(0, 1)):
        got = bootstrap_intervals(
            lists, languages, sentences, threshold=1, samples=9, level=float(level)
        )
        for name in NAMES:
            found = getattr(got, name)
            assert np.all(found.low <= found.high)
        assert np.all(got.reach.low <= got.reach.estimate)
