"""Extraction on this CPU: packed rows against one sentence at a time and a padded loop.

Every way runs the same model in the same dtype over the same sentences, and every way keeps the
mean over tokens of all hidden states. The means are compared before anything is timed; rounds are
interleaved, so a disturbance of the machine meets all ways alike, and each way's best round counts.
"""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ilo_fast import Corpus, extract, load_corpus
from ilo_fast.models import LoadedModel, load_model

__all__ = ["extraction_cpu"]

AGREE = 1e-5  # largest error of a mean vector, relative to its length, in float32
PADDED_SENTENCES = 16  # sentences in a batch of the padded loop, in corpus order


def one_at_a_time(loaded: LoadedModel, corpus: Corpus) -> torch.Tensor:
    """float32 ``[layers, points, dim]`` from one forward pass a sentence."""
    rows = []
    for text in corpus.texts:
        inputs = loaded.tokenizer(text, return_tensors="pt")
        output = loaded.model(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            output_hidden_states=True,
            use_cache=False,
        )
        rows.append(torch.stack([states[0].float().mean(0) for states in output.hidden_states]))
    return torch.stack(rows, dim=1)


def padded_loop(loaded: LoadedModel, corpus: Corpus) -> torch.Tensor:
    """The same from padded batches of 16 sentences in corpus order."""
    rows = []
    for start in range(0, corpus.n_points, PADDED_SENTENCES):
        texts = corpus.texts[start : start + PADDED_SENTENCES]
        ids = [torch.tensor(row) for row in loaded.tokenizer(list(texts))["input_ids"]]
        padded = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True)
        mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in ids], True)
        output = loaded.model(
            input_ids=padded, attention_mask=mask, output_hidden_states=True, use_cache=False
        )
        weight = mask[:, :, None].float()
        means = [(h.float() * weight).sum(1) / weight.sum(1) for h in output.hidden_states]
        rows.append(torch.stack(means))
    return torch.cat(rows, dim=1)


def packed(loaded: LoadedModel, corpus: Corpus) -> torch.Tensor:
    """ilo_fast."""
    return extract(loaded.model, loaded.tokenizer, corpus, store="memory").states


WAYS: dict[str, Callable[[LoadedModel, Corpus], torch.Tensor]] = {
    "ilo_fast": packed,
    "padded loop": padded_loop,
    "one at a time": one_at_a_time,
}


def extraction_cpu(
    model: str | Path | LoadedModel,
    folder: str | Path,
    *,
    sentences: int = 4,
    threads: int = 2,
    rounds: int = 3,
    dtype: str = "auto",
) -> dict[str, Any]:
    """Time extraction over the first ``sentences`` of every language in a FLORES folder.

    Returns a record: tokens/s and seconds (best round, all rounds) of each way, the largest
    difference of means from one at a time, and the ratios the project promises: at least 2 × one at
    a time, at least 1.5 × the padded loop.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.inference_mode():
            return _measure(model, Path(folder), sentences, rounds, dtype)
    finally:
        torch.set_num_threads(before)


def _measure(model: Any, folder: Path, sentences: int, rounds: int, dtype: str) -> dict[str, Any]:
    corpus = load_corpus(folder, limit=sentences)
    loaded = model if isinstance(model, LoadedModel) else load_model(model, dtype=dtype)
    lengths = [len(row) for row in loaded.tokenizer(list(corpus.texts))["input_ids"]]
    seconds: dict[str, list[float]] = {name: [] for name in WAYS}
    states: dict[str, torch.Tensor] = {}
    for _ in range(rounds):
        for name, way in WAYS.items():
            began = time.perf_counter()
            states[name] = way(loaded, corpus)
            seconds[name].append(time.perf_counter() - began)
    truth = states["one at a time"].double()
    errors = {
        name: float(((ours.double() - truth).norm(dim=2) / truth.norm(dim=2)).max())
        for name, ours in states.items()
    }
    if loaded.dtype == torch.float32 and errors["ilo_fast"] > AGREE:
        raise SystemExit(f"extraction: means differ by {errors['ilo_fast']:.1e}, nothing timed")
    best = {name: min(times) for name, times in seconds.items()}
    return {
        "model": loaded.name,
        "dtype": str(loaded.dtype).removeprefix("torch."),
        "languages": len(corpus.languages),
        "sentences": corpus.n_points,
        "tokens": sum(lengths),
        "longest": max(lengths),
        "threads": torch.get_num_threads(),
        "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "rounds_s": {name: [round(t, 3) for t in times] for name, times in seconds.items()},
        "tokens_per_s": {name: round(sum(lengths) / t, 1) for name, t in best.items()},
        "largest_error": errors,
        "speedup": {
            "over one at a time": round(best["one at a time"] / best["ilo_fast"], 2),
            "over the padded loop": round(best["padded loop"] / best["ilo_fast"], 2),
        },
    }


if __name__ == "__main__":
    import json
    import sys

    if len(sys.argv) < 3:
        raise SystemExit("usage: python -m benchmarks.extraction MODEL FLORES_FOLDER [sentences]")
    count = int(sys.argv[3]) if len(sys.argv) > 3 else 4
    print(json.dumps(extraction_cpu(sys.argv[1], sys.argv[2], sentences=count), indent=1))
