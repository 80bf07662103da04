"""A tiny random model on disk, and parallel text it can read; no network, no downloads."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

VOCABULARY = """
ana bo cad dun elo fin gor hul ib jom kel lum mar nis ot pel qua ros sil tam
ur vek wol xim yor zen
"""
WORDS = VOCABULARY.split()
LANGUAGES = ("ell_Grek", "eng_Latn", "hin_Deva", "swh_Latn")
SENTENCES = 12
# What `ilo-fast score` writes unless told otherwise.
FILES = ["languages.png", "layers.png", "run.json", "scores.csv", "scores.parquet"]


def sentence(language: int, number: int) -> str:
    """Different words in every language, as many as ``number`` asks for, always the same ones."""
    return " ".join(
        f"{WORDS[(7 * number + 3 * place) % len(WORDS)]}{'aeiou'[language % 5]}"
        for place in range(3 + number % 6)
    )


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer of 120 entries, trained on `sentence` in all of `LANGUAGES`."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    texts = [sentence(at, number) for at in range(len(LANGUAGES)) for number in range(SENTENCES)]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.BpeTrainer(vocab_size=120, special_tokens=["<unk>", "<s>", "</s>"])
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )


def save_tiny_model(folder: Path, **config: int) -> Path:
    """A random Llama of 3 layers with a tokenizer of its own, as the hub would store it."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = tiny_tokenizer()
    tokenizer.save_pretrained(folder)
    settings = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        **{"max_position_embeddings": 64, **config},
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        LlamaForCausalLM(settings).float().save_pretrained(folder)
    return folder
