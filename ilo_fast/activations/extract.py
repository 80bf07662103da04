"""`extract`: a model, its tokenizer and a corpus to one vector a layer and sentence."""

import time
import warnings
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from ilo_fast.activations.capability import Capability, probe
from ilo_fast.activations.disk import DiskSink
from ilo_fast.activations.packing import batch_order, cut_batches
from ilo_fast.activations.pooling import Pool, PoolSpec, check_pool
from ilo_fast.activations.runner import Runner, running
from ilo_fast.activations.space import free_memory
from ilo_fast.activations.store import ActivationStore, Sink, TensorSink, choose_place
from ilo_fast.activations.tokens import CHUNK, TokenChunk, chunks_ahead, tokenizer_sha256
from ilo_fast.errors import HiddenStateError, InputError
from ilo_fast.layers import LayerSpec, resolve_layers
from ilo_fast.models.fingerprint import weights_sha256
from ilo_fast.models.structure import Backbone, find_backbone, parameter_dtype, token_limit

if TYPE_CHECKING:
    from ilo_fast.corpora import Corpus

__all__ = ["ExtractProgress", "extract"]

_IN_FLIGHT = 3  # batches on their way into the store while the model runs the next


class ExtractProgress(Protocol):
    """What ``progress`` is told."""

    def start(self, total_tokens: int) -> None:
        """The forward passes begin, over about this many tokens (exact up to 8,192 sentences)."""

    def advance(self, tokens: int, sentences: int) -> None:
        """This many more are done."""

    def finish(self) -> None:
        """All are done."""


def extract(
    model: nn.Module,
    tokenizer: Any,
    corpus: "Corpus",
    *,
    layers: LayerSpec = None,
    pool: PoolSpec = "mean",
    batch_tokens: int | Literal["auto"] = "auto",
    store: str = "auto",
    folder: str | Path | None = None,
    truncate: bool = False,
    progress: ExtractProgress | None = None,
) -> ActivationStore:
    """Run every sentence through a model, without padding, and pool its hidden states.

    Each sentence gives what it would give alone: sentences share a batch but never attention. How
    batches are made (packed rows, or sentences of equal length) is decided by trying the model and
    recorded. The model runs in its own dtype, on its own device, in evaluation mode, up to the
    deepest layer asked for, without a language-model head; it is left as it was.

    Parameters
    ----------
    model, tokenizer
        A transformers model, with or without a head (of an encoder-decoder, the encoder is used),
        and its tokenizer; special tokens are added as the tokenizer does by default.
    corpus
        The parallel text; its points are language-major.
    layers
        Entries of ``hidden_states`` from 0 (embedding output) to L (last, after the final norm): a
        number, a slice, a sequence of those or text such as ``"0,5,10:20"``. None takes all.
    pool
        ``"mean"`` over tokens, ``"last"`` token, ``"weighted"`` by position, or a function of
        packed states ``[tokens, dim]`` and int64 offsets ``[sentences + 1]`` on the same device
        that returns ``[sentences, dim]``. Sums are float32 whatever the model's dtype.
    batch_tokens
        Most tokens in a batch; ``"auto"`` goes by device and free memory. When the device runs out
        of memory the budget is halved, with a warning, and extraction goes on.
    store
        Where the states are kept: ``"memory"`` (pinned for a CUDA model), ``"cuda"``, ``"disk"``,
        or ``"auto"``, by what fits.
    folder
        For ``"disk"`` (and ``"auto"``, which then uses it): the states' folder. A run stopped
        half-way goes on there; a finished one is read back. Its key covers weights, tokenizer,
        corpus, dtype, pooling, layers and truncation, so other states are never reused.
    truncate
        Cut sentences longer than the model takes; otherwise they are errors.
    progress
        Told ``start(total_tokens)``, ``advance(tokens, sentences)`` and ``finish()``.

    Returns
    -------
    ActivationStore
        ``states`` float32 ``[layers, points, dim]`` and a ``record`` of how they were made.

    Raises
    ------
    ModelError
        When the model gives no hidden states.
    CorpusError
        On a sentence without tokens or over the model's limit, naming it.
    HiddenStateError
        On NaN or infinity, naming layer and sentence.
    InputError
        On a layer the model does not have, an unknown pooling or place, or too little room.

    Examples
    --------
    >>> from ilo_fast import extract, load_corpus
    >>> from ilo_fast.models import load_model
    >>> loaded = load_model("model.gguf")  # doctest: +SKIP
    >>> store = extract(loaded.model, loaded.tokenizer, load_corpus("demo"))  # doctest: +SKIP
    >>> store.states.shape  # doctest: +SKIP
    torch.Size([19, 480, 640])
    """
    began = time.perf_counter()
    backbone, chosen_pool = find_backbone(model), check_pool(pool)
    entries = resolve_layers(layers, backbone.n_entries)
    device = _input_device(backbone.module)
    budget = _check_budget(batch_tokens, backbone, device)
    folder = None if folder is None else Path(folder)
    shape = (len(entries), corpus.n_points, backbone.dim)
    place = choose_place(store, 4 * int(np.prod(shape, dtype=np.int64)), device, folder)
    sink: Sink
    if place == "disk":
        assert folder is not None
        key = _key(backbone, tokenizer, corpus, chosen_pool, truncate)
        sink = DiskSink(folder, key, entries, corpus.n_points, backbone.dim, budget)
        budget = sink.budget
    else:
        where = device if place == "cuda" else torch.device("cpu")
        sink = TensorSink(shape, where, pin=place == "memory" and device.type == "cuda")
    with torch.inference_mode():
        way = _probe(backbone, device)
        with running(backbone, way, entries, chosen_pool, device) as runner:
            job = _Job(runner, sink, corpus, entries, way, device, budget, place)
            job.run(tokenizer, token_limit(backbone.module, tokenizer), truncate, progress)
    seconds = time.perf_counter() - began
    record = {
        **asdict(way),
        "attention": sorted(runner.kernels) or [str(backbone.module.config._attn_implementation)],  # type: ignore[union-attr]
        "batch_tokens": job.budget,
        "store": place,
        "pool": chosen_pool.name,
        "layers": list(entries),
        "truncate": truncate,
        "dtype": str(parameter_dtype(backbone.module)).removeprefix("torch."),
        "device": str(device),
        "sentences": corpus.n_points,
        "tokens": job.tokens,
        "seconds": round(seconds, 3),
    }
    return ActivationStore(
        states=sink.finish(record),
        layers=entries,
        languages=tuple(corpus.languages),
        language_ids=corpus.language_ids,
        sentence_ids=corpus.sentence_ids,
        record=record,
        folder=folder,
    )


class _Job:
    """The loop over chunks and batches, and the thread that keeps finished batches."""

    def __init__(
        self,
        runner: Runner,
        sink: Sink,
        corpus: "Corpus",
        entries: tuple[int, ...],
        way: Capability,
        device: torch.device,
        budget: int,
        place: str,
    ) -> None:
        self._runner, self._sink, self._corpus, self._entries = runner, sink, corpus, entries
        self._equal = way.batches != "packed"
        self._device, self._place = device, place
        self._dtype = str(parameter_dtype(runner.module)).removeprefix("torch.")
        self._warned = False
        self._writes: deque[Future[None]] = deque()
        self.budget, self.tokens = budget, 0

    def where(self, point: int) -> str:
        language, sentence = divmod(point, self._corpus.n_sentences)
        return f"sentence {sentence + 1} of {self._corpus.languages[language]}"

    def run(
        self, tokenizer: Any, limit: int | None, truncate: bool, progress: ExtractProgress | None
    ) -> None:
        texts = self._corpus.texts
        chunks = chunks_ahead(texts, tokenizer, limit=limit, truncate=truncate, where=self.where)
        with ThreadPoolExecutor(1, thread_name_prefix="ilo-fast-store") as writer:
            for chunk in chunks:
                if progress is not None and chunk.first == 0:
                    share = len(texts) / min(len(texts), CHUNK)
                    progress.start(round(len(chunk.ids) * share))
                self._run_chunk(chunk, writer, progress)
            self._settle(0)
        if progress is not None:
            progress.finish()

    def _run_chunk(
        self, chunk: TokenChunk, writer: ThreadPoolExecutor, progress: ExtractProgress | None
    ) -> None:
        order = batch_order(chunk.lengths)
        lengths = chunk.lengths[order].tolist()
        if isinstance(self._sink, DiskSink):
            self._settle(0)
            self._sink.check(order + chunk.first, chunk.first)
        place = 0
        while place < len(lengths):
            batches = cut_batches(lengths[place:], self.budget, equal_lengths=self._equal)
            _, size = next(batches)
            missing = self._sink.missing(chunk.first + place, chunk.first + place + size)
            for first, last in missing:
                start, stop = first - chunk.first, last - chunk.first
                self._run_batch(chunk, order, lengths, start, stop, writer)
            tokens = sum(lengths[place : place + size])
            self.tokens += tokens
            if progress is not None:
                progress.advance(tokens, size)
            place += size

    def _run_batch(
        self,
        chunk: TokenChunk,
        order: np.ndarray[Any, np.dtype[np.int64]],
        lengths: list[int],
        start: int,
        stop: int,
        writer: ThreadPoolExecutor,
    ) -> None:
        try:
            block = self._runner.run(chunk.row(order[start:stop].tolist()), lengths[start:stop])
        except (torch.OutOfMemoryError, RuntimeError) as error:
            if not _out_of_memory(error) or stop - start == 1:
                raise
            block = None
        if block is None:  # outside the except block, which keeps the failed pass's tensors alive
            self._halve(sum(lengths[start:stop]))
            middle = (start + stop) // 2
            self._run_batch(chunk, order, lengths, start, middle, writer)
            self._run_batch(chunk, order, lengths, middle, stop, writer)
            return
        rows = order[start:stop] + chunk.first
        ready = self._stage(block)
        first = chunk.first

        def keep() -> None:
            landed = ready()
            self._check_finite(landed, rows)
            self._sink.write(first + start, first + stop, rows, landed)

        self._writes.append(writer.submit(keep))
        self._settle(_IN_FLIGHT)

    def _stage(self, block: Tensor) -> Callable[[], Tensor]:
        """Start copying a block to where the store is; the function waits until it is there."""
        if self._device.type != "cuda":
            return lambda: block
        done: Any = torch.cuda.Event()  # type: ignore[no-untyped-call]
        landed = block
        if self._place != "cuda":
            landed = torch.empty(block.shape, dtype=block.dtype, pin_memory=True)
            landed.copy_(block, non_blocking=True)
        done.record(torch.cuda.current_stream(self._device))

        def wait() -> Tensor:
            done.synchronize()
            return landed

        return wait

    def _settle(self, most: int) -> None:
        """Wait until at most so many batches are under way; raises what a write raised."""
        while len(self._writes) > most:
            self._writes.popleft().result()

    def _check_finite(self, block: Tensor, rows: np.ndarray[Any, np.dtype[np.int64]]) -> None:
        if bool(block.isfinite().all()):
            return
        layer, sentence = (~block.isfinite()).any(2).nonzero()[0].tolist()
        raise HiddenStateError(
            f"hidden states: NaN or infinity in layer {self._entries[layer]} at "
            f"{self.where(int(rows[sentence]))} (a model in {self._dtype})"
        )

    def _halve(self, tokens: int) -> None:
        self.budget = max(1, min(self.budget, tokens) // 2)
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        if not self._warned:
            self._warned = True
            warnings.warn(
                f"out of memory at {tokens} tokens a batch: going on with {self.budget}",
                ResourceWarning,
                stacklevel=2,
            )


def _out_of_memory(error: BaseException) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def _probe(backbone: Backbone, device: torch.device) -> Capability:
    trained = backbone.module.training
    backbone.module.eval()
    try:
        return probe(backbone, device)
    finally:
        backbone.module.train(trained)


def _input_device(module: Any) -> torch.device:
    embeddings = module.get_input_embeddings() if hasattr(module, "get_input_embeddings") else None
    device: torch.device = next((embeddings or module).parameters()).device
    return device


def _check_budget(batch_tokens: int | str, backbone: Backbone, device: torch.device) -> int:
    if batch_tokens == "auto":
        return _auto_budget(backbone, device)
    if isinstance(batch_tokens, bool) or not isinstance(batch_tokens, int):
        raise InputError(
            f"batch_tokens: expected 'auto' or a number of tokens, got {batch_tokens!r}"
        )
    if batch_tokens < 1:
        raise InputError(f"batch_tokens: expected at least 1, got {batch_tokens}")
    return batch_tokens


def _auto_budget(backbone: Backbone, device: torch.device) -> int:
    """Tokens a batch: enough for full-speed matrix products, within a part of the free memory."""
    if device.type != "cuda":
        return 1024
    # A layer's live activations: about 8 of the model's width and 3 of the gated MLP's.
    config: Any = backbone.module.config
    wide = int(getattr(config, "intermediate_size", None) or 4 * backbone.dim)
    size = parameter_dtype(backbone.module).itemsize
    a_token = (8 * backbone.dim + 3 * wide) * size + 4 * backbone.dim
    return max(2048, min(32768, free_memory(device) // 4 // a_token))


def _key(
    backbone: Backbone, tokenizer: Any, corpus: "Corpus", pool: Pool, truncate: bool
) -> dict[str, Any]:
    """What decides the states of a folder, bit for bit but for the machine."""
    if pool.function is not None:
        raise InputError(
            "pool: a folder keeps only mean, last and weighted (a function's content has no key)"
        )
    return {
        "model": weights_sha256(backbone.module),
        "tokenizer": tokenizer_sha256(tokenizer),
        "corpus": corpus.sha256,
        "languages": list(corpus.languages),
        "dtype": str(parameter_dtype(backbone.module)),
        "pool": pool.name,
        "truncate": truncate,
    }
