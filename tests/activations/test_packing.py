"""Batches cover every sentence once, within the budget; segments know where sentences lie."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ilo_fast.activations.packing import Segments, batch_order, batch_size

LENGTHS = st.lists(st.integers(1, 30), min_size=1, max_size=60)


@given(
    lengths=LENGTHS,
    budget=st.integers(1, 100),
    equal=st.booleans(),
    turn=st.one_of(st.none(), st.integers(1, 30)),
)
def test_batches_cover_all_within_the_budget(lengths, budget, equal, turn):
    order = batch_order(np.array(lengths))
    sorted_lengths = [lengths[i] for i in order]
    assert sorted(order.tolist()) == list(range(len(lengths)))
    assert sorted_lengths == sorted(lengths, reverse=True)
    stop = 0
    while stop < len(lengths):
        start = stop
        stop += batch_size(sorted_lengths[start:], budget, equal_lengths=equal, turn=turn)
        assert start < stop <= len(lengths)
        inside = sorted_lengths[start:stop]
        assert len(inside) == 1 or sum(inside) <= budget
        assert not equal or len(set(inside)) == 1
        assert turn is None or len({length > turn for length in inside}) == 1
        if stop < len(lengths):  # no batch ends before it must
            following = sorted_lengths[stop]
            turned = turn is not None and (following > turn) != (inside[0] > turn)
            other = equal and following != inside[0]
            assert sum(inside) + following > budget or other or turned


@given(lengths=LENGTHS, first=st.integers(0, 3))
def test_segments(lengths, first):
    segments = Segments(tuple(lengths))
    offsets = segments.offsets.tolist()
    assert offsets == [0, *np.cumsum(lengths).tolist()]
    assert segments.positions(first).tolist() == [p + first for n in lengths for p in range(n)]
    assert [g.length for g in segments.groups for _ in range(g.count)] == lengths
    assert [g.start for g in segments.groups] == [0, *(g.end for g in segments.groups[:-1])]
    assert segments.groups[-1].end == segments.n_tokens == sum(lengths)
    assert segments.longest == max(lengths)
