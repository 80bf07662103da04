"""What a model is asked before and after: scores by layer, bits per byte by language."""

import math

import numpy as np
import torch
from torch.nn import functional as F

from ilo_fast import Corpus
from ilo_fast.finetune.scoring import ScoreOptions, score_in_place

TOKENS = 256  # a batch's logits for a vocabulary of 262,144 are then 268 MB


def evaluate(model, tokenizer, corpus: Corpus, name: str, perplexity_sentences: int | None):
    """The scores of every layer and language, the neighbours, and bits per byte."""
    model.eval()
    scored = score_in_place(model, tokenizer, corpus, name, ScoreOptions())
    bits = bits_per_byte(model, tokenizer, corpus.select(limit=perplexity_sentences))
    return scored, bits


@torch.inference_mode()
def bits_per_byte(model, tokenizer, corpus: Corpus) -> np.ndarray:
    """-log2 p(sentence) and its UTF-8 bytes, float64 ``[languages, sentences, 2]``.

    Each sentence follows the token the tokenizer begins a text with, which is not scored; bits per
    byte of a language are the sum of its bits over the sum of its bytes, whatever the tokenizer.
    """
    texts = corpus.texts
    tokens = tokenizer(list(texts))["input_ids"]
    bits = np.zeros(len(texts))
    device = next(model.parameters()).device
    order = sorted(range(len(texts)), key=lambda at: len(tokens[at]))
    while order:
        width = len(tokens[order[0]])
        batch = [at for at in order[: max(1, TOKENS // width)] if len(tokens[at]) == width]
        order = order[len(batch) :]  # sentences of one length, so nothing is padded
        ids = torch.tensor([tokens[at] for at in batch], device=device)
        logits = model(input_ids=ids).logits[:, :-1].float()
        loss = F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
        bits[batch] = loss.view(len(batch), -1).double().sum(1).cpu().numpy() / math.log(2)
    sizes = np.array([len(text.encode()) for text in texts], dtype=np.float64)
    return np.stack([bits, sizes], axis=1).reshape(corpus.n_languages, corpus.n_sentences, 2)
