"""DADApy in its own environment (numpy below 2)."""

import numpy as np
import pytest
from adapter_cases import brute_force, hidden_like

pytest.importorskip("dadapy", reason="needs dadapy: make test-adapters")

from dadapy import Data
from dadapy.metric_comparisons import MetricComparisons

from ilo_fast import knn
from ilo_fast.adapters.dadapy import distances, information_imbalance
from ilo_fast.overlap import label_overlap, mutual_knn

pytestmark = pytest.mark.adapters
MAXK = 20


@pytest.fixture(scope="module")
def spaces():
    x, group = hidden_like(300, 12, massive=1.0)
    y = np.tanh(0.5 * x[:, :7]) + 0.2 * np.random.default_rng(0).normal(size=(300, 7))
    return x.astype(np.float64), y, group


def test_distances_are_theirs(spaces):
    x, _, _ = spaces
    theirs = Data(x, maxk=MAXK)
    theirs.compute_distances(maxk=MAXK)
    near, indices = distances(x, MAXK)
    np.testing.assert_array_equal(indices, theirs.dist_indices)
    np.testing.assert_allclose(near, theirs.distances, rtol=1e-6)
    np.testing.assert_array_equal(indices[:, 1:], brute_force(x, MAXK, "euclidean"))


def test_intrinsic_dimension_from_our_distances(spaces):
    x, _, _ = spaces
    ours = Data(distances=distances(x, MAXK), maxk=MAXK)
    theirs = Data(x, maxk=MAXK)
    theirs.compute_distances(maxk=MAXK)
    np.testing.assert_allclose(ours.compute_id_2NN()[0], theirs.compute_id_2NN()[0], rtol=1e-3)


@pytest.mark.parametrize("k", [5, MAXK])
def test_data_overlap(spaces, k):
    x, y, _ = spaces
    expected = MetricComparisons(x, maxk=MAXK).return_data_overlap(coordinates=y, k=k)
    ours = MetricComparisons(distances=distances(x, MAXK), maxk=MAXK)
    found = ours.return_data_overlap(dist_indices=distances(y, k)[1], k=k)
    assert found == pytest.approx(expected, abs=1e-12)
    assert mutual_knn(knn(x, k, metric="euclidean"), knn(y, k, metric="euclidean")) == (
        pytest.approx(expected)
    )


def test_label_overlap(spaces):
    x, _, group = spaces
    expected = MetricComparisons(x, maxk=MAXK).return_label_overlap(group, k=6)
    ours = MetricComparisons(distances=distances(x, MAXK), maxk=MAXK)
    assert ours.return_label_overlap(group, k=6) == pytest.approx(expected)
    assert label_overlap(knn(x, 6, metric="euclidean"), group) == pytest.approx(expected)


@pytest.mark.parametrize("k", [1, 3])
def test_information_imbalance(spaces, k):
    x, y, _ = spaces
    there, back = MetricComparisons(x).return_information_imbalace(y, k=k, subset_size=300)
    assert information_imbalance(x, y, k) == pytest.approx((there[0], back[0]))
