from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ilo_fast.alignment import csls_retrieval, mexa, retrieval, xsim_error
from ilo_fast.alignment.winners import block_hits, scores_of_hits
from ilo_fast.vectors import rounding_tolerance

SIMILARITY = np.array([[0.9, 0.5, 0.1], [0.8, 0.6, 0.2], [0.3, 0.65, 0.7]])


def test_by_hand():
    # row 1's largest is column 0; MEXA also loses row 1 and nothing by columns
    assert retrieval(SIMILARITY) == pytest.approx(2 / 3)
    assert retrieval(SIMILARITY.T) == pytest.approx(2 / 3)  # column 1: 0.65 > 0.6
    assert mexa(SIMILARITY) == pytest.approx(2 / 3)
    # k = 1: r = .9 .8 .7, c = .9 .65 .7; a row has one candidate, its largest
    assert xsim_error(SIMILARITY, k=1) == pytest.approx(1 / 3)
    # k = 3: r = .5 .5333 .55, c = .6667 .5833 .3333; row 1 ratios: .8/.6 = 1.333,
    # .6/.5583 = 1.075, .2/.4333 = .46: wrong; row 2: .3/.6083, .65/.5667 = 1.147, .7/.4417 = 1.585
    assert xsim_error(SIMILARITY, k=3) == pytest.approx(1 / 3)
    # distance, row 1: .2, .0417, -.233: wrong; row 0: .3167, -.0417, -.3167
    assert xsim_error(SIMILARITY, k=3, margin="distance") == pytest.approx(1 / 3)
    # CSLS k = 1, row 1: 1.6 - .9 = .7, 1.2 - .65 = .55: wrong; row 0: .9, .35
    assert csls_retrieval(SIMILARITY, k=1) == pytest.approx(2 / 3)


def test_the_margin_mends_a_hub():
    # column 0 is near everything; only margins find the diagonal
    hub = np.array([[0.9, 0.2, 0.2], [0.85, 0.8, 0.2], [0.85, 0.2, 0.8]])
    assert retrieval(hub) == pytest.approx(1 / 3)
    for margin in ("ratio", "distance"):
        assert xsim_error(hub, k=2, margin=margin) == 0
    assert csls_retrieval(hub, k=2) == 1


def test_ties_go_to_the_lower_sentence_and_mexa_is_strict():
    level = np.full((2, 2), 0.5)
    assert retrieval(level) == 0.5
    assert mexa(level) == 0
    nearly = np.array([[0.5, 0.5 + 1e-15], [0.1, 0.5]])
    assert retrieval(nearly) == 0.5
    assert retrieval(nearly, tolerance=1e-12) == 1
    assert mexa(nearly.T, tolerance=1e-12) == 0
    # the first row ties along itself alone, the second along its column alone
    assert mexa([[0.9, 0.85], [0.1, 0.9]], tolerance=0.1) == 0
    assert xsim_error(level, k=1) == 0.5


def test_k_may_be_of_numpy():
    assert xsim_error(SIMILARITY, k=np.int64(1)) == xsim_error(SIMILARITY, k=1)


def test_a_zero_denominator_gives_ratio_zero():
    assert xsim_error(np.zeros((2, 2)), k=2) == 0.5
    assert xsim_error(np.array([[1.0, -1.0], [-1.0, 1.0]]), k=2) in (0.5, 0.0)


def plain(matrix, k, csls_k):
    """Every score of one matrix, row by row, with Python's own sums; no tolerance."""
    size = len(matrix)
    hits = dict.fromkeys(("retrieval", "ratio", "distance", "csls", "mexa"), 0)
    mean = {
        (kk, axis): np.sort(matrix, axis=axis).take(range(size - kk, size), axis).mean(axis)
        for kk in (k, csls_k)
        for axis in (0, 1)
    }
    for i in range(size):
        row = matrix[i]
        hits["retrieval"] += int(np.argmax(row) == i)
        others = np.concatenate([np.delete(row, i), np.delete(matrix[:, i], i)])
        hits["mexa"] += int((row[i] > others).all())
        near = np.flatnonzero(row >= np.sort(row)[-k])
        half = (mean[k, 1][i] + mean[k, 0][near]) / 2
        hits["ratio"] += int(near[np.argmax(row[near] / half)] == i)
        hits["distance"] += int(near[np.argmax(row[near] - half)] == i)
        hits["csls"] += int(np.argmax(2 * row - mean[csls_k, 1][i] - mean[csls_k, 0]) == i)
    return {name: count / size for name, count in hits.items()}


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 14), st.integers(0, 2**32 - 1), st.data())
def test_against_the_plain_definitions(size, seed, data):
    k = data.draw(st.integers(1, size))
    csls_k = data.draw(st.integers(1, size))
    matrix = np.random.default_rng(seed).uniform(0.1, 1, size=(size, size))
    matrix[np.diag_indices(size)] += 0.3
    expected = plain(matrix, k, csls_k)
    assert retrieval(matrix) == pytest.approx(expected["retrieval"])
    assert mexa(matrix) == pytest.approx(expected["mexa"])
    assert xsim_error(matrix, k=k) == pytest.approx(1 - expected["ratio"])
    distance = xsim_error(matrix, k=k, margin="distance")
    assert distance == pytest.approx(1 - expected["distance"])
    assert csls_retrieval(matrix, k=csls_k) == pytest.approx(expected["csls"])
    assert mexa(matrix) == mexa(matrix.T)
    assert mexa(matrix) <= min(retrieval(matrix), retrieval(matrix.T))


@pytest.mark.parametrize("tolerance", [0.0, 1e-9, 0.05])
@pytest.mark.parametrize("kind", ["smooth", "coarse", "negative", "hubs", "constant"])
@pytest.mark.parametrize("size", [1, 2, 7, 40])
def test_the_short_lists_decide_as_the_whole_rows_do(size, kind, tolerance):
    generator = torch.Generator().manual_seed(size)
    matrix = torch.rand(3, size, size, generator=generator, dtype=torch.float64)
    if kind == "coarse":
        matrix = (matrix * 6).round() / 6
    elif kind == "negative":
        matrix = (matrix * 6).round() / 6 - 0.5
    elif kind == "hubs":
        matrix[:, :, : size // 3] += 0.9
    elif kind == "constant":
        matrix = torch.full_like(matrix, 0.25)
    k, csls_k = min(size, 4), min(size, 3)
    got = scores_of_hits(*block_hits(matrix, k, csls_k, tolerance))
    for way, one in enumerate((matrix, matrix.transpose(1, 2))):
        expected = {
            "retrieval": retrieval(one, tolerance=tolerance),
            "mexa": mexa(one, tolerance=tolerance),
            "xsim_ratio": xsim_error(one, k=k, tolerance=tolerance),
            "xsim_distance": xsim_error(one, k=k, margin="distance", tolerance=tolerance),
            "csls": csls_retrieval(one, k=csls_k, tolerance=tolerance),
        }
        assert got.keys() == expected.keys()
        for name, values in expected.items():
            torch.testing.assert_close(got[name][way], values, rtol=0, atol=1e-15, msg=name)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: retrieval(np.zeros((2, 3))), "shape"),
        (lambda: retrieval(np.zeros(3)), "shape"),
        (lambda: mexa(np.zeros((0, 0))), "shape"),
        (lambda: mexa([[float("nan")]]), "finite"),
        (lambda: xsim_error(np.eye(3)), "k must be a whole number 1 … 3"),
        (lambda: xsim_error(np.eye(5), k=0), "k must be"),
        (lambda: xsim_error(np.eye(5), margin="absolute"), "margin"),
        (lambda: csls_retrieval(np.eye(5), k=6), "k must be"),
        (lambda: retrieval(np.eye(5), tolerance=-1e-9), "tolerance must be at least 0; got -1e-09"),
        (lambda: mexa(np.eye(5), tolerance=float("nan")), "tolerance must be a number; got nan"),
        (lambda: xsim_error(np.eye(5), tolerance=-1), "tolerance must be at least 0"),
        (lambda: csls_retrieval(np.eye(5), k=2, tolerance=-1), "tolerance must be at least 0"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    "score", [retrieval, mexa, partial(xsim_error, k=1), partial(csls_retrieval, k=1)]
)
def test_a_tolerance_that_is_none(score):
    for bad in (None, "0", True):
        with pytest.raises(TypeError, match="tolerance must be a number"):
            score(SIMILARITY, tolerance=bad)
    for bad in (-1e-9, float("nan")):
        with pytest.raises(ValueError, match="tolerance must be"):
            score(SIMILARITY, tolerance=bad)


def test_arguments_of_the_wrong_type():
    for k in (2.0, True, "2", None):
        with pytest.raises(TypeError, match="k must be an integer"):
            xsim_error(SIMILARITY, k=k)
    with pytest.raises(ValueError, match="similarity must hold real numbers"):
        retrieval(np.eye(2) * 1j)


def test_half_means_that_are_zero_but_for_rounding_give_ratio_zero():
    """Exactly, b is 0 at (0, 1) and (1, 0), where C is not: 1 finds itself by 9.5, 0 finds 1."""
    points = np.array([[1.0, 1.0], [-1.0, -1.0], [1.0, -2.0]])
    unit = points / np.linalg.norm(points, axis=1, keepdims=True)
    tolerance = rounding_tolerance(2)
    for sign in (1, -1):  # whatever the rounding comes to
        for off in (0, 1e-16, 3e-16):
            matrix = unit @ unit.T + sign * off
            assert xsim_error(matrix, k=3, tolerance=tolerance) == pytest.approx(1 / 3)
            hits = block_hits(torch.from_numpy(matrix)[None], 3, 3, tolerance)
            assert scores_of_hits(*hits)["xsim_ratio"].tolist() == [[pytest.approx(1 / 3)]] * 2
