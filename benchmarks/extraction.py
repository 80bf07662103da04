"""Extraction on this CPU: packed rows against one sentence at a time and a padded loop.

Every way runs the same model in the same dtype over the same sentences, and every way keeps the
mean over tokens of all hidden states; the means are compared before anything is timed.

Peers: the public code's loop (one sentence at a time through the model and its language-model
head), the same through the base model alone, and padded batches through the base model. Promised on
two threads: at least twice the speed of the public loop and 1.5 times that of padding, means equal
to 1e-5 relative in float32. "Matrix products alone" is the model's linear layers and nothing else,
1,024 tokens at a time, by the library that `extract` takes: no packing takes less. How far every
way's means are from those of the same model in float64 stands beside its time. Compiled layers
(``fused="compile"``, which multiply by torch's own) are timed warm; their cold start stands beside
them.

    python -m benchmarks extraction MODEL FLORES_FOLDER
"""

import copy
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import torch

from benchmarks.registry import Contender, Workload, compare
from benchmarks.report import describe_run, write_json
from ilo_fast import Corpus, extract, load_corpus
from ilo_fast.models import LoadedModel, wrap_model
from ilo_fast.models.gguf import fast_gguf
from ilo_fast.ops.products import fast_linears

__all__ = ["extraction"]

AGREE = 1e-5  # largest error of a mean vector, relative to its length, in float32
PADDED_SENTENCES = 16  # sentences in a batch of the padded loop, in corpus order
ROWS = 1024  # tokens in a product of the bare products


def with_head(path: str | Path) -> tuple[torch.nn.Module, LoadedModel]:
    """A causal model with its head, and ilo_fast's view of the same weights without it."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    path = Path(path)
    if path.suffix == ".gguf":
        with fast_gguf(path):
            where, options = str(path.parent), {"gguf_file": path.name}
            full = AutoModelForCausalLM.from_pretrained(where, dtype=torch.float32, **options)
            tokenizer = AutoTokenizer.from_pretrained(where, **options)
    else:
        full = AutoModelForCausalLM.from_pretrained(str(path), dtype="auto")
        tokenizer = AutoTokenizer.from_pretrained(str(path))
    full.eval()
    return full, wrap_model(full, tokenizer, name=path.name)


def one_at_a_time(
    model: Any, tokenizer: Any, corpus: Corpus, dtype: torch.dtype = torch.float32
) -> torch.Tensor:
    """``[layers, points, dim]`` from one forward pass a sentence, summed in ``dtype``."""
    rows = []
    for text in corpus.texts:
        inputs = tokenizer(text, return_tensors="pt")
        output = model(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            output_hidden_states=True,
            use_cache=False,
        )
        rows.append(torch.stack([states[0].to(dtype).mean(0) for states in output.hidden_states]))
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


def errors(states: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """``[layers, points]``: how far means are from true ones, over the length of these."""
    return (states.double() - truth).norm(dim=2) / truth.norm(dim=2)


def token_counts(tokenizer: Any, corpus: Corpus) -> list[int]:
    """Tokens of every sentence."""
    return [len(row) for row in tokenizer(list(corpus.texts))["input_ids"]]


def padding(lengths: list[int]) -> float:
    """Rows that the padded loop runs, over tokens: what padding costs at the least."""
    starts = range(0, len(lengths), PADDED_SENTENCES)
    batches = [lengths[start : start + PADDED_SENTENCES] for start in starts]
    return sum(len(batch) * max(batch) for batch in batches) / sum(lengths)


def products_alone(loaded: LoadedModel, tokens: int) -> None:
    """The products of every linear layer with so many tokens, and no other operator."""
    weights = [m.weight for m in loaded.model.modules() if isinstance(m, torch.nn.Linear)]
    inputs = {w.shape[1]: torch.ones(ROWS, w.shape[1], dtype=w.dtype) for w in weights}
    with fast_linears(torch.device("cpu")):
        for start in range(0, tokens, ROWS):
            for weight in weights:
                torch.nn.functional.linear(inputs[weight.shape[1]][: tokens - start], weight)


def packed(loaded: LoadedModel, corpus: Corpus, fused: str = "auto") -> torch.Tensor:
    """ilo_fast."""
    return extract(loaded.model, loaded.tokenizer, corpus, store="memory", fused=fused).states


def cold_start(loaded: LoadedModel, corpus: Corpus) -> float:
    """Seconds that compiled layers take before they run: a first run less a second one."""
    seconds = []
    for _ in range(2):
        began = time.perf_counter()
        packed(loaded, corpus, "compile")
        seconds.append(time.perf_counter() - began)
    return seconds[0] - seconds[1]


def extraction(model: str | Path, folder: str | Path, sentences: int = 4) -> Workload:
    """The workload over the first ``sentences`` of every language in a FLORES folder.

    ``model`` is a decoder's folder or GGUF file.
    """
    corpus = load_corpus(folder, limit=sentences)
    full, loaded = with_head(model)
    tokenizer = loaded.tokenizer
    lengths = token_counts(tokenizer, corpus)
    with torch.inference_mode():
        truth = one_at_a_time(loaded.model, tokenizer, corpus).double()
        in_float64 = copy.deepcopy(loaded.model).double()
        exact = one_at_a_time(in_float64, tokenizer, corpus, torch.float64)
        del in_float64
    compiling = cold_start(loaded, load_corpus(folder, limit=1))

    def contender(name: str, way: Callable[[], Any], *, ours: bool = False) -> Contender:
        def run() -> Any:
            with torch.inference_mode():
                return way()

        return Contender(name, run, ours=ours)

    def check(who: Contender, states: Any) -> dict[str, Any]:
        if states is None:
            return {}
        error = float(errors(states, truth).max())
        if who.name.startswith("ilo_fast") and loaded.dtype == torch.float32 and error > AGREE:
            raise SystemExit(f"extraction: means differ from one at a time by {error:.1e}")
        far = errors(states, exact)
        return {
            "largest_relative_error": error,
            "from_float64": {"largest": float(far.max()), "median": float(far.median())},
        }

    return Workload(
        name=f"extraction {loaded.name}",
        describe="mean over tokens of every hidden state, FLORES lengths",
        contenders=(
            contender("ilo_fast", lambda: packed(loaded, corpus), ours=True),
            contender("ilo_fast, compiled layers", lambda: packed(loaded, corpus, "compile")),
            contender("padded loop", lambda: padded_loop(loaded, corpus)),
            contender("one at a time", lambda: one_at_a_time(loaded.model, tokenizer, corpus)),
            contender("public loop", lambda: one_at_a_time(full, tokenizer, corpus)),
            contender("matrix products alone", lambda: products_alone(loaded, sum(lengths))),
        ),
        check=check,
        facts={
            "model": loaded.name,
            "dtype": str(loaded.dtype).removeprefix("torch."),
            "languages": len(corpus.languages),
            "sentences": corpus.n_points,
            "tokens": sum(lengths),
            "longest": max(lengths),
            "cold_start_of_compiled_layers_s": compiling,
            "padded_over_tokens": padding(lengths),
            "padded_over_tokens_of_the_folder": padding(
                token_counts(tokenizer, load_corpus(folder))
            ),
        },
    )


@click.command()
@click.argument("model", type=click.Path(exists=True))
@click.argument("folder", type=click.Path(exists=True, file_okay=False))
@click.option("--sentences", type=int, default=4, show_default=True, help="Of each language.")
@click.option("--threads", type=int, default=2, show_default=True)
@click.option("--rounds", type=int, default=3, show_default=True)
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Default: benchmarks/results/extraction-<model>.json",
)
def command(
    model: str, folder: str, sentences: int, threads: int, rounds: int, out: Path | None
) -> None:
    """Time extraction by MODEL (a GGUF file) from the text in FOLDER, on this CPU, with peers."""
    torch.set_num_threads(threads)
    run = describe_run(threads=threads, rounds=rounds, sentences=sentences)
    run["workloads"] = [compare(extraction(model, folder, sentences), rounds)]
    name = Path(model).name.removesuffix(".gguf").lower()
    write_json(out or Path(f"benchmarks/results/extraction-{name}.json"), run)
    click.echo(json.dumps(run["workloads"], indent=1))
