"""Neighbours of platonic-rep's features are searched once a tensor, and anew when it changes."""

import gc

import pytest
import torch

from ilo_fast import knn
from ilo_fast.adapters import _shared, platonic


@pytest.fixture
def calls(monkeypatch):
    torch.manual_seed(0)
    seen = []

    def counted(x, k, **options):
        seen.append(k)
        return knn(x, k, **options)

    monkeypatch.setattr(_shared, "knn", counted)
    return seen


def test_once_a_tensor_and_k(calls):
    x, y = torch.randn(2, 20, 6)
    searched = platonic._Searched()
    for _ in range(3):
        for tensor, k in ((x, 3), (y, 3), (x, 4)):
            expected = knn(tensor, k, metric="inner_product").indices
            assert torch.equal(searched(tensor, k)[0], expected)
    assert calls == [3, 3, 4]


def test_anew_after_a_change(calls):
    x = torch.randn(20, 6)
    searched = platonic._Searched()
    searched(x, 3)
    x[0] *= -5
    assert torch.equal(searched(x, 3)[0], knn(x, 3, metric="inner_product").indices)
    assert calls == [3, 3]


def test_anew_after_data_is_assigned(calls):
    x = torch.randn(20, 6)
    searched = platonic._Searched()
    for data in (torch.randn(20, 6), x.data.flip(1), torch.randn(30, 6), x.data.double() ** 3):
        searched(x, 3)
        x.data = data
        assert torch.equal(searched(x, 3)[0], knn(x, 3, metric="inner_product").indices)


def test_tensors_that_hide_their_changes_are_not_kept(calls):
    with torch.inference_mode():
        x = torch.randn(20, 6)
        searched = platonic._Searched()
        searched(x, 3)
        x.neg_()
        assert torch.equal(searched(x, 3)[0], knn(x, 3, metric="inner_product").indices)
    assert calls == [3, 3]


def test_nothing_outlives_its_tensor():
    searched = platonic._Searched()
    searched(torch.randn(20, 6), 3)
    gc.collect()
    assert len(searched._kept) == 0


def test_no_alignment_where_no_score_is_a_number(monkeypatch):
    x, y = torch.randn(2, 20, 2, 4)
    monkeypatch.setattr(platonic, "_alignment", lambda one, two: float("nan"))
    assert platonic.compute_score(x, y, "cknna", 5) == (0, None)


@pytest.mark.parametrize("metric", ["cknna", "mutual_knn"])
def test_features_that_take_gradients(metric):
    x, y = (torch.randn(40, d, generator=torch.Generator().manual_seed(d)) for d in (5, 7))
    expected = platonic.compute_score([x], [y], metric, 5)
    assert platonic.compute_score([x.requires_grad_()], [y], metric, 5) == expected
