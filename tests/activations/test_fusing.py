"""Fused kernels: off where they cannot serve and why, the right ones where they do, then undone."""

import importlib.metadata
import sys
import types

import pytest
import torch
import transformers
from families import SENTENCES, Characters, make
from transformers.models.gemma3 import modeling_gemma3
from transformers.models.llama import modeling_llama
from transformers.models.qwen2 import modeling_qwen2

from ilo_fast import Corpus, extract, score
from ilo_fast.activations.fusing import fusing
from ilo_fast.errors import InputError
from ilo_fast.models import find_backbone, fused, load_model

CORPUS = Corpus("pair", ("one", "two"), SENTENCES)
CPU, CUDA = torch.device("cpu"), torch.device("cuda")
VERSION = "0.0.test"
_version = importlib.metadata.version


class FakeLiger(types.ModuleType):
    """Patches as Liger does: an instance's modules, and names in transformers' code.

    Its kernels compute what the model's own code does, times ``error`` in the norms.
    """

    def __init__(self):
        super().__init__("liger_kernel.transformers")
        self.calls, self.error = [], 1.0

    def _patch(self, code, norm, rotary, model, switches):
        self.calls.append((type(model).__name__, switches))
        if rotary:
            own = code.apply_rotary_pos_emb
            code.apply_rotary_pos_emb = lambda *given, **named: own(*given, **named)
        if norm is not None:
            setattr(code, norm, type("FusedNorm", (getattr(code, norm),), {}))
        for child in model.modules():
            if type(child).__name__ == norm:
                child.offset = 0.0
                forward = type(child).forward
                child.forward = lambda x, c=child, f=forward: f(c, x) * self.error

    def apply_liger_kernel_to_llama(
        self,
        rope=True,
        cross_entropy=False,
        fused_linear_cross_entropy=True,
        rms_norm=True,
        swiglu=True,
        model=None,
    ):
        switches = {k: v for k, v in locals().items() if k not in ("self", "model")}
        self._patch(modeling_llama, "LlamaRMSNorm" if rms_norm else None, rope, model, switches)

    def apply_liger_kernel_to_gemma3_text(
        self,
        rope=True,
        cross_entropy=False,
        fused_linear_cross_entropy=True,
        rms_norm=True,
        geglu=True,
        model=None,
    ):
        switches = {k: v for k, v in locals().items() if k not in ("self", "model")}
        self._patch(modeling_gemma3, "Gemma3RMSNorm" if rms_norm else None, rope, model, switches)

    def apply_liger_kernel_to_qwen2(self, rope=True, model=None):
        modeling_qwen2.Qwen2RMSNorm = None
        raise NotImplementedError("no kernel for this card\nat length")


@pytest.fixture
def liger(monkeypatch):
    """A stand-in for the library, and the CPU taken for a device that runs its kernels."""
    library = FakeLiger()
    package = types.ModuleType("liger_kernel")
    package.transformers = library
    package.__spec__ = importlib.machinery.ModuleSpec("liger_kernel", None)
    monkeypatch.setitem(sys.modules, "liger_kernel", package)
    monkeypatch.setitem(sys.modules, "liger_kernel.transformers", library)
    monkeypatch.setattr(
        importlib.metadata,
        "version",
        lambda name: VERSION if name == "liger-kernel" else _version(name),
    )
    monkeypatch.setattr(fused, "_runs_kernels", lambda device: True)
    return library


def run(model, **options):
    return extract(model, Characters(), CORPUS, batch_tokens=40, **options)


def bfloat16(name, **more):
    return make(name, **more).to(torch.bfloat16)


def everything(model):
    """All that Liger could change: each module's names and values, and transformers' code."""
    places = [vars(child) for child in model.modules()]
    places += [vars(code) for code in (modeling_llama, modeling_gemma3, modeling_qwen2)]
    return [dict(place) for place in places]


def changes(model, before):
    """Names that have another value than they had, but for a mark of transformers' own."""
    return {
        name
        for one, other in zip(everything(model), before, strict=True)
        for name in one.keys() | other.keys()
        if one.get(name, changes) is not other.get(name, changes)
    } - {"_output_capturing_hooks_installed"}


# ---------------------------------------------------------------- where it cannot serve


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_auto_does_nothing_on_a_cpu_and_says_so(dtype):
    model = make("llama").to(dtype)
    before = everything(model)
    record = run(model).record
    assert record["fused"] == "off: the model runs on cpu, fused kernels need CUDA"
    assert not changes(model, before)


def test_score_records_and_refuses(tiny_model, parallel_text):
    corpus = Corpus("made-up", tuple(parallel_text), tuple(map(tuple, parallel_text.values())))
    record = score(tiny_model, corpus, fused="off").record
    assert record["extraction"]["fused"] == "off: asked for"
    assert record["options"]["fused"] == "off"
    with pytest.raises(InputError, match=r"fused: 'liger' cannot serve LlamaModel: .* runs on cpu"):
        score(tiny_model, corpus, fused="liger")
    choices = "auto, off, liger, compile"
    with pytest.raises(InputError, match=f"fused must be one of {choices}; got 'triton'"):
        score("no model is looked for", corpus, fused="triton")


def test_without_the_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "liger_kernel", None)
    monkeypatch.setattr(fused.util, "find_spec", lambda name: None)
    reason = fused.why_not_liger(make("llama").model, CUDA, "auto")
    assert reason == "liger-kernel is not installed (pip install 'ilo-fast[liger]')"


def test_reasons_that_need_no_trying(liger):
    float32, unknown = make("llama").model, bfloat16("gpt2").transformer
    why = fused.why_not_liger
    assert why(bfloat16("llama").model, CUDA, "auto") is None
    assert why(float32, CUDA, "auto").startswith("in float32 the model's own rounding is kept")
    assert why(float32, CUDA, "liger") is None
    assert why(float32.double(), CUDA, "auto").startswith("in float64")
    assert why(unknown, CUDA, "liger") == "Liger knows no gpt2 models"
    foreign = type("Foreign", (type(float32),), {"__module__": "someone.elses"})(float32.config)
    assert why(foreign, CUDA, "liger") == "Foreign is not transformers' own code"
    with pytest.raises(InputError, match="cannot serve GPT2Model: Liger knows no gpt2 models"):
        run(make("gpt2"), fused="liger")
    assert liger.calls == []


# ---------------------------------------------------------------- where it serves


@pytest.mark.parametrize(
    ("name", "gate", "used"),
    [
        ("llama", "swiglu", "rms_norm, rope, swiglu"),
        ("gemma3", "geglu", "rms_norm, rope, geglu"),
    ],
)
def test_the_function_of_the_architecture_with_its_switches(liger, name, gate, used):
    model = bfloat16(name)
    before = everything(model)
    store = run(model)
    assert store.record["fused"] == f"liger {VERSION}: {used}"
    [(_, switches)] = liger.calls
    assert switches == {
        "rope": True,
        "rms_norm": True,
        gate: True,
        "cross_entropy": False,
        "fused_linear_cross_entropy": False,
    }
    assert not changes(model, before)
    assert torch.equal(store.states, run(model, fused="off").states)
    assert len(liger.calls) == 1


def test_a_gate_of_another_activation_keeps_its_own_code(liger):
    record = run(bfloat16("llama", hidden_act="gelu")).record
    assert record["fused"] == f"liger {VERSION}: rms_norm, rope"
    assert liger.calls[0][1]["swiglu"] is False


def test_the_kernels_are_those_that_run(liger):
    """A norm 1 % too large, far above float32's rounding and below bfloat16's."""
    liger.error = 1.01
    model = make("llama")
    own = run(model).states
    with pytest.raises(InputError, match=r"tried on a few tokens: they change hidden state 1 by"):
        run(model, fused="liger")
    model = model.to(torch.bfloat16)
    ours, plain = run(model), run(model, fused="off")
    last = (ours.states[-1] / plain.states[-1]).median()
    assert 1.0035 < last < 1.02  # 1.01 to within a step of bfloat16
    assert torch.equal(run(model, fused="off").states, plain.states)
    assert own.isfinite().all()


def test_kernels_that_change_states_beyond_rounding_stay_out(liger):
    liger.error = 3.0
    model = bfloat16("llama")
    before = everything(model)
    store = run(model)
    assert store.record["fused"].startswith("off: tried on a few tokens: they change hidden state")
    assert torch.equal(store.states, run(model, fused="off").states)
    with pytest.raises(InputError, match="'liger' cannot serve LlamaModel: tried on a few tokens"):
        run(model, fused="liger")
    assert not changes(model, before)


def test_a_call_that_breaks_off_is_undone_and_recorded(liger):
    model = bfloat16("qwen2")
    before = everything(model)
    record = run(model).record
    assert record["fused"] == (
        "off: tried on a few tokens: NotImplementedError: no kernel for this card"
    )
    with pytest.raises(InputError, match="no kernel for this card") as raised:
        run(model, fused="liger")
    assert isinstance(raised.value.__cause__, NotImplementedError)
    assert not changes(model, before)


def test_an_error_in_the_block_undoes_it_too(liger):
    model = bfloat16("llama")
    before = everything(model)

    def interrupted():
        with torch.inference_mode(), fusing(find_backbone(model), CPU, "auto"):
            patched = {"apply_rotary_pos_emb", "LlamaRMSNorm", "forward", "offset"}
            assert changes(model, before) == patched
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not changes(model, before)


def test_states_kept_with_other_kernels_are_not_reused(liger, tmp_path):
    model = bfloat16("llama")
    assert run(model, folder=tmp_path).record["states"] == "made"
    assert run(model, folder=tmp_path).record["states"] == "read"
    with pytest.raises(InputError, match="they differ in fused"):
        run(model, folder=tmp_path, fused="off")


def test_a_model_loaded_later_is_not_touched(liger, tiny_model):
    run(bfloat16("llama"))
    norms = [m for m in load_model(tiny_model).model.modules() if "Norm" in type(m).__name__]
    assert norms
    assert {type(norm) for norm in norms} == {transformers.models.llama.modeling_llama.LlamaRMSNorm}
