"""pytorch-metric-learning's AccuracyCalculator."""

import numpy as np
import pytest
import torch
from adapter_cases import brute_force, hidden_like

pytest.importorskip(
    "pytorch_metric_learning", reason="needs pytorch-metric-learning: make test-adapters"
)

from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
from pytorch_metric_learning.utils.inference import FaissKNN

from ilo_fast.adapters.pytorch_metric_learning import ExactKNN

pytestmark = pytest.mark.adapters


@pytest.fixture(scope="module")
def space():
    points, group = hidden_like(400, 24, massive=5.0)
    return torch.from_numpy(points), torch.from_numpy(group)


def accuracies(knn_func, *arguments):
    # its clustering scores start from random centres: leave them out
    exclude = ("NMI", "AMI")
    calculator = AccuracyCalculator(
        exclude=exclude, k=20, knn_func=knn_func, device=torch.device("cpu")
    )
    return calculator.get_accuracy(*arguments)


def test_same_accuracies_within_a_set(space):
    points, group = space
    assert accuracies(ExactKNN(), points, group) == pytest.approx(
        accuracies(FaissKNN(), points, group)
    )


def test_same_accuracies_between_sets(space):
    points, group = space
    for includes in (False, True):
        arguments = (points[:90], group[:90], points, group, includes)
        assert accuracies(ExactKNN(), *arguments) == pytest.approx(
            accuracies(FaissKNN(), *arguments)
        )


@pytest.mark.parametrize("queries", [400, 90])
def test_values_and_self(space, queries):
    points, _ = space
    values, indices = ExactKNN()(points[:queries], 7, points, True)
    theirs, their_indices = FaissKNN()(points[:queries], 7, points, True)
    np.testing.assert_array_equal(indices, brute_force(points.numpy(), 7, "euclidean")[:queries])
    torch.testing.assert_close(values, theirs, rtol=1e-3, atol=1e-3)
    assert (indices == their_indices).float().mean() > 0.99
    assert (values[:, 1:] >= values[:, :-1]).all()


def test_copies_keep_k_neighbours_and_never_self():
    points = torch.ones(12, 3)
    for queries in (12, 5):
        _, indices = ExactKNN("inner_product")(points[:queries], 4, points, True)
        assert indices.shape == (queries, 4)
        assert (indices != torch.arange(queries)[:, None]).all()
        assert all(len(set(row)) == 4 for row in indices.tolist())


def test_similarities(space):
    points, _ = space
    values, indices = ExactKNN("cosine")(points[:3], 2, points)
    expected = torch.nn.functional.cosine_similarity(points[:3, None], points[indices], dim=2)
    torch.testing.assert_close(values, expected, rtol=1e-5, atol=1e-6)
