"""Arrays of other libraries come back in kind, through DLPack."""

import numpy as np
import pytest

from ilo_fast import FlatIndex, knn
from ilo_fast.cka import cka

pytestmark = pytest.mark.adapters


def test_jax():
    jax = pytest.importorskip("jax", reason="needs jax: make test-adapters")
    rng = np.random.default_rng(0)
    points = rng.normal(size=(200, 16)).astype(np.float32)
    given = jax.numpy.asarray(points)
    found, expected = knn(given, 5), knn(points, 5)
    for name in ("indices", "distances", "certified"):
        array = getattr(found, name)
        assert isinstance(array, jax.Array)
        assert array.devices() == given.devices()
        np.testing.assert_array_equal(np.asarray(array), getattr(expected, name))
    layered = knn(jax.numpy.stack([given, given[::-1]]).astype(jax.numpy.bfloat16), 2)
    assert layered.indices.shape == (2, 200, 2)
    index = FlatIndex(16, "euclidean")
    index.add(given)
    values, indices = index.search(given[:7], 3)
    assert isinstance(values, jax.Array)
    np.testing.assert_array_equal(np.asarray(indices)[:, 0], np.arange(7))
    np.testing.assert_array_equal(np.asarray(given), points)  # nothing was written to


def test_what_jax_traces_is_refused_in_a_line():
    jax = pytest.importorskip("jax", reason="needs jax: make test-adapters")
    points = jax.numpy.ones((20, 4))
    for transform in (jax.jit, jax.grad):
        with pytest.raises(TypeError, match=r"x must hold numbers; got \w+Tracer, .* jax.jit"):
            transform(lambda x: knn(x, 5).distances.sum())(points)


def test_bfloat16_of_numpy():
    """As JAX gives it: a dtype of ml_dtypes, which is not NumPy's own."""
    ml_dtypes = pytest.importorskip("ml_dtypes", reason="needs ml_dtypes: make test-adapters")
    points = np.random.default_rng(0).normal(size=(200, 16)).astype(ml_dtypes.bfloat16)
    for given in (points, points[::-1, ::2]):
        found, expected = knn(given, 5), knn(given.astype(np.float32), 5)
        assert isinstance(found.indices, np.ndarray)
        np.testing.assert_array_equal(found.indices, expected.indices)
        np.testing.assert_array_equal(found.distances, expected.distances)
    assert cka(points, points.astype(np.float32)) == 1
    with pytest.raises(TypeError, match="got float8_e5m2"):
        knn(points.astype(ml_dtypes.float8_e5m2))
