"""Change between two sets of neighbours, against a loop written independently."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from ilo_fast import ilo_scores, knn
from ilo_fast.alignment import same_language, translation_hit
from ilo_fast.errors import InputError
from ilo_fast.finetune import score_change


def random_lists(seed, layers, n, k):
    """Neighbour lists without self or repeats."""
    rng = np.random.default_rng(seed)
    rows = [[rng.choice(np.delete(np.arange(n), i), k, replace=False) for i in range(n)]]
    rows += [
        [rng.choice(np.delete(np.arange(n), i), k, replace=False) for i in range(n)]
        for _ in range(layers - 1)
    ]
    return np.array(rows)


def points(languages, sentences):
    return (
        [f"l{number}" for number in range(languages) for _ in range(sentences)],
        [number for _ in range(languages) for number in range(sentences)],
    )


def slow_scores(lists, languages, sentences, drawn, threshold):
    """Scores of one layer over points drawn one by one: {score: {language: value}}."""
    names = list(dict.fromkeys(languages))
    scores = {}
    for name in names:
        chosen = [
            i
            for sentence in drawn
            for i in range(len(lists))
            if languages[i] == name and sentences[i] == sentence
        ]
        seen = [{languages[j] for j in lists[i]} - {name} for i in chosen]
        bridge = sum(len(s) >= threshold for s in seen) / len(chosen)
        reach = len(set().union(*seen)) / (len(names) - 1)
        hit = [
            any(sentences[j] == sentences[i] and languages[j] != name for j in lists[i])
            for i in chosen
        ]
        own = [np.mean([languages[j] == name for j in lists[i]]) for i in chosen]
        scores[name] = {
            "bridge": bridge,
            "reach": reach,
            "ilo": 2 * bridge * reach / (bridge + reach) if bridge and reach else 0.0,
            "translation_hit": np.mean(hit),
            "same_language": np.mean(own),
        }
    return scores


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    languages=st.integers(2, 4),
    sentences=st.integers(2, 5),
    threshold=st.integers(1, 3),
)
def test_estimates_and_intervals_equal_a_slow_loop(seed, languages, sentences, threshold):
    lang, sent = points(languages, sentences)
    before = random_lists(seed, 2, len(lang), 3)
    after = [random_lists(seed + run, 2, len(lang), 3) for run in (1, 2)]
    got = score_change(
        before, after, lang, sent, threshold=threshold, samples=20, level=0.9, seed=seed
    )["all"]
    counts = np.random.default_rng(seed).multinomial(
        sentences, np.full(sentences, 1 / sentences), 20
    )
    draws = [list(range(sentences))]
    draws += [[s for s in range(sentences) for _ in range(c[s])] for c in counts]
    for layer in range(2):
        moved = {name: [] for name in got}
        for drawn in draws:
            base = slow_scores(before[layer], lang, sent, drawn, threshold)
            ends = [slow_scores(run[layer], lang, sent, drawn, threshold) for run in after]
            for name in got:
                each = [
                    np.mean([end[code][name] - base[code][name] for code in base]) for end in ends
                ]
                moved[name].append(each)
        for name, change in got.items():
            table = np.array(moved[name])
            np.testing.assert_allclose(change.runs[:, layer], table[0], atol=1e-12)
            np.testing.assert_allclose(change.estimate[layer], table[0].mean(), atol=1e-12)
            drawn = table[1:].mean(axis=1)
            low, high = np.quantile(drawn, [0.05, 0.95])
            if name in ("reach", "ilo"):  # a union's draws lean: their spread alone counts
                spread = norm.ppf(0.95) * drawn.std()
                low, high = np.clip(table[0].mean() + np.array([-spread, spread]), -1, 1)
            got_ends = [change.low[layer], change.high[layer]]
            np.testing.assert_allclose(got_ends, [low, high], atol=1e-12)  # some are 0


def test_estimate_is_the_difference_of_the_packages_own_scores():
    lang, sent = points(4, 6)
    before, after = random_lists(0, 3, 24, 5), random_lists(1, 3, 24, 5)
    got = score_change(before, [after], lang, sent, groups={"some": ["l1", "l3"]}, samples=5)
    for name in ("bridge", "reach", "ilo"):
        moved = getattr(ilo_scores(after, lang), name) - getattr(ilo_scores(before, lang), name)
        np.testing.assert_allclose(got["all"][name].estimate, moved.mean(1), atol=1e-12)
        np.testing.assert_allclose(got["some"][name].estimate, moved[:, [1, 3]].mean(1), atol=1e-12)
    moved = translation_hit(after, lang, sent) - translation_hit(before, lang, sent)
    np.testing.assert_allclose(got["all"]["translation_hit"].estimate, moved.mean(1), atol=1e-12)
    moved = same_language(after, lang) - same_language(before, lang)
    np.testing.assert_allclose(got["all"]["same_language"].estimate, moved.mean(1), atol=1e-12)


def test_nothing_changed_is_zero_with_no_width():
    lang, sent = points(3, 5)
    lists = random_lists(0, 2, 15, 4)
    for change in score_change(lists, [lists, lists], lang, sent, samples=30)["all"].values():
        assert not change.estimate.any()
        assert not change.low.any()
        assert not change.high.any()


def test_tensors_and_one_layer_will_do():
    lang, sent = points(2, 4)
    before, after = (torch.from_numpy(random_lists(seed, 1, 8, 2)) for seed in (0, 1))
    got = score_change(before[0], [after[0]], lang, sent, threshold=1, samples=3)["all"]
    expected = score_change(before.numpy(), [after], lang, sent, threshold=1, samples=3)["all"]
    assert expected["ilo"].estimate != 0
    for score, change in got.items():
        for name in ("estimate", "low", "high", "runs"):
            np.testing.assert_array_equal(getattr(change, name), getattr(expected[score], name))


@pytest.mark.filterwarnings("error")
def test_a_draw_that_misses_a_language_is_left_out():
    # language b has sentence 0 only, which half of the draws of one of two sentences miss
    lang, sent = ["a", "a", "b"], [0, 1, 0]
    before, after = [[1], [0], [0]], [[2], [0], [0]]
    groups = {"one": ["b"]}
    got = score_change(before, [after], lang, sent, groups=groups, threshold=1, samples=200)
    for group in ("all", "one"):
        bridge = got[group]["bridge"]
        assert np.isfinite([bridge.low, bridge.high]).all()


def arguments(**changes):
    """Of a call of `score_change`, fit to be used but for the changes."""
    lang, sent = points(2, 3)
    lists = random_lists(0, 1, 6, 2)
    return {"before": lists, "after": [lists], "languages": lang, "sentences": sent, **changes}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"after": []}, "at least one run"),
        ({"after": [np.zeros((1, 6, 3), dtype=int)]}, r"after\[0\] must have before's shape"),
        ({"groups": {"x": ["zz"]}}, r"groups\['x'\] must name languages"),
        ({"groups": {"x": []}}, r"groups\['x'\] must name languages"),
        ({"groups": {"x": np.array(["l0", "zz"])}}, r"groups\['x'\] must name languages"),
        ({"groups": {"x": ["l0", "l0"]}}, r"groups\['x'\] must name languages .* each once"),
        ({"samples": 0}, "samples must be"),
        ({"level": 1.0}, "level must lie between 0 and 1"),
        ({"threshold": 0}, "threshold must be at least 1"),
        ({"languages": ["a"] * 6}, "at least 2 languages"),
    ],
)
def test_hostile_input(changes, says):
    with pytest.raises(InputError, match=says):
        score_change(**arguments(**changes))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"after": knn(np.eye(6), 2)}, "after must be a sequence of neighbours.* got Neighbors"),
        ({"after": None}, "after must be a sequence"),
        ({"groups": ["l0"]}, "groups must map names to languages, got list"),
        ({"groups": {"x": "l0"}}, r"groups\['x'\] must be languages, got 'l0'"),
        ({"groups": {"x": None}}, r"groups\['x'\] must be languages, got None"),
    ],
)
def test_runs_and_groups_of_another_form(changes, says):
    with pytest.raises(TypeError, match=says):
        score_change(**arguments(**changes))


def test_runs_as_one_array_and_groups_of_any_sequence():
    lang, sent = points(3, 4)
    before, runs = random_lists(0, 1, 12, 3), np.stack([random_lists(s, 1, 12, 3) for s in (1, 2)])
    expected = score_change(before, list(runs), lang, sent, groups={"x": ["l0", "l2"]}, samples=9)
    for members in (np.array(["l0", "l2"]), iter(["l0", "l2"]), {"l0": 0, "l2": 0}.keys()):
        got = score_change(before, runs, lang, sent, groups={"x": members}, samples=9)
        for name, change in got["x"].items():
            np.testing.assert_array_equal(change.runs, expected["x"][name].runs)
            np.testing.assert_array_equal(change.high, expected["x"][name].high)


@pytest.mark.parametrize("option", ["samples", "threshold", "level"])
def test_options_of_the_wrong_type(option):
    lang, sent = points(2, 3)
    lists = random_lists(0, 1, 6, 2)
    with pytest.raises(TypeError, match=f"{option} must be"):
        score_change(lists, [lists], lang, sent, **{option: "3"})
