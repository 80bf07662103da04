"""Research code without packages, from checkouts that environment variables name.

ILO_FAST_INTERLINGUA, ILO_FAST_PLATONIC and ILO_FAST_RESI are the folders of checkouts of
HLTCHKUST/interlingua, minyoungg/platonic-rep and mklabunde/resi.
"""

import sys
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
import torch
from adapter_cases import checkout, hidden_like
from peers import edit_distance

from ilo_fast import ilo_scores, knn
from ilo_fast.adapters import interlingua, platonic, resi

pytestmark = pytest.mark.adapters


@pytest.fixture
def ilo_module():
    with checkout("ILO_FAST_INTERLINGUA", "src.ilo") as modules:
        yield modules[0]


def embeddings(languages, sentences, d=12, layers=2):
    points, _ = hidden_like(len(languages) * sentences, d, groups=sentences, massive=3.0)
    return np.stack([points, points[:, ::-1] ** 2], axis=1)[:, :layers]


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("reference", [True, False])
def test_interlingua_neighbours_and_scores(ilo_module, metric, reference):
    names = ["a", "b", "c", "d"]
    states = embeddings(names, 40)[:, 0]
    by_language = {name: states[i * 40 : (i + 1) * 40] for i, name in enumerate(names)}
    points = torch.from_numpy(states)
    expected = ilo_module.get_neighbors_indices(points, 5, metric)
    scores = ilo_module.compute_bridge_reach(by_language, 5, 2, metric, device="cpu")
    originals = ilo_module.get_neighbors_indices, ilo_module.derive_metrics
    with interlingua.patched(ilo_module, reference=reference):
        found = ilo_module.get_neighbors_indices(points, 5, metric)
        ours = ilo_module.compute_bridge_reach(by_language, 5, 2, metric, device="cpu")
    assert originals == (ilo_module.get_neighbors_indices, ilo_module.derive_metrics)
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_allclose(found[1], expected[1], rtol=1e-3, atol=1e-5)
    assert found[2] is None
    assert ours == scores
    assert [type(v) for v in ours[0].values()] == [type(v) for v in scores[0].values()]
    assert [type(v) for v in ours[1].values()] == [type(v) for v in scores[1].values()]


def test_interlingua_reference_keeps_the_public_quirk_with_copies(ilo_module):
    states = torch.ones(12, 4)
    states[6:] *= torch.arange(1.0, 7.0)[:, None]
    expected = ilo_module.get_neighbors_indices(states, 3, "cosine")
    with interlingua.patched(ilo_module, reference=True):
        found = ilo_module.get_neighbors_indices(states, 3, "cosine")
    np.testing.assert_array_equal(found[0], expected[0])
    with interlingua.patched(ilo_module):
        found = ilo_module.get_neighbors_indices(states, 3, "cosine")
    assert (found[0] != np.arange(12)[:, None]).all()


def frame(module, states, names, **arguments):
    """Their derive_metrics on a CPU, which they reach by naming the device twice."""
    return module.derive_metrics(
        {"m": states},
        {"m": names},
        [{"name": "m"}],
        "",
        langs_analyzed=names,
        selected_layer=1,
        neighbor_k=5,
        neighbor_threshold=2,
        metric="cosine",
        device="cpu",
        **arguments,
    )


@pytest.mark.parametrize("reference", [True, False])
def test_interlingua_frame_of_997_sentences(ilo_module, reference):
    names = ["a", "b", "c"]
    states = embeddings(names, 997, d=6)
    whole = ilo_module.compute_bridge_reach

    def on_cpu(*arguments, **named):
        return whole(*arguments, **{**named, "device": "cpu"})

    ilo_module.compute_bridge_reach = on_cpu  # the public default is a GPU
    expected = frame(ilo_module, states, names)
    ilo_module.compute_bridge_reach = whole
    with interlingua.patched(ilo_module, reference=reference):
        found = frame(ilo_module, states, names)
    pd.testing.assert_frame_equal(found, expected)


def test_interlingua_any_number_of_sentences_and_a_choice_of_languages(ilo_module):
    names = ["a", "b", "c", "d"]
    states = embeddings(names, 30)
    with interlingua.patched(ilo_module):
        found = ilo_module.derive_metrics(
            {"m": states},
            {"m": names},
            [{"name": "m"}],
            "",
            langs_analyzed=["a", "c", "d"],
            selected_layer=1,
            neighbor_k=5,
            neighbor_threshold=1,
            metric="cosine",
        )
        with pytest.raises(ValueError, match="not the same number"):
            ilo_module.derive_metrics(
                {"m": states[:-1]}, {"m": names}, [{"name": "m"}], "", selected_layer=0
            )
    kept = np.r_[0:30, 60:120]
    labels = np.repeat(["a", "c", "d"], 30)
    expected = ilo_scores(knn(states[kept, 1], 5), labels, threshold=1)
    assert found["language"].tolist() == ["a", "c", "d"]
    np.testing.assert_allclose(found["ilo_scores"], expected.ilo[0], rtol=1e-12)
    np.testing.assert_array_equal(found["raw_reach"], expected.reach_count[0])


def test_patching_ends_after_an_error_and_refuses_another_module(ilo_module):
    before = ilo_module.compute_bridge_reach
    with pytest.raises(KeyError), interlingua.patched(ilo_module):
        raise KeyError
    assert ilo_module.compute_bridge_reach is before
    with pytest.raises(AttributeError, match="get_neighbors_indices"):
        interlingua.patched(np).__enter__()


@pytest.fixture
def platonic_modules(monkeypatch):
    """Their two modules; torchaudio, of which they need one function, as a stand-in."""
    functional = ModuleType("torchaudio.functional")
    functional.edit_distance = edit_distance
    torchaudio = ModuleType("torchaudio")
    torchaudio.functional = functional
    monkeypatch.setitem(sys.modules, "torchaudio", torchaudio)
    monkeypatch.setitem(sys.modules, "torchaudio.functional", functional)
    tasks = ModuleType("tasks")
    tasks.get_models = None
    monkeypatch.setitem(sys.modules, "tasks", tasks)
    utils = ModuleType("utils")
    monkeypatch.setitem(sys.modules, "utils", utils)
    with checkout("ILO_FAST_PLATONIC", "metrics", "measure_alignment") as modules:
        yield modules


NAMES = ["mutual_knn", "cycle_knn", "lcs_knn", "edit_distance_knn", "cknna"]


def unit(points):
    return torch.nn.functional.normalize(torch.as_tensor(points), dim=-1)


@pytest.mark.parametrize("name", NAMES)
def test_platonic_metrics(platonic_modules, name):
    metrics, _ = platonic_modules
    x, _ = hidden_like(150, 20, massive=0.0)
    y = np.tanh(x[:, :12]) + 0.3 * np.random.default_rng(1).normal(size=(150, 12))
    x, y = unit(x), unit(y.astype(np.float32))
    expected = metrics.AlignmentMetrics.measure(name, x, y, topk=10)
    with platonic.patched(metrics):
        found = metrics.AlignmentMetrics.measure(name, x, y, topk=10)
    assert type(found) is type(expected)
    if isinstance(found, torch.Tensor):
        assert found.dtype == expected.dtype
    assert float(found) == pytest.approx(float(expected), rel=2e-5, abs=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_platonic_own_example(platonic_modules, name):
    """The points of the example at the end of their metrics.py."""
    metrics, _ = platonic_modules
    torch.manual_seed(0)
    x, y = unit(torch.randn(64, 8192)), unit(torch.randn(64, 8192))
    expected = metrics.AlignmentMetrics.measure(name, x, y, topk=10)
    with platonic.patched(metrics):
        found = metrics.AlignmentMetrics.measure(name, x, y, topk=10)
    assert float(found) == pytest.approx(float(expected), rel=1e-6, abs=1e-7)


def test_platonic_leaves_the_rest(platonic_modules):
    metrics, _ = platonic_modules
    x = unit(hidden_like(40, 8)[0])
    expected = [
        metrics.AlignmentMetrics.cka(x, x[:, :5]),
        metrics.AlignmentMetrics.cknna(x, x[:, :5], topk=4, unbiased=False),
    ]
    with platonic.patched(metrics):
        found = [
            metrics.AlignmentMetrics.cka(x, x[:, :5]),
            metrics.AlignmentMetrics.cknna(x, x[:, :5], topk=4, unbiased=False),
        ]
    assert found == expected


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("normalize", [True, False])
def test_platonic_compute_score(platonic_modules, name, normalize):
    metrics, measure = platonic_modules
    rng = np.random.default_rng(3)
    base = rng.normal(size=(90, 10))
    x = [torch.from_numpy((base + s * rng.normal(size=base.shape)).astype("f4")) for s in (2, 1)]
    y = [torch.from_numpy((base @ rng.normal(size=(10, d))).astype("f4")) for d in (6, 8, 10)]
    for left, right in ((x, y), (torch.stack(x, dim=1), y)):
        expected = measure.compute_score(left, right, name, 7, normalize)
        with platonic.patched(metrics, measure):
            found = measure.compute_score(left, right, name, 7, normalize)
        assert found[1] == expected[1]
        assert float(found[0]) == pytest.approx(float(expected[0]), rel=2e-5)


def test_platonic_bfloat16_neighbours_are_theirs_only_in_part(platonic_modules):
    """Their class keeps features in bfloat16, whose products misplace most neighbours."""
    metrics, _ = platonic_modules
    x = unit(hidden_like(300, 32, massive=30.0)[0]).bfloat16()
    theirs = metrics.compute_nearest_neighbors(x, 10)
    exact = knn(x, 10, metric="inner_product").indices
    truth = metrics.compute_nearest_neighbors(x.double(), 10)
    np.testing.assert_array_equal(exact, truth)
    assert (theirs.sort(1).values == truth.sort(1).values).all(1).float().mean() < 0.2


@pytest.fixture
def nearest_neighbor():
    pytest.importorskip("einops", reason="needs einops: make test-adapters")
    pytest.importorskip("loguru", reason="needs loguru: make test-adapters")
    before = {name: sys.modules.pop(name) for name in list(sys.modules) if name[:6] == "repsim"}
    # repsim.measures imports every measure and their packages: take the one file
    with checkout("ILO_FAST_RESI") as _:
        folder = sys.path[0]
        for name in ("repsim", "repsim.measures"):
            package = ModuleType(name)
            package.__path__ = [f"{folder}/{name.replace('.', '/')}"]
            sys.modules[name] = package
        import repsim.measures.nearest_neighbor as module

        yield module
    for name in [name for name in sys.modules if name.partition(".")[0] == "repsim"]:
        del sys.modules[name]
    sys.modules.update(before)


@pytest.mark.parametrize(
    "measure", ["JaccardSimilarity", "RankSimilarity", "SecondOrderCosineSimilarity"]
)
def test_resi_measures(nearest_neighbor, measure):
    x, _ = hidden_like(120, 16, massive=2.0)
    y = np.abs(x[:, :9]).astype(np.float64)
    expected = getattr(nearest_neighbor, measure)()(x, y, "nd", k=8)
    with resi.patched(nearest_neighbor):
        found = getattr(nearest_neighbor, measure)()(torch.from_numpy(x), y, "nd", k=8)
    assert isinstance(found, float)
    assert found == pytest.approx(expected, rel=1e-6)
    assert getattr(nearest_neighbor, measure)()(x, y, "nd", k=8) == expected


def test_resi_neighbours_and_joint_measure(nearest_neighbor):
    x, _ = hidden_like(120, 16, massive=2.0)
    y = np.abs(x[:, :9])
    expected = nearest_neighbor.top_k_neighbors(x, 6, "euclidean", 1)
    joint = nearest_neighbor.joint_rank_jaccard_similarity(x, y, "nd", k=6, n_jobs=1)
    with resi.patched(nearest_neighbor):
        np.testing.assert_array_equal(
            nearest_neighbor.top_k_neighbors(x, 6, "euclidean", 1), expected
        )
        ours = nearest_neighbor.joint_rank_jaccard_similarity(x, y, "nd", k=6, n_jobs=1)
        with pytest.raises(ValueError, match="inner must be"):
            nearest_neighbor.top_k_neighbors(x, 6, "manhattan", 1)
    assert ours == pytest.approx(joint, rel=1e-9)
