"""Ours against the public code of the papers, on the same float64 points."""

import numpy as np
import peers
import pytest
import torch

from ilo_fast import knn
from ilo_fast.cka import cka, cknna
from ilo_fast.overlap import (
    cycle_knn,
    edit_distance_knn,
    information_imbalance,
    jaccard,
    label_overlap,
    layer_overlap,
    lcs_knn,
    mutual_knn,
    rank_similarity,
    second_order_cosine,
)

pytestmark = pytest.mark.adapters

N, K = 150, 10


@pytest.fixture(params=["random", "real"])
def spaces(request):
    """Two spaces that share some structure, with the crowded cosines of hidden states."""
    if request.param == "real":
        states, _, _ = peers.real_states()
        middle, end = states[len(states) // 2], states[-2]
        # identical sentences tie, and the peers order ties as they fall
        _, once = np.unique(end, axis=0, return_index=True)
        points = np.random.default_rng(0).permutation(once)[:N]
        return middle[points].astype(np.float64), end[points].astype(np.float64)
    generator = np.random.default_rng(0)
    x = generator.normal(size=(N, 24)) + 4
    y = x @ generator.normal(size=(24, 16)) / 5 + 0.5 * generator.normal(size=(N, 16))
    return x, y


def unit(x):
    return torch.from_numpy(x / np.linalg.norm(x, axis=1, keepdims=True))


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("mutual_knn", mutual_knn),
        ("cycle_knn", cycle_knn),
        ("lcs_knn", lcs_knn),
        ("edit_distance_knn", edit_distance_knn),
    ],
)
def test_platonic_neighbour_metrics(spaces, name, ours):
    x, y = spaces
    measure = peers.platonic().AlignmentMetrics.measure
    expected = measure(name, unit(x), unit(y), topk=K)
    np.testing.assert_allclose(ours(knn(x, K), knn(y, K)), [float(expected)], rtol=1e-6)
    itself = measure(name, unit(x), unit(x), topk=K)
    np.testing.assert_allclose(ours(knn(x, K), knn(x, K)), [float(itself)], rtol=1e-6)


def test_platonic_cka(spaces):
    x, y = map(torch.from_numpy, spaces)
    metrics = peers.platonic().AlignmentMetrics
    # their denominator has 1e-6 added, against kernels of thousands
    np.testing.assert_allclose(cka(x, y), [[metrics.cka(x, y)]], rtol=1e-7)
    unbiased = metrics.unbiased_cka(x, y)
    np.testing.assert_allclose(cka(x, y, unbiased=True), [[unbiased]], rtol=1e-6)


def test_platonic_cknna(spaces):
    x, y = spaces
    expected = peers.platonic().AlignmentMetrics.cknna(
        torch.from_numpy(x), torch.from_numpy(y), topk=K
    )
    a, b = (knn(z, K, metric="inner_product") for z in spaces)
    got = cknna(x, y, a, b, normalize=False)
    np.testing.assert_allclose(got, [expected], rtol=1e-5)


def test_resi(spaces):
    x, y = spaces
    resi = peers.resi("nearest_neighbor")
    a, b = knn(x, K), knn(y, K)
    for theirs, ours in (
        (resi.jaccard_similarity, jaccard(a, b)),
        (resi.rank_similarity, rank_similarity(a, b)),
        (resi.second_order_cosine_similarity, second_order_cosine(x, y, a, b)),
    ):
        np.testing.assert_allclose(ours, [theirs(x, y, "nd", k=K)], rtol=1e-8)


def test_resi_cka(spaces):
    x, y = spaces
    expected = peers.resi("cka").centered_kernel_alignment(x, y, "nd")
    np.testing.assert_allclose(cka(x, y), [[expected]], rtol=1e-8)


def test_dadapy(spaces):
    x, y = spaces
    theirs = peers.dadapy(x, K)
    a, b = knn(x, K, metric="euclidean"), knn(y, K, metric="euclidean")
    overlap = theirs.return_data_overlap(coordinates=y, k=K, use_cython=False)
    np.testing.assert_allclose(mutual_knn(a, b), [overlap])
    labels = np.random.default_rng(1).integers(0, 5, size=N) ** 2 % 4
    for weighted in (True, False):
        expected = theirs.return_label_overlap(labels, k=K, weighted=weighted)
        np.testing.assert_allclose(label_overlap(a, labels, weighted=weighted), [expected])
    for k in (1, 3):
        (there, _), (back, _) = theirs.return_information_imbalace(y, k=k)
        got = information_imbalance(a.indices[..., :k], y, metric="euclidean")
        np.testing.assert_allclose(got, [there])
        got = information_imbalance(b.indices[..., :k], x, metric="euclidean")
        np.testing.assert_allclose(got, [back])


def test_calibrated_similarity(spaces):
    package = pytest.importorskip(
        "calibrated_similarity", reason="needs calibrated-similarity: make test-adapters"
    )
    x, y = (torch.from_numpy(z) for z in spaces)
    other = torch.from_numpy(np.random.default_rng(5).normal(size=(N, 8)))

    def mutual(one, two):
        return float(mutual_knn(knn(one, K), knn(two, K))[0])

    from ilo_fast.calibration import draw_permutations

    for target in (y, other):
        draws = iter(draw_permutations(N, 19, seed=3))
        score, p, tau = package.calibrate(
            x,
            target,
            mutual,
            K=19,
            perm_fn=lambda n, device, draws=draws: torch.from_numpy(next(draws)),
        )
        got = layer_overlap(knn(x, K), knn(target, K), permutations=19, seed=3).calibration
        np.testing.assert_allclose(got.score, [[float(score)]], atol=1e-6)
        np.testing.assert_allclose(got.p_value, [[float(p)]], atol=1e-6)
        np.testing.assert_allclose(got.threshold, [[float(tau)]], atol=1e-6)
    draws = iter(draw_permutations(N, 19, seed=3))
    score, p, tau = package.calibrate_layers(
        [x, other], [y], mutual, K=19, perm_fn=lambda n, device: torch.from_numpy(next(draws))
    )
    layers = np.stack([np.asarray(knn(z, K).indices) for z in (x, other)])
    best = layer_overlap(layers, knn(y, K), permutations=19, seed=3).best
    np.testing.assert_allclose(
        [best.score, best.p_value, best.threshold], [score, p, tau], atol=1e-6
    )
