"""How many neighbours do all pairs of layers share? A join of (point, neighbour) pairs.

Each pair becomes one integer with the set of layers that hold it; two neighbour sets meet
where the integers do, so the work follows the stored entries and not layers × layers. Under a
random relabelling hardly any integer meets another, and a table of bits says so.
"""

import numpy as np
from scipy.sparse import csr_matrix

__all__ = ["LayerJoin"]

_CHUNK = 2**20  # keys worked on at once, so that their temporaries stay in cache
_MOST_BITS = 28  # a table of 32 MiB


class LayerJoin:
    """Shared neighbours of layers, int64 lists ``[layers, n, k]`` of the same n and k each."""

    def __init__(self, a: np.ndarray, b: np.ndarray) -> None:
        self._n = a.shape[1]
        self._keys, self._layers = _keys(a)
        other, self._other_layers = (self._keys, self._layers) if b is a else _keys(b)
        self._source, self._target = np.divmod(other, self._n)
        # twice a power of two above the keys' number, up to the limit, or all pairs if fewer
        self._bits = min(_MOST_BITS, max(3, int(self._n**2 - 1).bit_length()))
        self._table = np.zeros(2 ** (self._bits - 3), dtype=np.uint8)
        places = self._keys & (2**self._bits - 1)
        np.bitwise_or.at(self._table, places >> 3, np.left_shift(1, places & 7).astype(np.uint8))

    def common(self, order: np.ndarray | None = None) -> np.ndarray:
        """Neighbours shared, summed over points: int64 ``[layers of a, layers of b]``.

        With a permutation pi, b's lists are first relabelled, ``N_pi(i) = pi^-1[N(pi(i))]``.
        """
        inverse = np.arange(self._n)
        if order is not None:
            inverse[order] = np.arange(self._n)
        ours, theirs = [], []
        for start in range(0, self._source.size, _CHUNK):
            chunk = slice(start, start + _CHUNK)
            keys = inverse[self._source[chunk]] * self._n + inverse[self._target[chunk]]
            if order is None:  # as sorted as ours: looking all of them up is quick
                maybe = np.arange(keys.size)
            else:
                places = keys & (2**self._bits - 1)
                maybe = np.flatnonzero((self._table[places >> 3] >> (places & 7)) & 1)
            found = np.searchsorted(self._keys, keys[maybe])
            found[found == self._keys.size] = 0  # past the end: compare with any key, unequal
            same = self._keys[found] == keys[maybe]
            ours.append(found[same])
            theirs.append(start + maybe[same])
        if self._layers.shape[1] == self._other_layers.shape[1] == 1:  # every meeting counts one
            return np.array([[sum(map(len, ours))]])
        left = self._layers[np.concatenate(ours)]
        right = self._other_layers[np.concatenate(theirs)]
        return np.asarray((left.T @ right).toarray())


def _keys(lists: np.ndarray) -> tuple[np.ndarray, csr_matrix]:
    """The different pairs as sorted integers i n + j, and their layers ``[keys, layers]``."""
    layers, n, k = lists.shape
    every = (np.arange(n)[:, None] * n + lists).reshape(-1)
    order = np.argsort(every, kind="stable")
    ordered = every[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    ends = np.append(starts, ordered.size)
    layer = (order // (n * k)).astype(np.int32)
    members = csr_matrix(
        (np.ones(layer.size, dtype=np.int64), layer, ends), shape=(starts.size, layers)
    )
    return ordered[starts], members
