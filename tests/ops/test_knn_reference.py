"""Reference mode: the public code's lists, quirks and all, from a plain float32 computation."""

import numpy as np
import pytest
import torch

from ilo_fast import knn
from ilo_fast.ops import knn_reference


def published(x, k, metric):
    """One float32 matrix, k + 1 smallest, first column dropped."""
    x = torch.as_tensor(x).float()
    if metric == "euclidean":
        distances = torch.cdist(x, x)
    else:
        unit = torch.nn.functional.normalize(x, dim=1)
        distances = 1 - unit @ unit.T
    order = torch.topk(-distances, k + 1, dim=1).indices[:, 1:]
    return order.numpy(), np.take_along_axis(distances.numpy(), order.numpy(), axis=1)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("n", [12, 25, 26, 300])
def test_lists_of_the_published_method(metric, n):
    x = np.random.default_rng(n).normal(size=(n, 8)).astype(np.float32) + 1
    found = knn(x, 5, metric=metric, backend="reference")
    indices, distances = published(x, 5, metric)
    np.testing.assert_array_equal(found.indices, indices)
    np.testing.assert_allclose(found.distances, distances, rtol=1e-5, atol=1e-6)
    assert found.backend == "reference"
    assert not found.certified.any()
    assert found.stats.method == ("reference",)


def test_a_copy_takes_the_place_of_self():
    """What the first column drops need not be the point itself."""
    x = np.random.default_rng(0).normal(size=(10, 4))
    x[5] = x[6] = x[2]
    found = knn(x, 3, backend="reference")
    assert any(i in found.indices[i] for i in (2, 5, 6))
    assert not any(i in knn(x, 3).indices[i] for i in (2, 5, 6))


def test_strips_give_the_same_lists(monkeypatch):
    x = np.random.default_rng(1).normal(size=(2, 100, 16))
    expected = knn(x, 4, backend="reference")
    monkeypatch.setattr(knn_reference, "_STRIP_BYTES", 8 * 100 * 9)
    found = knn(x, 4, backend="reference")
    np.testing.assert_array_equal(found.indices, expected.indices)
