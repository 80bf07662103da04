"""When to score a model in training, what to log of it, and the table that grows with it."""

import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from torch import nn

from ilo_fast import environment
from ilo_fast.arguments import at_least_1, between_0_and_1
from ilo_fast.corpora import Corpus, load_corpus
from ilo_fast.errors import InputError, ModelError
from ilo_fast.files import expanded
from ilo_fast.finetune.parts import unwrap
from ilo_fast.finetune.scoring import score_in_place, untouched
from ilo_fast.layers import LayerSpec, parse_layers, resolve_layers
from ilo_fast.models import find_backbone
from ilo_fast.models.load import check_tokenizer
from ilo_fast.models.structure import refuse_virtual_tokens
from ilo_fast.options import ScoreOptions
from ilo_fast.results import Result, from_columns, read_parquet

__all__ = ["LOGGED", "Watch"]

LOGGED = ("ilo", "bridge", "reach", "translation_hit")
"""The scores that go to the loggers, as ``score/group``."""

# Of `ilo_fast.score`'s, those that a callback takes.
_OPTIONS = ScoreOptions.__dataclass_fields__.keys() - {"reference", "seed", "metrics"}


class Watch:
    """What the callbacks of the training frameworks share; use one of those.

    Args:
        corpus: the parallel text to score: a folder, a table, ``"flores"``, ``"demo"`` or a
            `Corpus`.
        tokenizer: the model's; None where the framework knows it.
        every: ``"auto"``: as often as ``overhead`` allows. A number: every so many optimiser steps.
            Several numbers: at those steps.
        overhead: with ``"auto"``, the most time to spend on scoring as a share of the time spent
            training. The first scoring, before training, and the last, after it, are always done
            and counted: what comes between them waits until the share allows it.
        groups: names of groups of layers to layers, each logged as means over its layers and all
            languages. Default: ``early``, ``middle`` and ``late`` thirds of the layers (not entry
            0, the embedding output).
        out: where the table goes, a ``.parquet`` file; None for the framework's own folder. Of
            several callbacks of one training each wants its own.
        name: the model's name in the table; None takes its configuration's.
        layers, k, threshold, metric, pool, batch_tokens, backend, fused, truncate: as in
            `ilo_fast.score`.
        languages, limit: only these languages, only the first sentences.

    Raises:
        InputError, TypeError: on options that cannot be used, before there is a model; on layers
            that it does not have, when training begins.
    """

    def __init__(
        self,
        corpus: str | Path | Corpus = "demo",
        *,
        tokenizer: Any = None,
        every: int | Sequence[int] | Literal["auto"] = "auto",
        overhead: float = 0.02,
        groups: Mapping[str, LayerSpec] | None = None,
        out: str | Path | None = None,
        name: str | None = None,
        languages: Sequence[str] | None = None,
        limit: int | None = None,
        **options: Any,
    ) -> None:
        unknown = sorted(options.keys() - _OPTIONS)
        if unknown:
            raise TypeError(f"unknown argument {unknown[0]!r}")
        self.every = _check_every(every)
        self.overhead = between_0_and_1(overhead, "overhead")
        self.options = ScoreOptions(**options)
        self.corpus = load_corpus(corpus, languages=languages, limit=limit)
        self.options.check_text(self.corpus)
        self._groups = groups
        for layers in (groups or {}).values():
            parse_layers(layers)
        self.out = None if out is None else expanded(out)
        if self.out is not None and self.out.suffix != ".parquet":
            raise InputError(f"out must be the name of a .parquet file, got {str(out)!r}")
        self.name, self.tokenizer = name, tokenizer
        self._given = self.out, tokenizer  # a second training may bring another folder and model
        self.record: dict[str, Any] = {}
        self._mark: float | None = None
        self._reset()

    def _reset(self) -> None:
        """Nothing is scored yet, and no time spent."""
        self._tables: list[pd.DataFrame] = []
        self.training_seconds = self.scoring_seconds = 0.0
        self._last_scoring = self._trained_before = 0.0  # its seconds; those trained until then
        self._asked = 0  # the last step that `due` was asked about

    def __repr__(self) -> str:
        return f"Watch({self.shown})"

    @property
    def shown(self) -> str:
        """What it is of and how far it is, for the ``repr`` of a callback."""
        steps = {step for table in self._tables for step in table["step"]}
        return f"{self.corpus!r}, every={self.every!r}, scorings={len(steps)}"

    def choose_tokenizer(self, known: Any) -> Any:
        """The tokenizer given, or the one that the framework knows; raises where none will do."""
        given = self._given[1]
        chosen = known if given is None else given
        if chosen is None:
            raise InputError(
                "tokenizer: neither the callback nor the trainer was given one; pass "
                "tokenizer= to the callback"
            )
        check_tokenizer(chosen)
        return chosen

    def begin(
        self, model: nn.Module, tokenizer: Any, step: int, out: Path, beside: Iterable["Watch"] = ()
    ) -> None:
        """Training starts at ``step``; a resumed one goes on with the table it left.

        ``out`` is the table's place where none was given; ``beside`` are the training's watches.
        """
        self.tokenizer = self.choose_tokenizer(tokenizer)
        self.out = self._given[0] or out
        places = [(other._given[0] or out).resolve() for other in beside if other is not self]
        if self.out.resolve() in places:
            raise InputError(
                f"out: another callback of this training writes {self.out} too; give each an out= "
                "of its own"
            )
        refuse_virtual_tokens(model)
        inner = unwrap(model)
        entries = find_backbone(inner).n_entries
        self._layers = tuple(sorted(resolve_layers(self.options.layers, entries)))
        self.groups = _resolve_groups(self._groups, self._layers, entries)
        self._name = self.name or getattr(inner.config, "name_or_path", "") or type(inner).__name__
        self.record = {
            "kind": "training",
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "model": {
                "name": self._name,
                "class": type(inner).__name__,
                "n_layers": entries - 1,
            },
            "corpus": self.corpus.record,
            "groups": {group: list(layers) for group, layers in self.groups.items()},
            "every": self.every if isinstance(self.every, str | int) else list(self.every),
            **environment.describe(str(next(inner.parameters()).device)),
        }
        self._reset()
        if step and self.out.exists():
            earlier = read_parquet(self.out)
            self._check_earlier(earlier, self.out)
            self._tables.append(earlier.table[earlier.table["step"] <= step])
        self._asked = step
        self._mark = time.perf_counter()

    def _check_earlier(self, earlier: Result, out: Path) -> None:
        """One table holds one corpus and one way to score: else its steps could not be compared."""
        asked: dict[str, Any] = {
            "corpus": self.corpus.sha256,
            "layers": self._layers,
            "pool": self.options.pool_name,
            "truncate": self.options.truncate,
        }
        made = {
            "corpus": earlier.record.get("corpus", {}).get("sha256", asked["corpus"]),
            "layers": tuple(sorted(set(earlier.table["layer"]))),
        }
        made = {**earlier.record.get("extraction", {}), **made}
        came = {name: {made.get(name, asked[name])} for name in asked}
        for name in ("k", "threshold", "metric"):
            came[name] = set(earlier.table[name])
            asked[name] = getattr(self.options, name)
        other = [name for name in asked if came[name] - {asked[name]}]
        if other:
            raise InputError(
                f"the training resumed has a table, {out}, with another {' and '.join(other)}: "
                "give the callback the same, or another out="
            )

    def due(self, step: int) -> bool:
        """Whether to score now that ``step`` optimiser steps are done; once for each step.

        Steps may be passed over: two optimisers of Lightning's are stepped in one batch.
        """
        if self._mark is None:
            raise RuntimeError("the callback's begin hook was not called")
        before, self._asked = self._asked, step
        now = time.perf_counter()
        self.training_seconds += now - self._mark
        self._mark = now
        if self.every == "auto":
            spent = self.scoring_seconds + self._last_scoring
            waited = self.training_seconds - self._trained_before
            # The second keeps what an expensive first scoring held back from coming all at once.
            return (
                spent <= self.overhead * self.training_seconds
                and self._last_scoring <= self.overhead * waited
            )
        if isinstance(self.every, int):
            return step // self.every > before // self.every
        return any(before < each <= step for each in self.every)

    def scored(self, step: int) -> bool:
        """Whether ``step`` is in the table."""
        return any((table["step"] == step).any() for table in self._tables)

    def measure(self, model: nn.Module, step: int) -> dict[str, float]:
        """Score the model as it stands, add it to the table on disk; what to log."""
        began = time.perf_counter()
        inner = unwrap(model)
        with untouched(inner):
            found = score_in_place(inner, self.tokenizer, self.corpus, self._name, self.options)
        table = from_columns(found.columns, {}).table
        table["step"] = step
        # a step scored twice (the last of an epoch, the end of training) stands there once
        kept = [part[part["step"] != step] for part in self._tables]
        self._tables = [part for part in kept if len(part)] + [table]
        self.record["extraction"] = found.extraction
        self.record["backend"] = {"name": found.backend}
        self._trained_before = self.training_seconds
        computed = time.perf_counter()
        self.scoring_seconds += computed - began
        self.record["overhead"] = self.cost()
        assert self.out is not None
        self.result.write_parquet(self.out)
        self._mark = time.perf_counter()
        self.scoring_seconds += self._mark - computed
        self._last_scoring = self._mark - began
        return self._means(table)

    @property
    def result(self) -> Result:
        """The table so far: the columns of every `Result`, then ``step``."""
        if not self._tables:
            raise ModelError("nothing is scored yet")
        table = pd.concat(self._tables).sort_values("step", kind="stable", ignore_index=True)
        return Result(table, dict(self.record))

    def cost(self) -> dict[str, float]:
        """Seconds spent training and scoring so far, and their ratio."""
        training = self.training_seconds
        return {
            "training_seconds": training,
            "scoring_seconds": self.scoring_seconds,
            "share": self.scoring_seconds / training if training else 0.0,
        }

    def _means(self, table: pd.DataFrame) -> dict[str, float]:
        logs = {}
        for group, layers in self.groups.items():
            means = table[table["layer"].isin(layers)][list(LOGGED)].mean()
            logs.update({f"{score}/{group}": float(means[score]) for score in LOGGED})
        return logs


def _check_every(every: Any) -> int | tuple[int, ...] | Literal["auto"]:
    if isinstance(every, str) and every == "auto":
        return "auto"
    several = isinstance(every, Sequence) and not isinstance(every, str)
    try:
        steps = tuple(at_least_1(step, "every") for step in (every if several else (every,)))
    except (InputError, TypeError):
        steps = ()
    if not steps:
        raise InputError(
            f"every must be 'auto', a number of steps of at least 1, or several, got {every!r}"
        )
    return steps if several else steps[0]


def _resolve_groups(
    groups: Mapping[str, LayerSpec] | None, layers: tuple[int, ...], entries: int
) -> dict[str, tuple[int, ...]]:
    """Group names to entries of hidden_states, all of which are scored."""
    if groups is None:
        inner = [layer for layer in layers if layer > 0] or list(layers)
        thirds = np.array_split(np.asarray(inner), 3)
        return {
            name: tuple(part.tolist())
            for name, part in zip(("early", "middle", "late"), thirds, strict=True)
            if part.size
        }
    resolved = {name: resolve_layers(spec, entries) for name, spec in groups.items()}
    for name, wanted in resolved.items():
        missing = sorted(set(wanted) - set(layers))
        if missing:
            raise InputError(f"groups[{name!r}] holds layers {missing}, which layers= leaves out")
    return resolved
