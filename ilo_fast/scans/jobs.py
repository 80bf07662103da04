"""From a plan to jobs: which models and revisions there are, and what a result depends on."""

import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from ilo_fast import __version__
from ilo_fast.corpora import Corpus, load_corpus
from ilo_fast.errors import InputError
from ilo_fast.files import check_utf8, expanded
from ilo_fast.ilo import check_neighbors, check_threshold
from ilo_fast.models.locate import looks_local
from ilo_fast.scans import hub
from ilo_fast.scans.configs import dtype_of, read_config
from ilo_fast.scans.identity import model_digest, tokenizer_digest
from ilo_fast.scans.names import natural
from ilo_fast.scans.plan import CorpusSpec, ModelSpec, Options, Plan, PlanError

__all__ = ["SCHEMA_VERSION", "Cell", "Job", "plan_jobs"]

SCHEMA_VERSION = 2
"""Of the results folder; raised when a column or the meaning of one changes."""

# Options that tell results apart that may stand side by side, beside the metric: columns of the
# tables, where rows of two results would otherwise look alike.
_SLOT = ("k", "threshold", "pool", "dtype")
# Options that say where and how fast, not what.
_NOT_IN_KEY = {"device", "batch_tokens", "metrics"}
_GLOB = re.compile(r"[*?\[]")


@dataclass(frozen=True)
class Cell:
    """One result of a job: a metric. ``slot`` names its place, ``key`` what it depends on."""

    metric: str
    slot: str
    key: str
    parts: dict[str, str]


@dataclass(frozen=True)
class Job:
    """One model, at one revision, on one corpus: plain values, for any process.

    model, revision, corpus: names in the tables (revision "" where there is none). target: hub id
    or absolute path. source: what the target is; a folder that is gone is "missing". commit: of a
    hub model, None where unknown. corpus_arguments: of `load_corpus`. options: of `Options`. slot
    and key: as a cell's, of all metrics and the dtype as asked for (a failure is the whole job's).
    """

    model: str
    revision: str
    corpus: str
    target: str
    source: Literal["hub", "folder", "gguf", "missing"]
    commit: str | None
    trust_remote_code: bool
    corpus_arguments: dict[str, Any]
    corpus_sha256: str
    options: dict[str, Any]
    cells: tuple[Cell, ...]
    slot: str
    key: str
    download: int | None

    @property
    def name(self) -> str:
        """For people: ``model@revision on corpus``."""
        at = f"@{self.revision}" if self.revision else ""
        return f"{self.model}{at} on {self.corpus}"

    @property
    def place(self) -> dict[str, str]:
        """Model, revision and corpus, as tables name them."""
        return {"model": self.model, "revision": self.revision, "corpus": self.corpus}

    @property
    def id(self) -> str:
        """Of the place: two jobs with one id never run at once."""
        return _digest([*self.place.values()])

    def only(self, cells: Iterable[Cell]) -> "Job":
        """The same with some of its cells."""
        return replace(self, cells=tuple(cells))


@dataclass(frozen=True)
class _Target:
    label: str
    revision: str
    where: str
    source: Literal["hub", "folder", "gguf", "missing"]


def plan_jobs(plan: Plan) -> tuple[list[Job], dict[str, Corpus]]:
    """Every job of a plan, model by model, and the corpora by name.

    Reads the corpora, fingerprints local models and asks the hub for commits.

    Raises:
        PlanError: every mistake that shows only here, one a line: a corpus that cannot be read, a
            glob without a match, a job that is there twice.
    """
    mistakes: list[str] = []
    corpora = _corpora(plan, mistakes)
    jobs: list[Job] = []
    seen: dict[str, str] = {}
    for number, spec in enumerate(plan.models):
        path = ("models", number)
        try:
            targets = list(_targets(plan, spec))
            for target in targets:
                check_utf8(target.where, "model")
        except InputError as error:
            key = "revisions" if spec.revisions else "model"
            mistakes.append(plan.mistake((*path, key), str(error)))
            continue
        options = plan.options_of(spec)
        mistakes.extend(_out_of_reach(plan, number, options, corpora))
        for target in targets:
            identity, commit, download = _identity(target, spec)
            dtype = _own_dtype(target, commit) if options.dtype == "auto" else options.dtype
            for name, (arguments, text) in corpora.items():
                job = _job(
                    target, spec, options, dtype, name, arguments, text, identity, commit, download
                )
                twice = [cell.slot for cell in job.cells if cell.slot in seen]
                if twice:
                    first = seen[twice[0]]
                    what = f"{job.name} is the same job as that of {first}: give it another name"
                    mistakes.append(plan.mistake(path, what))
                seen.update(dict.fromkeys((cell.slot for cell in job.cells), f"models[{number}]"))
                jobs.append(job)
    if mistakes:
        raise PlanError("\n".join(dict.fromkeys(mistakes)))
    return jobs, {name: text for name, (_, text) in corpora.items()}


def _out_of_reach(
    plan: Plan,
    number: int,
    options: Options,
    corpora: Mapping[str, tuple[dict[str, Any], Corpus]],
) -> Iterator[str]:
    """A model's k or threshold that some corpus is too small for."""
    own = plan.models[number].own_options
    for name, (_, text) in corpora.items():
        for key, check, given in (
            ("k", check_neighbors, (options.k, text.n_languages, text.n_sentences)),
            ("threshold", check_threshold, (options.threshold, options.k, text.n_languages)),
        ):
            path = ("models", number, key) if key in own else ("defaults", key)
            try:
                check(*given)
            except InputError as error:
                yield plan.mistake(path, f"corpus {name}: {error}")


def _corpora(plan: Plan, mistakes: list[str]) -> dict[str, tuple[dict[str, Any], Corpus]]:
    """What `load_corpus` was given for each corpus, and the corpus, by name."""
    found: dict[str, tuple[dict[str, Any], Corpus]] = {}
    for number, spec in enumerate(plan.corpora):
        arguments = _corpus_arguments(plan, spec)
        try:
            text = load_corpus(**arguments)
        except (InputError, TypeError) as error:
            mistakes.append(plan.mistake(("corpora", number), str(error)))
            continue
        name = spec.name or text.name
        if name in found:
            mistakes.append(
                plan.mistake(("corpora", number), f"a second corpus {name!r}: give it a name")
            )
        found[name] = arguments, text
    return found


def _corpus_arguments(plan: Plan, spec: CorpusSpec) -> dict[str, Any]:
    where = spec.corpus if spec.corpus in ("demo", "flores") else str(plan.resolve(spec.corpus))
    return {
        "spec": where,
        "languages": spec.languages,
        "limit": spec.limit,
        "split": spec.split,
        "revision": spec.revision,
    }


def _targets(plan: Plan, spec: ModelSpec) -> Iterator[_Target]:
    """The models and revisions an entry stands for."""
    if _GLOB.search(spec.model) and not plan.resolve(spec.model).exists():
        if spec.revisions:
            raise InputError("a model that is a glob has no revisions: its matches are models")
        wanted = expanded(spec.model)
        base = Path(wanted.anchor) if wanted.is_absolute() else plan.folder
        matches = base.glob(str(wanted.relative_to(wanted.anchor)))
        found = [Path(os.path.normpath(path)) for path in matches if _loadable(path)]
        if not found:
            raise InputError(f"no folder with a config.json and no .gguf file matches {spec.model}")
        for path in sorted(found, key=lambda path: natural(str(path))):
            label, revision = (spec.name, path.name) if spec.name else (_label(plan, path), "")
            yield _Target(label, revision, str(path), _kind(path))
        return
    path = plan.resolve(spec.model)
    if path.exists() or looks_local(spec.model):
        label = spec.name or spec.model.rstrip("/")
        if spec.revisions:
            for folder in _subfolders(path, spec.revisions):
                yield _Target(label, folder.name, str(folder), _kind(folder))
        else:
            yield _Target(label, "", str(path), _kind(path))
        return
    hub.check_id(spec.model)
    label = spec.name or spec.model
    if not spec.revisions:
        yield _Target(label, "", spec.model, "hub")
        return
    revisions: list[str] = []
    for pattern in spec.revisions:
        if _GLOB.search(pattern):
            revisions += sorted(hub.matching_revisions(spec.model, pattern), key=natural)
        else:
            revisions.append(pattern)
    for revision in dict.fromkeys(revisions):
        yield _Target(label, revision, spec.model, "hub")


def _subfolders(path: Path, patterns: list[str]) -> list[Path]:
    """The revisions of a local folder are folders in it."""
    found: list[Path] = []
    for pattern in patterns:
        if "/" in pattern or pattern in (".", ".."):
            raise InputError(f"the revisions of a folder are names of folders in it, got {pattern}")
        if _GLOB.search(pattern):
            matches = [folder for folder in path.glob(pattern) if _loadable(folder)]
            if not matches:
                raise InputError(f"no folder with a config.json in {path} matches {pattern!r}")
            found += sorted(matches, key=lambda folder: natural(folder.name))
        else:
            found.append(path / pattern)
    return list(dict.fromkeys(found))


def _loadable(path: Path) -> bool:
    return (path / "config.json").is_file() or (path.suffix == ".gguf" and path.is_file())


def _kind(path: Path) -> Literal["folder", "gguf", "missing"]:
    if path.is_file():
        return "gguf"
    return "folder" if path.is_dir() else "missing"


def _label(plan: Plan, path: Path) -> str:
    inside = path.is_relative_to(plan.folder)
    return path.relative_to(plan.folder).as_posix() if inside else path.as_posix()


def _identity(target: _Target, spec: ModelSpec) -> tuple[dict[str, str], str | None, int | None]:
    """What tells the model's weights and tokenizer from others of its name; commit; download."""
    trusted = {"trust_remote_code": str(spec.trust_remote_code)}
    if target.source == "hub":
        found = hub.look_up(target.where, target.revision or None)
        return {"model": found.commit or "unknown", **trusted}, found.commit, found.size
    path = Path(target.where)
    if target.source == "missing":
        return {"model": "missing", **trusted}, None, 0
    try:
        files = {"model": model_digest(path), "tokenizer": tokenizer_digest(path)}
    except FileNotFoundError:  # a training that keeps its last checkpoints took it away meanwhile
        files = {"model": "missing"}
    return {**files, **trusted}, None, 0


def _own_dtype(target: _Target, commit: str | None) -> str:
    """What "auto" stands for, so that the two are one job; "auto" where only loading tells."""
    if target.source == "gguf":
        return "float32"
    config = read_config(target.source, target.where, commit)
    return dtype_of(config or {}) or "auto"


def _job(
    target: _Target,
    spec: ModelSpec,
    options: Options,
    dtype: str,
    corpus: str,
    arguments: dict[str, Any],
    text: Corpus,
    identity: dict[str, str],
    commit: str | None,
    download: int | None,
) -> Job:
    values = {**options.model_dump(), "dtype": dtype}
    parts = {
        **identity,
        "corpus": text.sha256,
        "package": __version__,
        "schema": str(SCHEMA_VERSION),
        **{
            f"option {name}": json.dumps(value)
            for name, value in values.items()
            if name not in _NOT_IN_KEY
        },
    }
    named = [target.label, target.revision, corpus]
    place = [*named, *(values[name] for name in _SLOT)]
    # A model that failed may not have had a configuration, to say what "auto" stands for.
    asked = [*named, *(getattr(options, name) for name in _SLOT)]
    slots = {metric: _digest([*place, metric]) for metric in options.metrics}
    # The slot makes the keys of equal files under two names different: tables are joined by key.
    cells = tuple(
        Cell(metric, slot, _digest([parts, slot]), parts) for metric, slot in slots.items()
    )
    return Job(
        model=target.label,
        revision=target.revision,
        corpus=corpus,
        target=target.where,
        source=target.source,
        commit=commit,
        trust_remote_code=spec.trust_remote_code,
        corpus_arguments=arguments,
        corpus_sha256=text.sha256,
        options={k: v for k, v in values.items() if k != "metrics"},
        cells=cells,
        slot=_digest(asked),
        key=_digest([parts, "job"]),
        download=download,
    )


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]
