"""Where a model keeps its embeddings, layers, final norm and head, read from its module tree."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from ilo_fast.errors import ModelError
from ilo_fast.models import find_backbone
from ilo_fast.models.structure import lists_of_layers

__all__ = ["Parts", "find_parts", "unwrap"]

_EMBEDDING_NAMES = ("emb", "wte", "wpe", "altup", "per_layer")  # the last two: Gemma 3n and 4
_FINAL_NORM = "embedding_norm"  # so LFM2 and LFM3 call theirs; NeoMME's, of the embeddings, is bare


@dataclass(frozen=True)
class Parts:
    """The parameters of a model by where they lie, each parameter once.

    The values are names as ``model.named_parameters()`` gives them. ``stacks`` maps ``"encoder"``
    and ``"decoder"``, or ``"layers"`` for a model with one stack, to one tuple of names a layer.
    ``other`` is what belongs to none of these: poolers, vision towers, prompt adapters. ``tied``
    lists the names of each parameter that lies in several places, the one it is counted under
    first; ``tied_head`` are the names of embeddings that are the head's matrix as well.
    """

    stacks: dict[str, list[tuple[str, ...]]]
    embeddings: tuple[str, ...]
    final_norm: tuple[str, ...]
    head: tuple[str, ...]
    other: tuple[str, ...]
    tied: tuple[tuple[str, ...], ...]
    tied_head: tuple[str, ...]
    parameters: dict[str, nn.Parameter] = field(default_factory=dict, repr=False)


def unwrap(model: nn.Module) -> nn.Module:
    """The transformers model inside wrappers of PEFT, data parallelism and torch.compile."""
    inner: Any = model
    while True:
        if hasattr(inner, "_orig_mod"):  # torch.compile
            inner = inner._orig_mod
        elif hasattr(inner, "get_base_model"):  # peft; adapter layers stay in the tree
            inner = inner.get_base_model()
        elif isinstance(inner, nn.parallel.DistributedDataParallel | nn.DataParallel):
            inner = inner.module
        else:
            assert isinstance(inner, nn.Module)
            return inner


def find_parts(model: nn.Module) -> Parts:
    """Sort every parameter of ``model`` into embeddings, layers, final norm, head and the rest.

    Nothing is looked up by an architecture's name. The input and output embeddings are those that
    transformers' accessors give; the layers are the outermost list of equal modules in the text
    model (both lists of an encoder-decoder model); what lies outside the base model is head; of
    what is left, modules called norms are the final norm and those called embeddings (positions,
    token types, their norms) are embeddings.

    Raises:
        ModelError: when ``model`` is no transformers model, or its layers cannot be told apart
            (ALBERT's share their weights, XLM's lie in several lists).
    """
    if not isinstance(model, nn.Module):
        raise ModelError(
            f"model: expected a transformers PreTrainedModel, got {type(model).__name__}"
        )
    core = unwrap(model)
    stacks = _stacks(core)
    inside: dict[int, tuple[str, int]] = {}
    for stack, blocks in stacks.items():
        for number, block in enumerate(blocks):
            for parameter in block.parameters():
                inside.setdefault(id(parameter), (stack, number))

    names: dict[int, list[str]] = {}
    parameters: dict[str, nn.Parameter] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
        if len(names[id(parameter)]) == 1:
            parameters[name] = parameter

    place = _Places(core)
    layers: dict[str, list[list[str]]] = {s: [[] for _ in blocks] for s, blocks in stacks.items()}
    found: dict[str, list[str]] = {"embeddings": [], "final_norm": [], "head": [], "other": []}
    for name, parameter in parameters.items():
        where = inside.get(id(parameter))
        if where is None:
            found[place.of(parameter)].append(name)
        else:
            layers[where[0]][where[1]].append(name)
    return Parts(
        stacks={stack: [tuple(layer) for layer in rows] for stack, rows in layers.items()},
        **{part: tuple(members) for part, members in found.items()},
        tied=tuple(tuple(group) for group in names.values() if len(group) > 1),
        tied_head=tuple(name for key in place.tied_head for name in names[key]),
        parameters=parameters,
    )


def _stacks(core: Any) -> dict[str, nn.ModuleList]:
    """The lists of layers: one, or an encoder's and a decoder's."""
    backbone = find_backbone(core)
    blocks = backbone.blocks
    if blocks is None or _lists_beside(blocks, backbone.module):
        raise ModelError(
            f"model: the layers of {type(core).__name__} cannot be told apart in its module tree "
            "(they may share weights or lie in several lists), so a number of them cannot be frozen"
        )
    if not getattr(core.config, "is_encoder_decoder", False):
        return {"layers": blocks}
    decoder = core.get_decoder() if hasattr(core, "get_decoder") else None
    found = None if decoder is None or decoder is backbone.module else _largest_list(decoder)
    return {"encoder": blocks} if found is None else {"encoder": blocks, "decoder": found}


def _lists_beside(blocks: nn.ModuleList, module: nn.Module) -> bool:
    """Whether ``module`` has other lists of as many: XLM keeps each part of a layer in its own."""
    within = set(map(id, blocks.modules()))
    lists = lists_of_layers(module, len(blocks)).values()
    return any(id(each) not in within for each in lists)


def _largest_list(module: nn.Module) -> nn.ModuleList | None:
    """The list of modules that holds the most parameters."""
    lists = [child for child in module.modules() if isinstance(child, nn.ModuleList)]
    return max(lists, key=lambda child: sum(p.numel() for p in child.parameters()), default=None)


class _Places:
    """Tells where a parameter outside the layers belongs."""

    def __init__(self, core: nn.Module) -> None:
        self._inputs = set(_ids(_accessor(core, "get_input_embeddings")))
        self._outputs = set(_ids(_accessor(core, "get_output_embeddings")))
        self.tied_head = self._inputs & self._outputs
        base = getattr(core, "base_model", core)
        text = find_backbone(core).module
        if not getattr(core.config, "is_encoder_decoder", False) and text is not base:
            self._text = set(_ids(text))  # a multimodal model: towers and projectors are outside
        else:
            self._text = set(_ids(base))
        self._base = set(_ids(base))
        # DeBERTa's encoder norms its relative positions for every layer, and some have a
        # convolution behind the first
        around = [each for each in core.modules() if hasattr(each, "rel_embeddings")]
        self._relative = {key for each in around for key in _ids(each)}
        self._owner: dict[int, tuple[str, nn.Module]] = {}
        for path, module in core.named_modules():
            for parameter in module.parameters(recurse=False):
                self._owner.setdefault(id(parameter), (path, module))

    def of(self, parameter: nn.Parameter) -> str:
        key = id(parameter)
        if key in self._inputs:
            return "embeddings"
        if key in self._outputs:
            return "head"
        if key not in self._owner:  # outside the transformers model: a prompt encoder of PEFT's
            return "other"
        if key not in self._base:
            return "head"
        if key not in self._text:
            return "other"
        if key in self._relative:
            return "embeddings"
        path, module = self._owner[key]
        kind = type(module).__name__.lower()
        if _FINAL_NORM in path.split("."):
            return "final_norm"
        if "embedding" in kind or any(mark in path for mark in _EMBEDDING_NAMES):
            return "embeddings"
        return "final_norm" if "norm" in kind else "other"


def _accessor(core: nn.Module, name: str) -> nn.Module | None:
    get = getattr(core, name, None)
    try:
        module = None if get is None else get()
    except NotImplementedError:
        return None
    return module if isinstance(module, nn.Module) else None


def _ids(module: nn.Module | None) -> Iterator[int]:
    if module is not None:
        yield from map(id, module.parameters())
