"""The loop over chunks and batches: forward passes, out of memory, and writing behind them."""

import warnings
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from ilo_fast.activations.capability import Capability
from ilo_fast.activations.disk import DiskSink
from ilo_fast.activations.packing import batch_order, batch_size
from ilo_fast.activations.runner import Runner
from ilo_fast.activations.store import Sink
from ilo_fast.activations.task import Task
from ilo_fast.activations.tokens import CHUNK, TokenChunk, chunks_ahead
from ilo_fast.errors import HiddenStateError, ModelError
from ilo_fast.models.structure import known_tokens, rotary_turn
from ilo_fast.ops.memory import out_of_memory

__all__ = ["ExtractProgress", "Job"]

_IN_FLIGHT = 3  # batches on their way into the store while the model runs the next


class ExtractProgress(Protocol):
    """What ``progress`` is told."""

    def start(self, total_tokens: int) -> None:
        """The forward passes begin, over about this many tokens (exact up to 8,192 sentences)."""

    def advance(self, tokens: int, sentences: int) -> None:
        """This many more are done; those that were kept too, where there is no ``skip``."""

    def finish(self) -> None:
        """All are done."""


class Job:
    """The loop over chunks and batches, and the thread that keeps finished batches."""

    def __init__(
        self, task: Task, runner: Runner, sink: Sink, way: Capability, budget: int
    ) -> None:
        self.task, self.runner, self.way = task, runner, way
        self._sink, self._corpus, self._device = sink, task.corpus, task.device
        self._equal, self._turn = way.batches != "packed", rotary_turn(runner.module)
        self._known = known_tokens(runner.module)
        self._warned = False
        self._writes: deque[Future[None]] = deque()
        self.budget, self.tokens = budget, 0
        self.made = self.kept = 0  # sentences run, and found where the states are kept

    def where(self, point: int) -> str:
        language, sentence = divmod(point, self._corpus.n_sentences)
        return f"sentence {sentence + 1} of {self._corpus.languages[language]}"

    def run(self, progress: ExtractProgress | None) -> None:
        texts, task = self._corpus.texts, self.task
        chunks = chunks_ahead(
            texts, task.tokenizer, limit=task.limit, truncate=task.truncate, where=self.where
        )
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
        self._check_ids(chunk)
        order = batch_order(chunk.lengths)
        lengths = chunk.lengths[order].tolist()
        if isinstance(self._sink, DiskSink):
            self._settle(0)
            self._sink.check(order + chunk.first, chunk.first)
        first, place = chunk.first, 0
        while place < len(lengths):
            size = batch_size(
                lengths[place:], self.budget, equal_lengths=self._equal, turn=self._turn
            )
            tokens = sum(lengths[place : place + size])
            run = run_tokens = 0
            for start, stop in self._sink.missing(first + place, first + place + size):
                self._run_batch(chunk, order, lengths, start - first, stop - first, writer)
                run += stop - start
                run_tokens += sum(lengths[start - first : stop - first])
            self.made, self.kept = self.made + run, self.kept + size - run
            self.tokens += tokens
            if progress is not None and run:
                progress.advance(run_tokens, run)
            if progress is not None and size > run:
                getattr(progress, "skip", progress.advance)(tokens - run_tokens, size - run)
            place += size

    def _check_ids(self, chunk: TokenChunk) -> None:
        """That the embeddings have a row for each id: a card that looks for one is lost."""
        for place in (int(chunk.ids.argmax()), int(chunk.ids.argmin())):
            if self._known is None or 0 <= chunk.ids[place] < self._known:
                continue
            sentence = int(np.searchsorted(chunk.offsets, place, side="right")) - 1
            raise ModelError(
                f"tokenizer: expected ids 0 … {self._known - 1}, the rows of the model's "
                f"embeddings, got {chunk.ids[place]} in {self.where(chunk.first + sentence)}",
                kind="tokenizer",
            )

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
            block = self.runner.run(chunk.row(order[start:stop].tolist()), lengths[start:stop])
        except RuntimeError as error:
            if not out_of_memory(error) or stop - start == 1:
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
        first, stream = chunk.first, self._stream()

        def keep() -> None:
            landed = ready()
            # The current stream is each thread's own. On another than the forward passes' the
            # block's memory could go to a later batch before it is read.
            with torch.cuda.stream(stream) if stream is not None else nullcontext():
                self._check_finite(landed, rows)
                self._sink.write(first + start, rows, landed)

        self._writes.append(writer.submit(keep))
        self._settle(_IN_FLIGHT)

    def _stream(self) -> torch.cuda.Stream | None:
        return torch.cuda.current_stream(self._device) if self._device.type == "cuda" else None

    def _stage(self, block: Tensor) -> Callable[[], Tensor]:
        """Start copying a block to where the store is; the function waits until it is there."""
        if self._device.type != "cuda":
            landed = block.cpu()
            return lambda: landed
        done: Any = torch.cuda.Event()  # type: ignore[no-untyped-call]
        landed = block
        if self.task.place != "cuda":
            landed = torch.empty(block.shape, dtype=block.dtype, device="cpu", pin_memory=True)
            landed.copy_(block, non_blocking=True)
        done.record(self._stream())

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
            f"hidden states: NaN or infinity in layer {self.task.entries[layer]} at "
            f"{self.where(int(rows[sentence]))} (a model in {self.task.dtype})"
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
