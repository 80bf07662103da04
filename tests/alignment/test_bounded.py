"""Bounds of float32 products, and scores decided by them, against float64 on hard points."""

from dataclasses import replace
from types import SimpleNamespace

import hostile_points
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ilo_fast.alignment import decisions, pairs
from ilo_fast.alignment.bounded import Ways, both_ways
from ilo_fast.alignment.decisions import serves
from ilo_fast.alignment.operands import BoundedPoints, bounded_points, half_points
from ilo_fast.alignment.pairs import pair_scores
from ilo_fast.alignment.similarity import csls_retrieval, mexa, retrieval, xsim_error
from ilo_fast.ops.centred import centre
from ilo_fast.ops.points import prepare_points
from ilo_fast.ops.triton_config import accumulation
from ilo_fast.vectors import rounding_tolerance

S = 271  # odd: four whole runs of bins and a ragged one


def clouds(case, seed=0):
    """Float64 ``[3 S, d]``: a hard cloud, its copy with noise, another cloud of the kind."""
    generator = np.random.default_rng(seed)
    first = case(generator, S, 24)
    second = first * (1 + 0.3 * generator.normal(size=first.shape))
    return np.concatenate([first, second, case(generator, S, 24)])


def unit(x):
    largest = np.abs(x).max(axis=1, keepdims=True)
    x = x / np.where(largest > 0, largest, 1)
    length = np.linalg.norm(x, axis=1, keepdims=True)
    return x / np.where(length > 0, length, 1)


def poisoned(monkeypatch):
    """Blocks that start as NaN: whatever is read must have been written."""
    original = BoundedPoints.block
    monkeypatch.setattr(BoundedPoints, "block", lambda *asked: original(*asked).fill_(torch.nan))


def half(points, row_of):
    """Operands of float16, summed as coarsely as any matrix unit is known to."""
    return half_points(points, centre(points), row_of, accumulation(0))


OPERANDS = pytest.mark.parametrize("operands", [bounded_points, half], ids=["float32", "float16"])


def prepared(x, operands=bounded_points):
    layer = torch.from_numpy(x)
    points = prepare_points(layer, layer.abs().amax(dim=1), "cosine")
    row_of = torch.arange(len(x)) if points.duplicates is None else points.duplicates.group
    return operands(points, row_of)


@OPERANDS
@pytest.mark.parametrize("case", hostile_points.CASES)
def test_the_bounds_hold_for_every_entry_and_mean(case, operands, monkeypatch):
    poisoned(monkeypatch)
    x = clouds(case)
    points = prepared(x, operands)
    own, other = torch.arange(S).expand(2, S), torch.arange(S, 3 * S).view(2, S)
    ways = both_ways(points, own, other, keep=12, csls_k=10)
    z = unit(x).astype(np.longdouble)
    near = 16 * rounding_tolerance(x.shape[1]) * points.unit
    for target in range(2):
        cosines = z[:S] @ z[(target + 1) * S : (target + 2) * S].T
        for way, truth in ((target, cosines), (target + 2, cosines.T)):
            form = (truth - 1) * points.unit
            places = ways.places[way].numpy()
            listed = np.take_along_axis(form, places, axis=1)
            assert (ways.high[way].numpy() >= listed - near).all()
            assert (ways.low[way].numpy() <= listed + near).all()
            assert (np.diff(ways.high[way].numpy()) <= 0).all()
            assert all(len(set(row)) == 12 for row in places)
            outside = form.copy()
            np.put_along_axis(outside, places, -np.inf, axis=1)
            assert (outside.max(axis=1) <= ways.high[way, :, -1].numpy() + near).all()
            assert (ways.own_high[way].numpy() >= np.diagonal(form) - near).all()
            assert (ways.own_low[way].numpy() <= np.diagonal(form) + near).all()
            means = np.sort(form, axis=1)[:, ::-1][:, :10].mean(axis=1)
            columns = np.sort(form, axis=0)[::-1][:10].mean(axis=0)
            high, low = ways.means(10)
            assert (high[way].numpy() >= means - near).all()
            assert (low[way].numpy() <= means + near).all()
            rivals = form - columns / 2
            np.fill_diagonal(rivals, -np.inf)
            loosest = near + points.rounding
            assert (ways.rival[way].numpy() >= rivals.max(axis=1) - loosest).all()


@pytest.mark.parametrize(
    ("seed", "operands"),
    [(0, bounded_points), (1, bounded_points), (0, half)],
    ids=["float32-0", "float32-1", "float16-0"],
)
@pytest.mark.parametrize("case", hostile_points.CASES)
def test_scores_are_those_of_the_formulas(case, seed, operands, monkeypatch):
    poisoned(monkeypatch)
    monkeypatch.setattr(pairs, "bounded_points", operands)
    x = clouds(case, seed)
    check(x)


def check(x, sentences=S, k=4, csls_k=10):
    labels = np.repeat(np.arange(len(x) // sentences), sentences)
    names = list(range(sentences)) * (len(x) // sentences)
    got = pair_scores(x, labels, names, k=k, csls_k=csls_k)
    z, tolerance = unit(x), rounding_tolerance(x.shape[1])
    for a in range(len(got.languages)):
        for b in range(len(got.languages)):
            if a == b:
                continue
            cosines = z[labels == a] @ z[labels == b].T
            for name, expected in (
                ("retrieval", retrieval(cosines, tolerance=tolerance)),
                ("xsim_ratio", xsim_error(cosines, k=k, tolerance=tolerance)),
                (
                    "xsim_distance",
                    xsim_error(cosines, margin="distance", k=k, tolerance=tolerance),
                ),
                ("csls", csls_retrieval(cosines, k=csls_k, tolerance=tolerance)),
                ("mexa", mexa(cosines, tolerance=tolerance)),
            ):
                assert getattr(got, name)[0, a, b] == pytest.approx(float(expected)), (name, a, b)
    return got


def crowded(generator, n=S, d=40):
    """Parallel clouds as crowded as hidden states: a massive dimension, a centre far away."""
    shared = generator.normal(size=(n, d))
    x = np.concatenate([shared + 0.8 * generator.normal(size=(n, d)) for _ in range(3)])
    x[:, 5] += 80
    return x


def test_copies_zeros_outliers_and_hubs():
    generator = np.random.default_rng(3)
    x = crowded(generator)
    x[10:20] = x[3]  # identical sentences within a language
    x[S + 40 : S + 60] = x[40:60] * 2.5  # and across two
    x[7] = x[S + 7] = 0
    x[2 * S + 1] *= -1e6  # one outlying point
    x[2 * S + 5] = x[2 * S :].mean(axis=0)  # near to everything
    got = check(x)
    assert 0 < got.retrieval[0, 0, 1] < 1


@pytest.mark.parametrize(("k", "csls_k"), [(1, 1), (4, 1), (1, 10), (7, 3), (30, 30), (31, 4)])
def test_every_k(k, csls_k):
    check(crowded(np.random.default_rng(k)), k=k, csls_k=csls_k)


@pytest.mark.parametrize("sentences", [256, 257, 320, 383])
def test_sizes_around_whole_bins(sentences):
    check(crowded(np.random.default_rng(0), sentences), sentences)


def test_all_points_equal_leave_everything_to_float64():
    x = np.tile(np.random.default_rng(0).normal(size=16), (3 * S, 1))
    got = check(x)
    assert got.mexa[0, 0, 1] == 0
    assert got.retrieval[0, 0, 1] == pytest.approx(1 / S)


@pytest.mark.parametrize(
    ("scale", "kind"), [(1e-3, "rows"), (1e-9, "whole")], ids=["some in doubt", "most in doubt"]
)
def test_doubts_are_settled_row_by_row_or_whole(scale, kind, monkeypatch):
    """Sentences that differ by less and less: first some rows, then whole blocks in float64."""
    calls = {"rows": 0, "whole": 0}
    row_hits, block_hits = decisions.row_hits, decisions.block_hits

    def counted(name, function):
        def call(*arguments):
            calls[name] += 1
            return function(*arguments)

        return call

    monkeypatch.setattr(decisions, "row_hits", counted("rows", row_hits))
    monkeypatch.setattr(decisions, "block_hits", counted("whole", block_hits))
    generator = np.random.default_rng(5)
    base = generator.normal(size=24)
    noise = generator.normal(size=(3 * S, 24))
    if kind == "rows":
        x = crowded(generator, d=24)
        x[:40] = base + scale * noise[:40]
        x[S : S + 40] = base + scale * (noise[:40] + 1e-5 * noise[40:80])
        x[20:40] = x[:20]
    else:
        x = base + scale * noise
    check(x)
    assert calls[kind] > 0
    monkeypatch.setattr(decisions, "_SETTLED_BYTES", 1)  # a pair at a time
    together, calls[kind] = calls[kind], 0
    check(x)
    assert calls[kind] >= together


def sharp_ways(cosines, keep, csls_k, rounding):
    """`both_ways` without slack, its rivals rounded down, of float64 cosines ``[S, S]``."""
    form = torch.stack([cosines, cosines.T]) - 1
    high, places = form.topk(keep, dim=2)
    own = form.diagonal(dim1=1, dim2=2)
    columns = form.topk(csls_k, dim=2).values.mean(dim=2).flip(0)
    rivals = form - columns[:, None] / 2
    rivals.diagonal(dim1=1, dim2=2).fill_(-torch.inf)
    return Ways(high, high, places, own, own, rivals.amax(dim=2) - rounding)


def decided_rightly(cosines, k, csls_k):
    """Check what sharp bounds decide of cosines ``[S, S]``; what they leave open, bool [2, S]."""
    tolerance = rounding_tolerance(24)
    points = SimpleNamespace(unit=1.0, rounding=20 * tolerance)
    ways = sharp_ways(cosines, max(k + 2, csls_k), csls_k, points.rounding)
    hits, doubt = decisions._Decision(points, ways, k, csls_k, tolerance)()
    for way, truth in enumerate(decisions.block_hits(cosines[None], k, csls_k, tolerance)):
        for name, expected in truth.items():
            assert torch.equal(hits[name][way][~doubt[way]], expected[0][~doubt[way]]), name
    return doubt


@pytest.mark.parametrize(("k", "csls_k"), [(1, 1), (1, 3), (2, 3), (3, 1)])
@pytest.mark.parametrize("width", [0.2, 0.5, 1.0, 3.0])
def test_ties_are_left_to_float64_however_narrow_the_bounds(width, k, csls_k):
    """Few different cosines, but for a tolerance or so, with bounds that leave nothing open."""
    size, shares = 24, []
    for seed in range(40):
        generator = torch.Generator().manual_seed(seed)
        grid = torch.randint(0, 7, (size, size), generator=generator, dtype=torch.float64)
        grid += torch.diag(torch.randint(0, 7, (size,), generator=generator))
        off = torch.randint(-2, 3, (size, size), generator=generator)
        cosines = 0.05 * (1 + grid) + width * rounding_tolerance(24) * off
        shares.append(float(decided_rightly(cosines, k, csls_k).double().mean()))
    assert 0 < min(shares) < max(shares) < 1


@pytest.mark.parametrize("below", [0.0, 0.5])
@pytest.mark.parametrize("rival", range(1, 6))
@pytest.mark.parametrize("alone", [False, True])
def test_a_rival_that_ties_with_the_last_of_the_k_most_similar(alone, rival, below):
    """It wins under the margins, also where others were kept of those level with it."""
    cosines = torch.zeros(8, 8, dtype=torch.float64)
    cosines[6:, 0], cosines[6:, 1:6] = 0.95, 0.9
    cosines[7, rival] = 0
    cosines[0, :6] = 0.5 - below * rounding_tolerance(24)
    if alone:
        cosines[0, [at for at in range(8) if at != rival]] = 0
    cosines[0, 1 + rival % 5] = 0.5
    cosines[0, 0] = 0.55
    decided_rightly(cosines, 2, 1)
    truth, _ = decisions.block_hits(cosines[None], 2, 1, rounding_tolerance(24))
    assert [bool(truth[name][0, 0]) for name in ("csls", "distance", "ratio")] == [
        True,
        False,
        False,
    ]


@pytest.mark.parametrize("below", [0.0, 0.5])
def test_a_translation_that_ties_with_the_last_of_the_k_most_similar(below):
    cosines = torch.zeros(8, 8, dtype=torch.float64)
    cosines[6:, 1:3] = 0.95
    cosines[0, :3] = torch.tensor([0.5 - below * rounding_tolerance(24), 0.55, 0.5])
    decided_rightly(cosines, 2, 1)
    truth, _ = decisions.block_hits(cosines[None], 2, 1, rounding_tolerance(24))
    assert truth["distance"][0, 0]
    assert truth["ratio"][0, 0]


@pytest.mark.parametrize("slack", [0.0, 0.01, 0.3])
@pytest.mark.parametrize(("k", "csls_k"), [(1, 1), (1, 4), (4, 1), (3, 3)])
def test_doubts_are_settled_by_the_formulas_however_wide_the_bounds(k, csls_k, slack):
    """Some rows of both directions, with columns known to within the slack only."""
    size, tolerance = 20, rounding_tolerance(3)
    index = torch.arange(2 * size).view(2, 1, size)
    mine, theirs = index.flatten(0, 1), index.flip(0).flatten(0, 1)
    for seed in range(12):
        generator = torch.Generator().manual_seed(seed)
        vectors = torch.randint(-3, 4, (2 * size, 3), generator=generator).double()
        vectors[:, 0] = 4
        vectors[size:] += (torch.arange(size) % 2 == 0)[:, None] * (vectors[:size] - vectors[size:])
        vectors /= vectors.norm(dim=1, keepdim=True)
        cosines = vectors[:size] @ vectors[size:].T
        ways = sharp_ways(cosines, max(k + 2, csls_k), csls_k, 0.0)
        over, under = slack * torch.rand(2, *ways.high.shape, generator=generator).double()
        ways = replace(ways, high=ways.high + over, low=ways.low - under)
        points = SimpleNamespace(unit=1.0, exact=vectors.__getitem__)
        decide = decisions._Decision(points, ways, k, csls_k, tolerance)
        rows = torch.stack([torch.randperm(size, generator=generator)[:3] for _ in range(2)])
        found = decide.exactly(torch.arange(2), rows, mine, theirs)
        for way, truth in enumerate(decisions.block_hits(cosines[None], k, csls_k, tolerance)):
            for name, expected in truth.items():
                assert torch.equal(found[name][way], expected[0][rows[way]]), (name, seed)


@pytest.mark.parametrize("off", [-0.3, 0.0, 0.3])
@pytest.mark.parametrize("own", [0, 1])
def test_ratios_that_tie_alone(own, off):
    """0.6 / 0.75 and 0.4 / 0.5: the lower column wins, by every other score one wins clearly."""
    cosines = torch.zeros(6, 6, dtype=torch.float64)
    cosines[own, own] = 0.6 + off * rounding_tolerance(24)
    cosines[own, 1 - own] = 0.4
    cosines[4:, own] = 1
    cosines[4, 1 - own] = 0.6
    decided_rightly(cosines, 2, 2)
    truth, _ = decisions.block_hits(cosines[None], 2, 2, rounding_tolerance(24))
    found = [bool(truth[name][0, own]) for name in ("retrieval", "csls", "distance", "ratio")]
    assert found == [True, False, False, own == 0]


def test_bounds_serve_large_blocks_with_few_entries_kept():
    assert serves(256, 4, 10)
    assert serves(997, 30, 32)
    assert not serves(255, 4, 10)
    assert not serves(997, 31, 10)
    assert not serves(997, 4, 33)


def test_one_block_at_a_time_or_many(monkeypatch):
    x = crowded(np.random.default_rng(0))
    expected = check(x)
    monkeypatch.setitem(pairs._BLOCK_WORDS, "cpu", 1)
    one_by_one = check(x)
    np.testing.assert_array_equal(one_by_one.csls, expected.csls)


@pytest.mark.parametrize("most", [0, 1, 2])
def test_blocks_shrink_where_memory_is_short(most, monkeypatch):
    x = crowded(np.random.default_rng(0))
    sizes = []
    score = pairs.bounded_scores

    def short(points, own, *rest):
        sizes.append(len(own))
        if len(own) > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return score(points, own, *rest)

    monkeypatch.setattr(pairs, "bounded_scores", short)
    if not most:
        with pytest.raises(torch.OutOfMemoryError):
            check(x)
        return
    check(x)
    assert sizes[0] == 3
    assert sizes[-1] <= most


def test_other_errors_are_not_taken_for_short_memory(monkeypatch):
    def broken(*_):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(pairs, "bounded_scores", broken)
    with pytest.raises(RuntimeError, match="illegal"):
        check(crowded(np.random.default_rng(0)))


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(-6, 2), st.integers(1, 6))
def test_any_closeness(seed, exponent, k):
    """From sentences all but equal to unrelated ones, near ties of every size."""
    generator = np.random.default_rng(seed)
    shared = generator.normal(size=(S, 12))
    x = np.concatenate([shared + 10.0**exponent * generator.normal(size=(S, 12)) for _ in "ab"])
    x[:, 0] += 20
    check(x, k=k)
