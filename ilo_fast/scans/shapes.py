"""The size of a model from its configuration alone: config.json, or the header of a GGUF file."""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ilo_fast.scans.configs import DTYPE_BYTES, dtype_of, read_config
from ilo_fast.scans.jobs import Job

__all__ = ["Shape", "shape_of_config", "shape_of_job"]

_STRING, _ARRAY = 8, 9
_SCALARS = dict(zip((0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12), "BbHhIif?Qqd", strict=True))


@dataclass(frozen=True)
class Shape:
    """body, embedding: parameters outside and inside the embedding. active: of the body's, those
    that a token meets, not all experts. dtype: of the weights."""

    layers: int
    width: int
    vocabulary: int
    body: int
    active: int
    embedding: int
    dtype: str

    @property
    def weight_bytes(self) -> int:
        """Memory of the weights (without a language-model head, which is not loaded)."""
        return (self.body + self.embedding) * DTYPE_BYTES[self.dtype]


def shape_of_job(job: Job) -> Shape | None:
    """The shape of a job's model, or None where its configuration cannot be had or read."""
    dtype = job.options["dtype"]
    if job.source == "gguf":
        return _shape_of_gguf(Path(job.target), dtype)
    config = read_config(job.source, job.target, job.commit)
    return None if config is None else shape_of_config(config, dtype)


def shape_of_config(config: Mapping[str, Any], dtype: str = "auto") -> Shape | None:
    """From the values of a config.json; None where width and layers are not in it.

    Counts a decoder's attention (grouped heads, or DeepSeek's through low ranks), its MLP (gated
    where the family is) and all experts, in the layers that have them, shared ones too; norms,
    biases and routers are left out, below one per cent.

    >>> from ilo_fast.scans.shapes import shape_of_config
    >>> config = {"hidden_size": 576, "num_hidden_layers": 30, "num_attention_heads": 9,
    ...           "num_key_value_heads": 3, "intermediate_size": 1536, "vocab_size": 49152,
    ...           "model_type": "llama", "dtype": "bfloat16"}
    >>> shape = shape_of_config(config)
    >>> shape.body, shape.embedding
    (106168320, 28311552)
    """
    nested = config.get("text_config")
    values = {**config, **nested} if isinstance(nested, Mapping) else dict(config)
    width = _first(values, "hidden_size", "n_embd", "d_model", "dim")
    layers = _first(values, "num_hidden_layers", "n_layer", "num_layers", "n_layers")
    if width is None or layers is None:
        return None
    heads = _first(values, "num_attention_heads", "n_head", "num_heads", "n_heads") or 1
    inner = _first(values, "intermediate_size", "n_inner", "d_ff", "hidden_dim") or 4 * width
    attention = layers * _attention(values, width, heads)
    gated = str(values.get("model_type", "")) not in _UNGATED
    body, active = (
        attention + (3 if gated else 2) * width * inners
        for inners in _inner_widths(values, layers, inner)
    )
    vocabulary = _first(values, "vocab_size") or 0
    chosen = (dtype_of(values) or "float32") if dtype == "auto" else dtype
    return Shape(layers, width, vocabulary, body, active, vocabulary * width, chosen)


_UNGATED = {"gpt2", "bert", "roberta", "xlm-roberta", "bloom", "opt", "gpt_neox", "gptj", "phi"}
_UNGATED |= {"distilbert", "electra", "falcon", "gpt_neo", "gpt_bigcode", "starcoder2", "xglm"}


# What families call the same: routed experts, those a token meets, those that all tokens meet, and
# the width of these.
_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
_MET = ("num_experts_per_tok", "num_experts_per_token", "moe_k", "moe_topk")
_SHARED = ("n_shared_experts", "num_shared_experts", "moe_num_shared_experts")
_SHARED_WIDTH = ("shared_expert_intermediate_size", "shared_intermediate_size")


def _attention(values: Mapping[str, Any], width: int, heads: int) -> int:
    """Parameters of a layer's attention."""
    rank = _first(values, "kv_lora_rank")
    if rank is not None:  # of DeepSeek V2 and V3, and who came after
        rotary = _first(values, "qk_rope_head_dim") or 0
        key = (_first(values, "qk_nope_head_dim") or 0) + rotary
        value = _first(values, "v_head_dim") or key
        query_rank = _first(values, "q_lora_rank")
        query = query_rank * (width + heads * key) if query_rank else width * heads * key
        shared = width * (rank + rotary) + rank * heads * (key - rotary + value)
        return query + shared + heads * value * width
    groups = _first(values, "num_key_value_heads", "num_kv_heads") or heads
    head = _first(values, "head_dim", "d_kv") or width // heads
    return width * 2 * (heads + groups) * head


def _inner_widths(values: Mapping[str, Any], layers: int, inner: int) -> tuple[int, int]:
    """Widths of the MLPs of all layers together: of all experts, and of those a token meets."""
    experts = _first(values, *_EXPERTS)
    if experts is None or experts == 1:
        return layers * inner, layers * inner
    sparse = _layers_with_experts(values, layers)
    own = _first(values, "moe_intermediate_size") or inner
    met = min(experts, _first(values, *_MET) or experts)
    shared = _first(values, *_SHARED_WIDTH) or own * (_first(values, *_SHARED) or 0)
    # Llama 4 has one shared expert, and names the width of layers without experts apart.
    if values.get("model_type") in ("llama4", "llama4_text"):
        shared = own
    dense = (layers - sparse) * (_first(values, "intermediate_size_mlp") or inner)
    return dense + sparse * (experts * own + shared), dense + sparse * (met * own + shared)


def _layers_with_experts(values: Mapping[str, Any], layers: int) -> int:
    """How many layers have experts, by the ways in which configurations say so; by default all."""
    kinds = values.get("mlp_layer_types")
    if isinstance(kinds, list):
        return kinds.count("sparse")
    listed = values.get("moe_layers")
    if isinstance(listed, list):
        return len(listed)
    first = _first(values, "first_k_dense_replace", "moe_layer_start_index") or 0
    step = _first(values, "decoder_sparse_step", "interleave_moe_layer_step", "moe_layer_interval")
    offset = -1
    if "expert_layer_period" in values:
        step = _first(values, "expert_layer_period")
        offset = _first(values, "expert_layer_offset") or 0
    dense = values.get("mlp_only_layers")
    left_out = dense if isinstance(dense, list) else ()
    candidates = [at for at in range(first, layers) if at not in left_out]
    return sum((at - offset) % (step or 1) == 0 for at in candidates)


def _first(values: Mapping[str, Any], *names: str) -> int | None:
    for name in names:
        value = values.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    return None


def _shape_of_gguf(path: Path, dtype: str) -> Shape | None:
    try:
        with path.open("rb") as stream:
            fields = _gguf_fields(stream.read(64 << 20))
    except (OSError, struct.error, UnicodeDecodeError, KeyError):
        return None
    family = fields.get("general.architecture", "")
    own = {
        key.removeprefix(f"{family}."): value
        for key, value in fields.items()
        if isinstance(value, int)
    }
    if "attention.head_count" not in own:
        return None
    values = {config: own[name] for name, config in _GGUF_NAMES.items() if name in own}
    if (words := fields.get("tokenizer.ggml.tokens")) is not None:
        values["vocab_size"] = words
    return shape_of_config(values, dtype)


_GGUF_NAMES = {
    "embedding_length": "hidden_size",
    "block_count": "num_hidden_layers",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim",
    "feed_forward_length": "intermediate_size",
    "vocab_size": "vocab_size",
    "expert_count": "num_experts",
    "expert_used_count": "num_experts_per_tok",
    "expert_feed_forward_length": "moe_intermediate_size",
    "expert_shared_feed_forward_length": "shared_expert_intermediate_size",
    "expert_shared_count": "n_shared_experts",
    "leading_dense_block_count": "first_k_dense_replace",
}


def _gguf_fields(data: bytes) -> dict[str, Any]:
    """Scalars and texts of a GGUF header by key; of an array, its length."""
    magic, _, _, count = struct.unpack_from("<4sIQQ", data)
    if magic != b"GGUF":
        raise KeyError("no GGUF file")
    found: dict[str, Any] = {}
    at = 24
    for _ in range(count):
        key, at = _gguf_text(data, at)
        (kind,) = struct.unpack_from("<I", data, at)
        found[key], at = _gguf_value(data, at + 4, kind)
    return found


def _gguf_text(data: bytes, at: int) -> tuple[str, int]:
    (length,) = struct.unpack_from("<Q", data, at)
    end = at + 8 + length
    return data[at + 8 : end].decode(), end


def _gguf_value(data: bytes, at: int, kind: int) -> tuple[Any, int]:
    if kind == _STRING:
        return _gguf_text(data, at)
    if kind != _ARRAY:
        form = "<" + _SCALARS[kind]
        return struct.unpack_from(form, data, at)[0], at + struct.calcsize(form)
    inner, length = struct.unpack_from("<IQ", data, at)
    at += 12
    if inner == _STRING:
        for _ in range(length):
            (size,) = struct.unpack_from("<Q", data, at)
            at += 8 + size
    elif inner == _ARRAY:
        for _ in range(length):
            _, at = _gguf_value(data, at, inner)
    else:
        at += length * struct.calcsize("<" + _SCALARS[inner])
    return length, at
