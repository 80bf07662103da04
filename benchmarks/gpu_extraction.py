"""Extraction on a card: models of random weights, packed, beside the loops that people write.

Rates are sentences a second; shares are of the matrix products' rate that this run reached at
8192³ in bfloat16, counting only the products of the layers (2 × weights × tokens). Every way keeps
the mean over tokens of every hidden state; means are compared with one sentence at a time before
anything is timed.
"""

import gc
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.gpu_busy import busy
from ilo_fast import Corpus, extract
from ilo_fast.models import find_backbone

__all__ = ["SHAPES", "TINY", "Shape", "gemm_tflops", "measure"]

LANGUAGES = 31
MEAN_TOKENS, SPREAD = 46, 0.45  # of a sentence's length: log-normal, much as FLORES has it
PROFILED = 64  # sentences of each language: some batches
PADDED = 32  # sentences in a batch of the padded loops
CHECKED = 64  # sentences compared with one at a time
AGREE = 0.1  # median over dimensions of the relative error, as batches of bfloat16 differ


@dataclass(frozen=True)
class Shape:
    """A Llama of random weights, and what ilo_fast is to reach with it."""

    name: str
    hidden: int
    wide: int
    layers: int
    heads: int
    kv_heads: int
    vocabulary: int
    sentences: int  # of each language
    share_of_ceiling: float | None = None
    sentences_per_s: float | None = None
    compiled: bool = False  # also with layers that torch compiles, cold and warm


SHAPES = (
    Shape("8B", 4096, 14336, 32, 32, 8, 128_256, 250, share_of_ceiling=0.76),
    Shape("135M", 576, 1536, 30, 9, 3, 49_152, 997, sentences_per_s=10_000, compiled=True),
)
TINY = Shape("tiny", 64, 96, 2, 4, 2, 200, 2, share_of_ceiling=0.76, sentences_per_s=1e9)


class Numbered:
    """A tokenizer for sentences that are numbers into a table of random token ids."""

    model_max_length = 10**30

    def __init__(self, sentences: int, vocabulary: int) -> None:
        draw = np.random.default_rng(0)
        center = np.log(MEAN_TOKENS) - SPREAD**2 / 2
        lengths = np.clip(np.rint(draw.lognormal(center, SPREAD, sentences)), 4, 400).astype(int)
        self.rows = [draw.integers(10, vocabulary, length).tolist() for length in lengths]

    def __call__(self, texts: Sequence[str], **_: Any) -> dict[str, list[list[int]]]:
        return {"input_ids": [self.rows[int(text)] for text in texts]}


def numbered_corpus(sentences: int) -> Corpus:
    """``sentences`` of each of 31 languages, each a number of its own."""
    numbers = np.arange(LANGUAGES * sentences).reshape(LANGUAGES, sentences)
    names = tuple(f"l{number:02d}" for number in range(LANGUAGES))
    return Corpus("numbers", names, tuple(tuple(map(str, row)) for row in numbers.tolist()))


def random_model(shape: Shape, device: torch.device) -> Any:
    """The shape in bfloat16, with its language-model head, made on the device."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.wide,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        max_position_embeddings=4096,
        tie_word_embeddings=False,
    )
    config.dtype = torch.bfloat16
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(device):
            return LlamaForCausalLM(config).eval()
    finally:
        torch.set_default_dtype(before)


def gemm_tflops(device: torch.device, size: int) -> float:
    """TFLOP/s of a bfloat16 product of size³: the median of so many, after a warm-up."""
    a = torch.randn(size, size, device=device).to(torch.bfloat16)
    b = torch.randn(size, size, device=device).to(torch.bfloat16)
    out = torch.empty_like(a)
    seconds = [_seconds(lambda: torch.mm(a, b, out=out), device)[0] for _ in range(23)]
    return 2 * size**3 / statistics.median(seconds[3:]) / 1e12


def measure(
    shape: Shape,
    device: torch.device,
    failures: list[str],
    *,
    peer_sentences: int = 2048,
    rounds: int = 2,
    gemm: int = 8192,
) -> dict[str, Any]:
    """Check and time every way of one shape; what cannot run is reported with its reason."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    model = random_model(shape, device)
    corpus = numbered_corpus(shape.sentences)
    tokenizer = Numbered(corpus.n_points, shape.vocabulary)
    blocks = find_backbone(model).blocks
    assert blocks is not None
    weights = sum(weight.numel() for weight in blocks.parameters() if weight.ndim == 2)
    ceiling = gemm_tflops(device, gemm)
    truth = _one_at_a_time(model.model, tokenizer.rows[:CHECKED], device)
    found: dict[str, Any] = {
        "name": shape.name,
        "sentences": corpus.n_points,
        "tokens": sum(map(len, tokenizer.rows)),
        "flop_per_token": 2 * weights,
        "gemm_tflops": ceiling,
        "contenders": {},
        "not run": {},
    }
    for name, way, rows in _contenders(shape, model, tokenizer, corpus, peer_sentences, device):
        try:
            first_run, (states, facts) = _seconds(way, device)
            error = _median_error(states[:, : len(truth[0])], truth[:, : states.shape[1]])
        except Exception as error_raised:  # one that cannot run is reported
            found["not run"][name] = f"{type(error_raised).__name__}: {error_raised}"[:300]
            if name.startswith("ilo_fast"):
                failures.append(f"extraction {shape.name}, {name}: {found['not run'][name]}")
            _empty(device)
            continue
        if not error <= AGREE:
            failures.append(f"extraction {shape.name}, {name}: means differ by {error:.2g}")
        if facts and device.type == "cuda" and "varlen_attn" not in facts["attention"]:
            failures.append(
                f"extraction {shape.name}, {name}: not the packed way but {facts['batches']}, "
                f"{facts['attention']}: {facts['batches_reason']}"
            )
        del states
        seconds = [_seconds(way, device)[0] for _ in range(rounds)]
        tokens = sum(len(row) for row in rows)
        rate = len(rows) / statistics.median(seconds)
        tflops = 2 * weights * tokens / statistics.median(seconds) / 1e12
        found["contenders"][name] = {
            "sentences": len(rows),
            "first_run_s": first_run,  # compilation included
            "seconds": seconds,
            "sentences_per_s": rate,
            "tflops": tflops,
            "share_of_gemm": tflops / ceiling,
            "median_error": error,
            **facts,
        }
        _empty(device)
    few = numbered_corpus(min(shape.sentences, PROFILED))
    found["profile"] = busy(partial(extract, model, tokenizer, few), device)
    found["gemm_tflops_after"] = gemm_tflops(device, gemm)
    if device.type == "cuda":
        found["peak_memory_gib"] = torch.cuda.max_memory_allocated(device) / 2**30
    _add_targets(shape, found)
    del model
    _empty(device)
    return found


Way = Callable[[], tuple[Tensor, dict[str, Any]]]


def _contenders(
    shape: Shape,
    model: Any,
    tokenizer: Numbered,
    corpus: Corpus,
    peer_sentences: int,
    device: torch.device,
) -> Iterator[tuple[str, Way, list[list[int]]]]:
    """Name, one run → (means ``[layers, n, dim]``, facts), and the rows that it runs."""

    def ours(fused: str) -> Way:
        def run() -> tuple[Tensor, dict[str, Any]]:
            watch = _FirstBatch()
            store = extract(model, tokenizer, corpus, fused=fused, progress=watch)
            kept = ("batches", "batches_reason", "attention", "fused", "batch_tokens", "store")
            facts = {name: store.record[name] for name in kept}
            return store.states, {**facts, "first_batch_s": watch.seconds}

        return run

    rows = tokenizer.rows
    yield "ilo_fast", ours("auto"), rows
    yield "ilo_fast, fused off", ours("off"), rows
    if shape.compiled:
        yield "ilo_fast, compiled layers", ours("compile"), rows
    few, single = rows[:peer_sentences], rows[: max(CHECKED, peer_sentences // 16)]
    yield "padded loop", lambda: (_padded(model.model, few, device, by_length=False), {}), few
    yield "padded, sorted", lambda: (_padded(model.model, few, device, by_length=True), {}), few
    yield "one at a time", lambda: (_one_at_a_time(model.model, single, device), {}), single
    yield "public loop, with head", lambda: (_one_at_a_time(model, single, device), {}), single


class _FirstBatch:
    """Seconds from its making to the first finished batch."""

    def __init__(self) -> None:
        self._began, self.seconds = time.perf_counter(), float("nan")

    def start(self, total_tokens: int) -> None:
        pass

    def advance(self, tokens: int, sentences: int) -> None:
        if self.seconds != self.seconds:
            self.seconds = time.perf_counter() - self._began

    def finish(self) -> None:
        pass


@torch.inference_mode()
def _one_at_a_time(model: Any, rows: Sequence[list[int]], device: torch.device) -> Tensor:
    """Every sentence alone, its means brought to the host, as the public code does."""
    found = []
    for row in rows:
        ids = torch.tensor([row], device=device)
        output = model(input_ids=ids, output_hidden_states=True, use_cache=False)
        means = [states[0].float().mean(0) for states in output.hidden_states]
        found.append(torch.stack(means).cpu())
    return torch.stack(found, dim=1)


@torch.inference_mode()
def _padded(
    model: Any, rows: Sequence[list[int]], device: torch.device, *, by_length: bool
) -> Tensor:
    """Padded batches of 32, in corpus order or from long to short."""
    order = sorted(range(len(rows)), key=lambda at: -len(rows[at]) if by_length else at)
    found = torch.empty(0)
    for start in range(0, len(rows), PADDED):
        chosen = order[start : start + PADDED]
        ids = [torch.tensor(rows[at]) for at in chosen]
        padded = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True).to(device)
        lengths = torch.tensor([len(one) for one in ids], device=device)
        mask = torch.arange(padded.shape[1], device=device) < lengths[:, None]
        output = model(
            input_ids=padded, attention_mask=mask.long(), output_hidden_states=True, use_cache=False
        )
        weight = mask[:, :, None].float()
        means = [(h.float() * weight).sum(1) / weight.sum(1) for h in output.hidden_states]
        if start == 0:
            found = torch.empty(len(means), len(rows), means[0].shape[1])
        found[:, chosen] = torch.stack(means).cpu()
    return found


def _median_error(states: Tensor, truth: Tensor) -> float:
    """The worst layer's median over dimensions of the error's norm by the truth's."""
    error = (states.double().cpu() - truth.double()).norm(dim=1) / truth.double().norm(dim=1)
    return float(error.median(dim=1).values.max())


def _add_targets(shape: Shape, found: dict[str, Any]) -> None:
    ours = found["contenders"].get("ilo_fast")
    if ours is None:
        return
    for key, measured, target in (
        ("share_of_gemm", ours["share_of_gemm"], shape.share_of_ceiling),
        ("sentences_per_s", ours["sentences_per_s"], shape.sentences_per_s),
    ):
        if target is not None:
            found[f"target_{key}"], found[f"meets_{key}"] = target, measured >= target


def _seconds(run: Callable[[], Any], device: torch.device) -> tuple[float, Any]:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    began = time.perf_counter()
    answer = run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began, answer


def _empty(device: torch.device) -> None:
    if device.type == "cuda":
        gc.collect()
        torch.cuda.empty_cache()
