"""Find the parts of a transformers model that hidden states come from."""

from contextlib import suppress
from dataclasses import dataclass
from inspect import signature
from typing import Any

import torch
from torch import nn

from ilo_fast.errors import ModelError

__all__ = [
    "BY_YOURSELF",
    "Backbone",
    "batch_limit",
    "find_backbone",
    "input_device",
    "known_tokens",
    "lists_of_layers",
    "parameter_dtype",
    "position_offset",
    "refuse_virtual_tokens",
    "rotary_turn",
    "token_limit",
]

# Within XLNet states are [tokens, batch, dim]; those that it gives out are turned back.
_TURNED_WITHIN = ("xlnet",)
BY_YOURSELF = "states that your own code pools can go to ilo_fast.knn"  # of a model not served
_NO_LIMIT = 10**9  # tokenizers without a limit of their own report about 1e30


@dataclass(frozen=True)
class Backbone:
    """The part of a model that makes hidden states: no language-model head, no decoder, no vision.

    ``blocks`` are its transformer layers in order, or None when they cannot be told apart (layers
    that share one module, say) or hold states of another shape; hidden states then come from
    ``output_hidden_states``.
    """

    module: nn.Module
    blocks: nn.ModuleList | None
    n_layers: int
    dim: int

    @property
    def n_entries(self) -> int:
        """Number of hidden states: the embedding output and one for each layer."""
        return self.n_layers + 1


def _text_config(config: Any) -> Any:
    get = getattr(config, "get_text_config", None)
    return config if get is None else get()


def _number(config: Any, name: str) -> int | None:
    value = getattr(config, name, None)
    return value if isinstance(value, int) and value > 0 else None


def _encoder_or_text(model: Any) -> nn.Module:
    """The encoder of an encoder-decoder model, the text decoder of a multimodal one, or itself."""
    config = model.config
    if getattr(config, "is_encoder_decoder", False):
        encoder = model.get_encoder() if hasattr(model, "get_encoder") else None
        if not isinstance(encoder, nn.Module):
            raise ModelError(f"model: {type(model).__name__} has no encoder to take states from")
        return encoder
    base = getattr(model, "base_model", model)
    text = getattr(config, "text_config", None)
    if text is not None and text is not config and hasattr(model, "get_decoder"):
        base = model.get_decoder()
    assert isinstance(base, nn.Module)
    return base


def lists_of_layers(module: nn.Module, n_layers: int) -> dict[str, nn.ModuleList]:
    """The lists of ``n_layers`` distinct modules of one kind of layer, by name."""
    found = {}
    for name, child in module.named_modules():
        if isinstance(child, nn.ModuleList) and len(child) == n_layers:
            distinct = len({id(block) for block in child}) == n_layers
            # a list of single projections or experts is no list of layers
            if distinct and all(any(True for _ in block.children()) for block in child):
                found[name] = child
    return found


def _find_blocks(module: nn.Module, n_layers: int) -> nn.ModuleList | None:
    """The outermost list of layers."""
    lists = lists_of_layers(module, n_layers)
    return lists[min(lists, key=lambda name: name.count("."))] if lists else None


def _count_layers(module: nn.Module, config: Any) -> int | None:
    """How many layers give hidden states, by the configuration.

    LongCat-Flash's ``num_hidden_layers`` counts the attentions, two in each of ``num_layers``.
    """
    told, other = _number(config, "num_hidden_layers"), _number(config, "num_layers")
    if told is None or other is None or lists_of_layers(module, told):
        return told
    return other if lists_of_layers(module, other) else told


def find_backbone(model: nn.Module) -> Backbone:
    """Find the module, layers and sizes that ``model``'s hidden states come from.

    Adapters of PEFT's are within the layers; of its wrapper the model inside is taken.

    Raises:
        ModelError: when ``model`` is not a transformers model that gives hidden states, or PEFT
            puts virtual tokens before its text.
    """
    if hasattr(model, "get_base_model"):
        refuse_virtual_tokens(model)
        model = model.get_base_model()  # type: ignore[operator]
    if not isinstance(model, nn.Module) or not hasattr(model, "config"):
        wrapped = hasattr(getattr(model, "module", None), "config")  # of data parallelism
        raise ModelError(
            f"model: expected a transformers PreTrainedModel, got {type(model).__name__}"
            + (", whose .module is one" if wrapped else "")
        )
    module = _encoder_or_text(model)
    if not hasattr(module, "config"):
        raise ModelError(
            f"model: {type(module).__name__}, the encoder of {type(model).__name__}, has no "
            f"configuration of its own that would say what layers it has; {BY_YOURSELF}"
        )
    config = _text_config(module.config)
    n_layers, dim = _count_layers(module, config), _number(config, "hidden_size")
    if n_layers is None or dim is None:
        raise ModelError(
            f"model: {type(model).__name__} gives no hidden states "
            "(its configuration names no num_hidden_layers and hidden_size)"
        )
    turned = getattr(config, "model_type", None) in _TURNED_WITHIN
    blocks = None if turned else _find_blocks(module, n_layers)
    return Backbone(_innermost(module, blocks), blocks, n_layers, dim)


def _innermost(module: nn.Module, blocks: nn.ModuleList | None) -> nn.Module:
    """The model within ``module`` that runs the layers: heads of OPT and BART call it, past what is
    around it, and of Llama 4 all but the head is in it."""
    for each in module.modules():
        is_model = hasattr(each, "config") and hasattr(each, "get_input_embeddings")
        runs_them = is_model and any(part is blocks for part in each.modules())
        if runs_them and "input_ids" in signature(each.forward).parameters:
            module = each
    return module


def refuse_virtual_tokens(model: nn.Module) -> None:
    """That no wrapper of PEFT's in ``model`` learns a prompt, which the model inside is without.

    Raises:
        ModelError: naming the wrapper.
    """
    for module in model.modules():
        if getattr(getattr(module, "active_peft_config", None), "is_prompt_learning", False):
            raise ModelError(
                f"model: {type(module).__name__} puts virtual tokens before the text, whose states "
                "are no part of a sentence; model.get_base_model() runs without them"
            )


def position_offset(module: nn.Module) -> int:
    """The position id of a sentence's first token: RoBERTa's family starts after the padding id."""
    children: Any = module.modules()
    for child in children:
        if hasattr(child, "create_position_ids_from_input_ids") and hasattr(child, "padding_idx"):
            return int(child.padding_idx) + 1
    return 0


def token_limit(module: Any, tokenizer: Any) -> int | None:
    """The most tokens a sentence may have; None where neither model nor tokenizer has a limit."""
    config = _text_config(module.config)
    limits = []
    positions = _number(config, "max_position_embeddings")
    if positions is not None:
        limits.append(positions - position_offset(module))
    own = getattr(tokenizer, "model_max_length", None)
    if own is not None and 0 < own < _NO_LIMIT:
        limits.append(int(own))
    return min(limits) if limits else None


def known_tokens(module: Any) -> int | None:
    """How many token ids the input embeddings have rows for; None where they are no such table."""
    table = None
    if hasattr(module, "get_input_embeddings"):
        with suppress(NotImplementedError):  # CANINE's ids have several
            table = module.get_input_embeddings()
    return table.num_embeddings if isinstance(table, nn.Embedding) else None


def rotary_turn(module: Any) -> int | None:
    """The length up to which a model with LongRoPE turns by other angles than beyond it, if any.

    The longest sentence decides for a whole batch (transformers' ``dynamic_rope_update``), so a
    batch may not hold both kinds.
    """
    config = _text_config(module.config)
    given = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    for rope in (given, *given.values()):  # of the model, or one for each type of layer
        if isinstance(rope, dict) and rope.get("rope_type", rope.get("type")) == "longrope":
            inside = rope.get("original_max_position_embeddings")
            return inside or _number(config, "original_max_position_embeddings")
    return None


def batch_limit(module: Any) -> int | None:
    """The most tokens of a batch of several sentences, for a model that counts a batch's tokens.

    Llama 4's attention grows with the place of a query (``attn_temperature_tuning``), counted from
    the start of a row whatever the position ids say; among the first ones by nothing. NLLB-MoE's
    experts leave out tokens beyond a share of all the batch's
    (``moe_eval_capacity_token_fraction`` below 1).
    """
    config = _text_config(module.config)
    scale = _number(config, "floor_scale")
    if scale is not None and getattr(config, "attn_temperature_tuning", None):
        return max(1, scale - 1)
    return 1 if getattr(config, "moe_eval_capacity_token_fraction", 1.0) < 1 else None


def input_device(module: Any) -> torch.device:
    """Where token ids go: to the input embeddings, or to where accelerate runs offloaded ones.

    Raises:
        ModelError: when the weights hold no data.
    """
    place = module
    if hasattr(module, "get_input_embeddings"):
        with suppress(NotImplementedError):  # CANINE's ids have several
            place = module.get_input_embeddings() or module
    device: torch.device = next(place.parameters()).device
    if device.type != "meta":
        return device
    runs_on = getattr(getattr(place, "_hf_hook", None), "execution_device", None)
    if runs_on is None:
        raise ModelError(
            f"model: the weights of {type(module).__name__} are on the device meta, without data"
        )
    return torch.device(runs_on)


def parameter_dtype(module: nn.Module) -> torch.dtype:
    """The dtype of the model's floating-point weights (its first, as transformers counts)."""
    for parameter in module.parameters():
        if parameter.is_floating_point():
            return parameter.dtype
    raise ModelError(f"model: {type(module).__name__} has no floating-point weights")
