"""`score`: from a model and a parallel corpus to the table of scores."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch

from ilo_fast.activations import ActivationStore, extract
from ilo_fast.activations.pooling import PoolSpec
from ilo_fast.arguments import true_or_false
from ilo_fast.companions import Companions
from ilo_fast.corpora import Corpus, load_corpus
from ilo_fast.errors import InputError
from ilo_fast.layers import LayerSpec, resolve_layers
from ilo_fast.models import LoadedModel, load_model
from ilo_fast.models.fingerprint import weights_sha256
from ilo_fast.neighbors import Neighbors
from ilo_fast.options import ScoreOptions
from ilo_fast.progress import Progress, with_progress
from ilo_fast.record import dtype_name, model_record, search_options
from ilo_fast.results import Result
from ilo_fast.scoring import check_search, score_and_record
from ilo_fast.shown import counted
from ilo_fast.stored import check_language_major
from ilo_fast.timeline import Clock, TimedProgress

__all__ = ["score"]


@with_progress
def score(
    model: str | Path | LoadedModel,
    corpus: str | Path | Corpus,
    *,
    k: int = 5,
    threshold: int = 3,
    layers: LayerSpec = None,
    metric: str = "cosine",
    pool: PoolSpec = "mean",
    batch_tokens: int | Literal["auto"] = "auto",
    device: str | torch.device = "auto",
    dtype: str | torch.dtype = "auto",
    backend: str = "auto",
    fused: str = "auto",
    reference: bool = False,
    seed: int = 0,
    truncate: bool = False,
    languages: Sequence[str] | None = None,
    limit: int | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
    metrics: str | Sequence[str] = (),
    progress: Any = None,
    states: str | Path | ActivationStore | None = None,
    each_layer: Callable[[int, Neighbors], None] | None = None,
) -> Result:
    """Score every layer and language of a model on a parallel corpus.

    Each sentence becomes one point per layer (the mean over its tokens' hidden states, float32);
    among all points of a layer, the k nearest others of each point give bridge, reach and ILO of
    its language (Wilie et al. 2025, arXiv 2503.11280), translation hit@k and same-language share.

    Args:
        model: a hub id, a folder, a ``.gguf`` file, or what `ilo_fast.models.load_model` returned.
        corpus: a folder, a table, ``"flores"``, ``"demo"`` or a `Corpus`; see `load_corpus`.
        k: neighbours of each point; at least 1 and less than the number of points.
        threshold: other languages among the k that make a point a bridge; at most k, and less than
            the number of languages.
        layers: which entries of ``hidden_states``: None for all, numbers, slices, or text such as
            ``"0,5,10:20"``, each once, in any order: the table's is ascending.
        metric: ``"cosine"``, ``"euclidean"`` or ``"inner_product"``.
        pool: ``"mean"``, ``"last"`` or ``"weighted"`` (by position) over a sentence's tokens, or a
            function as `ilo_fast.extract` takes it, of which records keep the name.
        batch_tokens: tokens in one forward pass, or ``"auto"``.
        device: where to compute; ``"auto"`` takes a GPU where there is one.
        dtype: of the forward pass; ``"auto"`` is the checkpoint's.
        backend: of the neighbour search; one that cannot serve raises.
        fused: fused kernels in the forward pass (the extra ``liger``, or layers compiled by torch);
            see `ilo_fast.extract`.
        reference: reproduce the paper's public code: float32 similarities, and "self" dropped as
            the first of k + 1 rather than by index.
        seed: of what is random, and recorded: the draws of ``metrics``; no score depends on
            anything random today (a checkpoint may lack the weights of a pooler, which comes
            after the hidden states).
        truncate: cut sentences longer than the model's limit instead of raising.
        languages: only these languages of the corpus.
        limit: only the first sentences of each language.
        revision: branch, tag or commit of a hub model.
        trust_remote_code: run Python code that the model's repository brings.
        metrics: further metrics, for tables beside the scores (`Result.companions`): names of
            `ilo_fast.companions.METRICS`, or ``"all"``; docs/metrics.md says what each costs.
        progress: True shows the stages, a rate and the time left on standard error. A listener
            hears ``start(total_tokens)``, ``advance(tokens, sentences)`` and ``finish()``; an
            `ilo_fast.progress.Progress` hears of the other stages too.
        states: a folder to keep the hidden states in: a run stopped half-way goes on there, and
            a later one with another k, threshold or metric reads them (``record["extraction"]``
            says which). Or what `extract` made of this corpus with this model, which its record is
            held against; its own batches are what they are.
        each_layer: called with each layer's number and `Neighbors`.

    Returns:
        A `Result` of one row per (layer, language).

    Raises:
        InputError: (a ValueError) on arguments, corpora, models and hidden states that cannot be
            used; the message names which, what was expected and what came.
        TypeError: on an argument of the wrong type.

    >>> import ilo_fast
    >>> from ilo_fast.models import wrap_model
    >>> from transformers import LlamaConfig, LlamaModel
    >>> sizes = dict(hidden_size=8, intermediate_size=16, num_attention_heads=2)
    >>> model = LlamaModel(LlamaConfig(vocab_size=256, num_hidden_layers=2, **sizes))
    >>> def tokenizer(texts, **options):  # one of transformers' does the same
    ...     return {"input_ids": [list(text.encode()) for text in texts]}
    >>> result = ilo_fast.score(wrap_model(model, tokenizer, name="tiny"), "demo", limit=5)
    >>> result
    Result(48 rows: models ['tiny'], 3 layers, 16 languages)
    >>> list(result.layers()["layer"]), bool((result.table["certified"] == 1).all())
    ([0, 1, 2], True)
    """
    options = ScoreOptions(
        k=k,
        threshold=threshold,
        layers=layers,
        metric=metric,
        pool=pool,
        batch_tokens=batch_tokens,
        backend=backend,
        fused=fused,
        reference=reference,
        seed=seed,
        truncate=truncate,
        metrics=metrics,
    )
    trust_remote_code = true_or_false(trust_remote_code, "trust_remote_code")
    if not isinstance(states, str | Path | ActivationStore | None):
        raise TypeError(
            f"states must be a folder or an ActivationStore, got {type(states).__name__}"
        )
    clock = Clock()
    listener = progress if isinstance(progress, Progress) else Progress()

    with clock.measure("corpus"):
        text = load_corpus(corpus, languages=languages, limit=limit)
        options.check_text(text)
        more = Companions(options.metrics, text, threshold=options.threshold, seed=options.seed)
    listener.stage(f"Loading {getattr(model, 'name', model)}")
    with clock.measure("load"):
        loaded = _loaded(model, revision, dtype, device, trust_remote_code, options.seed)
    described = model_record(loaded)
    chosen = tuple(sorted(resolve_layers(layers, loaded.n_layers + 1)))
    options = replace(options, layers=chosen)
    check_search(options, text.n_points, loaded.dim, loaded.device)
    listener.stage(_describe(loaded, text))
    if isinstance(states, ActivationStore):
        store = states
        with clock.measure("load"):
            weights = weights_sha256(loaded.model)
        _check_states(store, options, chosen, text, weights, dtype_name(loaded.dtype))
    else:
        store = extract(
            loaded.model,
            loaded.tokenizer,
            text,
            **options.extraction,
            folder=states,
            progress=TimedProgress(listener if progress is None else progress, clock),
            about={"model": described, "corpus": text.record},
        )
        with clock.measure("load"):  # hashed already where the states are kept
            weights = store.record.get("weights_sha256") or weights_sha256(loaded.model)
    asked = {
        **search_options(options, layers=chosen, pool=options.pool_name, device=device),
        "batch_tokens": options.batch_tokens,
        "dtype": dtype_name(dtype),
        "fused": options.fused,
        "truncate": options.truncate,
        "trust_remote_code": trust_remote_code,
    }
    return score_and_record(
        store,
        options,
        asked=asked,
        model={**described, "weights_sha256": weights},
        corpus=text.record,
        device=loaded.device,
        clock=clock,
        each_layer=each_layer,
        more=more,
        listener=listener,
    )


def _check_states(
    states: ActivationStore,
    options: ScoreOptions,
    layers: tuple[int, ...],
    corpus: Corpus,
    weights: str,
    dtype: str | torch.dtype,
) -> None:
    """That the states are of these layers, this corpus and this model, pooled as asked for.

    What the record of states made by hand does not say is taken to fit.
    """
    check_language_major(states)
    came: dict[str, Any] = {
        **states.record,
        "layers": tuple(sorted(states.layers)),
        "languages": states.languages,
        "points": len(states.language_ids),
    }
    expected = {
        "layers": layers,
        "languages": corpus.languages,
        "points": corpus.n_points,
        "pool": options.pool_name,
        "truncate": options.truncate,
        "dtype": dtype,
        "corpus_sha256": corpus.sha256,
        "weights_sha256": weights,
    }
    different = [name for name in expected if came.get(name, expected[name]) != expected[name]]
    if different:
        made = ", ".join(f"{name} {came[name]}" for name in different)
        asked = ", ".join(f"{name} {expected[name]}" for name in different)
        raise InputError(f"states: made with {made}; asked for are {asked}")


def _loaded(
    model: str | Path | LoadedModel,
    revision: str | None,
    dtype: str | torch.dtype,
    device: str | torch.device,
    trust_remote_code: bool,
    seed: int,
) -> LoadedModel:
    if isinstance(model, LoadedModel):
        if (revision, dtype, device, trust_remote_code) != (None, "auto", "auto", False):
            raise InputError(
                "revision, dtype, device and trust_remote_code say how to load a model; "
                f"{model.name} is loaded already"
            )
        return model
    with torch.random.fork_rng(devices=[]):  # the caller's random state stays as it was
        torch.default_generator.manual_seed(seed)
        return load_model(
            model,
            revision=revision,
            dtype=dtype,
            device=device,
            trust_remote_code=trust_remote_code,
        )


def _describe(loaded: LoadedModel, corpus: Corpus) -> str:
    licence = f", licence: {loaded.licence}" if loaded.licence else ""
    return (
        f"{loaded.name}: {counted(loaded.n_layers, 'layer')} × {loaded.dim}, "
        f"{dtype_name(loaded.dtype)} on {loaded.device}{licence}; "
        f"{corpus.name}: {counted(corpus.n_languages, 'language')} × "
        f"{counted(corpus.n_sentences, 'sentence')}"
    )
