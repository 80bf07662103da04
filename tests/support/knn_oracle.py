"""Neighbours in extended precision, written plainly, and how to compare lists with them.

Two lists are the same when they agree by groups of equal distance: which of several candidates at
one distance stands where is a matter of rounding, which distances there are is not.
"""

import numpy as np

U = 2.0**-53


def exact_distances(x, metric):
    """np.longdouble [n, n] (64-bit mantissa on x86): 1 - cos, L2 norm or minus the product."""
    x = np.asarray(x).astype(np.longdouble)
    if metric == "inner_product":
        return -_pairwise(x, lambda rows, others: rows * others)
    if metric == "euclidean":
        scale = np.ldexp(np.longdouble(1), np.frexp(np.abs(x).max())[1])  # rounds nothing
        return np.sqrt(_squared(x / scale)) * scale
    largest = np.abs(x).max(axis=1, keepdims=True)
    zero = largest[:, 0] == 0
    z = x / np.where(largest == 0, 1, largest)
    norms = np.sqrt((z * z).sum(axis=1, keepdims=True))
    z = z / np.where(norms == 0, 1, norms)
    # |z_i - z_j|^2 / 2 is 1 - cos of unit vectors, without the cancellation near 0.
    distances = _squared(z) / 2
    distances[zero] = 1
    distances[:, zero] = 1
    return distances


def _squared(x):
    return _pairwise(x, lambda rows, others: (rows - others) ** 2)


def _pairwise(x, term):
    out = np.empty((len(x), len(x)), dtype=np.longdouble)
    step = max(1, 4_000_000 // x.size)
    for start in range(0, len(x), step):
        rows = x[start : start + step, None]
        out[start : start + step] = term(rows, x[None]).sum(axis=2)
    return out


def rounding(distances, metric, norms=None):
    """How far two float64 evaluations of a distance may lie apart, generously."""
    if metric == "cosine":
        return 64 * U * (distances + np.sqrt(np.abs(distances))) + 1e-28
    if metric == "euclidean":
        return 64 * U * np.abs(distances)
    return 64 * U * norms


def nearest(distances, k, exclude_self=True):
    """int64 [n, k] by distance, then index."""
    distances = distances.copy()
    if exclude_self:
        np.fill_diagonal(distances, np.inf)
    columns = np.broadcast_to(np.arange(len(distances)), distances.shape)
    return np.lexsort((columns, distances), axis=1)[:, :k]


def assert_same_lists(indices, distances, tolerance, *, exclude_self=True):
    """Check lists ``indices [n, k]`` against all distances ``[n, n]``.

    tolerance (a number or [n, n]): differences of distances that do not count. Every row must
    hold k different points, not itself; the distance at each place must be the true one of that
    place; nobody nearer by more than the tolerance may be missing; and among points at exactly
    one distance the lower index comes first and is the one that is kept.
    """
    indices = np.asarray(indices)
    n, k = indices.shape
    distances = distances.copy()
    tolerance = np.broadcast_to(np.asarray(tolerance, dtype=np.longdouble), distances.shape)
    rows = np.arange(n)[:, None]
    assert ((indices >= 0) & (indices < n)).all(), "an index out of range"
    if exclude_self:
        assert not (indices == rows).any(), "a point in its own list"
        np.fill_diagonal(distances, np.inf)
    ordered = np.sort(indices, axis=1)
    assert not (ordered[:, 1:] == ordered[:, :-1]).any(), "a point twice in one list"
    true = np.sort(distances, axis=1)[:, :k]
    found = np.take_along_axis(distances, indices, axis=1)
    allowed = np.take_along_axis(tolerance, indices, axis=1)
    wrong = np.abs(found - true) > allowed
    if wrong.any():
        row, place = np.argwhere(wrong)[0]
        raise AssertionError(
            f"row {row}, place {place}: point {indices[row, place]} at distance "
            f"{found[row, place]!r}, the true one is {true[row, place]!r}; {wrong.sum()} in all"
        )
    listed = np.zeros((n, n), dtype=bool)
    listed[rows, indices] = True
    missing = ~listed & (distances < true[:, -1:] - tolerance)
    assert not missing.any(), f"a nearer point is missing at {np.argwhere(missing)[0]}"
    equal = found[:, 1:] == found[:, :-1]
    assert (indices[:, 1:] > indices[:, :-1])[equal].all(), "equal distances not by index"
    last = found[:, -1:]
    highest = np.where(found == last, indices, -1).max(axis=1, keepdims=True)
    skipped = ~listed & (distances == last) & (np.arange(n) < highest)
    assert not skipped.any(), f"a higher index was kept at {np.argwhere(skipped)[0]}"


def assert_exact(found, x, metric, *, exclude_self=True):
    """Check a ``Neighbors`` of NumPy points ``[n, d]`` against the oracle, distances included."""
    truth = exact_distances(x, metric)
    wide = np.asarray(x).astype(np.longdouble)
    norms = np.sqrt((wide * wide).sum(axis=1))
    tolerance = rounding(truth, metric, norms[:, None] * norms[None])
    indices = np.asarray(found.indices)
    assert_same_lists(indices, truth, tolerance, exclude_self=exclude_self)
    assert np.asarray(found.certified).all(), "a row was not certified"
    expected = np.take_along_axis(truth, indices, axis=1)
    slack = np.take_along_axis(tolerance, indices, axis=1) + np.abs(expected) * 2.0**-23
    distances = np.asarray(found.distances).astype(np.longdouble)
    assert (np.abs(distances - expected) <= slack + 2.0**-149).all(), "a distance is off"
    assert (np.diff(np.asarray(found.distances), axis=1) >= 0).all(), "distances not sorted"
