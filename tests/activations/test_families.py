"""Every architecture family, without padding, equals one sentence at a time in float32."""

from importlib import import_module
from inspect import signature

import numpy as np
import pytest
import torch
import transformers
from families import FAMILIES, SENTENCES, Characters, make

from ilo_fast import Corpus, extract, tap
from ilo_fast.activations import attention, packing
from ilo_fast.activations.capability import Capability, probe
from ilo_fast.activations.masks import PackedMask
from ilo_fast.activations.taps import _CACHES
from ilo_fast.errors import ModelError
from ilo_fast.models import find_backbone

CORPUS = Corpus("pair", ("one", "two"), SENTENCES)
POOLS = ("mean", "last", "weighted")


def one_at_a_time(model, tokenizer, corpus):
    """{pool: float64 [layers, points, dim]} from transformers' own hidden states."""
    module = find_backbone(model).module
    pooled = {pool: [] for pool in POOLS}
    with torch.no_grad():
        for text in corpus.texts:
            ids = torch.tensor([tokenizer.encode(text)])
            output = module(ids, attention_mask=torch.ones_like(ids), output_hidden_states=True)
            states = torch.stack([h[0] for h in output.hidden_states]).double().numpy()
            places = np.arange(1, states.shape[1] + 1, dtype=np.float64)
            pooled["mean"].append(states.mean(1))
            pooled["last"].append(states[:, -1])
            pooled["weighted"].append(np.einsum("lnd,n->ld", states, places) / places.sum())
    return {pool: np.stack(vectors, 1) for pool, vectors in pooled.items()}


def worst(states, truth):
    """The largest error of a vector, relative to its length."""
    ours = states.double().numpy()
    return (np.linalg.norm(ours - truth, axis=2) / np.linalg.norm(truth, axis=2)).max()


@pytest.mark.parametrize("name", FAMILIES)
def test_equals_one_sentence_at_a_time(name):
    model, tokenizer = make(name), Characters()
    truth = one_at_a_time(model, tokenizer, CORPUS)
    before = model.config._attn_implementation
    for pool in POOLS:
        store = extract(model, tokenizer, CORPUS, pool=pool, batch_tokens=70)
        assert store.states.dtype == torch.float32
        assert worst(store.states, truth[pool]) < 1e-5, pool
        assert store.record["batches"] == FAMILIES[name][3], store.record["batches_reason"]
    assert model.config._attn_implementation == before
    # the sentences are not all alike, or equality would say little
    assert np.ptp(truth["mean"], axis=1).max(axis=1).min() > 0.01


@pytest.mark.parametrize("name", FAMILIES)
def test_no_cache_is_built(name, monkeypatch):
    def built(*_, **__):
        raise AssertionError("a cache")

    monkeypatch.setattr(transformers.Cache, "__init__", built)
    model, given = make(name), []
    module = find_backbone(model).module
    module.register_forward_hook(lambda _, __, output: given.append({*output.keys()}))
    taps = extract(model, Characters(), CORPUS, batch_tokens=70).record["taps"]
    if taps == "hooks":
        asked = {"use_cache": False} if "use_cache" in signature(module.forward).parameters else {}
        with tap(model) as tapped, torch.no_grad():
            module(torch.tensor([Characters().encode("abc")]), **asked)
        assert tapped.n_points == 1
    assert len(given) > 3  # trials and batches
    assert not set.union(*given) & set(_CACHES)


@pytest.mark.parametrize("name", ["llama", "gpt_oss", "gpt2", "bert", "m2m100"])
def test_outputs_that_its_configuration_asks_for_are_not_kept(name):
    """All of a batch's hidden states and attentions would be, and none of them read."""
    asked = {"output_hidden_states": True, "output_attentions": True, "return_dict": False}
    model, given = make(name, attn_implementation="eager", **asked), []
    find_backbone(model).module.register_forward_hook(lambda *called: given.append(called[2]))
    states = extract(model, Characters(), CORPUS).states
    assert worst(states, one_at_a_time(make(name), Characters(), CORPUS)["mean"]) < 1e-5
    # the first is the trial of the hooks, the rest are batches or trials of packed rows
    assert all(not output.keys() & {"hidden_states", "attentions"} for output in given[1:])
    assert {name: getattr(model.config, name) for name in asked} == asked


@pytest.mark.parametrize("name", ["llama", "gpt2", "opt", "bert", "mamba", "m2m100"])
def test_a_model_that_returns_tuples(name):
    model, tuples, tokenizer = make(name), make(name, return_dict=False), Characters()
    states = extract(model, tokenizer, CORPUS).states
    assert torch.equal(extract(tuples, tokenizer, CORPUS).states, states)
    assert tuples.config.return_dict is False
    if name in ("opt", "mamba"):  # run with its own settings OPT fails; a tap refuses Mamba
        return
    ids = torch.tensor([tokenizer.encode(CORPUS.texts[0])])
    with tap(tuples) as tapped, torch.no_grad():
        assert isinstance(find_backbone(tuples).module(ids), tuple)
    torch.testing.assert_close(tapped.states, states[:, :1])


def test_a_row_longer_than_any_sentence_may_be():
    """Its model has a buffer of token types, as long as its longest sentence."""
    torch.manual_seed(0)
    settings = transformers.ChineseCLIPTextConfig(
        vocab_size=99, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, max_position_embeddings=24, pad_token_id=0,
    )  # fmt: skip
    model, tokenizer = transformers.ChineseCLIPTextModel(settings).eval(), Characters()
    store = extract(model, tokenizer, CORPUS)
    assert store.record["batches"] == "packed"
    assert store.record["tokens"] > 2 * 24
    assert worst(store.states, one_at_a_time(model, tokenizer, CORPUS)["mean"]) < 1e-5


def test_layers_of_two_attentions_each():
    """LongCat-Flash's configuration counts its attentions as layers."""
    torch.manual_seed(0)
    settings = transformers.LongcatFlashConfig(
        vocab_size=99, hidden_size=32, num_layers=2, num_attention_heads=4, ffn_hidden_size=48,
        q_lora_rank=16, kv_lora_rank=16, qk_nope_head_dim=8, qk_rope_head_dim=8, v_head_dim=8,
        head_dim=8, n_routed_experts=4, moe_topk=2, zero_expert_num=2, expert_ffn_hidden_size=16,
    )  # fmt: skip
    model, tokenizer = transformers.LongcatFlashForCausalLM(settings).eval(), Characters()
    assert model.config.num_hidden_layers == 4
    store = extract(model, tokenizer, CORPUS)
    assert store.layers == (0, 1, 2)
    assert worst(store.states, one_at_a_time(model, tokenizer, CORPUS)["mean"]) < 1e-5


@pytest.mark.parametrize(
    ("keep", "said"),
    [
        (slice(1, None), r"returned 3 hidden states, expected 4, .* each of the 3 layers .*\.knn"),
        (None, r"returned no hidden_states though output_hidden_states=True .*\.knn"),
    ],
)
def test_hidden_states_that_are_not_one_for_each_layer_are_refused(keep, said):
    """Dory's layers run several times, and some of Sam3LiteText's are left out."""

    class Otherwise(transformers.LlamaModel):
        def forward(self, *args, output_hidden_states=False, **kwargs):
            output = super().forward(*args, output_hidden_states=output_hidden_states, **kwargs)
            if output_hidden_states:
                output.hidden_states = output.hidden_states[keep] if keep else None
            return output

    model = Otherwise(make("llama").config).eval()
    for run in (lambda: extract(model, Characters(), CORPUS), tap(model).__enter__):
        with pytest.raises(ModelError, match=said):
            run()


def forced_error(monkeypatch, name):
    """The worst error of the mean when packing is used without asking the probe."""
    model, tokenizer = make(name), Characters()
    truth = one_at_a_time(model, tokenizer, CORPUS)
    way = Capability("packed", "hooks")
    monkeypatch.setattr(import_module("ilo_fast.activations.extract"), "probe", lambda *_: way)
    store = extract(model, tokenizer, CORPUS, batch_tokens=70)
    return worst(store.states, truth["mean"])


@pytest.mark.parametrize("name", ["llama", "gpt2", "bert", "mixtral"])
def test_cross_talk_would_be_caught(name, monkeypatch):
    def one_group(self):
        return (packing.Group(0, 1, self.n_tokens),)

    monkeypatch.setattr(packing.Segments, "groups", property(one_group))
    model = make(name)
    with torch.no_grad():
        way = probe(find_backbone(model), torch.device("cpu"), [0])
    assert way.batches == "equal lengths"
    assert "changes hidden state" in way.batches_reason
    assert forced_error(monkeypatch, name) > 1e-2


@pytest.mark.parametrize("name", ["gpt2", "bert", "xlm_roberta", "opt"])
def test_positions_that_do_not_restart_would_be_caught(name, monkeypatch):
    def running_on(self, first=0):
        return torch.arange(self.n_tokens) + first

    wide = {"n_positions" if name == "gpt2" else "max_position_embeddings": 160}
    monkeypatch.setitem(FAMILIES, name, (*FAMILIES[name][:2], {**FAMILIES[name][2], **wide}, ""))
    monkeypatch.setattr(packing.Segments, "positions", running_on)
    assert probe(find_backbone(make(name)), torch.device("cpu"), [0]).batches == "equal lengths"
    assert forced_error(monkeypatch, name) > 1e-2


@pytest.mark.parametrize("name", ["gemma3", "mistral", "qwen2 window", "modernbert"])
def test_a_lost_window_would_be_caught(name, monkeypatch):
    form = "full" if name == "modernbert" else "causal"
    monkeypatch.setattr(PackedMask, "form", lambda *_: form)
    assert forced_error(monkeypatch, name) > 1e-3


# Weights as small as these hide in the rounding of 16 bits what runs on from sentence to sentence.
HYBRIDS = {
    "minimax": (
        transformers.MiniMaxModel, transformers.MiniMaxConfig,
        {"vocab_size": 99, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4,
         "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "block_size": 4,
         "num_local_experts": 4, "num_experts_per_tok": 2},
    ),
    "lfm2_moe": (
        transformers.Lfm2MoeModel, transformers.Lfm2MoeConfig,
        {"vocab_size": 99, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4,
         "moe_intermediate_size": 16, "num_attention_heads": 4, "num_key_value_heads": 2,
         "num_experts": 4, "num_experts_per_tok": 2, "num_dense_layers": 1,
         "layer_types": ["conv", "full_attention", "conv", "full_attention"]},
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("minimax", torch.bfloat16),
        ("minimax", torch.float16),
        ("lfm2_moe", torch.float32),
    ],
)
def test_little_that_runs_on_from_the_sentence_before_is_caught(name, dtype):
    model_class, config_class, arguments = HYBRIDS[name]
    torch.manual_seed(1)
    model = model_class(config_class(**arguments, pad_token_id=0)).eval().to(dtype)
    with torch.no_grad():
        way = probe(find_backbone(model), torch.device("cpu"), [0])
    assert way.batches == "equal lengths"
    assert "the sentences beside one in a packed row change" in way.batches_reason
    if dtype == torch.float32:
        truth = one_at_a_time(model, Characters(), CORPUS)["mean"]
        assert worst(extract(model, Characters(), CORPUS).states, truth) < 1e-5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["gemma2", "mixtral", "modernbert", "bert"])
def test_other_neighbours_in_a_row_change_nothing(name, dtype):
    with torch.no_grad():
        way = probe(find_backbone(make(name).to(dtype)), torch.device("cpu"), [0])
    assert way.batches == "packed", way.batches_reason


def test_a_lost_soft_cap_would_be_caught(monkeypatch):
    attend = attention._attend

    def uncapped(query, key, value, mask, scaling, softcap, row):
        return attend(query, key, value, mask, scaling, None, row)

    monkeypatch.setattr(attention, "_attend", uncapped)
    assert forced_error(monkeypatch, "gemma2") > 1e-3


def test_half_precision_packs():
    for dtype in (torch.bfloat16, torch.float16):
        model, tokenizer = make("llama").to(dtype), Characters()
        store = extract(model, tokenizer, CORPUS)
        assert store.record["batches"] == "packed"
        assert store.record["dtype"] == str(dtype).removeprefix("torch.")
        assert worst(store.states, one_at_a_time(model, tokenizer, CORPUS)["mean"]) < 0.05
