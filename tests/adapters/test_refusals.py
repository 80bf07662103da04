"""What the adapters that import nothing of their tools refuse, and whose argument they name."""

import numpy as np
import pytest
import torch

from ilo_fast.adapters import calibrated_similarity
from ilo_fast.adapters.dadapy import distances, information_imbalance

X = np.random.default_rng(0).normal(size=(30, 4))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        # a point is not at distance 0 from itself there, nor its own nearest
        (lambda: distances(X, 5, "inner_product"), ValueError, "metric must be 'euclidean' or"),
        (lambda: distances(X, 30), ValueError, "maxk must be 0 to 29; got 30"),
        (lambda: distances(X, -1), ValueError, "maxk must be 0 to 29; got -1"),
        (lambda: distances(X, 2.5), TypeError, "maxk must be an integer; got 2.5"),
        (lambda: distances([["a"]], 1), TypeError, "X must be a dense array of numbers"),
        (lambda: distances(X.astype(np.longdouble), 1), TypeError, "X must be float16, .*; got"),
        (lambda: distances(X[None], 1), ValueError, r"X must be \[n, d\]; got shape \[1, 30, 4\]"),
        (
            lambda: information_imbalance(X, X[0]),
            ValueError,
            r"Y must be \[n, d\]; got shape \[4\]",
        ),
        # it gave the first layer's
        (lambda: information_imbalance(X[None], X[None]), ValueError, r"X must be \[n, d\]; got"),
        (lambda: information_imbalance(X, X[:9]), ValueError, "must have the neighbours' layers"),
        (lambda: information_imbalance(X, X, 30), ValueError, "k must be between 1 and 29"),
        (lambda: information_imbalance(X, X, metric="l1"), ValueError, "metric must be one of"),
    ],
)
def test_dadapy(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_dadapy_a_point_alone():
    near, indices = distances(X, 0)
    assert near.tolist() == [[0.0]] * 30
    assert indices[:, 0].tolist() == list(range(30))


@pytest.mark.parametrize("sim", ["rsa", "second_order_cosine", max])
def test_calibrated_similarity(sim):
    """Before any search, and not as its metric, which is that of the neighbours."""
    x = torch.from_numpy(X.copy())
    x[0] = torch.nan
    with pytest.raises(ValueError, match=r"^sim must be cka or one of mutual_knn, .*; got "):
        calibrated_similarity.calibrate(x, x, sim, K=1)


@pytest.mark.parametrize("sim", ["mutual_knn", "jaccard", "cka"])
def test_calibrated_similarity_takes_permutations_only(sim):
    """Lists are relabelled by them; of anything else mutual k-NN gave a number all the same."""
    x, y = torch.from_numpy(X), torch.from_numpy(X[:, :2] + 0.1)
    options = {"K": 3, "topk": 4}
    turned = calibrated_similarity.calibrate(
        x, y, sim, perm_fn=lambda n, _: range(n)[::-1], **options
    )
    again = calibrated_similarity.calibrate(
        x, y, sim, perm_fn=lambda n, _: torch.arange(n).flip(0), **options
    )
    assert turned == again
    for wrong in (torch.zeros(30, dtype=torch.int64), torch.arange(29), torch.arange(30.0)):
        with pytest.raises(ValueError, match="perm_fn must give a permutation of 0 … 29"):
            calibrated_similarity.calibrate(x, y, sim, perm_fn=lambda *_: wrong, **options)  # noqa: B023
