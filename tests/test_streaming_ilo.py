"""Any split and any merge order gives the one-shot value."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ilo_fast import ILO, ilo_scores, knn
from ilo_fast.errors import HiddenStateError
from ilo_fast.lists import label_codes
from ilo_fast.streaming_ilo import agreed, canonical_order, check_fit

FIELDS = ("languages", "n_points", "bridge", "reach", "ilo", "reach_count")


def points(n=60, d=6, layers=2, languages=5, seed=0, levels=None):
    rng = np.random.default_rng(seed)
    if levels:
        hidden = rng.integers(-levels, levels + 1, size=(layers, n, d)).astype(np.float32)
    else:
        hidden = rng.normal(size=(layers, n, d)).astype(np.float32)
    return torch.from_numpy(hidden), [f"l{code}" for code in rng.integers(0, languages, size=n)]


def one_shot(hidden, labels, **arguments):
    metric = ILO(**arguments)
    metric.update(hidden, labels)
    return metric.compute()


def assert_same(left, right):
    for field in FIELDS:
        np.testing.assert_array_equal(getattr(left, field), getattr(right, field))


def test_equals_the_functions_where_nothing_ties():
    hidden, labels = points()
    found = one_shot(hidden, labels, k=4, threshold=2)
    expected = ilo_scores(knn(hidden, 4), labels, threshold=2)
    place = [expected.languages.index(label) for label in found.languages]
    assert found.languages == tuple(sorted(set(labels)))
    np.testing.assert_array_equal(found.ilo, expected.ilo[:, place])
    np.testing.assert_array_equal(found.reach_count, expected.reach_count[:, place])


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    levels=st.sampled_from([1, 2, None]),
    pieces=st.integers(1, 6),
    workers=st.integers(1, 3),
)
def test_any_split_and_merge_order(seed, levels, pieces, workers):
    """Few levels make copies across languages, where only a fixed order can agree."""
    hidden, labels = points(n=40, d=3, layers=2, languages=4, seed=seed, levels=levels)
    expected = one_shot(hidden, labels, k=3, threshold=1)
    rng = np.random.default_rng(seed)
    parts = np.array_split(rng.permutation(40), pieces)
    metrics = [ILO(k=3, threshold=1) for _ in range(workers)]
    for number, part in enumerate(parts):
        metrics[number % workers].update(hidden[:, part], [labels[i] for i in part])
    rng.shuffle(metrics)
    for other in metrics[1:]:
        metrics[0].merge_state(other if seed % 2 else other.state())
    assert metrics[0].n == 40
    assert_same(metrics[0].compute(), expected)


def test_the_order_of_points_depends_on_their_labels_and_values_only():
    hidden, labels = points(n=40, d=3, levels=2)
    hidden[1, :20] = hidden[1, 0]  # told apart by the first layer, as others by the second
    hidden[0, 20:] = hidden[0, 20]
    hidden[:, 7] = hidden[:, 6].flip(1)  # and these by which number stands where
    labels[7] = labels[6]
    odd = torch.arange(hidden.numel()).view(hidden.shape) % 2 == 1
    signed = torch.where((hidden == 0) & odd, -hidden, hidden)
    mixed = np.random.default_rng(0).permutation(40)
    names = np.array(labels)
    first, second = canonical_order(hidden, labels), canonical_order(signed[:, mixed], names[mixed])
    assert torch.equal(hidden[:, first], signed[:, mixed][:, second])  # 0.0 equals -0.0
    assert names[first].tolist() == names[mixed][second].tolist() == sorted(labels)
    assert canonical_order(torch.zeros(1, 4, 2), ["b", 10, 9, "a"]).tolist() == [2, 1, 3, 0]


def test_labels_are_plain_and_sorted_in_any_order_of_merging():
    hidden, labels = points(n=30)
    numpys = [np.str_(label) for label in labels[:20]]
    first, second = ILO(k=3), ILO(k=3)
    first.update(hidden[:, 20:], labels[20:])
    second.update(hidden[:, :20], numpys)
    for metric in (first, second):
        assert {type(label) for label in metric.state()["languages"]} == {str}
    first.merge_state(second)
    found = first.compute()
    assert found.languages == tuple(sorted(set(labels)))
    assert {type(label) for label in found.languages} == {str}


def test_reset_and_reuse_of_memory():
    hidden, labels = points()
    metric = ILO(k=3)
    metric.update(torch.ones(2, 7, 6), ["x"] * 7)
    metric.reset()
    memory = hidden.clone()
    metric.update(memory, labels)
    memory.zero_()
    assert_same(metric.compute(), one_shot(hidden, labels, k=3))
    assert repr(metric) == "ILO(k=3, threshold=3, metric='cosine', n=60)"


def test_a_batch_added_amid_another_keeps_its_labels(monkeypatch):
    """As by another thread, which may come at any moment."""
    metric, others = ILO(), [[1, 1]]

    class Codes:
        def __init__(self, codes):
            self.codes = codes

        def tolist(self):
            if others:
                metric.update(torch.ones(2, 3), others.pop())
            return self.codes.tolist()

    def slow(labels, n):
        names, codes = label_codes(labels, n)
        return names, Codes(codes)

    monkeypatch.setattr("ilo_fast.streaming_ilo.label_codes", slow)
    metric.update(torch.zeros(1, 3), [0])
    state = metric.state()
    assert state["hidden"][0, :, 0].tolist() == state["languages"]


def test_numpy_integers_and_one_layer():
    hidden, _ = points(layers=1)
    codes = np.arange(60) % 3
    metric = ILO(k=3, threshold=1, metric="euclidean")
    metric.update(hidden[0].numpy(), codes)
    assert metric.compute().languages == (0, 1, 2)


def test_hostile_input():
    metric = ILO()
    with pytest.raises(ValueError, match="update was never called"):
        metric.compute()
    metric.update(torch.ones(3, 4), ["a", "b", "c"])
    with pytest.raises(ValueError, match=r"1 layer of 4 dimensions .* got 2 and 4"):
        metric.update(torch.ones(2, 3, 4), ["a", "b", "c"])
    with pytest.raises(ValueError, match=r"must be on cpu like .* got meta"):
        check_fit(torch.ones(1, 3, 4, device="meta"), torch.ones(1, 3, 4))
    with pytest.raises(ValueError, match="1 layer of 4 dimensions"):
        metric.update(torch.ones(3, 5), ["a", "b", "c"])
    with pytest.raises(ValueError, match="one label per point"):
        metric.update(torch.ones(3, 4), ["a"])
    with pytest.raises(HiddenStateError, match="row 1"):
        metric.update(torch.tensor([[0.0] * 4, [float("nan")] * 4]), ["a", "b"])
    assert metric.n == 3
    with pytest.raises(ValueError, match="k must be between 1 and 2"):
        metric.compute()
    metric.reset()
    metric.update(torch.ones(1, 4), ["a"])
    with pytest.raises(ValueError, match="one point has no neighbours"):
        metric.compute()


@pytest.mark.parametrize(
    ("incoming", "error", "message"),
    [
        (3, TypeError, "incoming must be an ILO or its state; got int"),
        ([ILO()], TypeError, "incoming must be an ILO or its state; got list"),
        ({"hidden": None}, ValueError, "incoming must be the state .* without languages"),
        (ILO(k=4), ValueError, "incoming must have k 5 like this ILO; got 4"),
        (ILO(threshold=2), ValueError, "incoming must have threshold 3 like this ILO; got 2"),
        (ILO(metric="euclidean"), ValueError, "incoming must have metric 'cosine' .*'euclidean'"),
    ],
)
def test_what_cannot_be_merged(incoming, error, message):
    with pytest.raises(error, match=message):
        ILO().merge_state(incoming)


def test_no_point_counts_twice_by_a_merge_with_itself():
    metric = ILO()
    metric.update(torch.ones(3, 4), ["a", "b", "c"])
    with pytest.raises(ValueError, match="incoming must be another ILO; got itself"):
        metric.merge_state(metric)
    assert metric.n == 3


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"k": 0}, ValueError, "k must be at least 1; got 0"),
        ({"threshold": -1}, ValueError, "threshold must be at least 1; got -1"),
        ({"k": 2.5}, TypeError, "k must be an integer"),
        ({"metric": "cos"}, ValueError, "metric must be one of"),
        ({"sync": "no"}, TypeError, "sync must be True or False; got 'no'"),
        ({"backend": "tritn"}, ValueError, "backend must be one of auto, .* got .tritn."),
    ],
)
def test_options_are_checked_before_the_first_batch(options, error, message):
    with pytest.raises(error, match=message):
        ILO(**options)


def test_what_ranks_must_agree_on():
    half, brain, single = torch.float16, torch.bfloat16, torch.float32
    agree = [{"k": 5}] * 3
    assert agreed([None, None], agree[:2]) is None
    assert agreed([None, (2, 3, half), (2, 3, single)], agree) == (2, 3, single)
    assert agreed([(2, 3, half), (2, 3, brain)], agree[:2]) == (2, 3, single)
    for other in ((1, 3, half), (2, 4, half)):
        with pytest.raises(ValueError, match="ranks hold points of different layers and dim"):
            agreed([(2, 3, half), None, other], agree)
    with pytest.raises(ValueError, match=r"k must be the same on every rank; got \[5, 5, 6\]"):
        agreed([None] * 3, [*agree[:2], {"k": 6}])


WORKER = """
import sys
import time
import torch
import torch.distributed as dist
from ilo_fast import ILO

rank, store = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
hidden = torch.randn(2, 50, 5, generator=torch.Generator().manual_seed(0))
labels = [f"l{i % 4}" for i in range(50)]
whole = ILO(k=3, threshold=1, sync=False)
whole.update(hidden, labels)
expected = whole.compute()
for part in (((0, 7), (7, 50)), ((0, 50), None), (None, (0, 50))):
    metric = ILO(k=3, threshold=1)
    if part[rank] is not None:
        mine = slice(*part[rank])
        for start in range(mine.start, mine.stop, 5):
            some = slice(start, min(start + 5, mine.stop))
            metric.update(hidden[:, some], labels[some])
    found = metric.compute()
    assert found.languages == expected.languages
    assert (found.ilo == expected.ilo).all() and (found.n_points == expected.n_points).all()
    assert metric.n == (0 if part[rank] is None else part[rank][1] - part[rank][0])
try:
    ILO().compute()
except ValueError as error:
    assert "never called" in str(error)
other = ILO(k=3, threshold=1 + rank)
other.update(hidden, labels)
try:
    other.compute()
    raise AssertionError
except ValueError as error:
    assert str(error) == "threshold must be the same on every rank; got [1, 2]"
dist.barrier()
time.sleep(0.2)  # gloo's threads let go of the last tensors; at exit, without Python, they abort
dist.destroy_process_group()
print("done", rank)
"""


def test_two_processes(tmp_path):
    """gloo, uneven shares, an empty rank: every rank gets the value of all points."""
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(rank), str(tmp_path / "store")],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    for rank, worker in enumerate(workers):
        try:
            out, err = worker.communicate(timeout=120)
        finally:
            worker.kill()
        assert worker.returncode == 0, err
        assert out.strip() == f"done {rank}"
