"""A number that changes when a model's weights do, whatever they were loaded from."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ilo_fast.errors import ModelError

__all__ = ["deciding_settings", "weights_sha256"]

_WIDTH = 251
# Which version wrote the files, and what a forward pass hands out beside the hidden states; where
# the files lay and how attention is computed are keys with an underscore.
_IDLE = {"transformers_version", "use_cache", "return_dict"}
_IDLE |= {"output_hidden_states", "output_attentions"}
_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def _bit_sums(tensor: Tensor) -> Tensor:
    """Three int64 sums over the bits: plain, and weighted by column and by row of a table.

    Integer sums do not depend on the order of addition, so any device and thread count agrees. Two
    values that changed places changed their column or their row.
    """
    flat = tensor.detach().reshape(-1)
    bits = flat.view(_INTEGERS[flat.element_size()])
    height = bits.numel() // _WIDTH
    table, rest = bits[: height * _WIDTH].view(height, _WIDTH), bits[height * _WIDTH :]
    columns, rows = _sums(table, 0), _sums(table, 1)
    plain = rows.sum() + rest.sum(dtype=torch.int64)
    return torch.stack([plain, _by_place(columns) + _by_place(rest), _by_place(rows)])


def _sums(table: Tensor, dim: int) -> Tensor:
    if table.is_cpu:  # where torch takes many times as long as NumPy to widen what it adds
        return torch.from_numpy(table.numpy().sum(dim, dtype=np.int64))
    return table.sum(dim, dtype=torch.int64)


def _by_place(numbers: Tensor) -> Tensor:
    place = torch.arange(1, numbers.numel() + 1, dtype=torch.int64, device=numbers.device)
    return (numbers * place).sum()


def _buffers(module: nn.Module) -> dict[str, Tensor]:
    """A model's buffers by name; rotary angles as they were loaded, since a pass sets those of its
    own length in some models (LongRoPE, dynamic NTK)."""
    buffers = dict(module.named_buffers(remove_duplicate=False))
    loaded = {name: name.removesuffix("inv_freq") + "original_inv_freq" for name in buffers}
    return {name: buffers.get(loaded[name], tensor) for name, tensor in buffers.items()}


def _adapters(module: nn.Module) -> list[Any]:
    """The settings of each layer with PEFT's adapters, by name; nothing where there are none.

    Adapters lie beside the weights whether they are on or off.
    """
    found = {}
    for name, child in module.named_modules():
        if isinstance(getattr(type(child), "active_adapters", None), property):
            layer: Any = child
            settings = {
                key: value
                for key, value in vars(child).items()
                if not key.startswith("_") and key != "training" and _plain(value)
            }
            on = not getattr(layer, "disable_adapters", False)
            found[name] = {**settings, "active": list(layer.active_adapters), "on": on}
    return [found] if found else []


def _plain(value: Any) -> bool:
    """Whether a value is made of numbers, text and lists and mappings of these."""
    if isinstance(value, dict):
        return all(isinstance(key, str) and _plain(each) for key, each in value.items())
    if isinstance(value, list | tuple):
        return all(map(_plain, value))
    return value is None or isinstance(value, str | bool | int | float)


def deciding_settings(config: Any) -> Any:
    """A configuration, as JSON has it, without the settings that change no hidden state.

    >>> deciding_settings({"n_layer": 2, "use_cache": True, "text_config": {"_name_or_path": "x"}})
    {'n_layer': 2, 'text_config': {}}
    """
    if not isinstance(config, Mapping):
        return config
    return {
        key: deciding_settings(value)
        for key, value in config.items()
        if not str(key).startswith("_") and key not in _IDLE
    }


def weights_sha256(module: nn.Module) -> str:
    """SHA-256 over the names, shapes, dtypes and bit sums of all weights, and the configuration.

    The sums notice what training, merging or a copy gone wrong does; weights that were changed so
    that their sums stay the same have the same hash. One pass over the weights where they lie,
    and one copy to the host. Of PEFT's layers their settings count too: which adapters are on,
    and how much each adds.

    Raises:
        ModelError: when some weights lie elsewhere, as accelerate has it of those it offloads.
    """
    names, sums = [], []
    tensors = [*module.named_parameters(), *_buffers(module).items()]
    for name, tensor in sorted(tensors, key=lambda pair: pair[0]):
        if tensor.is_meta:
            raise ModelError(
                f"model: {name} is offloaded, so its weights have no hash; states kept in a folder "
                "and the record of `score` need one"
            )
        if tensor.numel() and not tensor.is_complex():
            names.append(f"{name} {tensor.dtype} {list(tensor.shape)}")
            sums.append(_bit_sums(tensor).cpu())
    config: Any = getattr(module, "config", None)
    described = {} if config is None else deciding_settings(config.to_dict())
    content = [names, torch.stack(sums).tolist() if sums else [], described]
    content += _adapters(module)
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()
