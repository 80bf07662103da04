"""What a run record says of model and search: plain values, ready for JSON."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch

from ilo_fast.activations.tokens import tokenizer_sha256
from ilo_fast.companions import SETTINGS
from ilo_fast.models import LoadedModel
from ilo_fast.neighbors import Neighbors
from ilo_fast.ops import dispatch
from ilo_fast.options import ScoreOptions

__all__ = [
    "backend_record",
    "dtype_name",
    "model_record",
    "search_options",
    "search_record",
]


def dtype_name(dtype: str | torch.dtype) -> str:
    """``float32`` rather than ``torch.float32``."""
    return str(dtype).removeprefix("torch.")


def model_record(loaded: LoadedModel) -> dict[str, Any]:
    """The model: its hub revision where it has one, its tokenizer, dtype and sizes."""
    return {
        "name": loaded.name,
        "revision": loaded.revision,
        "source": loaded.source,
        "licence": loaded.licence,
        "tokenizer": type(loaded.tokenizer).__name__,
        "tokenizer_sha256": tokenizer_sha256(loaded.tokenizer),
        "dtype": dtype_name(loaded.dtype),
        "n_layers": loaded.n_layers,
        "dim": loaded.dim,
        "max_length": loaded.max_length,
    }


def search_options(
    options: ScoreOptions,
    *,
    layers: Sequence[int],
    pool: str | None,
    device: str | torch.device,
) -> dict[str, Any]:
    """The options of a scoring that concern its search and scores."""
    return {
        "k": options.k,
        "threshold": options.threshold,
        "metric": options.metric,
        "layers": list(layers),
        "pool": pool,
        "device": str(device),
        "backend": options.backend,
        "reference": options.reference,
        "metrics": list(options.metrics),
        **({"metric_settings": dict(SETTINGS)} if options.metrics else {}),
    }


def search_record(layer: int, found: Neighbors) -> dict[str, Any]:
    """How one layer's neighbours were found; shares of rows, and candidates per row."""
    return {
        "layer": layer,
        "backend": found.backend,
        "certified": float(found.certified.double().mean()),
        **{name: values[0] for name, values in asdict(found.stats).items()},
    }


def backend_record(
    engine: str, device: torch.device, searches: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """The backends that served, and why those."""
    served = list(dict.fromkeys(search["backend"] for search in searches))
    why = dispatch.explain(device, served) if engine == "auto" else f"{engine} was asked for"
    return {"name": ", ".join(served), "why": why}
