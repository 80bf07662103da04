"""One job: load the model, run the corpus through it, score each metric. Runs in any process."""

import gc
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from ilo_fast.activations import ActivationStore, extract
from ilo_fast.corpora import load_corpus
from ilo_fast.errors import CorpusError
from ilo_fast.models import LoadedModel, load_model
from ilo_fast.options import ScoreOptions
from ilo_fast.pipeline import score
from ilo_fast.scans.failures import Failure, explain_failure
from ilo_fast.scans.jobs import Cell, Job
from ilo_fast.scans.tables import cell_tables, to_bytes
from ilo_fast.scoring import check_search, kept_in

__all__ = ["ModelCache", "Outcome", "run_job"]

_LARGE = 1 << 28  # bytes of weights
_WITH_RECORD = ("scores", "neighbors")  # what is read by itself: `ilo_fast.sources` pairs the two


@dataclass(frozen=True)
class Outcome:
    """What a job gave: Parquet files by slot and table, or a failure; seconds and tokens."""

    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    failure: Failure | None = None
    seconds: float = 0.0
    tokens: int = 0


class ModelCache:
    """Keeps the model of the last job: the next one often is of the same."""

    def __init__(self) -> None:
        self._key: Any = None
        self._loaded: LoadedModel | None = None

    def get(self, job: Job) -> LoadedModel:
        """The job's model, loaded unless it was the last one's."""
        dtype, device = job.options["dtype"], job.options["device"]
        revision = (job.commit or job.revision or None) if job.source == "hub" else None
        trusted, digest = job.trust_remote_code, job.cells[0].parts.get("model")
        key = (job.target, revision, trusted, digest, dtype, device)
        if self._loaded is None or key != self._key:
            self.drop()
            with torch.random.fork_rng():
                torch.manual_seed(job.options["seed"])
                self._loaded = load_model(
                    job.target,
                    revision=revision,
                    dtype=dtype,
                    device=device,
                    trust_remote_code=trusted,
                )
            self._key = key
        return self._loaded

    def drop(self) -> None:
        """Let go of the model and its memory."""
        if self._loaded is None:
            return
        held = sum(p.numel() * p.element_size() for p in self._loaded.model.parameters())
        self._loaded = None
        if held > _LARGE:  # a model in a cycle would stay; looking for cycles takes a while
            gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def run_job(job: Job, cache: ModelCache | None = None, progress: Any = None) -> Outcome:
    """Do a job's cells; whatever goes wrong with the model or its states becomes a `Failure`."""
    began = time.perf_counter()
    cache = cache or ModelCache()
    try:
        files, tokens = _run(job, cache, progress)
    except Exception as error:
        cache.drop()
        return Outcome(failure=explain_failure(error), seconds=time.perf_counter() - began)
    return Outcome(files, None, time.perf_counter() - began, tokens)


def _run(job: Job, cache: ModelCache, progress: Any) -> tuple[dict[str, dict[str, bytes]], int]:
    options = job.options
    text = load_corpus(**job.corpus_arguments)
    if text.sha256 != job.corpus_sha256:
        raise CorpusError(f"corpus: {job.corpus} changed since the scan began")
    loaded = cache.get(job)
    scorings = [_scoring(job, cell) for cell in job.cells]
    for scoring in scorings:
        check_search(scoring, text.n_points, loaded.dim, loaded.device)
    states: ActivationStore = extract(
        loaded.model, loaded.tokenizer, text, **scorings[0].extraction, progress=progress
    )
    files: dict[str, dict[str, bytes]] = {}
    for cell, scoring in zip(job.cells, scorings, strict=True):
        lists: list[np.ndarray] = []
        # as of device and dtype, the record says of batches under "scan" what the plan asked for
        how = {**vars(scoring), "batch_tokens": "auto"}
        result = score(loaded, text, **how, states=states, each_layer=kept_in(lists))
        record = {
            **result.record,
            "scan": {
                **job.place,
                "target": job.target,
                "commit": job.commit,
                "options": {**options, "metric": cell.metric},
            },
        }
        tables = cell_tables(job, cell, result, np.stack(lists), text)
        files[cell.slot] = {
            name: to_bytes(name, rows, cell, record if name in _WITH_RECORD else {})
            for name, rows in tables.items()
        }
    return files, int(states.record["tokens"])


def _scoring(job: Job, cell: Cell) -> ScoreOptions:
    """Those of the job's options that say how to score, with the cell's metric."""
    names = job.options.keys() & ScoreOptions.__dataclass_fields__
    return ScoreOptions(metric=cell.metric, **{name: job.options[name] for name in names})
