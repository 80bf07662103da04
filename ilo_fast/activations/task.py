"""An extraction that is decided on: what runs through which part of a model, and where to."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ilo_fast.activations.captures import users_hooks
from ilo_fast.activations.disk import DiskSink
from ilo_fast.activations.pooling import Pool
from ilo_fast.activations.store import ActivationStore, Sink, TensorSink, pinning_fits
from ilo_fast.activations.tokens import tokenizer_sha256
from ilo_fast.errors import InputError
from ilo_fast.models.structure import Backbone, parameter_dtype

if TYPE_CHECKING:
    from ilo_fast.corpora import Corpus

__all__ = ["Task"]


@dataclass(frozen=True)
class Task:
    """What `ilo_fast.extract` was asked for, checked.

    ``entries`` are those of ``hidden_states``, ``limit`` is the most tokens of a sentence, None
    for any number, ``device`` the model's, ``place`` where the states go. ``weights`` is their hash
    where the states outlive the model, in ``folder``.
    """

    backbone: Backbone
    tokenizer: Any
    corpus: "Corpus"
    entries: tuple[int, ...]
    pool: Pool
    truncate: bool
    limit: int | None
    device: torch.device
    place: str
    folder: Path | None
    weights: str | None

    @property
    def dtype(self) -> str:
        """The model's, as records hold it."""
        return str(parameter_dtype(self.backbone.module)).removeprefix("torch.")

    @property
    def made_of(self) -> dict[str, str]:
        """For the record: what text and model the states are of, as far as it is hashed."""
        weights = {} if self.weights is None else {"weights_sha256": self.weights}
        return {"corpus_sha256": self.corpus.sha256, "dtype": self.dtype, **weights}

    def open_sink(self, budget: int, kernels: str | None) -> tuple[Sink, int]:
        """Where the batches go, and the tokens of one: ``budget`` or what a folder was begun with.

        ``kernels`` are the fused ones that run.
        """
        points, dim = self.corpus.n_points, self.backbone.dim
        if self.place == "disk":
            assert self.folder is not None
            key = self._key(kernels)
            sink = DiskSink(self.folder, key, self.entries, points, dim, budget)
            return sink, sink.budget
        shape = (len(self.entries), points, dim)
        where = self.device if self.place == "cuda" else torch.device("cpu")
        need = 4 * len(self.entries) * points * dim
        pin = self.place == "memory" and self.device.type == "cuda" and pinning_fits(need)
        return TensorSink(shape, where, pin=pin), budget

    def _key(self, kernels: str | None) -> dict[str, Any]:
        """What decides the states of a folder, bit for bit but for the machine."""
        if self.pool.function is not None:
            raise InputError(
                "pool: a folder keeps only mean, last and weighted (a function's content has no "
                "key)"
            )
        hooks = users_hooks(self.backbone.module)
        if hooks:
            more = f" and {len(hooks) - 1} more" if hooks[1:] else ""
            raise InputError(
                "folder: the model has hooks whose effect on the states has no key: "
                f"{hooks[0]}{more}; take them off, or give no folder"
            )
        side = getattr(self.tokenizer, "truncation_side", None)
        return {
            **({} if kernels is None else {"fused": kernels}),
            "model": self.weights,
            "tokenizer": tokenizer_sha256(self.tokenizer),
            "corpus": self.corpus.sha256,
            "languages": list(self.corpus.languages),
            "dtype": str(parameter_dtype(self.backbone.module)),
            "pool": self.pool.name,
            "truncate": [self.limit, side] if self.truncate else False,
        }

    def store(self, states: Tensor, record: dict[str, Any]) -> ActivationStore:
        """The states, with what is known of their layers and points."""
        return ActivationStore(
            states=states,
            layers=self.entries,
            languages=tuple(self.corpus.languages),
            language_ids=self.corpus.language_ids,
            sentence_ids=self.corpus.sentence_ids,
            record=record,
            folder=self.folder,
        )
