"""The same numbers from CUDA tensors as from the host's."""

import numpy as np
import pytest
import torch
from lists_cases import random_lists

from ilo_fast.alignment import (
    bootstrap_intervals,
    fragments,
    hubness,
    ilo_null,
    neighbor_counts,
    pair_scores,
    same_language,
    translation_hit,
    translation_mrr,
)
from ilo_fast.cka import cka, cknna
from ilo_fast.ops.half_products import served_sums
from ilo_fast.overlap import information_imbalance, layer_overlap, second_order_cosine
from ilo_fast.overlap.lists import LIST_METRICS

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def case():
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device: python -m benchmarks gpu")
    generator = np.random.default_rng(0)
    lists = torch.from_numpy(random_lists(generator, 3, 120, 6))
    states = torch.from_numpy(generator.normal(size=(3, 120, 16)) + 2)
    return lists, states, np.repeat(np.arange(6), 20), np.tile(np.arange(20), 6)


@pytest.mark.parametrize("metric", LIST_METRICS)
def test_layer_overlap(case, metric):
    lists = case[0]
    host = layer_overlap(lists, lists[:2], metric=metric, permutations=5)
    device = layer_overlap(lists.cuda(), lists[:2].cuda(), metric=metric, permutations=5)
    np.testing.assert_allclose(device.values, host.values, rtol=1e-12)
    np.testing.assert_allclose(device.calibration.p_value, host.calibration.p_value)
    np.testing.assert_allclose(device.best.null_mean, host.best.null_mean, rtol=1e-12)


def test_scores_of_lists(case):
    lists, _, languages, sentences = case
    on_device = lists.cuda()
    for function, labels in (
        (translation_hit, (languages, sentences)),
        (translation_mrr, (languages, sentences)),
        (same_language, (languages,)),
        (neighbor_counts, (languages,)),
    ):
        expected = function(lists, *labels)
        np.testing.assert_allclose(function(on_device, *labels), expected, rtol=1e-12)
    np.testing.assert_array_equal(hubness(on_device).skewness, hubness(lists).skewness)
    one, two = fragments(on_device, languages), fragments(lists, languages)
    np.testing.assert_array_equal(one.bridges, two.bridges)
    null, host_null = (ilo_null(x, languages, permutations=9) for x in (on_device, lists))
    np.testing.assert_array_equal(null.ilo.p_value, host_null.ilo.p_value)
    interval = bootstrap_intervals(on_device, languages, sentences, samples=20)
    host_interval = bootstrap_intervals(lists, languages, sentences, samples=20)
    np.testing.assert_allclose(interval.ilo.low, host_interval.ilo.low, rtol=1e-12)


def test_scores_of_states(case):
    lists, states, languages, sentences = case
    near, there = lists.cuda(), states.cuda()
    one, two = (pair_scores(x, languages, sentences) for x in (there, states))
    for name in ("retrieval", "xsim_ratio", "xsim_distance", "csls", "mexa"):
        np.testing.assert_allclose(getattr(one, name), getattr(two, name))
    for function, device, host in (
        (information_imbalance, (near, there), (lists, states)),
        (second_order_cosine, (there, there, near, near), (states, states, lists, lists)),
        (cka, (there, there), (states, states)),
        (cknna, (there, there, near, near), (states, states, lists, lists)),
    ):
        np.testing.assert_allclose(function(*device), function(*host), rtol=1e-9)


def test_pair_scores_from_float16_products(case):
    """Enough sentences for bounds to decide: what the matrix units leave open, float64 settles."""
    assert served_sums(torch.device("cuda", torch.cuda.current_device())) is not None
    generator = np.random.default_rng(1)
    shared = generator.normal(size=(1, 256, 40))
    states = shared + 0.8 * generator.normal(size=(2, 256, 40))
    states[:, :, 5] += 80
    states[1, :40] = states[0, :40] * (1 + 1e-7 * generator.normal(size=(40, 40)))
    states[1, 47] = 0
    x = torch.from_numpy(states.reshape(-1, 40))
    labels = np.repeat(np.arange(2), 256), np.tile(np.arange(256), 2)
    one, two = pair_scores(x.cuda(), *labels), pair_scores(x, *labels)
    for name in ("retrieval", "xsim_ratio", "xsim_distance", "csls", "mexa"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name))
    assert 0 < two.retrieval[0, 0, 1] < 1
