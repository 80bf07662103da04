"""A model's configuration before the model is loaded: config.json of a folder, the hub or cache."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ilo_fast.scans import hub

__all__ = ["DTYPE_BYTES", "dtype_of", "read_config"]

DTYPE_BYTES = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}
"""The dtypes that models run in."""


def read_config(source: str, target: str, commit: str | None) -> dict[str, Any] | None:
    """The values of a config.json; None where it cannot be had or read, and of a GGUF file."""
    try:
        if source == "hub":
            # Without a commit neither hub nor cache could say anything: asking again takes its time
            config = hub.config_of(target, commit) if commit else None
        elif source == "folder":
            config = json.loads((Path(target) / "config.json").read_text(encoding="utf-8"))
        else:
            config = None
    except (OSError, ValueError, RecursionError):
        return None
    return config if isinstance(config, dict) else None


def dtype_of(config: Mapping[str, Any]) -> str | None:
    """The dtype a configuration names, which transformers takes for "auto"; None for none of ours.

    >>> dtype_of({"torch_dtype": "torch.bfloat16"}), dtype_of({"dtype": "float8_e4m3fn"})
    ('bfloat16', None)
    """
    stored = str(config.get("dtype") or config.get("torch_dtype")).removeprefix("torch.")
    return stored if stored in DTYPE_BYTES else None
