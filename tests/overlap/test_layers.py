import numpy as np
import pytest
import torch
from hypothesis import given, settings
from lists_cases import problems, random_lists

from ilo_fast import knn, overlap
from ilo_fast.calibration import calibrate, draw_permutations
from ilo_fast.ops.intersect import intersection_sizes
from ilo_fast.overlap import join, layer_overlap, mutual_knn, relabel
from ilo_fast.overlap.lists import LIST_METRICS


@settings(max_examples=40, deadline=None)
@given(problems(layers=3))
def test_every_entry_is_the_metric_of_its_two_layers(problem):
    a, b = problem[0][:2], problem[0]
    for metric in LIST_METRICS:
        function = getattr(overlap, metric)
        expected = [[function(one, two)[0] for two in b] for one in a]
        np.testing.assert_allclose(layer_overlap(a, b, metric=metric).values, expected, atol=1e-12)


def test_one_set_meets_itself():
    lists = random_lists(np.random.default_rng(0), 4, 30, 5)
    got = layer_overlap(lists)
    np.testing.assert_array_equal(np.diag(got.values), np.ones(4))
    np.testing.assert_array_equal(got.values, got.values.T)
    assert (got.n, got.k, got.metric, got.calibration, got.best) == (
        30,
        5,
        "mutual_knn",
        None,
        None,
    )


def test_relabelled_lists_are_those_of_permuted_points():
    x = np.random.default_rng(0).normal(size=(2, 30, 4))
    order = np.random.default_rng(1).permutation(30)
    expected = knn(x[:, order], 5).indices
    for kind in (np.int64, np.int32, np.uint8):
        np.testing.assert_array_equal(relabel(knn(x, 5), order.astype(kind)), expected)
    np.testing.assert_array_equal(relabel(knn(x, 5), torch.from_numpy(order)), expected)


@pytest.mark.parametrize("metric", LIST_METRICS)
def test_the_null_is_that_of_permuted_points(metric):
    generator = np.random.default_rng(0)
    x = generator.normal(size=(2, 24, 3))
    y = x[[0, 1, 0]] + generator.normal(size=(3, 24, 3)) * np.array([0.1, 0.5, 3])[:, None, None]
    a, b = knn(x, 4), knn(y, 4)
    got = layer_overlap(a, b, metric=metric, permutations=9, alpha=0.1, seed=4)
    function = getattr(overlap, metric)
    null = [
        [[function(one, two)[0] for two in knn(y[:, order], 4).indices] for one in a.indices]
        for order in draw_permutations(24, 9, seed=4)
    ]
    ceiling = 4 if metric == "lcs_knn" else 1
    expected = calibrate(got.values, null, alpha=0.1, ceiling=ceiling)
    for field in ("score", "p_value", "threshold", "null_mean", "null_std"):
        np.testing.assert_allclose(
            getattr(got.calibration, field), getattr(expected, field), atol=1e-12
        )
    best = calibrate(got.values.max(), np.max(null, axis=(1, 2)), alpha=0.1, ceiling=ceiling)
    np.testing.assert_allclose(got.best.p_value, best.p_value)
    np.testing.assert_allclose(got.best.score, best.score)
    assert got.calibration.p_value[0, 0] == 0.1  # y's first layer is x's first, hardly moved


@pytest.mark.parametrize(("metric", "whole"), [("jaccard", 60), ("edit_distance_knn", 3)])
def test_draws_equal_to_the_score_count_though_added_in_another_order(metric, whole):
    """Few points and neighbours: draws often have the very score. `whole` of it are a number."""
    generator = np.random.default_rng(2)
    for seed in range(20):
        a, b = (random_lists(generator, 1, 7, 3) for _ in range(2))
        got = layer_overlap(a, b, metric=metric, permutations=19, seed=seed)
        moved = [relabel(b, order) for order in draw_permutations(7, 19, seed)]
        exact = [round(7 * whole * getattr(overlap, metric)(a, lists)[0]) for lists in (b, *moved)]
        observed, null = exact[0], np.array(exact[1:])
        for found in (got.calibration, got.best):
            assert float(found.p_value.item()) == (1 + (null >= observed).sum()) / 20
            assert float(found.p_lower.item()) == (1 + (null <= observed).sum()) / 20


def test_unrelated_spaces_score_nothing_related_ones_do():
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(2, 3, 80, 5))
    chance = layer_overlap(knn(x, 5), knn(y, 5), permutations=99)
    assert chance.best.p_value > 0.01
    assert (chance.calibration.score < 0.1).all()
    np.testing.assert_allclose(chance.calibration.null_mean, 5 / 79, atol=0.01)
    kin = layer_overlap(knn(x, 5), knn(x + 0.1 * y, 5), permutations=99)
    assert kin.best.p_value == 0.01
    assert (np.diag(kin.calibration.score) > 0.3).all()


@pytest.mark.parametrize("bits", [3, 5, 28])
@pytest.mark.parametrize("chunk", [7, 2**20])
def test_the_join_is_right_whatever_its_table_and_chunks(bits, chunk, monkeypatch):
    monkeypatch.setattr(join, "_MOST_BITS", bits)
    monkeypatch.setattr(join, "_CHUNK", chunk)
    generator = np.random.default_rng(0)
    a, b = random_lists(generator, 2, 20, 4), random_lists(generator, 3, 20, 4)
    order = generator.permutation(20)
    joined = join.LayerJoin(a, b)
    expected = [[mutual_knn(one, two)[0] * 80 for two in b] for one in a]
    np.testing.assert_allclose(joined.common(), expected)
    moved = relabel(b, order)
    expected = [[mutual_knn(one, two)[0] * 80 for two in moved] for one in a]
    np.testing.assert_allclose(joined.common(order), expected)


def test_more_layers_than_bits_of_a_word():
    lists = random_lists(np.random.default_rng(0), 70, 12, 2)
    got = layer_overlap(lists, lists[:3])
    assert got.values.shape == (70, 3)
    np.testing.assert_allclose(got.values[65, 2], mutual_knn(lists[65], lists[2])[0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"metric": "cka"}, "metric must be one of"),
        ({"metric": "second_order_cosine"}, "metric must be one of"),
        ({"metric": "information_imbalance"}, "metric must be one of"),
        ({"permutations": -1}, "permutations"),
        ({"permutations": 2, "alpha": 1.5}, "alpha"),
        ({"alpha": 1.5}, "alpha"),  # before anything is scored
        ({"b": [[1, 2], [0, 2], [0, 1]]}, "same points and k"),
    ],
)
def test_bad_input(change, message):
    arguments = {"a": [[1], [0], [0]], "b": [[1], [2], [0]]} | change
    with pytest.raises(ValueError, match=message):
        layer_overlap(**arguments)


def test_a_metric_that_is_no_name():
    with pytest.raises(TypeError, match=r"metric must be one of .*; got list"):
        layer_overlap([[1], [0], [0]], metric=["jaccard"])


@pytest.mark.parametrize("permutations", [1.5, False, None, [1, 2]])
def test_a_number_of_permutations_that_is_not_whole(permutations):
    with pytest.raises(TypeError, match="permutations must be an integer"):
        layer_overlap([[1], [0]], [[1], [0]], permutations=permutations)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "order", [[0, 0, 1], [0, 1], [1, 2, 3], [0.0, 1.0, 2.0], [0j, 1, 2], [[0, 1, 2]]]
)
def test_an_order_that_is_no_permutation_is_refused(order):
    with pytest.raises(ValueError, match="permutation"):
        relabel(torch.tensor([[1], [0], [0]]), order)


def test_a_mask_is_no_permutation():
    with pytest.raises(ValueError, match=r"permutation of 0 … 1"):
        relabel([[1], [0]], [False, True])


@pytest.mark.parametrize("layers", [(3, 2), (1, 2), (2, 1), (1, 1)])
def test_the_join_and_the_kernel_truth_count_alike(layers):
    generator = np.random.default_rng(0)
    a, b = (torch.from_numpy(random_lists(generator, count, 50, 6)) for count in layers)
    joined = join.LayerJoin(a.numpy(), b.numpy())
    np.testing.assert_array_equal(joined.common(), intersection_sizes(a, b).numpy())
    order = generator.permutation(50)
    np.testing.assert_array_equal(
        joined.common(order), intersection_sizes(a, relabel(b, order)).numpy()
    )
