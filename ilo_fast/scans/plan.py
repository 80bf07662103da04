"""The plan of a scan: what it may say, checked whole before anything runs."""

import difflib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    field_validator,
    model_validator,
)

from ilo_fast.errors import InputError
from ilo_fast.files import expanded
from ilo_fast.layers import parse_layers
from ilo_fast.scans.positions import KeyPath, Located, load_yaml, show_path

__all__ = ["CorpusSpec", "ModelSpec", "Options", "Plan", "PlanError", "read_plan"]

Metric = Literal["cosine", "euclidean", "inner_product"]
Count = Annotated[int, Field(ge=1)]
Text = Annotated[str, Field(min_length=1)]


class PlanError(InputError):
    """A plan that cannot be done; one mistake a line."""


class _Strict(BaseModel):
    """No unknown keys, no guessing: "5" is no number and 5 no text."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Options(_Strict):
    """How a model is scored; see `ilo_fast.score` for those of the same name.

    ``intervals``: bootstrap samples over sentences for 95 % intervals; ``permutations``: of the
    languages, for the null; 0 turns either off. ``keep_neighbors`` stores the neighbour lists,
    which the report compares models by.
    """

    layers: str | int | list[int] | None = None
    k: Count = 5
    threshold: Count = 3
    metrics: Annotated[list[Metric], Field(min_length=1)] = ["cosine"]
    pool: Literal["mean", "last", "weighted"] = "mean"
    dtype: Literal["auto", "float32", "bfloat16", "float16", "float64"] = "auto"
    device: str = "auto"
    batch_tokens: Literal["auto"] | Count = "auto"
    backend: Literal["auto", "torch", "triton", "cuda", "reference"] = "auto"
    fused: Literal["auto", "off", "liger", "compile"] = "auto"
    truncate: bool = False
    seed: Annotated[int, Field(ge=0, lt=1 << 63)] = 0
    intervals: Annotated[int, Field(ge=0)] = 200
    permutations: Annotated[int, Field(ge=0)] = 100
    keep_neighbors: bool = False

    @field_validator("layers", mode="before")
    @classmethod
    def _layers(cls, value: Any) -> Any:
        if isinstance(value, bool | float):
            raise ValueError(f"expected numbers, slices or text such as '0,5,10:20', got {value!r}")
        try:
            parse_layers(value)
        except TypeError as error:
            raise ValueError(str(error)) from None
        return value

    @field_validator("device")
    @classmethod
    def _device(cls, value: str) -> str:
        """Its form only: the machine that a job runs on may be another one."""
        if not re.fullmatch(r"auto|balanced|(cpu|cuda|mps)(:\d+)?", value):
            raise ValueError(f"expected auto, balanced, cpu, cuda, cuda:<n> or mps, got {value!r}")
        return value

    @field_validator("metrics")
    @classmethod
    def _each_once(cls, value: list[Metric]) -> list[Metric]:
        if len(set(value)) != len(value):
            raise ValueError(f"each metric once, got {', '.join(value)}")
        return value


class CorpusSpec(_Strict):
    """A corpus: what `ilo_fast.load_corpus` takes, and its name in the tables."""

    corpus: Text
    name: Text | None = None
    languages: Annotated[list[Text], Field(min_length=2)] | None = None
    limit: Count | None = None
    split: Literal["txt", "dev", "devtest"] | None = None
    revision: Text | None = None

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        return {"corpus": value} if isinstance(value, str) else value


class ModelSpec(Options):
    """A model (hub id, folder, GGUF file, or a glob of either), revisions, and own options.

    Any of `Options` may be given too and takes the default's place. ``trust_remote_code`` exists
    only here: a plan trusts one model at a time.
    """

    model: Text
    name: Text | None = None
    revisions: Annotated[list[Text], Field(min_length=1)] | None = None
    trust_remote_code: bool = False

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        return {"model": value} if isinstance(value, str) else value

    @property
    def own_options(self) -> dict[str, Any]:
        """The options this model was given, by name."""
        given = self.model_fields_set & Options.model_fields.keys()
        return {name: getattr(self, name) for name in sorted(given)}


class Plan(_Strict):
    """A scan: every model on every corpus.

    Args:
        version: of this format, 1.
        models: hub ids, folders, GGUF files; with revisions and options of their own.
        corpora: parallel text, as `load_corpus` takes it.
        defaults: `Options` for models that say nothing else.
        results: the folder of results; the command line's ``--out`` takes its place.
    """

    version: Literal[1] = 1
    models: Annotated[list[ModelSpec], Field(min_length=1)]
    corpora: Annotated[list[CorpusSpec], Field(min_length=1)]
    defaults: Options = Options()
    results: Text | None = None

    _folder: Path = PrivateAttr(default_factory=Path.cwd)
    _located: Located = PrivateAttr(default=Located(None, {}))
    _where: str = PrivateAttr(default="plan")

    @property
    def folder(self) -> Path:
        """What relative paths are relative to: a plan file's own folder, or the current one."""
        return self._folder

    def options_of(self, model: ModelSpec) -> Options:
        """The defaults with the model's own options in their place."""
        return Options.model_validate({**self.defaults.model_dump(), **model.own_options})

    def mistake(self, path: KeyPath, what: str) -> str:
        """One line about one key: ``plan.yaml, line 3, models[0].revisions: ...``."""
        return _said(self._where, self._located.line(path), path, what)

    def resolve(self, name: str) -> Path:
        """A path as the plan gives it, relative to the plan's folder."""
        return self._folder / expanded(name)

    @property
    def results_folder(self) -> Path | None:
        """``results`` as a path, relative to the plan's folder."""
        return None if self.results is None else self.resolve(self.results)


def read_plan(plan: "str | os.PathLike[str] | Mapping[str, Any] | Plan") -> Plan:
    """Read and check a plan: a YAML file, a mapping of the same shape, or a `Plan`.

    Raises:
        PlanError: (an InputError) naming the line and key of every mistake, all of them at once.

    >>> from ilo_fast.scans.plan import read_plan
    >>> plan = read_plan({"models": ["org/name"], "corpora": ["demo"], "defaults": {"k": 10}})
    >>> plan.options_of(plan.models[0]).k
    10
    """
    if isinstance(plan, Plan):
        return plan
    if isinstance(plan, Mapping):
        return _validate(Located(dict(plan), {}), "plan", Path.cwd())
    path = expanded(plan)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"plan: cannot read {str(path)!r}: {error}") from error
    return _validate(load_yaml(text, path.name), path.name, path.absolute().parent)


def _said(where: str, line: int | None, path: KeyPath, what: str) -> str:
    at = "" if line is None else f", line {line}"
    return f"{where}{at}, {show_path(path)}: {what}"


def _validate(located: Located, where: str, folder: Path) -> Plan:
    if not isinstance(located.data, dict):
        got = repr(located.data)
        got = got if len(got) <= 60 else f"{got[:57]}..."
        raise InputError(f"{where}: expected keys such as models and corpora, got {got}")
    try:
        plan = Plan.model_validate(located.data)
    except ValidationError as error:
        found = [_describe(entry, located, where) for entry in error.errors()]
        found.sort(key=lambda mistake: mistake[0])
        raise PlanError("\n".join(dict.fromkeys(said for _, said in found))) from None
    plan._folder, plan._located, plan._where = folder, located, where
    return plan


def _describe(entry: Any, located: Located, where: str) -> tuple[int, str]:
    """The line of a mistake (0 where there is none), and what is said of it."""
    path = _as_written(tuple(entry["loc"]), located.data)
    given = entry.get("input")
    kind, context = entry["type"], entry.get("ctx", {})
    if kind == "extra_forbidden":
        what = _unknown(str(path[-1]), _schema_at(path))
    elif kind == "missing":
        what = "missing"
    elif kind == "string_type":
        quote = ": put it in quotes" if isinstance(given, int | float) else ""
        what = f"expected text, got {given!r:.80}{quote}"
    elif kind == "literal_error":
        what = f"expected {context['expected']}, got {given!r:.80}"
    elif kind == "value_error":
        what = str(context["error"])
    elif kind == "model_type":
        what = f"expected text or keys, got {given!r:.80}"
    else:
        what = f"{entry['msg'].removeprefix('Input ')}, got {given!r:.80}"
    line = located.line(path)
    return line or 0, _said(where, line, path, what)


def _as_written(loc: KeyPath, data: Any) -> KeyPath:
    """An error's place without what the schema adds (the names of a union's branches)."""
    path: list[str | int] = []
    for part in loc:
        if isinstance(data, dict) and (part in data or isinstance(part, str)):
            path.append(part)
            data = data.get(part)
        elif isinstance(data, list) and isinstance(part, int) and part < len(data):
            path.append(part)
            data = data[part]
    return tuple(path)


def _schema_at(path: KeyPath) -> type[BaseModel]:
    root = path[0] if len(path) > 1 else None
    schemas: dict[str | int | None, type[BaseModel]] = {
        "models": ModelSpec,
        "corpora": CorpusSpec,
        "defaults": Options,
    }
    return schemas.get(root, Plan)


def _unknown(key: str, schema: type[BaseModel]) -> str:
    known = list(schema.model_fields)
    nearest = difflib.get_close_matches(key, known, n=1)
    hint = f"did you mean {nearest[0]}?" if nearest else f"known are {', '.join(known)}"
    if key == "trust_remote_code":
        hint = "it is a key of one model, never of all"
    return f"unknown key; {hint}"
