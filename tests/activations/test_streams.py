"""What is queued on a card goes where the forward passes went; CUDA is played by the test."""

from contextlib import contextmanager

import torch

from ilo_fast import extract, load_corpus
from ilo_fast.activations.job import Job
from ilo_fast.activations.packing import sent
from ilo_fast.activations.store import TensorSink
from ilo_fast.models import load_model


def test_batches_are_kept_on_the_stream_that_made_them(tiny_model, corpus_folder, monkeypatch):
    entered, written = [], []

    @contextmanager
    def stream(given):
        entered.append(given)
        yield
        entered.pop()

    def write(sink, start, rows, block):
        written.append(list(entered))
        return keep(sink, start, rows, block)

    keep = TensorSink.write
    monkeypatch.setattr(torch.cuda, "stream", stream)
    monkeypatch.setattr(TensorSink, "write", write)
    monkeypatch.setattr(Job, "_stream", lambda job: "the caller's")
    loaded = load_model(str(tiny_model), device="cpu", dtype="float32")
    corpus = load_corpus(corpus_folder)
    store = extract(loaded.model, loaded.tokenizer, corpus, batch_tokens=64)
    assert bool(store.states.isfinite().all())
    assert len(written) > 2
    assert written == [["the caller's"]] * len(written)


def test_what_a_batch_needs_is_sent_without_waiting():
    calls = []

    class Watched(torch.Tensor):
        def pin_memory(self):
            calls.append("pinned")
            return self

        def to(self, device, non_blocking=False):
            calls.append((device.type, non_blocking))
            return self

    tensor = torch.arange(3).as_subclass(Watched)
    sent(tensor, torch.device("cuda"))
    assert calls == ["pinned", ("cuda", True)]
    calls.clear()
    sent(tensor, torch.device("cpu"))
    assert calls == [("cpu", False)]
