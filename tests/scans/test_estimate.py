"""Estimates of a job: sizes of models from their configurations, seconds, memory, cards."""

import json
import struct

import pytest
import torch
from transformers import CONFIG_MAPPING, AutoModel, LlamaConfig

from ilo_fast.scans.estimate import Device, estimate_job
from ilo_fast.scans.jobs import plan_jobs
from ilo_fast.scans.plan import read_plan
from ilo_fast.scans.shapes import _shape_of_gguf, shape_of_config

CARD = Device("cuda", "NVIDIA H100", 1, 80 << 30, 4.5e14, 7e13)


def test_parameters_are_those_of_the_model():
    config = LlamaConfig(
        vocab_size=100, hidden_size=64, intermediate_size=96, num_hidden_layers=3,
        num_attention_heads=4, num_key_value_heads=2,
    )  # fmt: skip
    shape = shape_of_config(config.to_dict())
    matrices = [p.numel() for p in AutoModel.from_config(config).parameters() if p.ndim == 2]
    assert shape.body + shape.embedding == sum(matrices)
    assert (shape.layers, shape.width, shape.embedding) == (3, 64, 6400)


SMALL = {
    "vocab_size": 100, "hidden_size": 64, "intermediate_size": 512, "moe_intermediate_size": 32,
    "num_hidden_layers": 5, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
    "num_experts_per_tok": 2,
}  # fmt: skip
LOW_RANK = {
    **SMALL, "n_routed_experts": 8, "kv_lora_rank": 24, "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 12, "v_head_dim": 20, "n_group": 1, "topk_group": 1, "pad_token_id": 0,
}  # fmt: skip


@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("qwen3_moe", {"num_experts": 8}),
        ("qwen3_moe", {"num_experts": 8, "decoder_sparse_step": 2, "mlp_only_layers": [3]}),
        ("qwen2_moe", {"num_experts": 8, "shared_expert_intermediate_size": 80, "head_dim": 16}),
        ("qwen2_moe", {"num_experts": 8, "shared_expert_intermediate_size": 80,
                       "mlp_only_layers": [0, 4]}),
        ("mixtral", {"num_local_experts": 8}),
        ("deepseek_v3", {**LOW_RANK, "q_lora_rank": 28, "n_shared_experts": 2,
                         "first_k_dense_replace": 2}),
        ("deepseek_v2", {**LOW_RANK, "q_lora_rank": None, "n_shared_experts": 1,
                         "first_k_dense_replace": 0}),
        ("glm4_moe", {"n_routed_experts": 8, "n_shared_experts": 1, "n_group": 1, "topk_group": 1,
                      "first_k_dense_replace": 1}),
        ("ernie4_5_moe", {"moe_num_experts": 8, "moe_k": 2, "moe_num_shared_experts": 2,
                          "moe_layer_start_index": 1, "moe_layer_interval": 2}),
        ("llama4_text", {"num_local_experts": 8, "intermediate_size_mlp": 90,
                         "interleave_moe_layer_step": 2, "pad_token_id": 0}),
    ],
)  # fmt: skip
def test_experts_are_those_of_the_model(family, options):
    """Of a model that transformers makes, without memory, from the same configuration."""
    options = {**SMALL, **options}
    if family in ("mixtral", "llama4_text"):  # whose experts have the layers' width
        del options["moe_intermediate_size"]
    config = CONFIG_MAPPING[family](**options)
    with torch.device("meta"):
        model = AutoModel.from_config(config)
    beside = ("norm", "bias", ".gate.", "expert_gate", "router")
    sizes = {
        name: weight.numel()
        for name, weight in model.named_parameters()
        if not any(word in name for word in beside)
    }
    shape = shape_of_config(json.loads(config.to_json_string(use_diff=False)))
    assert shape.body + shape.embedding == sum(sizes.values())
    experts = sum(size for name, size in sizes.items() if ".experts." in name)
    assert experts > 0
    assert shape.body - shape.active == experts * 6 // 8


def test_experts_in_every_other_layer():
    """Of Jamba, whose mixers are counted as attention."""
    body = {
        period: shape_of_config(
            {**SMALL, "num_experts": 8, "expert_layer_period": period, "expert_layer_offset": 1}
        ).body
        for period in (1, 2)
    }
    assert body[1] - body[2] == 3 * (3 * 64 * (8 * 32 - 512))


@pytest.mark.parametrize(
    ("config", "layers", "width", "body"),
    [
        ({"model_type": "gpt2", "n_embd": 768, "n_layer": 12, "n_head": 12}, 12, 768, 84934656),
        ({"text_config": {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2}},
         2, 8, 2 * (4 * 64 + 3 * 8 * 32)),
        ({"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "num_experts": 4,
          "intermediate_size": 16}, 1, 8, 256 + 3 * 8 * 16 * 4),
    ],
)  # fmt: skip
def test_other_families(config, layers, width, body):
    shape = shape_of_config(config)
    assert (shape.layers, shape.width, shape.body) == (layers, width, body)


def test_what_is_no_configuration():
    assert shape_of_config({"architectures": ["Odd"]}) is None
    assert shape_of_config({"hidden_size": 8, "num_layers": 2}).dtype == "float32"


def gguf_header(path, **more):
    """A GGUF header of a tiny llama, with every kind of value."""

    def text(value):
        return struct.pack("<Q", len(value)) + value.encode()

    def entry(key, kind, packed):
        return text(key) + struct.pack("<I", kind) + packed

    words = struct.pack("<IQ", 8, 3) + text("a") + text("bb") + text("ccc")
    fields = [
        entry("general.architecture", 8, text("llama")),
        entry("llama.embedding_length", 4, struct.pack("<I", 32)),
        entry("llama.block_count", 4, struct.pack("<I", 2)),
        entry("llama.attention.head_count", 4, struct.pack("<I", 4)),
        entry("llama.rope.freq_base", 6, struct.pack("<f", 1e4)),
        entry("tokenizer.ggml.tokens", 9, words),
        entry("tokenizer.ggml.scores", 9, struct.pack("<IQ3f", 6, 3, 1, 2, 3)),
        entry("odd", 9, struct.pack("<IQ", 9, 1) + struct.pack("<IQ2B", 0, 2, 1, 2)),
        entry("llama.feed_forward_length", 4, struct.pack("<I", 64)),
        *(entry(f"llama.{name}", 4, struct.pack("<I", value)) for name, value in more.items()),
    ]
    path.write_bytes(struct.pack("<4sIQQ", b"GGUF", 3, 0, len(fields)) + b"".join(fields))


def test_the_header_of_a_gguf_file(tmp_path):
    gguf_header(tmp_path / "m.gguf")
    shape = _shape_of_gguf(tmp_path / "m.gguf", "float32")
    assert (shape.layers, shape.width, shape.vocabulary) == (2, 32, 3)
    assert shape.body == 2 * (4 * 32 * 32 + 3 * 32 * 64)
    for content in (b"", b"GGUF", b"nothing like it" * 9, (tmp_path / "m.gguf").read_bytes()[:99]):
        (tmp_path / "m.gguf").write_bytes(content)
        assert _shape_of_gguf(tmp_path / "m.gguf", "float32") is None
    gguf_header(tmp_path / "m.gguf", expert_count=4, expert_used_count=2)
    shape = _shape_of_gguf(tmp_path / "m.gguf", "float32")
    assert shape.body == 2 * (4 * 32 * 32 + 3 * 32 * 64 * 4)
    assert shape.active == 2 * (4 * 32 * 32 + 3 * 32 * 64 * 2)
    gguf_header(
        tmp_path / "m.gguf", expert_count=4, expert_used_count=2, expert_feed_forward_length=16,
        expert_shared_count=3, leading_dense_block_count=1,
    )  # fmt: skip
    shape = _shape_of_gguf(tmp_path / "m.gguf", "float32")
    assert shape.body == 2 * 4 * 32 * 32 + 3 * 32 * (64 + 16 * 7)
    assert shape.active == shape.body - 3 * 32 * 16 * 2


def test_estimates_grow_with_what_is_asked(plan):
    def estimate(device=CARD, **options):
        given = {**plan, "defaults": {**plan["defaults"], **options}}
        jobs, corpora = plan_jobs(read_plan(given))
        return estimate_job(jobs[0], corpora["text"], device)

    one = estimate()
    assert one.known
    assert one.cards == 1
    assert estimate(metrics=["cosine", "euclidean"]).seconds > one.seconds
    assert estimate(keep_neighbors=True).results > one.results
    assert estimate(layers="0").results < one.results
    assert estimate(device=Device("cuda", "small", 8, 1 << 27, 1e12, 1e12)).cards > 1
    tokens = 4 * sum(3 + n % 6 for n in range(5)) + 20
    assert tokens / 6 < one.tokens < tokens * 6
