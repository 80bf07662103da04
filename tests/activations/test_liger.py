"""Liger itself, wherever it is installed: its kernels sit where each architecture's own code sat.

Its kernels need a card, so plain torch stands in for each, with the same arguments. What is left is
what a version of Liger or transformers can break: which modules are patched, the norm's offset and
epsilon, the gate's activation, the rotary layout.
"""

import pytest
import torch
import torch.nn.functional as F
from families import SENTENCES, Characters, make

from ilo_fast import Corpus, extract
from ilo_fast.models import fused

pytest.importorskip("liger_kernel", reason="needs the extra 'liger': make test")

CORPUS = Corpus("pair", ("one", "two"), SENTENCES)
KNOWN = {
    "llama": "swiglu",
    "mistral": "swiglu",
    "qwen2": "swiglu",
    "qwen3": "swiglu",
    "olmo2": "swiglu",
    "gemma2": "geglu",
    "gemma3": "geglu",
}


@pytest.fixture
def kernels(monkeypatch):
    """Plain torch in the kernels' places; names of those that ran."""
    from liger_kernel.transformers import geglu, rms_norm, rope, swiglu

    ran = set()

    class Norm:
        @staticmethod
        def apply(x, weight, eps, offset, casting, in_place, row_mode):
            ran.add("rms_norm")
            wide = x.float()
            wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
            return ((weight.float() + offset) * wide).to(x.dtype)

    def gate(name, function):
        class Gate:
            @staticmethod
            def apply(a, b, *multipliers):
                ran.add(name)
                assert all(multiplier == 1 for multiplier in multipliers)
                return function(a) * b

        return Gate

    def rotary(name, q, k, cos, sin, position_ids=None, unsqueeze_dim=1):
        ran.add(name)
        cos, sin = cos.unsqueeze(unsqueeze_dim), sin.unsqueeze(unsqueeze_dim)

        def turned(x):
            left, right = x.chunk(2, -1)
            return x * cos + torch.cat([-right, left], -1) * sin

        return turned(q), turned(k)

    monkeypatch.setattr(rms_norm, "LigerRMSNormFunction", Norm)
    monkeypatch.setattr(swiglu, "LigerSiLUMulFunction", gate("swiglu", F.silu))
    tanh = gate("geglu", lambda x: F.gelu(x, approximate="tanh"))
    monkeypatch.setattr(geglu, "LigerGELUMulFunction", tanh)
    monkeypatch.setattr(rope, "dispatch", rotary)
    monkeypatch.setattr(fused, "_runs_kernels", lambda device: True)
    return ran


@pytest.mark.parametrize("family", KNOWN)
def test_liger_computes_what_the_model_does(kernels, family):
    model = make(family)
    given = (model, Characters(), CORPUS)
    own = extract(*given, batch_tokens=30, fused="off")
    assert kernels == set()
    ours = extract(*given, batch_tokens=30, fused="liger")
    used = ["rms_norm", "rope", KNOWN[family]]
    assert ours.record["fused"].startswith("liger ")
    assert ours.record["fused"].endswith(": " + ", ".join(used))
    assert kernels == set(used)
    torch.testing.assert_close(ours.states, own.states, rtol=1e-5, atol=1e-5)
    kernels.clear()
    after = extract(*given, batch_tokens=30, fused="off")
    assert torch.equal(after.states, own.states)
    assert kernels == set()


@pytest.mark.parametrize("family", ["gpt2", "bert", "phi", "olmo", "modernbert", "falcon"])
def test_other_architectures_go_on_with_their_own_code(kernels, family):
    model = make(family).to(torch.bfloat16)
    record = extract(model, Characters(), CORPUS, batch_tokens=30).record
    assert record["fused"] == f"off: Liger knows no {family} models"
