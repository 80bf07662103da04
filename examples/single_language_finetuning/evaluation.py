"""What a model is asked before and after: scores by layer, bits per byte by language."""

import math

import numpy as np
import torch
from torch.nn import functional as F

import ilo_fast
from ilo_fast import ActivationStore, Corpus
from ilo_fast.finetune.scoring import Scored, score_store
from ilo_fast.options import ScoreOptions

TOKENS = 512  # a batch's


@torch.inference_mode()
def evaluate(model, tokenizer, corpus: Corpus, name: str) -> tuple[Scored, np.ndarray]:
    """Scores of every layer and language, and bits and bytes ``[languages, sentences, 2]``.

    One pass for both: a tap pools the hidden states while the logits are made. The bits of a
    sentence are -log2 p of its tokens after the one the tokenizer begins a text with; bits per byte
    of a language are the sum of its bits over the sum of its UTF-8 bytes, whatever the tokenizer.
    """
    model.eval()
    texts = corpus.texts
    tokens = tokenizer(list(texts))["input_ids"]
    bits = np.zeros(len(texts))
    device = next(model.parameters()).device
    waiting = sorted(range(len(texts)), key=lambda at: len(tokens[at]))
    seen = []
    with ilo_fast.tap(model) as tap:
        while waiting:
            width = len(tokens[waiting[0]])
            batch = [at for at in waiting[: max(1, TOKENS // width)] if len(tokens[at]) == width]
            waiting = waiting[len(batch) :]  # sentences of one length, so nothing is padded
            seen += batch
            ids = torch.tensor([tokens[at] for at in batch], device=device)
            logits = model(input_ids=ids).logits[:, :-1].float()
            loss = F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
            bits[batch] = loss.view(len(batch), -1).double().sum(1).cpu().numpy() / math.log(2)
        back = torch.empty(len(seen), dtype=torch.int64)
        back[torch.tensor(seen)] = torch.arange(len(seen))
        states = tap.states[:, back.to(device)]
    store = ActivationStore(
        states=states,
        layers=tap.layers,
        languages=corpus.languages,
        language_ids=corpus.language_ids,
        sentence_ids=corpus.sentence_ids,
        record={},
    )
    sizes = np.array([len(text.encode()) for text in texts], dtype=np.float64)
    measured = np.stack([bits, sizes], axis=1)
    return (
        score_store(store, name, ScoreOptions(), device),
        measured.reshape(corpus.n_languages, corpus.n_sentences, 2),
    )
