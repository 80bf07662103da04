"""Arrays of other libraries come back in kind, through DLPack."""

import numpy as np
import pytest

from ilo_fast import FlatIndex, knn

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
