"""Points as vectors: the check on the way in, however they are cut up for it; rows of length 1."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ilo_fast import cka, overlap, vectors
from ilo_fast.errors import HiddenStateError
from ilo_fast.vectors import rounding_tolerance, state_layers, unit_rows


@pytest.mark.parametrize("elements", [1, 50, 333, 10**6])
def test_any_cut_gives_the_same(elements, monkeypatch):
    monkeypatch.setattr(vectors, "_CHECK_ELEMENTS", {"cpu": elements, "cuda": elements})
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(17, 5, 9, generator=generator).transpose(0, 1)[..., :7]
    assert torch.equal(vectors.row_max(states, False), states.abs().amax(2).double())
    states = states.contiguous()
    states[3, 2, 1] = torch.nan
    with pytest.raises(HiddenStateError, match="found NaN in layer 3, row 2"):
        vectors.row_max(states, False)


def test_large_finite_states_pass_and_infinite_ones_are_found_where_they_are():
    huge = np.full((2, 3), 1e308)  # a sum of them is infinite; they are not
    assert state_layers(huge).shape == (1, 2, 3)
    both = np.zeros((2, 4, 3))
    both[1, 2] = [np.inf, -np.inf, 0]
    with pytest.raises(HiddenStateError, match="layer 1, row 2"):
        state_layers(both)


def test_tables_are_refused_as_knn_refuses_them():
    table = pd.DataFrame({"layer": [1.0, 1.0, 2.0], "x": [0.5, 0.1, 0.2]})  # one is no dimension
    with pytest.raises(TypeError, match=r"x must be an array; got DataFrame \(pass x.to_numpy"):
        cka.cka(table, table)
    with pytest.raises(TypeError, match="states must be an array; got DataFrame"):
        overlap.information_imbalance([[1], [0], [0]], table)
    numbers = table[["x"]].to_numpy()
    assert cka.cka(numbers, numbers) == pytest.approx(1)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 6), st.integers(1, 50), st.integers(-300, 300), st.integers(0, 2**32 - 1))
def test_unit_rows_have_length_one_at_any_scale(n, d, power, seed):
    rows = np.random.default_rng(seed).normal(size=(n, d)) + 0.01
    got = unit_rows(torch.from_numpy(rows * 10.0**power)).numpy()
    np.testing.assert_allclose(got, rows / np.linalg.norm(rows, axis=1, keepdims=True), rtol=1e-12)


def test_zero_rows_stay_zero():
    assert unit_rows(torch.zeros(2, 3)).tolist() == [[0.0] * 3] * 2


@pytest.mark.parametrize("d", [3, 64, 640])
def test_equal_cosines_are_within_the_tolerance(d):
    """Scaled copies of a row have one cosine with anything; computed ones differ by less."""
    generator = np.random.default_rng(d)
    row, others = generator.normal(size=d), generator.normal(size=(50, d)) + 3
    copies = row * generator.uniform(1e-3, 1e3, size=(200, 1))
    cosines = unit_rows(torch.from_numpy(copies)) @ unit_rows(torch.from_numpy(others)).T
    assert float((cosines.amax(0) - cosines.amin(0)).max()) <= rounding_tolerance(d)


def test_states_with_a_gradient_are_read_without_it():
    states = torch.randn(4, 3, requires_grad=True)
    assert not state_layers(states).requires_grad
    with pytest.raises(ValueError, match="states must be an array, got list"):
        state_layers([states])


def test_floating_types_that_nothing_computes_with_are_named():
    with pytest.raises(ValueError, match=r"states must hold floating-point .* torch.float8_e4m3fn"):
        state_layers(torch.eye(3).to(torch.float8_e4m3fn))
