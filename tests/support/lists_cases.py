"""Random neighbour lists and labels for the tests of what is computed from them."""

import numpy as np
from hypothesis import strategies as st


def random_lists(generator, layers, n, k):
    """int64 [layers, n, k]: each row k different points, never its own."""
    lists = np.empty((layers, n, k), dtype=np.int64)
    for layer in range(layers):
        for i in range(n):
            others = np.delete(np.arange(n), i)
            lists[layer, i] = generator.choice(others, size=k, replace=False)
    return lists


@st.composite
def problems(draw, most_points=12, most_languages=4, layers=2):
    """(lists [layers, n, k], languages, sentences): two languages at least, any counts."""
    n = draw(st.integers(3, most_points))
    k = draw(st.integers(1, n - 1))
    seed = draw(st.integers(0, 2**32 - 1))
    count = draw(st.integers(2, min(n, most_languages)))
    generator = np.random.default_rng(seed)
    languages = np.concatenate([np.arange(count), generator.integers(count, size=n - count)])
    generator.shuffle(languages)
    sentences = generator.integers(0, n, size=n)
    return random_lists(generator, layers, n, k), languages, sentences


def renumber(lists, order):
    """The same lists for points listed in another order: new point i is old point order[i]."""
    inverse = np.argsort(order)
    return inverse[lists[:, order]]


def first_seen(labels):
    """Different labels in order of first appearance."""
    return list(dict.fromkeys(np.asarray(labels).tolist()))
