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
    dtype = str(job.options["dtype"])
    if job.source == "gguf":
        return _shape_of_gguf(Path(job.target), "float32" if dtype == "auto" else dtype)
    config = read_config(job.source, job.target, job.commit)
    return None if config is None else shape_of_config(config, dtype)


def shape_of_config(config: Mapping[str, Any], dtype: str = "auto") -> Shape | None:
    """From the values of a config.json; None where width and layers are not in it.

    Counts a decoder's attention (grouped heads), its MLP (gated where the family is) and all
    experts; norms and biases are left out, below one per cent.

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
    groups = _first(values, "num_key_value_heads", "num_kv_heads") or heads
    head = _first(values, "head_dim", "d_kv") or width // heads
    inner = _first(values, "intermediate_size", "n_inner", "d_ff", "hidden_dim") or 4 * width
    experts = _first(values, "num_local_experts", "num_experts", "n_routed_experts") or 1
    if experts > 1:
        inner = _first(values, "moe_intermediate_size") or inner
    active = min(experts, _first(values, "num_experts_per_tok") or experts)
    vocabulary = _first(values, "vocab_size") or 0
    gated = str(values.get("model_type", "")) not in _UNGATED
    chosen = (dtype_of(values) or "float32") if dtype == "auto" else dtype
    body, body_active = (
        _body(layers, width, heads * head, groups * head, inner * count, gated)
        for count in (experts, active)
    )
    return Shape(layers, width, vocabulary, body, body_active, vocabulary * width, chosen)


_UNGATED = {"gpt2", "bert", "roberta", "xlm-roberta", "bloom", "opt", "gpt_neox", "gptj", "phi"}
_UNGATED |= {"distilbert", "electra", "falcon", "gpt_neo", "gpt_bigcode", "starcoder2", "xglm"}


def _body(layers: int, width: int, query: int, key: int, inner: int, gated: bool) -> int:
    return layers * (width * (2 * query + 2 * key) + (3 if gated else 2) * width * inner)


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
    width, layers = own.get("embedding_length"), own.get("block_count")
    heads = own.get("attention.head_count")
    if not (width and layers and heads):
        return None
    head = own.get("attention.key_length", width // heads)
    groups = own.get("attention.head_count_kv", heads)
    inner = own.get("feed_forward_length", 4 * width)
    inner = own.get("expert_feed_forward_length", inner)
    experts = own.get("expert_count", 0) or 1
    vocabulary = fields.get("tokenizer.ggml.tokens", own.get("vocab_size", 0))
    body, active = (
        _body(layers, width, heads * head, groups * head, inner * count, gated=True)
        for count in (experts, own.get("expert_used_count", 0) or experts)
    )
    return Shape(layers, width, vocabulary, body, active, vocabulary * width, dtype)


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
