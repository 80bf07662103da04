"""Tiny random models of every architecture family, and a tokenizer of one token a character."""

import torch
import transformers

SENTENCES = (
    ("abcde fgh", "a", "the cat sat on the mat", "xyz", "quick brown fox", "zyx"),
    ("hgf edcba", "bc", "le chat est sur le mat", "uvw", "renard brun", "abcdefghijklmnop"),
)
_SIZE = {"vocab_size": 99, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3}
_HEADS = {"num_attention_heads": 4}
_GROUPED = {**_SIZE, **_HEADS, "num_key_value_heads": 2, "max_position_embeddings": 64}
_ENCODER = {**_SIZE, **_HEADS, "max_position_embeddings": 64, "pad_token_id": 0}
_NO_SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
_GPT2 = {"vocab_size": 99, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 64}
_T5 = {"vocab_size": 99, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 3, "num_heads": 4}
_M2M = {
    "vocab_size": 99, "d_model": 32, "encoder_layers": 3, "decoder_layers": 1,
    "encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48, "max_position_embeddings": 64,
}  # fmt: skip

# name: (model class, configuration class, its arguments, how batches are made)
FAMILIES = {
    "llama": ("LlamaForCausalLM", "LlamaConfig", _GROUPED, "packed"),
    "gemma2": (
        "Gemma2Model",
        "Gemma2Config",
        # a soft cap that bites and a window shorter than the sentences
        {**_GROUPED, "head_dim": 8, "sliding_window": 4, "attn_logit_softcapping": 2.0,
         "query_pre_attn_scalar": 8},
        "packed",
    ),
    "gemma3": (
        "Gemma3ForCausalLM",
        "Gemma3TextConfig",
        {**_GROUPED, "head_dim": 8, "sliding_window": 4, "query_pre_attn_scalar": 8,
         "layer_types": ["sliding_attention", "sliding_attention", "full_attention"]},
        "packed",
    ),
    "gemma3 both ways": (  # as embedding models use it
        "Gemma3TextModel",
        "Gemma3TextConfig",
        {**_GROUPED, "head_dim": 8, "sliding_window": 6, "query_pre_attn_scalar": 8,
         "use_bidirectional_attention": True},
        "packed",
    ),
    "gpt_oss": (  # learned sinks in the softmax: not for the packed attention
        "GptOssModel",
        "GptOssConfig",
        {**_GROUPED, "head_dim": 8, "num_local_experts": 4, "num_experts_per_tok": 2,
         "sliding_window": 4},
        "equal lengths",
    ),
    "mamba": (  # a state that runs on along the row
        "MambaModel",
        "MambaConfig",
        {"vocab_size": 99, "hidden_size": 32, "num_hidden_layers": 3, "state_size": 8},
        "equal lengths",
    ),
    "qwen2": ("Qwen2Model", "Qwen2Config", _GROUPED, "packed"),
    "qwen2 window": (
        "Qwen2Model",
        "Qwen2Config",
        {**_GROUPED, "use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1},
        "packed",
    ),
    "qwen3": ("Qwen3Model", "Qwen3Config", {**_GROUPED, "head_dim": 8}, "packed"),
    "mistral": ("MistralModel", "MistralConfig", {**_GROUPED, "sliding_window": 4}, "packed"),
    "phi": ("PhiModel", "PhiConfig", _GROUPED, "packed"),
    "olmo": ("OlmoModel", "OlmoConfig", _GROUPED, "packed"),
    "olmo2": ("Olmo2Model", "Olmo2Config", _GROUPED, "packed"),
    "gpt2": ("GPT2LMHeadModel", "GPT2Config", _GPT2, "packed"),
    "gpt_neox": ("GPTNeoXModel", "GPTNeoXConfig", {**_ENCODER, "rotary_pct": 0.5}, "packed"),
    "bloom": (
        "BloomModel", "BloomConfig",
        {"vocab_size": 99, "hidden_size": 32, "n_layer": 3, "n_head": 4}, "equal lengths",
    ),
    "falcon": (
        "FalconModel", "FalconConfig",
        {**_SIZE, **_HEADS, "new_decoder_architecture": False, "alibi": False}, "equal lengths",
    ),
    "falcon alibi": (
        "FalconModel", "FalconConfig", {**_SIZE, **_HEADS, "alibi": True}, "equal lengths",
    ),
    "mixtral": (
        "MixtralModel", "MixtralConfig",
        {**_GROUPED, "num_local_experts": 4, "num_experts_per_tok": 2}, "packed",
    ),
    "opt": (
        "OPTModel", "OPTConfig",
        {**_SIZE, **_HEADS, "ffn_dim": 48, "max_position_embeddings": 64,
         "word_embed_proj_dim": 32}, "packed",
    ),
    "xlm_roberta": (
        "XLMRobertaModel", "XLMRobertaConfig", {**_ENCODER, "pad_token_id": 1}, "packed",
    ),
    "bert": ("BertModel", "BertConfig", _ENCODER, "packed"),
    "albert": (
        "AlbertModel", "AlbertConfig", {**_ENCODER, "embedding_size": 16}, "equal lengths",
    ),
    "modernbert": (
        "ModernBertModel", "ModernBertConfig",
        {**_ENCODER, "local_attention": 6, "global_attn_every_n_layers": 2,
         "cls_token_id": 1, "sep_token_id": 2}, "packed",
    ),
    "t5 encoder": ("T5EncoderModel", "T5Config", _T5, "equal lengths"),
    "mt5": ("MT5ForConditionalGeneration", "MT5Config", _T5, "equal lengths"),
    "xlnet": (  # states of [tokens, batch, dim] within
        "XLNetModel", "XLNetConfig",
        {"vocab_size": 99, "d_model": 32, "n_layer": 3, "n_head": 4, "d_inner": 48},
        "equal lengths",
    ),
    "m2m100": ("M2M100ForConditionalGeneration", "M2M100Config", _M2M, "equal lengths"),
}  # fmt: skip


class Characters:
    """A tokenizer: one token a character after a first token of its own; never padding."""

    model_max_length = 10**30

    def encode(self, text):
        return [3, *(10 + ord(c) % 89 for c in text)]

    def __call__(self, texts, *, truncation=False, max_length=None, **_):
        cut = max_length if truncation else None
        if isinstance(texts, str):
            return {"input_ids": self.encode(texts)[:cut]}
        return {"input_ids": [self.encode(text)[:cut] for text in texts]}


def make(name, seed=0, **more):
    """A random model of the family, weights large enough that attention matters, in float32."""
    model_class, config_class, arguments, _ = FAMILIES[name]
    torch.manual_seed(seed)
    config = getattr(transformers, config_class)(**{**_NO_SPECIAL, **arguments, **more})
    if "softcapping" in str(arguments):
        config._attn_implementation = "eager"  # transformers' sdpa leaves the soft cap out
    model = getattr(transformers, model_class)(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            scale = 0.25 if parameter.ndim > 1 else 0.1
            parameter.add_(torch.randn_like(parameter) * scale)
    return model
