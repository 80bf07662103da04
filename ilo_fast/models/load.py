"""Load a model and its tokenizer from a hub id, a local folder or a GGUF file, safely."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from ilo_fast.errors import ModelError
from ilo_fast.models.devices import check_device
from ilo_fast.models.gguf import fast_gguf
from ilo_fast.models.locate import Source, cached_commit, locate
from ilo_fast.models.pretrained import dequantised, pretrained, quiet
from ilo_fast.models.structure import find_backbone, parameter_dtype, token_limit
from ilo_fast.shown import Shown

__all__ = [
    "LoadedModel",
    "check_tokenizer",
    "load_model",
    "wrap_model",
]

_DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float64": torch.float64,
}


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


def _folder_licence(folder: Path) -> str | None:
    """The ``license:`` line of a model card's front matter."""
    card = folder / "README.md"
    if not card.is_file():
        return None
    front = card.read_text(encoding="utf-8", errors="replace").split("---", 2)
    found = re.search(r"^license:\s*(\S+)", front[1], re.MULTILINE) if len(front) == 3 else None
    return found.group(1) if found else None


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
    with quiet():
        if source == "gguf":
            assert path is not None
            options["gguf_file"] = path.name
            load["dtype"] = torch.float32 if wanted == "auto" else wanted
            load |= dequantised()
            with fast_gguf(path) as licence:
                loaded, tokenizer = pretrained(str(path.parent), options, load)
        else:
            if source == "hub":
                options["revision"] = revision
            loaded, tokenizer = pretrained(name if path is None else str(path), options, load)
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
    return LoadedModel(
        model=backbone.module,
        tokenizer=tokenizer,
        name=name,
        revision=revision,
        n_layers=backbone.n_layers,
        dim=backbone.dim,
        max_length=token_limit(backbone.module, tokenizer),
        source=source,
        licence=licence,
    )
