"""`extract`: a model, its tokenizer and a corpus to one vector a layer and sentence."""

import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn

from ilo_fast.activations.capability import probe
from ilo_fast.activations.captures import evaluating, no_new_captures
from ilo_fast.activations.disk import DiskSink, is_finished
from ilo_fast.activations.fusing import forced_kernels, fusing
from ilo_fast.activations.job import ExtractProgress, Job
from ilo_fast.activations.manifest import describes
from ilo_fast.activations.packing import check_batch_tokens
from ilo_fast.activations.pooling import PoolSpec, check_pool
from ilo_fast.activations.runner import running
from ilo_fast.activations.space import free_memory
from ilo_fast.activations.store import ActivationStore, Sink, choose_place
from ilo_fast.activations.task import Task
from ilo_fast.arguments import true_or_false
from ilo_fast.errors import InputError
from ilo_fast.files import expanded
from ilo_fast.layers import LayerSpec, resolve_layers
from ilo_fast.models.fingerprint import weights_sha256
from ilo_fast.models.fused import check_fused
from ilo_fast.models.load import check_tokenizer
from ilo_fast.models.structure import (
    Backbone,
    batch_limit,
    find_backbone,
    input_device,
    parameter_dtype,
    token_limit,
)
from ilo_fast.ops.products import fast_linears
from ilo_fast.progress import with_progress

if TYPE_CHECKING:
    from ilo_fast.corpora import Corpus

__all__ = ["extract"]


@with_progress
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
    fused: str = "auto",
    progress: ExtractProgress | bool | None = None,
    about: Mapping[str, Any] | None = None,
) -> ActivationStore:
    """Run every sentence through a model, without padding, and pool its hidden states.

    Each sentence gives what it would give alone: sentences share a batch but never attention. How
    batches are made (packed rows, or sentences of equal length) is decided by trying the model and
    recorded. The model runs in its own dtype, on its own device, in evaluation mode, up to the
    deepest layer asked for, without a language-model head; it is left as it was.

    Args:
        model, tokenizer: a transformers model, with or without a head (of an encoder-decoder, the
            encoder is used), and its tokenizer; special tokens are added as the tokenizer does by
            default.
        corpus: the parallel text; its points are language-major.
        layers: entries of ``hidden_states`` from 0 (embedding output) to L (last, after the final
            norm): a number, a slice, a sequence of those or text such as ``"0,5,10:20"``, each
            layer once; ``store.layers`` is in the order given. None takes all. They are the
            model's own: Mamba's and RWKV's entry 0 is behind the first layer, CLIP's last before
            the norm (``taps_reason`` in the record says so).
        pool: ``"mean"`` over tokens, ``"last"`` token, ``"weighted"`` by position, or a function of
            packed states ``[tokens, dim]`` and int64 offsets ``[sentences + 1]`` on the same device
            that returns ``[sentences, dim]``. Sums are float64 on a CPU and float32 on a card,
            whatever the model's dtype.
        batch_tokens: most tokens in a batch; ``"auto"`` goes by device and free memory. When the
            device runs out of memory the budget is halved, with a warning, and extraction goes on.
            Llama 4 takes fewer than its ``floor_scale``, from where places in a row count, NLLB-MoE
            one sentence where its experts take a share of a batch.
        store: where the states are kept: ``"memory"`` (pinned for a CUDA model where there is
            room for the next power of two of bytes, which torch takes), ``"cuda"``, ``"disk"``, or
            ``"auto"``, by what fits.
        folder: for ``"disk"`` (and ``"auto"``, which then uses it): the states' folder. A run
            stopped half-way goes on there; a finished one is read back, and its record says how the
            states were made. Its key covers weights, tokenizer, corpus, dtype, pooling, layers,
            truncation (its limit and side) and fused kernels, so other states are never reused; a
            model with forward hooks of your own (steering, say) is refused, as they have no key.
        truncate: cut sentences longer than the model takes; otherwise they are errors.
        fused: kernels that do several of the model's steps at once (the extra ``liger``: norms,
            rotary embedding, gated activations) while it runs here: ``"auto"`` where they serve a
            16-bit model on CUDA, whose results they change within its own rounding, ``"off"``, or
            ``"liger"``, which raises where it cannot serve. ``"compile"`` has torch compile the
            layers, on any device; it costs a cold start, for long runs of small models to win
            back, and raises where it cannot serve.
        progress: told ``start(total_tokens)``, ``advance(tokens, sentences)`` and ``finish()``,
            and, where it has it, ``stage(text)`` of what comes before; True shows these, a rate
            and the time left on standard error.
        about: what the record shall say of ``"model"`` and ``"corpus"``, mappings of plain values
            with a ``"name"`` each, under ``"about"``: `ilo_fast.score` gives its own records of
            them, `ilo_fast.score_states` reads them.

    Returns:
        ActivationStore: ``states`` float32 ``[layers, points, dim]`` and a ``record`` of how they
            were made, hashes of weights and text included; its ``"states"`` is ``"made"``,
            ``"resumed"`` (``"sentences_kept"`` were there) or ``"read"``.

    Raises:
        ModelError: when the model gives no hidden states, or some that are not one vector a token.
        CorpusError: on a sentence without tokens (special ones aside) or over the model's limit,
            naming it.
        HiddenStateError: on NaN or infinity, naming layer and sentence.
        InputError: on a layer the model does not have or one named twice, an unknown pooling or
            place, too little room, or a folder that another run is writing to.

    >>> from ilo_fast import extract, load_corpus
    >>> from transformers import LlamaConfig, LlamaModel
    >>> sizes = dict(hidden_size=8, intermediate_size=16, num_attention_heads=2)
    >>> model = LlamaModel(LlamaConfig(vocab_size=256, num_hidden_layers=2, **sizes))
    >>> def tokenizer(texts, **options):  # one of transformers' does the same
    ...     return {"input_ids": [list(text.encode()) for text in texts]}
    >>> store = extract(model, tokenizer, load_corpus("demo", limit=5), layers=[-1, 0])
    >>> store.layers, store.states.shape, store.record["batches"]
    ((2, 0), torch.Size([2, 80, 8]), 'packed')
    """
    began = time.perf_counter()
    _check_arguments(corpus, tokenizer, fused, about)
    truncate, given = true_or_false(truncate, "truncate"), check_batch_tokens(batch_tokens)
    assert not isinstance(progress, bool)  # with_progress has made it a listener
    stage = getattr(progress, "stage", lambda text: None)
    backbone, chosen_pool = find_backbone(model), check_pool(pool)
    entries = resolve_layers(layers, backbone.n_entries)
    device = input_device(backbone.module)
    budget = _auto_budget(backbone, device) if given is None else given
    budget = min(budget, batch_limit(backbone.module) or budget)
    folder = None if folder is None else expanded(folder)
    place = choose_place(store, 4 * len(entries) * corpus.n_points * backbone.dim, device, folder)
    weights = None
    if place == "disk":
        # A pass over all parameters: only where states outlive the model.
        stage("Hashing the weights")
        weights = weights_sha256(backbone.module)
    task = Task(
        backbone=backbone,
        tokenizer=tokenizer,
        corpus=corpus,
        entries=entries,
        pool=chosen_pool,
        truncate=truncate,
        limit=token_limit(backbone.module, tokenizer),
        device=device,
        place=place,
        folder=folder,
        weights=weights,
    )
    there = _read_untried(task, budget, fused, progress)
    if there is not None:
        return there
    if fused == "compile":
        stage("Compiling the layers")
    with (
        torch.inference_mode(),
        torch.autocast(device.type, enabled=False),  # the caller's, if any
        evaluating(backbone.module),
        no_new_captures(backbone.module),
        nullcontext("torch") if fused == "compile" else fast_linears(device) as products,
        fusing(backbone, device, fused) as kernels,
    ):
        sink, budget = task.open_sink(budget, kernels.kernels)
        try:
            whole = _whole_record(sink, corpus.n_points, progress)
            if whole is None:
                stage("Trying how the model takes batches")
                way = probe(backbone, device, entries)
                with running(task, way) as runner:
                    job = Job(task, runner, sink, way, budget)
                    job.run(progress)
        except BaseException:
            sink.close()
            raise
    if whole is not None:  # there was nothing to tokenise or to try
        return _as_read(task, sink, whole)
    made_by = {"products": products, "fused": kernels.description}
    record = _record(job, made_by, time.perf_counter() - began, about)
    if not job.made and isinstance(sink, DiskSink):
        record = {**task.made_of, **(sink.earlier_record() or record)}
    states = sink.finish(record)
    record["states"] = "made" if not job.kept else "resumed" if job.made else "read"
    if job.kept and job.made:
        record["sentences_kept"] = job.kept
    return task.store(states, record)


def _check_arguments(corpus: Any, tokenizer: Any, fused: str, about: Any) -> None:
    if not hasattr(corpus, "n_points"):
        raise TypeError(
            f"corpus must be an ilo_fast.Corpus, as load_corpus gives; got {type(corpus).__name__}"
        )
    check_tokenizer(tokenizer)
    check_fused(fused)
    if about is not None and not describes(about):
        raise InputError(
            "about must map model and corpus to mappings of plain values, their names among them, "
            f"got {about!r:.80}"
        )


def _read_untried(
    task: Task, budget: int, fused: str, progress: ExtractProgress | None
) -> ActivationStore | None:
    """A finished folder's states, where its key can be told without trying the fused kernels."""
    if task.folder is None or task.place != "disk":
        return None
    forced = forced_kernels(task.backbone, task.device, fused)
    if forced is None or not is_finished(task.folder):
        return None
    sink, _ = task.open_sink(budget, forced)
    whole = _whole_record(sink, task.corpus.n_points, progress)
    if whole is not None:
        return _as_read(task, sink, whole)
    sink.close()
    return None


def _as_read(task: Task, sink: Sink, whole: dict[str, Any]) -> ActivationStore:
    return task.store(sink.finish(whole), {**task.made_of, **whole, "states": "read"})


def _record(
    job: Job, made_by: dict[str, str], seconds: float, about: Mapping[str, Any] | None
) -> dict[str, Any]:
    """How a job that is done made its states."""
    task, way = job.task, job.way
    attention = sorted(job.runner.kernels)
    if way.batches != "packed":
        attention = [str(task.backbone.module.config._attn_implementation)]  # type: ignore[union-attr]
    return {
        **asdict(way),
        "attention": attention,
        **made_by,
        "batch_tokens": job.budget,
        "store": task.place,
        "pool": task.pool.name,
        "layers": list(task.entries),
        "truncate": task.truncate,
        **task.made_of,
        "device": str(task.device),
        "sentences": task.corpus.n_points,
        "tokens": job.tokens,
        "seconds": round(seconds, 3),
        **({} if about is None else {"about": dict(about)}),
    }


def _whole_record(
    sink: Sink, points: int, progress: ExtractProgress | None
) -> dict[str, Any] | None:
    """How the states of a finished folder were made, which are whole; None where batches run."""
    if not isinstance(sink, DiskSink) or not sink.complete:
        return None
    if progress is not None:
        progress.start(0)
    record = sink.whole_record()
    if record is not None and progress is not None:
        getattr(progress, "skip", progress.advance)(0, points)
        progress.finish()
    return record


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
