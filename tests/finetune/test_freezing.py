"""Freezing over the architecture matrix, against names written down by hand."""

import re

import pytest
import torch
import transformers
from torch import nn

from ilo_fast.errors import InputError, ModelError
from ilo_fast.finetune import find_parts, freeze

_SIZES = {
    "num_hidden_layers": 4,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_attention_heads": 2,
    "vocab_size": 40,
    "max_position_embeddings": 32,
}
_IDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
_PLAIN = {**_SIZES, **_IDS}
_GROUPED = {**_PLAIN, "num_key_value_heads": 1}
_T5 = {
    "num_layers": 4,
    "num_decoder_layers": 3,
    "d_model": 16,
    "d_kv": 8,
    "d_ff": 24,
    "num_heads": 2,
    "vocab_size": 40,
}
_LLAMA = (["model.embed_tokens.weight"], "model.layers", ["model.norm.weight"])
_T5_EMBEDDINGS = ["shared.weight"]
_T5_NORMS = ["encoder.final_layer_norm.weight", "decoder.final_layer_norm.weight"]
_BERT_EMBEDDINGS = [
    "embeddings.word_embeddings.weight",
    "embeddings.position_embeddings.weight",
    "embeddings.token_type_embeddings.weight",
    "embeddings.LayerNorm.weight",
    "embeddings.LayerNorm.bias",
]

# family: (class, configuration, its arguments, embeddings, list of layers, final norm, head), the
# names of each part as the module trees have them; "tied" where the head is the embedding matrix
FAMILIES = {
    "llama": ("LlamaForCausalLM", "LlamaConfig", _GROUPED, *_LLAMA, ["lm_head.weight"]),
    "gemma2": ("Gemma2ForCausalLM", "Gemma2Config", {**_GROUPED, "head_dim": 8}, *_LLAMA, "tied"),
    "gemma3": (
        "Gemma3ForCausalLM", "Gemma3TextConfig", {**_GROUPED, "head_dim": 8}, *_LLAMA, "tied",
    ),
    "qwen2": ("Qwen2ForCausalLM", "Qwen2Config", _GROUPED, *_LLAMA, ["lm_head.weight"]),
    "qwen2 tied": (
        "Qwen2ForCausalLM", "Qwen2Config", {**_GROUPED, "tie_word_embeddings": True},
        *_LLAMA, "tied",
    ),
    "qwen3": (
        "Qwen3ForCausalLM", "Qwen3Config", {**_GROUPED, "head_dim": 8}, *_LLAMA,
        ["lm_head.weight"],
    ),
    "mistral": ("MistralForCausalLM", "MistralConfig", _GROUPED, *_LLAMA, ["lm_head.weight"]),
    "phi": (
        "PhiForCausalLM", "PhiConfig", _GROUPED, ["model.embed_tokens.weight"], "model.layers",
        ["model.final_layernorm.weight", "model.final_layernorm.bias"],
        ["lm_head.weight", "lm_head.bias"],
    ),
    "phi3": ("Phi3ForCausalLM", "Phi3Config", _GROUPED, *_LLAMA, ["lm_head.weight"]),
    "olmo": (
        # its norms have no parameters
        "OlmoForCausalLM", "OlmoConfig", _GROUPED, ["model.embed_tokens.weight"], "model.layers",
        [], ["lm_head.weight"],
    ),
    "olmo2": ("Olmo2ForCausalLM", "Olmo2Config", _GROUPED, *_LLAMA, ["lm_head.weight"]),
    "mixture of experts": (
        "MixtralForCausalLM", "MixtralConfig", {**_GROUPED, "num_local_experts": 4}, *_LLAMA,
        ["lm_head.weight"],
    ),
    "gpt2": (
        "GPT2LMHeadModel", "GPT2Config",
        {"n_layer": 4, "n_embd": 16, "n_head": 2, "vocab_size": 40, "n_positions": 32, **_IDS},
        ["transformer.wte.weight", "transformer.wpe.weight"], "transformer.h",
        ["transformer.ln_f.weight", "transformer.ln_f.bias"], "tied",
    ),
    "gpt_neox": (
        "GPTNeoXForCausalLM", "GPTNeoXConfig", _PLAIN, ["gpt_neox.embed_in.weight"],
        "gpt_neox.layers",
        ["gpt_neox.final_layer_norm.weight", "gpt_neox.final_layer_norm.bias"],
        None,  # embed_out.weight, or lm_head.weight since transformers 5.2x
    ),
    "bloom": (
        "BloomForCausalLM", "BloomConfig",
        {"n_layer": 4, "hidden_size": 16, "n_head": 2, "vocab_size": 40, **_IDS},
        ["transformer.word_embeddings.weight", "transformer.word_embeddings_layernorm.weight",
         "transformer.word_embeddings_layernorm.bias"], "transformer.h",
        ["transformer.ln_f.weight", "transformer.ln_f.bias"], "tied",
    ),
    "falcon": (
        "FalconForCausalLM", "FalconConfig",
        {"num_hidden_layers": 4, "hidden_size": 16, "num_attention_heads": 2, "vocab_size": 40,
         **_IDS},
        ["transformer.word_embeddings.weight"], "transformer.h",
        ["transformer.ln_f.weight", "transformer.ln_f.bias"], "tied",
    ),
    "xlm_r": (
        "XLMRobertaForMaskedLM", "XLMRobertaConfig", _PLAIN,
        [f"roberta.{name}" for name in _BERT_EMBEDDINGS], "roberta.encoder.layer", [],
        ["lm_head.bias", "lm_head.dense.weight", "lm_head.dense.bias", "lm_head.layer_norm.weight",
         "lm_head.layer_norm.bias", "tied"],
    ),
    "bert": (
        "BertForMaskedLM", "BertConfig", _PLAIN, [f"bert.{name}" for name in _BERT_EMBEDDINGS],
        "bert.encoder.layer", [],
        ["cls.predictions.bias", "cls.predictions.transform.dense.weight",
         "cls.predictions.transform.dense.bias", "cls.predictions.transform.LayerNorm.weight",
         "cls.predictions.transform.LayerNorm.bias", "tied"],
    ),
    "modernbert": (
        "ModernBertForMaskedLM", "ModernBertConfig",
        {**_PLAIN, "cls_token_id": 1, "sep_token_id": 2},
        ["model.embeddings.tok_embeddings.weight", "model.embeddings.norm.weight"],
        "model.layers", ["model.final_norm.weight"],
        ["head.dense.weight", "head.norm.weight", "decoder.bias", "tied"],
    ),
    "t5": (
        "T5ForConditionalGeneration", "T5Config", {**_T5, "decoder_start_token_id": 0},
        _T5_EMBEDDINGS, "encoder.block", _T5_NORMS, "tied",
    ),
    "t5 untied": (
        "T5ForConditionalGeneration", "T5Config",
        {**_T5, "decoder_start_token_id": 0, "tie_word_embeddings": False},
        _T5_EMBEDDINGS, "encoder.block", _T5_NORMS, None,  # tied all the same by transformers 5
    ),
    "mt5": (
        "MT5ForConditionalGeneration", "MT5Config", {**_T5, "decoder_start_token_id": 0},
        _T5_EMBEDDINGS, "encoder.block", _T5_NORMS, None,  # tied or not, by version
    ),
    "gemma4": (  # each layer takes in something of the token of its own
        "Gemma4ForCausalLM", "Gemma4TextConfig",
        {**_GROUPED, "head_dim": 8, "global_head_dim": 8, "hidden_size_per_layer_input": 8,
         "vocab_size_per_layer_input": 40, "num_kv_shared_layers": 0,
         "layer_types": ["sliding_attention", "full_attention"] * 2},
        ["model.embed_tokens.weight", "model.embed_tokens_per_layer.weight",
         "model.per_layer_model_projection.weight", "model.per_layer_projection_norm.weight"],
        "model.layers", ["model.norm.weight"], "tied",
    ),
    "lfm2": (  # its final norm is called after the embeddings
        "Lfm2ForCausalLM", "Lfm2Config", {**_GROUPED, "full_attn_idxs": [1, 3]},
        ["model.embed_tokens.weight"], "model.layers", ["model.embedding_norm.weight"], "tied",
    ),
    "t5 encoder": (
        "T5EncoderModel", "T5Config", _T5, _T5_EMBEDDINGS, "encoder.block", _T5_NORMS[:1], [],
    ),
}  # fmt: skip


def build(family):
    name, config, given, *_ = FAMILIES[family]
    torch.manual_seed(0)
    return getattr(transformers, name)(getattr(transformers, config)(**given))


def tiny_llama(**changes):
    torch.manual_seed(0)
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**{**_GROUPED, **changes}))


def all_names(model, parameter):
    return {n for n, p in model.named_parameters(remove_duplicate=False) if p is parameter}


def expand(model, names):
    """All names of the parameters that have one of these."""
    table = dict(model.named_parameters(remove_duplicate=False))
    return {other for name in names for other in all_names(model, table[name])}


def frozen_names(model):
    named = model.named_parameters(remove_duplicate=False)
    return {name for name, parameter in named if not parameter.requires_grad}


@pytest.mark.parametrize("family", FAMILIES)
def test_each_part_of_every_family(family):
    model = build(family)
    _, _, _, embeddings, layers, norm, head = FAMILIES[family]
    output = model.get_output_embeddings()
    tied = output is not None and output.weight is model.get_input_embeddings().weight
    if head is None:
        head = "tied" if tied else ["lm_head.weight"]
    if "tied" in head:
        assert tied
        head = [] if head == "tied" else head[:-1]
    rows = [
        {name for name, _ in model.named_parameters() if name.startswith(f"{layers}.{number}.")}
        for number in range(4)
    ]
    assert all(rows)

    report = freeze(model, first=3)

    expected = expand(model, [*embeddings, *norm, *head, *set.union(*rows[:3])])
    assert frozen_names(model) == expected
    by_part = {part.part: expand(model, part.names) for part in report.parts}
    name = "encoder layer" if family in ("t5", "t5 untied", "mt5") else "layer"
    assert by_part[f"{name} 1"] == expand(model, rows[1])
    assert by_part["embeddings"] == expand(model, embeddings)
    assert by_part.get("final norm", set()) == expand(model, norm)
    assert by_part.get("head", set()) == expand(model, head)
    sizes = {id(p): (p.numel(), p.requires_grad) for p in model.parameters()}.values()
    assert report.parameters == sum(size for size, _ in sizes)
    assert report.trainable == sum(size for size, open_ in sizes if open_)
    assert report.frozen == sum(part.parameters for part in report.parts)
    assert sum(part.share for part in report.parts) == pytest.approx(report.share)
    assert report.n_layers == 4


@pytest.mark.parametrize("family", FAMILIES)
def test_a_step_moves_exactly_what_is_not_frozen(family):
    model = build(family)
    freeze(model, first=2)
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    ids = torch.randint(3, 40, (2, 8))
    if family == "t5 encoder":
        loss = model(input_ids=ids).last_hidden_state.square().mean()
    else:
        loss = model(input_ids=ids, labels=ids).loss
    loss.backward()
    for name, weight in model.named_parameters():
        assert (weight.grad is not None) <= weight.requires_grad, name
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    torch.optim.SGD(weights, lr=1.0).step()
    for name, weight in model.named_parameters():
        if not weight.requires_grad:
            assert torch.equal(weight, before[name]), name
    moved = [n for n, w in model.named_parameters() if not torch.equal(w, before[n])]
    assert any(re.search(r"\.[23]\.", name) for name in moved)


@pytest.mark.parametrize("family", FAMILIES)
def test_what_the_first_layers_give_stays_whatever_else_is_trained(family):
    model = build(family).eval()
    ids = torch.randint(3, 40, (1, 8), generator=torch.Generator().manual_seed(0))
    runs = model.get_encoder() if model.config.is_encoder_decoder else model.base_model

    @torch.no_grad()
    def states():
        return runs(input_ids=ids, output_hidden_states=True).hidden_states

    before = states()
    freeze(model, first=2)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight.add_(torch.randn_like(weight))
    moved = [not torch.equal(ours, then) for ours, then in zip(states(), before, strict=True)]
    assert moved == [False] * 3 + [True] * 2


@pytest.mark.parametrize("more", [{}, {"conv_kernel_size": 3}])
def test_what_deberta_has_beside_its_layers_counts_as_embeddings(more):
    """The norm of its relative positions is at work in every layer, though it looks like a last."""
    settings = {**_PLAIN, "relative_attention": True, "pos_att_type": ["c2p", "p2c"], **more}
    settings |= {"norm_rel_ebd": "layer_norm", "position_buckets": 8}
    torch.manual_seed(0)
    model = transformers.DebertaV2Model(transformers.DebertaV2Config(**settings)).eval()
    ids = torch.randint(3, 40, (1, 8), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before = model(ids, output_hidden_states=True).hidden_states
        parts = find_parts(model)
        assert {"encoder.rel_embeddings.weight", "encoder.LayerNorm.weight"} < {*parts.embeddings}
        assert (parts.final_norm, parts.other) == ((), ())
        freeze(model, first=2, final_norm=False)
        for weight in model.parameters():
            if weight.requires_grad:
                weight.add_(torch.randn_like(weight))
        after = model(ids, output_hidden_states=True).hidden_states
    moved = [not torch.equal(ours, then) for ours, then in zip(after, before, strict=True)]
    assert moved == [False] * 3 + [True] * 2


def test_exactly_first_layers_and_the_public_codes_one_more():
    def frozen_layers(**options):
        model = tiny_llama(num_hidden_layers=10)
        report = freeze(model, **options)
        return [int(p.part.split()[1]) for p in report.parts if p.part.startswith("layer")]

    assert frozen_layers() == list(range(8))
    assert frozen_layers(first=8, reference_count=True) == list(range(9))
    assert frozen_layers(first=0, last=3) == [7, 8, 9]
    assert frozen_layers(first=2, last=1) == [0, 1, 9]
    assert frozen_layers(first=0) == []


def test_reference_count_freezes_what_the_public_code_freezes():
    def public(model, n_first=8):  # interlingua, src/param_freeze.py
        for layer_id in range(n_first + 1):
            for param in model.model.layers[layer_id].parameters():
                param.requires_grad = False
        for module in (model.model.embed_tokens, model.lm_head, model.model.norm):
            for param in module.parameters():
                param.requires_grad = False

    theirs, ours = tiny_llama(num_hidden_layers=12), tiny_llama(num_hidden_layers=12)
    public(theirs)
    freeze(ours, first=8, reference_count=True)
    assert frozen_names(ours) == frozen_names(theirs)


def test_undo_restores_what_was_and_nothing_else():
    model = tiny_llama()
    model.model.layers[0].mlp.up_proj.weight.requires_grad_(False)
    before = frozen_names(model)
    with freeze(model, first=2) as report:
        part = next(p for p in report.parts if p.part == "layer 0")
        assert part.already == 24 * 16
        assert frozen_names(model) > before
    assert frozen_names(model) == before
    model.lm_head.weight.requires_grad_(False)
    report.undo()
    assert frozen_names(model) == before | {"lm_head.weight"}


def test_undo_happens_on_errors_too_and_nested_freezes_leave_each_other_alone():
    model = tiny_llama()
    with pytest.raises(RuntimeError, match="stop"), freeze(model, first=1):
        raise RuntimeError("stop")
    assert not frozen_names(model)
    with freeze(model, first=1) as outer:
        with freeze(model, first=3, head=False):
            pass
        assert frozen_names(model) == set(outer.names)


def test_parts_can_be_left_out():
    model = tiny_llama()
    freeze(model, first=1, embeddings=False, head=False, final_norm=False)
    assert all(name.startswith("model.layers.0.") for name in frozen_names(model))


def test_tied_embeddings_are_counted_once_and_cannot_differ_from_the_head():
    model = tiny_llama(tie_word_embeddings=True)
    for options in ({"embeddings": False}, {"head": False}):
        with pytest.raises(InputError, match=r"tied parameter .*embed_tokens.*lm_head"):
            freeze(model, first=1, **options)
    assert not frozen_names(model)
    report = freeze(model, first=1)
    assert any("Tied" in note and "lm_head.weight" in note for note in report.notes)
    assert report.parameters == sum(p.numel() for p in model.parameters())
    assert [part.part for part in report.parts] == ["embeddings", "layer 0", "final norm"]


def test_encoder_decoder_stacks():
    options = {"first": 1, "embeddings": False, "head": False, "final_norm": False}
    for stack, wanted in (
        ("auto", {"encoder"}), ("decoder", {"decoder"}), ("both", {"encoder", "decoder"}),
    ):  # fmt: skip
        model = build("t5")
        freeze(model, stack=stack, **options)
        assert {name.split(".")[0] for name in frozen_names(model)} == wanted
        assert all(".block.0." in name for name in frozen_names(model))
    with pytest.raises(InputError, match="decoder stack has 3"):
        freeze(build("t5"), first=4, stack="both")
    with pytest.raises(InputError, match="one stack"):
        freeze(tiny_llama(), first=1, stack="decoder")


def test_a_vision_tower_is_no_part_and_stays_open():
    text = {**_GROUPED, "head_dim": 8, "vocab_size": 60}
    vision = {
        "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 6,
        "num_attention_heads": 2, "image_size": 28, "patch_size": 14,
    }  # fmt: skip
    model = transformers.Gemma3ForConditionalGeneration(
        transformers.Gemma3Config(
            text_config=text, vision_config=vision, mm_tokens_per_image=4, image_token_id=50,
            boi_token_id=51, eoi_token_id=52,
        )
    )  # fmt: skip
    report = freeze(model, first=2)
    frozen = frozen_names(model)
    assert not any("vision" in name or "projector" in name for name in frozen)
    assert {int(n.split(".layers.")[1].split(".")[0]) for n in frozen if ".layers." in n} == {0, 1}
    assert any("In no part" in note for note in report.notes)


@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing_still_trains_the_rest(reentrant):
    model = tiny_llama()
    model.train()
    newer = getattr(model, "activation_checkpointing_enable", None)
    (newer or model.gradient_checkpointing_enable)({"use_reentrant": reentrant})
    hooks = len(model.model.embed_tokens._forward_hooks)
    report = freeze(model, first=2)
    assert any("reentrant" in note for note in report.notes) == reentrant
    ids = torch.randint(3, 40, (2, 8))
    model(input_ids=ids, labels=ids).loss.backward()
    got = {name: weight.grad for name, weight in model.named_parameters()}
    plain = tiny_llama()
    plain.train()
    freeze(plain, first=2)
    plain(input_ids=ids, labels=ids).loss.backward()
    for name, weight in plain.named_parameters():
        if weight.grad is None:
            assert got[name] is None, name
        else:
            torch.testing.assert_close(got[name], weight.grad)
    assert len(model.model.embed_tokens._forward_hooks) == hooks + reentrant
    report.undo()
    assert len(model.model.embed_tokens._forward_hooks) == hooks


def test_quantised_weights():
    model = tiny_llama()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    layer = model.model.layers[0].mlp.up_proj
    layer.weight = nn.Parameter(layer.weight.data.to(torch.int8), requires_grad=False)
    with pytest.raises(ModelError, match=r"quantised.*add adapters"):
        freeze(model, first=1)
    model.lm_head.weight.requires_grad_(True)
    report = freeze(model, first=1, head=False)
    assert any("1 tensors are quantised" in note for note in report.notes)
    report.undo()
    assert not layer.weight.requires_grad


class FakePeft(nn.Module):
    """The shape of a PEFT model: wrapped names, frozen base, trainable adapters in the layers."""

    def __init__(self, model):
        super().__init__()
        for parameter in model.parameters():
            parameter.requires_grad_(False)
        for layer in model.model.layers:
            layer.self_attn.q_proj.lora_A = nn.ModuleDict({"default": nn.Linear(16, 2)})
        self.base_model = nn.Module()
        self.base_model.model = model
        self.prompt_encoder = nn.Embedding(3, 16)

    def get_base_model(self):
        return self.base_model.model


def test_adapters_are_frozen_with_their_layer():
    model = FakePeft(tiny_llama())
    with freeze(model, first=3) as report:
        trainable = {name for name, p in model.named_parameters() if p.requires_grad}
        lora = "base_model.model.model.layers.3.self_attn.q_proj.lora_A.default"
        assert trainable == {f"{lora}.weight", f"{lora}.bias", "prompt_encoder.weight"}
        part = next(p for p in report.parts if p.part == "layer 0")
        assert part.parameters - part.already == 16 * 2 + 2
    assert sum(p.requires_grad for p in model.parameters()) == 9
    assert not any(p.requires_grad for p in model.get_base_model().lm_head.parameters())


def test_wrappers_are_looked_through():
    class Compiled(nn.Module):  # torch.compile's shape, without its import of many seconds
        def __init__(self, model):
            super().__init__()
            self._orig_mod = model

    wrapped = Compiled(nn.DataParallel(tiny_llama()))
    report = freeze(wrapped, first=1)
    assert "_orig_mod.module.model.embed_tokens.weight" in report.names
    assert {n.split(".")[4] for n in frozen_names(wrapped) if ".layers." in n} == {"0"}


def test_notes_say_what_was_done_alone():
    chosen = "Layers were frozen in the encoder; stack= chooses otherwise."
    for stack in ("auto", "encoder", "decoder", "both"):
        assert (chosen in freeze(build("t5"), first=1, stack=stack).notes) == (stack == "auto")
    model = tiny_llama()
    assert freeze(model, first=1).notes == ()
    newer = getattr(model, "activation_checkpointing_enable", None)
    (newer or model.gradient_checkpointing_enable)({"use_reentrant": True})
    assert freeze(model, first=1, embeddings=False).notes == ()


def test_everything_frozen_is_said():
    report = freeze(tiny_llama(), first=4)
    assert report.trainable == 0
    assert "Nothing is left to train." in report.notes


def test_printed_report():
    text = str(freeze(tiny_llama(), first=3))
    assert re.search(r"layers 0–2\s+27\s+\d,\d{3}\s+\d+\.\d\d%", text)
    assert re.search(r"model\s+[\d,]+\s+100\.00%", text)
    data = freeze(tiny_llama(), first=1).to_dict()
    assert data["frozen"] + data["trainable"] == data["parameters"]


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"first": 5}, InputError, "ask for 5 layers, the layer stack has 4"),
        ({"first": 4, "reference_count": True}, InputError, r"\+ 1 by reference_count"),
        ({"first": 2, "last": 3}, InputError, "last=3 ask for 5 layers"),
        ({"first": -1}, InputError, "first must be at least 0"),
        ({"first": 2.0}, TypeError, "first must be an integer"),
        ({"first": True}, TypeError, "first must be an integer"),
        ({"first": 1, "embeddings": 1}, TypeError, "embeddings must be True or False"),
        ({"first": 1, "final_norm": 0}, TypeError, "final_norm must be True or False"),
        ({"first": 1, "reference_count": "yes"}, TypeError, "reference_count must be True or"),
        ({"first": 1, "stack": "middle"}, InputError, "stack must be"),
    ],
)
def test_hostile_arguments_change_nothing(options, error, says):
    model = tiny_llama()
    with pytest.raises(error, match=says):
        freeze(model, **options)
    assert not frozen_names(model)


def test_hostile_models():
    with pytest.raises(ModelError, match="expected a transformers"):
        freeze("gemma", first=1)
    with pytest.raises(ModelError, match="expected a transformers"):
        freeze(nn.Linear(2, 2), first=1)
    shared = transformers.AlbertModel(transformers.AlbertConfig(**_PLAIN, embedding_size=8))
    with pytest.raises(ModelError, match="cannot be told apart"):
        freeze(shared, first=1)
    parted = transformers.XLMModel(transformers.XLMConfig(emb_dim=16, n_layers=4, n_heads=2))
    with pytest.raises(ModelError, match=r"cannot be told apart .* or lie in several lists"):
        freeze(parted, first=1)


def test_parts_hold_every_parameter_once():
    for family in ("llama", "bert", "t5", "gpt2"):
        model = build(family)
        parts = find_parts(model)
        listed = [*parts.embeddings, *parts.final_norm, *parts.head, *parts.other]
        listed += [name for rows in parts.stacks.values() for row in rows for name in row]
        assert sorted(listed) == sorted(name for name, _ in model.named_parameters())
