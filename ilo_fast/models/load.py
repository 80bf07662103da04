"""Load a model and its tokenizer from a hub id, a local folder or a GGUF file, safely."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from ilo_fast.errors import ModelError
from ilo_fast.files import expanded
from ilo_fast.models.devices import check_device
from ilo_fast.models.gguf import fast_gguf
from ilo_fast.models.structure import find_backbone, parameter_dtype, token_limit
from ilo_fast.shown import Shown

__all__ = [
    "LoadedModel",
    "cached_commit",
    "check_tokenizer",
    "in_short",
    "load_model",
    "locate",
    "looks_local",
    "without_bars",
    "wrap_model",
]

_DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float64": torch.float64,
}
Source = Literal["hub", "folder", "gguf", "memory"]


@dataclass(frozen=True, eq=False, repr=False)
class LoadedModel(Shown):
    """A model without its language-model head, its tokenizer, and what a record says of them.

    ``dtype`` is the dtype of the weights the forward pass runs in and ``device`` where they are,
    both as the model is now, cast and moved in memory or not; ``n_layers`` counts transformer
    layers (there are ``n_layers + 1`` hidden states of width ``dim``); ``max_length`` is the most
    tokens a sentence may have, or None; ``revision`` is the hub's commit, or None where the files
    have no version of their own; ``licence`` is what the files say, or None.
    """

    model: nn.Module
    tokenizer: Any
    name: str
    revision: str | None
    n_layers: int
    dim: int
    max_length: int | None
    source: Source
    licence: str | None

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        return parameter_dtype(self.model)

    @property
    def device(self) -> torch.device:
        """Of the first weights."""
        device: torch.device = next(self.model.parameters()).device
        return device


def _checked_dtype(dtype: str | torch.dtype) -> torch.dtype | Literal["auto"]:
    if isinstance(dtype, torch.dtype):
        if dtype in _DTYPES.values():
            return dtype
    elif dtype == "auto":
        return "auto"
    elif dtype in _DTYPES:
        return _DTYPES[dtype]
    raise ModelError(f"dtype: expected 'auto' or one of {', '.join(_DTYPES)}, got {dtype!r}")


@contextmanager
def without_bars() -> Iterator[None]:
    """Keep transformers' and the hub library's bars off the terminal, where our progress goes."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


@contextmanager
def _quiet() -> Iterator[None]:
    """Without bars, transformers' reports of loading and the hub library's lines about its
    retries: what becomes of them is said in one error.
    """
    from huggingface_hub.utils import logging as hub_logging
    from transformers.utils import logging

    verbosity, hub_verbosity = logging.get_verbosity(), hub_logging.get_verbosity()
    logging.set_verbosity_error()
    hub_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    try:
        with without_bars():
            yield
    finally:
        hub_logging.set_verbosity(hub_verbosity)
        logging.set_verbosity(verbosity)


def _dequantised() -> dict[str, Any]:
    """What keeps a transformers that could compute with a GGUF file's packed weights from it."""
    import transformers

    made = getattr(transformers, "GgufConfig", None)
    return {} if made is None else {"quantization_config": made(dequantize=True)}


def _folder_licence(folder: Path) -> str | None:
    """The ``license:`` line of a model card's front matter."""
    card = folder / "README.md"
    if not card.is_file():
        return None
    front = card.read_text(encoding="utf-8", errors="replace").split("---", 2)
    found = re.search(r"^license:\s*(\S+)", front[1], re.MULTILINE) if len(front) == 3 else None
    return found.group(1) if found else None


def looks_local(model: str) -> bool:
    """Whether a name that is no file here can only have meant one: a hub id has one slash."""
    return model.endswith(".gguf") or model.startswith((".", "/", "~")) or model.count("/") > 1


def locate(model: str, revision: str | None) -> tuple[Source, Path | None]:
    """Whether a name is a hub id, a folder or a GGUF file, and where that is; None for the hub's.

    Raises:
        ModelError: when it can be none of them, or is local and has a revision.
    """
    if not model.strip():
        raise ModelError(
            f"model: expected a hub id, a folder or a .gguf file, got the text {model!r}"
        )
    path = expanded(model)
    if path.is_file() and path.suffix == ".gguf":
        source: Source = "gguf"
    elif path.is_dir():
        if not (path / "config.json").is_file():
            adapter = (path / "adapter_config.json").is_file()
            hint = ", but an adapter: merge it into its model (peft: merge_and_unload), save that"
            raise ModelError(
                f"model: the folder {model} holds no config.json{hint * adapter}", kind="missing"
            )
        source = "folder"
    elif path.exists():
        raise ModelError(f"model: {model} is neither a folder nor a .gguf file")
    elif looks_local(model):
        raise ModelError(f"model: there is no file or folder {model}", kind="missing")
    else:
        return "hub", None
    if revision is not None:
        raise ModelError(f"revision: only a hub id has revisions, {model} is a local {source}")
    return source, path


def in_short(error: Exception) -> str:
    """An error's kind and the first two lines of what it says, in one."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {' '.join(lines[:2])}"


def _damaged_files(where: str) -> list[str]:
    """Names of a local folder's safetensors files that cannot be opened."""
    from safetensors import SafetensorError, safe_open

    damaged = []
    for path in sorted(Path(where).glob("*.safetensors")):
        try:
            with safe_open(path, framework="pt"):
                pass
        except SafetensorError:
            damaged.append(path.name)
    return damaged


def _pretrained(where: str, options: dict[str, Any], load: dict[str, Any]) -> tuple[Any, Any]:
    from safetensors import SafetensorError
    from transformers import AutoConfig, AutoModel, AutoTokenizer

    name = where if "gguf_file" not in options else str(Path(where) / options["gguf_file"])
    kind = "model"
    try:
        if "gguf_file" not in options:  # small, and fails first on what is wrong with a model
            AutoConfig.from_pretrained(where, **options)
        kind = "tokenizer"
        tokenizer = AutoTokenizer.from_pretrained(where, **options)
        kind = "model"
        model, report = AutoModel.from_pretrained(
            where,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # reported instead, and refused by name below
            **options,
            **load,
        )
    except SafetensorError as error:
        named = ", ".join(_damaged_files(where)) or "a weights file"
        raise ModelError(
            f"model: cannot load {name}: {named} is damaged or cut short ({error}); "
            "fetch or save it again"
        ) from error
    except Exception as error:  # any: what is amiss in files of others has no end
        if "trust_remote_code" in str(error):
            raise ModelError(
                f"model: {name} needs code from its own repository to run; "
                "trust_remote_code=True or --trust-remote-code allows it",
                kind=kind,
            ) from error
        # one line for the user; the cause is chained for --debug
        hint = "" if Path(where).exists() else f" (no folder or file {name} exists here)"
        raise ModelError(
            f"model: cannot load {name}: {in_short(error)}{hint}", kind=kind
        ) from error
    # What the checkpoint lacks is filled with random numbers. Only the pooler, which comes after
    # the hidden states, may be so.
    lacking = sorted(key for key in report["missing_keys"] if not key.startswith("pooler."))
    if lacking:
        raise ModelError(
            f"model: the checkpoint {name} lacks {len(lacking)} weights of "
            f"{type(model).__name__}: {', '.join(lacking[:3])}"
        )
    if report["mismatched_keys"]:
        key, found, wanted = min(report["mismatched_keys"])
        raise ModelError(
            f"model: the checkpoint {name} does not fit its configuration: {key} is "
            f"{list(found)}, {type(model).__name__} wants {list(wanted)}"
        )
    return model, tokenizer


def load_model(
    model: str | Path,
    *,
    revision: str | None = None,
    dtype: str | torch.dtype = "auto",
    device: str | torch.device = "auto",
    trust_remote_code: bool = False,
) -> LoadedModel:
    """Load a model, without its language-model head, and its tokenizer.

    Args:
        model: a hub id (``org/name``), a local folder in the hub's format, or a ``.gguf`` file.
        revision: commit, tag or branch of a hub id.
        dtype: ``"auto"`` (the checkpoint's own), ``"float32"``, ``"bfloat16"``, ``"float16"`` or
            ``"float64"``. A GGUF file's quantised weights have no such dtype: ``"auto"`` gives
            float32, which holds the dequantised values exactly.
        device: ``"auto"`` (CUDA where there is one), a device, or ``"balanced"`` to spread the
            layers over all CUDA devices.
        trust_remote_code: run code from the model's repository. Off unless asked for.

    Raises:
        ModelError: when there is no such model, it cannot be loaded, or it gives no hidden states.
        TypeError: when ``model`` is no text or path; `wrap_model` takes one in memory.
    """
    if not isinstance(model, str | os.PathLike):
        raise TypeError(
            "model: expected a hub id, a folder or a .gguf file, got "
            f"{type(model).__name__} (ilo_fast.models.wrap_model takes a model in memory)"
        )
    wanted, place = _checked_dtype(dtype), check_device(device)
    name = str(model)
    source, path = locate(name, revision)
    options: dict[str, Any] = {"trust_remote_code": trust_remote_code}
    load: dict[str, Any] = {"dtype": wanted}
    if place == "balanced":
        load["device_map"] = "balanced"
    licence: str | None = None
    with _quiet():
        if source == "gguf":
            assert path is not None
            options["gguf_file"] = path.name
            load["dtype"] = torch.float32 if wanted == "auto" else wanted
            load |= _dequantised()
            with fast_gguf(path) as licence:
                loaded, tokenizer = _pretrained(str(path.parent), options, load)
        else:
            if source == "hub":
                options["revision"] = revision
            loaded, tokenizer = _pretrained(name if path is None else str(path), options, load)
    if place != "balanced":
        loaded = loaded.to(place)
    if path is not None and source == "folder":
        licence = _folder_licence(path)
    commit = cached_commit(name, revision) if source == "hub" else None
    return _describe(
        loaded,
        tokenizer,
        # of "." too; and a link, as the hub's cache holds files by, keeps its own name
        name=os.path.basename(os.path.abspath(path)) if path is not None else name,
        revision=commit or revision,
        source=source,
        licence=licence,
    )


def cached_commit(repository: str, revision: str | None) -> str | None:
    """The commit of what the hub's cache holds of a repository at a revision; None of nothing."""
    import huggingface_hub

    found = huggingface_hub.try_to_load_from_cache(repository, "config.json", revision=revision)
    return Path(found).parent.name if isinstance(found, str) else None


def check_tokenizer(tokenizer: Any) -> None:
    """That sentences can be given to it; a processor would take them for images."""
    from transformers import ProcessorMixin

    processor = isinstance(tokenizer, ProcessorMixin)
    if processor or not callable(tokenizer):
        hint = " (its .tokenizer is one)" if processor else ""
        raise ModelError(
            f"tokenizer: expected a transformers tokenizer, got {type(tokenizer).__name__}{hint}",
            kind="tokenizer",
        )


def wrap_model(model: nn.Module, tokenizer: Any, *, name: str | None = None) -> LoadedModel:
    """Describe a model and tokenizer that are already in memory.

    Raises:
        ModelError: when ``model`` is not a transformers model that gives hidden states.
    """
    check_tokenizer(tokenizer)
    config = getattr(model, "config", None)
    return _describe(
        model,
        tokenizer,
        name=name or getattr(config, "name_or_path", "") or type(model).__name__,
        revision=getattr(config, "_commit_hash", None),
        source="memory",
        licence=None,
    )


def _describe(
    model: nn.Module,
    tokenizer: Any,
    *,
    name: str,
    revision: str | None,
    source: Source,
    licence: str | None,
) -> LoadedModel:
    backbone = find_backbone(model)
    module = backbone.module.eval() if source != "memory" else backbone.module
    return LoadedModel(
        model=module,
        tokenizer=tokenizer,
        name=name,
        revision=revision,
        n_layers=backbone.n_layers,
        dim=backbone.dim,
        max_length=token_limit(module, tokenizer),
        source=source,
        licence=licence,
    )
