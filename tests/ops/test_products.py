"""Which library multiplies float32 matrices on a CPU, and that both prove the same neighbours."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hostile_points import near_ties, one_direction
from knn_oracle import assert_exact
from torch import nn

from ilo_fast import FlatIndex, extract, knn, load_corpus
from ilo_fast.alignment import pair_scores
from ilo_fast.ops import knn_torch, products
from ilo_fast.ops.filter import Plan
from ilo_fast.ops.precision import UNIT_ROUNDOFF_32, gamma

CPU = torch.device("cpu")
LIBRARIES = ("torch", "oneDNN")
HAS_ONEDNN = hasattr(torch.ops.mkldnn, "_linear_pointwise")
needs_onednn = pytest.mark.skipif(not HAS_ONEDNN, reason="this torch was built without oneDNN")


def multiplied_shapes(monkeypatch):
    """Shapes that oneDNN multiplies from now on."""
    shapes, onednn = [], products._onednn
    monkeypatch.setattr(products, "obstacle", lambda device: "")
    assert products.serves(CPU)  # its trial is over

    def noted(left, right, bias=None):
        shapes.append((*left.shape, right.shape[0]))
        return onednn(left, right, bias)

    monkeypatch.setattr(products, "_onednn", noted)
    return shapes


@pytest.fixture(params=[LIBRARIES[0], pytest.param(LIBRARIES[1], marks=needs_onednn)])
def library(request, monkeypatch):
    """Each library, whichever the processor would get."""
    asked = request.param
    monkeypatch.setattr(products, "obstacle", lambda device: "" if asked == "oneDNN" else "a test")
    calls = []
    onednn = products._onednn
    monkeypatch.setattr(products, "_onednn", lambda *args: calls.append(1) or onednn(*args))
    yield asked
    assert bool(calls) == (asked == "oneDNN"), "the library asked for did not multiply"


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 70, 300), (65, 1, 386), (130, 97, 33)])
def test_products_keep_to_the_bound(library, shape):
    rows, columns, terms = shape
    generator = torch.Generator().manual_seed(sum(shape))
    left = torch.randn(rows, terms, generator=generator)
    right = torch.randn(columns, terms, generator=generator)
    exact = left.double() @ right.double().T
    most = gamma(terms, UNIT_ROUNDOFF_32) * (left.double().abs() @ right.double().abs().T)
    out = torch.full((rows, columns), torch.nan)
    out.copy_(products.multiplied(left, right, out))
    assert bool(((out.double() - exact).abs() <= most).all())
    assert torch.equal(products.multiplied(left, right), out)
    assert (products.multiplied(left, right, out) is out) == (library == "torch")


def test_float64_is_left_to_torch(monkeypatch):
    monkeypatch.setattr(products, "serves", lambda device: True)
    left = torch.tensor([[1.0, 2.0**-20]], dtype=torch.float64)
    assert products.multiplied(left, left).item() == 1.0 + 2.0**-40  # 1 in float32


@pytest.mark.parametrize("points", [near_ties, one_direction])
@pytest.mark.parametrize("plan", [(4, 3, 1, 0), (4, 3, 2, 0), (4, 3, 1, 7), None])
def test_neighbours_are_exact_by_either(library, points, plan, monkeypatch):
    """Symmetric tiles, slabs of several, strips; and without bins."""
    chosen = (lambda n, d, k, device: Plan(n, *plan)) if plan else (lambda n, d, k, device: None)
    monkeypatch.setattr(knn_torch, "plan_filter", chosen)
    x = points(np.random.default_rng(0), 300, 21)
    assert_exact(knn(x, 3), x, "cosine")


def answers_of_an_index():
    x = np.random.default_rng(1).normal(size=(2, 700, 21)).astype(np.float32) + 1
    index = FlatIndex(21, "cosine")
    index.add(x[0])
    return list(index.search(x[1], 4))


def answers_of_pairs():
    x = np.random.default_rng(1).normal(size=(900, 9)).astype(np.float32) + 1
    scores = pair_scores(x, np.repeat(range(3), 300), np.tile(range(300), 3))
    names = ("retrieval", "xsim_ratio", "xsim_distance", "csls", "mexa")
    return [getattr(scores, name) for name in names]


@needs_onednn
@pytest.mark.parametrize("answers", [answers_of_an_index, answers_of_pairs])
def test_queries_and_pair_scores_are_the_same_by_either(answers, monkeypatch):
    shapes = multiplied_shapes(monkeypatch)
    found = answers()
    asked = len(shapes)
    monkeypatch.setattr(products, "obstacle", lambda device: "for comparison")
    expected = answers()
    assert len(shapes) == asked > 0
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


@needs_onednn
def test_a_library_that_fails_its_trial_does_not_serve(monkeypatch):
    monkeypatch.setattr(products, "obstacle", lambda device: "")
    coarse = lambda left, right, bias=None: (left.bfloat16() @ right.bfloat16().T).float()  # noqa: E731
    monkeypatch.setattr(products, "_onednn", coarse)
    products._trial.cache_clear()
    try:
        with pytest.warns(RuntimeWarning, match="oneDNN's float32 products"):
            assert not products.serves(CPU)
    finally:
        products._trial.cache_clear()


@needs_onednn
def test_torchs_own_switch_turns_it_off(monkeypatch):
    monkeypatch.setattr(products, "obstacle", lambda device: "")
    assert products.serves(CPU)
    monkeypatch.setattr(torch.backends.mkldnn, "enabled", False)
    assert not products.serves(CPU)


@pytest.mark.parametrize(
    ("vendor", "units", "mkl", "reason"),
    [
        ("AuthenticAMD", "AVX512", True, ""),
        ("AuthenticAMD", "AVX512", False, "another library than MKL"),
        ("AuthenticAMD", "AVX2", True, "no AVX-512"),
        ("GenuineIntel", "AVX512", True, "not AMD's"),
        (None, "AVX512", True, "not AMD's"),
    ],
)
def test_which_processors_get_onednn(vendor, units, mkl, reason, monkeypatch):
    facts = {} if vendor is None else {"vendor_id": vendor}
    monkeypatch.setattr(products, "cpu_facts", lambda: facts)
    monkeypatch.setattr(products.platform, "processor", lambda: "Family 6, GenuineIntel")
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: mkl)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: units)
    monkeypatch.setattr(torch.ops.mkldnn, "_linear_pointwise", object(), raising=False)
    said = products.obstacle(CPU)
    assert reason in said if reason else said == ""


@needs_onednn
@pytest.mark.parametrize("shape", [(5,), (1, 5), (70, 5), (2, 64, 5), (3, 1, 5)])
@pytest.mark.parametrize("bias", [True, False])
def test_linear_layers(shape, bias, monkeypatch):
    """Rows are filled up to a multiple of 64, so that few kernels are made and kept."""
    shapes = multiplied_shapes(monkeypatch)
    torch.manual_seed(0)
    layer, x = nn.Linear(5, 3, bias=bias), torch.randn(shape)
    with torch.inference_mode():
        expected = layer(x)
        with products.fast_linears(CPU) as name:
            torch.testing.assert_close(layer(x), expected)
            torch.testing.assert_close(F.linear(x, weight=layer.weight), expected, atol=9, rtol=9)
        assert name == "oneDNN"
        torch.testing.assert_close(layer(x), expected)
    rows = x.numel() // 5
    assert shapes == [(-(-rows // 64) * 64, 5, 3)]


@needs_onednn
def test_long_sums_are_as_near_as_torchs(monkeypatch):
    shapes = multiplied_shapes(monkeypatch)
    generator = torch.Generator().manual_seed(0)
    x, weight = (torch.randn(64, 2100, generator=generator) for _ in range(2))
    exact = x.double() @ weight.double().T
    with torch.inference_mode(), products.fast_linears(CPU):
        found = F.linear(x, weight)
    assert float((found - exact).norm() / exact.norm()) < 3.2e-7  # 5.6e-7 where oneDNN sums at once
    assert shapes == [(64, 234, 64)] * 3 + [(64, 233, 64)] * 6


@needs_onednn
def test_rows_and_weights_that_are_not_side_by_side(monkeypatch):
    shapes = multiplied_shapes(monkeypatch)
    x, weight = torch.randn(64, 300)[:, ::2], torch.randn(150, 300).T[::2]
    with torch.inference_mode():
        expected = F.linear(x[:, :75], weight[:, :75])
        with products.fast_linears(CPU):
            torch.testing.assert_close(F.linear(x[:, :75], weight[:, :75]), expected)
    assert shapes == [(64, 75, 150)]


class Halved(torch.Tensor):
    """A weight that says float32 and means something else, as quantised ones do."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        plain = [arg.as_subclass(torch.Tensor) if isinstance(arg, cls) else arg for arg in args]
        return func(*plain, **(kwargs or {})) / 2


@needs_onednn
@pytest.mark.parametrize(
    "change",
    [
        lambda x, w: (x.double(), w.double()),
        lambda x, w: (x.bfloat16(), w.bfloat16()),
        lambda x, w: (x[:0], w),
        lambda x, w: (x, w[0]),
        lambda x, w: (x, w.as_subclass(Halved)),
        lambda x, w: (x.to("meta"), w.to("meta")),
    ],
)
def test_other_layers_are_left_alone(change, monkeypatch):
    shapes = multiplied_shapes(monkeypatch)
    x, weight = change(torch.ones(2, 5), torch.ones(3, 5))
    with torch.inference_mode():
        expected = F.linear(x, weight)
        with products.fast_linears(CPU):
            found = F.linear(x, weight)
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    assert found.is_meta or torch.equal(found, expected)
    assert not shapes


def test_hidden_states_by_either(library, tiny_model, monkeypatch):
    from ilo_fast.models import load_model

    loaded = load_model(tiny_model)
    corpus = load_corpus("demo", limit=2)
    store = extract(loaded.model, loaded.tokenizer, corpus, truncate=True)
    assert store.record["products"] == library
    monkeypatch.setattr(products, "serves", lambda device: False)
    plain = extract(loaded.model, loaded.tokenizer, corpus, truncate=True)
    torch.testing.assert_close(store.states, plain.states, rtol=1e-5, atol=1e-5)
