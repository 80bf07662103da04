import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ilo_fast import cka as module
from ilo_fast import hsic, knn
from ilo_fast.cka import cka, cknna
from ilo_fast.errors import HiddenStateError


def biased(k, m):
    """tr(K H L H) with the centring matrix written out."""
    n = len(k)
    h = np.eye(n) - 1 / n
    return np.trace(k @ h @ m @ h)


def unbiased(k, m):
    """Song et al. 2012, equation 5, on dense kernels (not symmetric ones too)."""
    n = len(k)
    k, m = k.copy(), m.copy()
    np.fill_diagonal(k, 0)
    np.fill_diagonal(m, 0)
    one = np.ones(n)
    middle = (one @ k @ one) * (one @ m @ one) / ((n - 1) * (n - 2))
    return (np.trace(k @ m) + middle - 2 / (n - 2) * (one @ k @ m @ one)) / (n * (n - 3))


def dense(x, y, hsic):
    k, m = x @ x.T, y @ y.T
    return hsic(k, m) / np.sqrt(hsic(k, k) * hsic(m, m))


def test_by_hand():
    # x: two clumps, y: the same two; orthogonal to a space that splits them the other way
    x = [[1.0], [1.0], [-1.0], [-1.0]]
    y = [[1.0], [-1.0], [1.0], [-1.0]]
    np.testing.assert_allclose(cka(x, x), [[1]])
    np.testing.assert_allclose(cka(x, y), [[0]])
    # unbiased, K = xxᵀ: tr(K̃L̃) = Σ_{i≠j} x_i x_j y_i y_j = (Σ x y)² - 4 = -4, sums -4 each,
    # 1ᵀK̃L̃1 = Σ (-1)(-1) = 4: -4 + 16 / 6 - 4 = -16 / 3, over 4
    # with itself: tr = 12: 12 + 16 / 6 - 4 = 32 / 3, over 4
    np.testing.assert_allclose(cka(x, y, unbiased=True), [[-0.5]])
    np.testing.assert_allclose(hsic.unbiased_hsic_sums(-4, -4, -4, 4, 4), -4 / 3)


@settings(max_examples=50, deadline=None)
@given(
    st.integers(5, 20),
    st.integers(2, 8),
    st.integers(2, 8),
    st.integers(0, 2**32 - 1),
    st.sampled_from([0.0, 1.0, 30.0]),
)
def test_against_dense_kernels(n, d, e, seed, shift):
    generator = np.random.default_rng(seed)
    x, y = generator.normal(size=(2, n, d)), generator.normal(size=(3, n, e))
    got, got_unbiased = cka(x + shift, y - shift), cka(x + shift, y - shift, unbiased=True)
    assert got.shape == got_unbiased.shape == (2, 3)
    assert ((got >= 0) & (got <= 1 + 1e-12)).all()
    np.testing.assert_allclose(got, cka(y, x).T, rtol=1e-8)
    for i in range(2):
        for j in range(3):
            np.testing.assert_allclose(got[i, j], dense(x[i], y[j], biased), rtol=1e-8)
            expected = dense(x[i], y[j], unbiased)
            np.testing.assert_allclose(got_unbiased[i, j], expected, rtol=1e-6, atol=1e-9)


def test_invariances():
    generator = np.random.default_rng(0)
    x = generator.normal(size=(30, 6))
    turn = np.linalg.qr(generator.normal(size=(6, 6)))[0]
    order = generator.permutation(30)
    y = generator.normal(size=(30, 4))
    for unbias in (False, True):
        np.testing.assert_allclose(cka(x, 7 * x @ turn + 3, unbiased=unbias), [[1]], rtol=1e-12)
        np.testing.assert_allclose(
            cka(x[order], y[order], unbiased=unbias), cka(x, y, unbiased=unbias), rtol=1e-10
        )


@pytest.mark.parametrize("unbias", [False, True])
def test_layers_against_themselves(unbias):
    """The same array twice is read once: as a copy of it says, and 1 of a layer with itself."""
    x = np.random.default_rng(3).normal(size=(3, 30, 4))
    found = cka(x, x, unbiased=unbias)
    np.testing.assert_allclose(found, cka(x, x.copy(), unbiased=unbias), rtol=1e-12)
    np.testing.assert_allclose(np.diag(found), 1, rtol=1e-12)


@pytest.mark.parametrize("scale", [2.0**-1000, 1e-200, 1e200, 2.0**1020])
@pytest.mark.parametrize("unbiased", [False, True])
def test_scale_does_not_matter(scale, unbiased):
    generator = np.random.default_rng(0)
    x, y = generator.uniform(-1, 1, size=(2, 12, 4))
    plain = cka(x, y, unbiased=unbiased)
    np.testing.assert_allclose(cka(x * scale, y, unbiased=unbiased), plain, rtol=1e-12)
    lists = knn(x, 3, metric="inner_product").indices
    own = cknna(x, x, lists, lists, normalize=False)
    scaled = cknna(x * scale, x * scale, lists, lists, normalize=False)
    np.testing.assert_allclose(scaled, own, rtol=1e-12)


@pytest.mark.parametrize(("dtype", "least"), [("float64", 2.0**-1074), ("float32", 2.0**-149)])
def test_the_least_numbers_there_are(dtype, least):
    generator = np.random.default_rng(0)
    x, y = generator.integers(-9, 10, size=(2, 12, 4))
    small = (x * least).astype(dtype)
    for unbias in (False, True):
        expected = cka(x.astype(float), y.astype(float), unbiased=unbias)
        got = cka(small, y.astype(float), unbiased=unbias)
        np.testing.assert_allclose(got, expected, rtol=1e-12)


def test_rows_are_streamed(monkeypatch):
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(50, 6)), generator.normal(size=(50, 4))
    whole = cka(x, y), cka(x, y, unbiased=True)
    monkeypatch.setattr(hsic, "_ROWS", 7)
    np.testing.assert_allclose(cka(x, y), whole[0], rtol=1e-12)
    np.testing.assert_allclose(cka(x, y, unbiased=True), whole[1], rtol=1e-12)


def test_unrelated_spaces_fool_the_biased_form_only():
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(2, 60, 200))
    assert cka(x, y)[0, 0] > 0.7
    assert abs(cka(x, y, unbiased=True)[0, 0]) < 0.1


def exactly_unbiased(x, y):
    """The definition in rational numbers, of whole-numbered states."""

    def kernel(z):
        rows = [[Fraction(int(v)) for v in row] for row in z]
        return [
            [
                sum(a * b for a, b in zip(p, q, strict=True)) if p is not q else Fraction(0)
                for q in rows
            ]
            for p in rows
        ]

    n = len(x)
    k, m = kernel(x), kernel(y)

    def term(a, b):
        trace = sum(a[i][j] * b[j][i] for i in range(n) for j in range(n))
        row_a, row_b = [sum(row) for row in a], [sum(row) for row in b]
        chain = sum(p * q for p, q in zip(row_a, row_b, strict=True))
        return trace + sum(row_a) * sum(row_b) / Fraction((n - 1) * (n - 2)) - 2 * chain / (n - 2)

    return float(term(k, m)) / math.sqrt(float(term(k, k)) * float(term(m, m)))


@pytest.mark.parametrize("length", [1, 10**4, 10**8, 10**12])
@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
def test_a_row_far_longer_than_the_others(length, dtype, monkeypatch):
    generator = np.random.default_rng(0)
    x, y = generator.integers(-9, 10, size=(2, 25, 6)).astype(float)
    x[3] *= length
    y[3] *= length
    y[:, 0] += 50
    x, y = (torch.tensor(z).to(getattr(torch, dtype)) for z in (x, y))
    expected = exactly_unbiased(x.double().numpy(), y.double().numpy())
    np.testing.assert_allclose(cka(x, y, unbiased=True), [[expected]], atol=1e-11, rtol=0)
    monkeypatch.setattr(hsic, "_BORNE", -1.0)  # pairs whatever the sums say
    monkeypatch.setattr(hsic, "_PAIRS", 60)
    monkeypatch.setattr(hsic, "_ROWS", 7)
    np.testing.assert_allclose(cka(x, y, unbiased=True), [[expected]], atol=1e-11, rtol=0)


def test_pairs_are_left_to_where_sums_fail(monkeypatch):
    def never(one, two):
        raise AssertionError

    monkeypatch.setattr(hsic, "_by_pairs", never)
    x = np.random.default_rng(0).normal(size=(300, 40))
    x[:, 3] += 500  # a massive dimension is no long row
    x[:, 7] *= 100
    assert cka(x, x + 1e-3 * x[::-1], unbiased=True)[0, 0] > 0.9
    x[5] *= 1e7
    with pytest.raises(AssertionError):
        cka(x, x, unbiased=True)


@pytest.mark.parametrize("turned", [False, True])
def test_orthogonal_points_have_no_unbiased_cka(turned):
    x = np.eye(40)
    y = np.random.default_rng(1).normal(size=(40, 40))
    if turned:
        x = np.linalg.qr(y)[0]
    assert np.isnan(cka(x, y, unbiased=True)).all()
    assert np.isnan(cka(y, 3 * x, unbiased=True)).all()
    assert np.isnan(cka(x, x, unbiased=True)).all()
    x[0, 1] += 1e-9  # a hair from it: all the same one kernel, on both sides
    np.testing.assert_allclose(cka(x, x.copy(), unbiased=True), [[1]], rtol=1e-6)


def test_what_is_lost_beside_a_far_longer_point_has_no_unbiased_cka():
    short = np.zeros((12, 6))
    short[0, 0] = 1  # at right angles to the others: its length says nothing in the kernel
    short[1:, 1:] = np.random.default_rng(2).normal(size=(11, 5))
    long = short.copy()
    for length in (1e3, 1e8):
        long[0, 0] = length
        np.testing.assert_allclose(cka(long, short, unbiased=True), [[1]], rtol=1e-9)
    long[0, 0] = 1e17
    assert np.isnan(cka(long, short, unbiased=True)).all()


def test_low_precision_states_are_summed_in_float64():
    x = torch.randn(64, 16, generator=torch.Generator().manual_seed(0)).bfloat16() + 100
    expected = cka(x.double().numpy(), x.double().numpy()[:, ::-1].copy())
    np.testing.assert_allclose(cka(x, x.flip(1)), expected, rtol=1e-12)


def test_a_constant_space_has_no_cka():
    x = np.random.default_rng(0).normal(size=(10, 3))
    flat = np.full((10, 3), 0.1)
    for unbias in (False, True):
        assert np.isnan(cka(x, flat, unbiased=unbias)).all()
        assert np.isnan(cka(flat, flat, unbiased=unbias)).all()


@pytest.mark.parametrize("unbias", [False, True])
def test_points_that_differ_by_little_more_than_their_mean_rounds(unbias):
    """Whole steps of the last place about a large offset: without it, CKA is the same."""
    generator = np.random.default_rng(0)
    steps, other = generator.integers(-3, 4, size=(2, 13, 4)).astype(float)
    plain = cka(steps, other, unbiased=unbias)
    far = steps * 0.25 + 2.0**50 + 1  # where steps are of a quarter
    np.testing.assert_allclose(cka(far, other, unbiased=unbias), plain, rtol=1e-12)
    np.testing.assert_allclose(cka(other, far, unbiased=unbias), plain, rtol=1e-12)


def test_one_point_off_by_its_last_digit():
    x = np.full((13, 1), 0.1)
    x[0] = np.nextafter(0.1, 1)
    np.testing.assert_allclose(cka(x, np.eye(13)[:, :1]), [[1]], rtol=1e-12)


def nearest(x, k):
    similarity = x @ x.T
    np.fill_diagonal(similarity, -np.inf)
    return np.argsort(-similarity, axis=1, kind="stable")[:, :k]


def masks(lists):
    result = np.zeros((len(lists), len(lists)))
    np.put_along_axis(result, lists, 1, axis=1)
    return result


@settings(max_examples=50, deadline=None)
@given(st.integers(5, 20), st.integers(2, 4), st.booleans(), st.integers(0, 2**32 - 1))
def test_cknna_against_dense_masked_kernels(n, k, normalize, seed):
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(n, 5)) + 1
    y = x[:, :3] + generator.normal(size=(n, 3))
    if normalize:
        left, right = (z / np.linalg.norm(z, axis=1, keepdims=True) for z in (x, y))
    else:
        left, right = x, y
    a, b = nearest(left, k), nearest(right, k)
    one, two = masks(a), masks(b)
    kernel, other = left @ left.T, right @ right.T
    both = one * two
    self_x = unbiased(one * kernel, one * kernel)
    self_y = unbiased(two * other, two * other)
    got = cknna(x, y, a, b, normalize=normalize)[0]
    if self_x <= 1e-12 or self_y <= 1e-12:
        return
    expected = unbiased(both * kernel, both * other) / np.sqrt(self_x * self_y)
    np.testing.assert_allclose(got, expected, rtol=1e-8, atol=1e-12)
    swapped = unbiased(both * other, both * kernel) / np.sqrt(self_x * self_y)
    got = cknna(y, x, b, a, normalize=normalize)[0]
    np.testing.assert_allclose(got, swapped, rtol=1e-8, atol=1e-12)
    np.testing.assert_allclose(cknna(x, x, a, a, normalize=normalize), [1])


def test_cknna_over_layers_and_blocks(monkeypatch):
    generator = np.random.default_rng(0)
    x = generator.normal(size=(2, 30, 6))
    lists = np.stack([nearest(z / np.linalg.norm(z, axis=1, keepdims=True), 5) for z in x])
    flipped, flipped_lists = x[::-1].copy(), lists[::-1].copy()
    got = cknna(x, flipped, lists, flipped_lists)
    for layer in range(2):
        one = cknna(x[layer], flipped[layer], lists[layer], flipped_lists[layer])
        np.testing.assert_allclose(got[layer], one[0])
    monkeypatch.setattr(module, "_GATHERED", 64)
    np.testing.assert_allclose(cknna(x, flipped, lists, flipped_lists), got, rtol=1e-12)
    monkeypatch.setattr(module, "_GATHERED", 29)  # not even one row's neighbours
    np.testing.assert_allclose(cknna(x, flipped, lists, flipped_lists), got, rtol=1e-12)


@pytest.mark.parametrize("k", [4, 19])
def test_cknna_of_low_precision_is_float64s(k):
    x, y = np.random.default_rng(0).normal(size=(2, 20, 6)).astype(np.float32)
    lists, others = nearest(x, k), nearest(y, k)
    for first, second in ((x, y.astype(float)), (x.astype(float), y), (x, y)):
        got = cknna(first, second, lists, others, normalize=False)
        expected = cknna(x.astype(float), y.astype(float), lists, others, normalize=False)
        np.testing.assert_allclose(got, expected, rtol=1e-12)


@pytest.mark.parametrize("normalize", [False, True])
def test_cknna_of_whole_lists_is_unbiased_cka(normalize):
    """With every point a neighbour nothing is masked, and crowded points keep their digits."""
    generator = np.random.default_rng(0)
    x, y = 1 + 1e-4 * generator.normal(size=(2, 10, 3))
    got = cknna(x, y, nearest(x, 9), nearest(y, 9), normalize=normalize)
    if normalize:
        x, y = (z / np.linalg.norm(z, axis=1, keepdims=True) for z in (x, y))
    np.testing.assert_allclose(got, cka(x, y, unbiased=True)[0], rtol=1e-6)


X = np.random.default_rng(0).normal(size=(5, 3))
LISTS = nearest(X, 2)
OWN = np.column_stack([np.arange(5), LISTS[:, 0]])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: cka(X, X[:4]), "same points"),
        (lambda: cka(X[:1], X[:1]), "at least 2"),
        (lambda: cka(X[:3], X[:3], unbiased=True), "at least 4"),
        (lambda: cka(X, "x"), "numbers|array"),
        (lambda: cknna(X, X, LISTS[:, :1], LISTS[:, :1]), "k >= 2"),
        (lambda: cknna(X[:3], X[:3], nearest(X[:3], 2), nearest(X[:3], 2)), "at least 4 points"),
        (lambda: cknna(X[:4], X[:4], LISTS, LISTS), "same points"),
        (lambda: cknna([X, X], X, LISTS, LISTS), "same number of layers"),
        (lambda: cknna(X, X, LISTS, OWN), "b must not list a point as its own neighbour"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("flag", [None, 1, "no"])
def test_flags_are_true_or_false(flag):
    with pytest.raises(TypeError, match="unbiased must be True or False; got"):
        cka(X, X, unbiased=flag)
    with pytest.raises(TypeError, match="normalize must be True or False; got"):
        cknna(X, X, LISTS, LISTS, normalize=flag)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_named(value):
    bad = X.copy()
    bad[3, 0] = value
    with pytest.raises(HiddenStateError, match="y hold NaN or infinity at layer 0, row 3"):
        cka(X, bad)
