"""Extraction on this CPU: packed rows against one sentence at a time and a padded loop.

Every way runs the same model in the same dtype over the same sentences, and every way keeps the
mean over tokens of all hidden states; the means are compared before anything is timed.

Promised on two threads: at least twice the speed of one at a time and 1.5 times that of the padded
loop, means equal to 1e-5 relative in float32.

    python -m benchmarks.extraction MODEL FLORES_FOLDER
"""

from pathlib import Path
from typing import Any

import click
import torch

from benchmarks.registry import Contender, Workload, compare
from ilo_fast import Corpus, extract, load_corpus
from ilo_fast.models import LoadedModel, load_model

__all__ = ["extraction"]

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


def extraction(model: str | Path | LoadedModel, folder: str | Path, sentences: int = 4) -> Workload:
    """The workload over the first ``sentences`` of every language in a FLORES folder."""
    corpus = load_corpus(folder, limit=sentences)
    loaded = model if isinstance(model, LoadedModel) else load_model(model, device="cpu")
    lengths = [len(row) for row in loaded.tokenizer(list(corpus.texts))["input_ids"]]
    with torch.inference_mode():
        truth = one_at_a_time(loaded, corpus).double()

    def contender(name: str, way: Any, *, ours: bool = False) -> Contender:
        def run() -> torch.Tensor:
            with torch.inference_mode():
                states: torch.Tensor = way(loaded, corpus)
                return states

        return Contender(name, run, ours=ours)

    def check(who: Contender, states: torch.Tensor) -> dict[str, Any]:
        error = float(((states.double() - truth).norm(dim=2) / truth.norm(dim=2)).max())
        if who.ours and loaded.dtype == torch.float32 and error > AGREE:
            raise SystemExit(f"extraction: means differ from one at a time by {error:.1e}")
        return {"largest_relative_error": error}

    return Workload(
        name=f"extraction {loaded.name}",
        describe="mean over tokens of every hidden state, FLORES lengths",
        contenders=(
            contender("ilo_fast", packed, ours=True),
            contender("padded loop", padded_loop),
            contender("one at a time", one_at_a_time),
        ),
        check=check,
        facts={
            "model": loaded.name,
            "dtype": str(loaded.dtype).removeprefix("torch."),
            "languages": len(corpus.languages),
            "sentences": corpus.n_points,
            "tokens": sum(lengths),
            "longest": max(lengths),
        },
    )


@click.command()
@click.argument("model", type=click.Path(exists=True))
@click.argument("folder", type=click.Path(exists=True, file_okay=False))
@click.option("--sentences", type=int, default=4, show_default=True, help="Of each language.")
@click.option("--threads", type=int, default=2, show_default=True)
@click.option("--rounds", type=int, default=3, show_default=True)
def command(model: str, folder: str, sentences: int, threads: int, rounds: int) -> None:
    """Time extraction on this CPU beside its peers; prints JSON."""
    import json

    torch.set_num_threads(threads)
    workload = extraction(model, folder, sentences)
    click.echo(json.dumps(compare(workload, rounds), indent=1))


if __name__ == "__main__":
    command()
