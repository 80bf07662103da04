"""calibrated-similarity: the same permutations give the same numbers."""

import numpy as np
import pytest
import torch
from adapter_cases import hidden_like

package = pytest.importorskip(
    "calibrated_similarity", reason="needs calibrated-similarity: make test-adapters"
)

from ilo_fast import knn  # noqa: E402
from ilo_fast.adapters import calibrated_similarity as ours  # noqa: E402
from ilo_fast.overlap import layer_overlap  # noqa: E402

pytestmark = pytest.mark.adapters
TOPK = 6


def similarity(name):
    def sim(x, y):
        lists = (knn(z, TOPK) for z in (x, y))
        return float(layer_overlap(*lists, metric=name).values[0, 0])

    return sim


@pytest.fixture(scope="module")
def spaces():
    x, _ = hidden_like(90, 12, massive=1.0)
    noise = np.random.default_rng(0).normal(size=(90, 12))
    return [torch.from_numpy((x + s * noise).astype("f4")) for s in (0.0, 1.0, 4.0)]


def generator():
    return torch.Generator().manual_seed(7)


@pytest.mark.parametrize("name", ["mutual_knn", "jaccard", "rank_similarity", "edit_distance_knn"])
@pytest.mark.parametrize("smax", [1.0, None])
def test_calibrate(spaces, name, smax):
    for y in spaces[1:]:
        arguments = {"K": 19, "alpha": 0.1, "smax": smax}
        expected = package.calibrate(
            spaces[0], y, similarity(name), generator=generator(), **arguments
        )
        found = ours.calibrate(spaces[0], y, name, topk=TOPK, generator=generator(), **arguments)
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("agg", ["max", "mean", torch.median])
def test_calibrate_layers(spaces, agg):
    expected = package.calibrate_layers(
        spaces[:2], spaces, similarity("mutual_knn"), agg=agg, K=15, generator=generator()
    )
    found = ours.calibrate_layers(
        spaces[:2], spaces, "mutual_knn", agg=agg, topk=TOPK, K=15, generator=generator()
    )
    torch.testing.assert_close(found, expected)


def linear_cka(x, y):
    x, y = (z.double() - z.double().mean(dim=0) for z in (x, y))
    return (x.T @ y).norm() ** 2 / ((x.T @ x).norm() * (y.T @ y).norm())


@pytest.mark.parametrize("agg", ["max", "mean", torch.median])
def test_cka(spaces, agg):
    wide = [spaces[0], torch.cat(spaces, dim=1)]  # widths may differ
    arguments = {"agg": agg, "K": 15, "alpha": 0.1}
    expected = package.calibrate_layers(
        wide, spaces, linear_cka, generator=generator(), **arguments
    )
    found = ours.calibrate_layers(wide, spaces, "cka", generator=generator(), **arguments)
    torch.testing.assert_close(found, expected)


def test_own_permutations(spaces):
    def reverse(n, device):
        return torch.arange(n - 1, -1, -1, device=device)

    expected = package.calibrate(*spaces[:2], similarity("jaccard"), K=3, perm_fn=reverse)
    found = ours.calibrate(*spaces[:2], "jaccard", topk=TOPK, K=3, perm_fn=reverse)
    torch.testing.assert_close(found, expected)


def test_hostile_input(spaces):
    with pytest.raises(ValueError, match="agg must be"):
        ours.calibrate_layers(spaces, spaces, agg="median")
    with pytest.raises(ValueError, match="smax must be positive"):
        ours.calibrate(*spaces[:2], smax=0)
    with pytest.raises(ValueError, match="X must have at least one layer"):
        ours.calibrate_layers([], spaces)


@pytest.mark.parametrize("name", ["mutual_knn", "jaccard", "cka"])
def test_points_that_do_not_match(spaces, name):
    x, y = spaces[:2]
    for wrong in (y[:-9], y.reshape(2, 45, 12)):
        with pytest.raises(ValueError, match="must"):
            package.calibrate(x, wrong, linear_cka, K=1)
        with pytest.raises(ValueError, match=r"the same points in all|Y must be \[n, d\]"):
            ours.calibrate(x, wrong, name, K=1)
    with pytest.raises(ValueError, match="got 80 and 90"):
        ours.calibrate_layers([x, y[:80]], [x], name, K=1)
    with pytest.raises(ValueError, match="K must be a positive integer, got 0"):
        ours.calibrate(x, y, name, K=0)
    with pytest.raises(ValueError, match="NaN"):
        ours.calibrate(x, torch.ones(90, 3), "cka", K=1)
