"""Freeze the parts of a model that fine-tuning should leave alone, and say what was frozen."""

from collections.abc import Iterable
from functools import partial
from typing import Any, Literal

from torch import nn

from ilo_fast.arguments import at_least_0, check_choice, true_or_false
from ilo_fast.errors import InputError, ModelError
from ilo_fast.finetune.parts import Parts, find_parts, unwrap
from ilo_fast.finetune.report import FreezeReport, FrozenPart

__all__ = ["freeze"]

Stack = Literal["auto", "encoder", "decoder", "both"]


def freeze(
    model: nn.Module,
    first: int = 8,
    embeddings: bool = True,
    head: bool = True,
    final_norm: bool = True,
    *,
    last: int = 0,
    stack: Stack = "auto",
    reference_count: bool = False,
) -> FreezeReport:
    """Take the gradients from the first layers, the embeddings, the final norm and the head.

    The recipe of Wilie et al. 2025 (arXiv 2503.11280) for fine-tuning on one language without
    losing what the early layers share between languages. The parts are found in the module tree
    (see `ilo_fast.finetune.find_parts`), so any transformers text model will do, bare or with a
    head. Call it before the optimiser is made.

    Args:
        model: a transformers model, or one inside PEFT, data parallelism or ``torch.compile``.
            PEFT's adapters are frozen with the layer they sit in; the base weights that PEFT froze
            are counted as frozen already and stay so after `FreezeReport.undo`.
        first: how many layers to freeze from the first on: exactly so many.
        embeddings, head, final_norm: whether to freeze token embeddings (with positions and their
            norms), the output head (all that lies after the base model) and the norm after the last
            layer.
        last: how many layers to freeze from the last one back.
        stack: of an encoder-decoder model: ``"encoder"``, ``"decoder"`` or ``"both"``; ``"auto"``
            is the encoder, whose states the ILO score reads. A model with one stack takes
            ``"auto"`` only.
        reference_count: freeze ``first + 1`` layers, as the paper's public code does (nine for its
            eight).

    Returns:
        FreezeReport: printable; a context manager that undoes the freezing on exit.

    Raises:
        InputError: when there are not so many layers, or tied embeddings and head are treated
            differently.
        ModelError: when the layers cannot be told apart, or every weight is quantised, so that none
            could train.

    >>> from transformers import LlamaConfig, LlamaForCausalLM
    >>> from ilo_fast.finetune import freeze
    >>> sizes = dict(hidden_size=8, intermediate_size=8, num_attention_heads=2, vocab_size=32)
    >>> model = LlamaForCausalLM(LlamaConfig(num_hidden_layers=4, **sizes))
    >>> with freeze(model, first=2) as report:
    ...     print(report.frozen, report.trainable)
    1448 928
    >>> all(parameter.requires_grad for parameter in model.parameters())
    True
    """
    first, last = at_least_0(first, "first"), at_least_0(last, "last")
    embeddings, head = true_or_false(embeddings, "embeddings"), true_or_false(head, "head")
    final_norm = true_or_false(final_norm, "final_norm")
    reference_count = true_or_false(reference_count, "reference_count")
    parts = find_parts(model)
    if not any(parameter.requires_grad for parameter in parts.parameters.values()):
        raise ModelError(
            "model: no parameter takes gradients"
            + (", its weights are quantised" if _quantised(parts) else "")
            + "; nothing would be left to train: add adapters first (peft), or load it in floating "
            "point and trainable"
        )
    chosen = _stacks_of(parts, stack)
    count = first + reference_count
    for name, layers in chosen.items():
        if count + last > len(layers):
            raise InputError(
                f"first={first}{' (+ 1 by reference_count)' if reference_count else ''} and "
                f"last={last} ask for {count + last} layers, the {name.rstrip('s')} stack has "
                f"{len(layers)}"
            )
    _check_tied(parts, embeddings, head)

    plan: list[tuple[str, tuple[str, ...]]] = []
    if embeddings:
        plan.append(("embeddings", parts.embeddings))
    for name, layers in chosen.items():
        label = "layer" if name == "layers" else f"{name} layer"
        numbers = [*range(count), *range(len(layers) - last, len(layers))]
        plan += [(f"{label} {number}", layers[number]) for number in numbers]
    if final_norm:
        plan.append(("final norm", parts.final_norm))
    if head:
        plan.append(("head", parts.head))

    total = sum(map(_count, parts.parameters.values()))
    changed: list[nn.Parameter] = []
    report = tuple(
        _freeze_part(label, names, parts, total, changed) for label, names in plan if names
    )
    cleanup: list[Any] = []
    notes = _notes(parts, stack)
    notes += _keep_checkpointing_alive(unwrap(model), embeddings, cleanup)
    frozen = sum(_count(p) for p in parts.parameters.values() if not p.requires_grad)
    if frozen == total:
        notes.append("Nothing is left to train.")
    return FreezeReport(
        parts=report,
        parameters=total,
        frozen=frozen,
        trainable=total - frozen,
        n_layers=max(map(len, chosen.values())),
        notes=tuple(notes),
        _changed=changed,
        _cleanup=cleanup,
    )


def _freeze_part(
    label: str, names: Iterable[str], parts: Parts, total: int, changed: list[nn.Parameter]
) -> FrozenPart:
    members = [parts.parameters[name] for name in names]
    already = sum(_count(parameter) for parameter in members if not parameter.requires_grad)
    for parameter in members:
        if parameter.requires_grad:
            parameter.requires_grad_(False)
            changed.append(parameter)
    count = sum(map(_count, members))
    return FrozenPart(label, tuple(names), count, count / total, already)


def _stacks_of(parts: Parts, stack: str) -> dict[str, list[tuple[str, ...]]]:
    check_choice(stack, "stack", ("auto", "encoder", "decoder", "both"))
    if "layers" in parts.stacks:
        if stack != "auto":
            raise InputError(f"stack={stack!r}: the model has one stack of layers, leave it 'auto'")
        return parts.stacks
    if stack == "both":
        return parts.stacks
    name = "encoder" if stack == "auto" else stack
    if name not in parts.stacks:
        raise InputError(f"stack={stack!r}: the model has only {list(parts.stacks)}")
    return {name: parts.stacks[name]}


def _check_tied(parts: Parts, embeddings: bool, head: bool) -> None:
    if embeddings != head and parts.tied_head:
        raise InputError(
            f"embeddings={embeddings} and head={head}: they are one tied parameter "
            f"({' = '.join(parts.tied_head)}); give both the same value"
        )


def _quantised(parts: Parts) -> int:
    return sum(1 for p in parts.parameters.values() if not p.is_floating_point())


def _count(parameter: nn.Parameter) -> int:
    """How many numbers a parameter holds; bitsandbytes packs two 4-bit ones in a byte."""
    state = getattr(parameter, "quant_state", None)
    shape = getattr(state, "shape", None)
    return parameter.numel() if shape is None else int(shape.numel())


def _notes(parts: Parts, stack: str) -> list[str]:
    notes = [f"Tied, counted once as {group[0]}: {', '.join(group[1:])}." for group in parts.tied]
    quantised = _quantised(parts)
    if quantised:
        notes.append(f"{quantised} tensors are quantised and take no gradients in any case.")
    if parts.other:
        shown = ", ".join(parts.other[:3]) + (", …" if len(parts.other) > 3 else "")
        notes.append(f"In no part, left as they were: {len(parts.other)} tensors ({shown}).")
    if stack == "auto" and "encoder" in parts.stacks:
        notes.append("Layers were frozen in the encoder; stack= chooses otherwise.")
    return notes


def _keep_checkpointing_alive(core: Any, embeddings: bool, cleanup: list[Any]) -> list[str]:
    """Reentrant checkpointing gives no gradients at all when its inputs ask for none."""
    if not embeddings or not any(map(_is_reentrant, core.modules())):
        return []
    core.enable_input_require_grads()
    cleanup.append(core.disable_input_require_grads)
    return [
        "Gradient checkpointing is reentrant, so the embeddings' output was made to require "
        "gradients (backward passes through the frozen layers too; use_reentrant=False does not)."
    ]


def _is_reentrant(module: nn.Module) -> bool:
    if not getattr(module, "gradient_checkpointing", False):
        return False
    function = getattr(module, "_gradient_checkpointing_func", None)
    return isinstance(function, partial) and bool(function.keywords.get("use_reentrant", False))
