"""A model's module tree without its weights: enough to say what freezing would freeze."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from ilo_fast.errors import ModelError
from ilo_fast.models.gguf import fast_gguf
from ilo_fast.models.locate import locate
from ilo_fast.models.pretrained import in_short

__all__ = ["skeleton"]


def skeleton(
    model: str | Path, *, revision: str | None = None, trust_remote_code: bool = False
) -> nn.Module:
    """Build a model from its configuration on torch's meta device, which holds no numbers.

    Takes seconds and no memory whatever the model's size; of a hub model, only the configuration
    is downloaded. ``model`` is a hub id, a folder or a ``.gguf`` file, and the class is the one
    the checkpoint names, head included.

    Raises:
        ModelError: when there is no such model, or transformers has no class for it.
    """
    import transformers

    source, path = locate(str(model), revision)
    options: dict[str, Any] = {"trust_remote_code": trust_remote_code}
    try:
        if path is not None and source == "gguf":
            with fast_gguf(path):
                config = transformers.AutoConfig.from_pretrained(
                    path.parent, gguf_file=path.name, **options
                )
        else:
            where = str(model) if path is None else str(path)
            config = transformers.AutoConfig.from_pretrained(where, revision=revision, **options)
        with torch.device("meta"):
            return _build(transformers, config, trust_remote_code)
    except ModelError:
        raise
    except Exception as error:  # any: what is amiss in files of others has no end
        raise ModelError(f"model: cannot read {model}: {in_short(error)}") from error


def _build(transformers: Any, config: Any, trust_remote_code: bool) -> nn.Module:
    for name in getattr(config, "architectures", None) or []:
        named = getattr(transformers, name, None)
        if named is not None:
            return _module(named._from_config(config))
    causal = type(config) in transformers.AutoModelForCausalLM._model_mapping
    auto = transformers.AutoModelForCausalLM if causal else transformers.AutoModel
    return _module(auto.from_config(config, trust_remote_code=trust_remote_code))


def _module(built: Any) -> nn.Module:
    assert isinstance(built, nn.Module)
    return built
