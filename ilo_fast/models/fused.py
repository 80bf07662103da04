"""Liger's fused kernels in a model that is loaded, for as long as a block runs.

Liger (the extra ``liger``) computes an RMS norm, the rotary embedding and a gated activation in one
kernel each, where the model's own code runs several and writes every step to memory. Its functions
change the norms and activations of one model, but the rotary embedding and the classes of models
loaded later for the whole process; here all of that is undone when the block ends.
"""

import inspect
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib import metadata, util
from typing import Any

import torch
from torch import nn

from ilo_fast.arguments import check_choice
from ilo_fast.models.structure import parameter_dtype

__all__ = ["FUSED", "check_fused", "liger_kernels", "why_not_liger"]

FUSED = ("auto", "off", "liger", "compile")
"""What ``fused`` may be: Liger's kernels where they serve and change nothing above 16 bits, none,
Liger's or an error, layers that torch compiles or an error."""

# Liger's switch → the activation functions that its gated kernel computes.
_GATES = {"swiglu": ("silu", "swish"), "geglu": ("gelu_pytorch_tanh",)}
_KERNELS = ("rms_norm", "rope", *_GATES)
_OWN_CODE = "transformers.models."
_MISSING = object()


def check_fused(fused: str) -> None:
    """Raise unless ``fused`` is one of `FUSED`, as `check_choice`."""
    check_choice(fused, "fused", FUSED)


def why_not_liger(module: nn.Module, device: torch.device, fused: str) -> str | None:
    """Why Liger's kernels stay out of ``module``, as far as can be said without trying; or None.

    Args:
        module: the part of a model that makes hidden states.
        device: where it runs.
        fused: one of `FUSED`.
    """
    if fused == "off":
        return "asked for"
    if not _runs_kernels(device):
        return f"the model runs on {device.type}, fused kernels need CUDA"
    if util.find_spec("liger_kernel") is None:
        return "liger-kernel is not installed (pip install 'ilo-fast[liger]')"
    model_type = _model_type(module)
    if not type(module).__module__.startswith(_OWN_CODE):
        return f"{type(module).__name__} is not transformers' own code"
    if _liger_function(model_type) is None:
        return f"Liger knows no {model_type} models"
    dtype = parameter_dtype(module)
    if fused == "auto" and dtype not in (torch.bfloat16, torch.float16):
        name = str(dtype).removeprefix("torch.")
        return f"in {name} the model's own rounding is kept (fused='liger' changes it)"
    return None


@contextmanager
def liger_kernels(module: nn.Module) -> Iterator[str]:
    """Liger's norms, rotary embedding and gated activations in ``module`` while the block runs.

    Losses are left alone: no language-model head runs here. Afterwards the module and
    transformers' code are as they were. Meanwhile other models of the same architecture share the
    rotary kernel.

    Yields:
        str: what is in place, such as ``"liger 0.8.5: rms_norm, rope, swiglu"``.
    """
    apply = _liger_function(_model_type(module))
    assert apply is not None, "why_not_liger says so before"
    switches = _switches(apply, module)
    places = [vars(child) for child in module.modules()]
    places += [vars(sys.modules[name]) for name in _code_of(module)]
    before = [(place, dict(place)) for place in places]
    with ExitStack() as stack:
        try:
            apply(model=module, **switches)
        finally:  # also of a call that broke off half-way
            stack.callback(_undo, _changes(before))
        used = ", ".join(name for name in _KERNELS if switches.get(name))
        yield f"liger {metadata.version('liger-kernel')}: {used}"


def _runs_kernels(device: torch.device) -> bool:
    return device.type == "cuda"


def _model_type(module: nn.Module) -> str:
    config: Any = module.config
    return str(config.model_type)


def _liger_function(model_type: str) -> Any:
    """Liger's public function for an architecture, by its name; None where there is none."""
    import liger_kernel.transformers as liger

    return getattr(liger, f"apply_liger_kernel_to_{model_type}", None)


def _switches(apply: Any, module: nn.Module) -> dict[str, bool]:
    """Every switch of Liger's function: its usual kernels on, all else (losses) off.

    A gated kernel computes one activation whatever the model's configuration says, so it is on only
    where that says the same.
    """
    config: Any = module.config
    activation = getattr(config, "hidden_activation", None) or getattr(config, "hidden_act", None)
    switches = {}
    for name, parameter in inspect.signature(apply).parameters.items():
        if name != "model":
            usual = name in _KERNELS and parameter.default is True
            switches[name] = usual and activation in _GATES.get(name, (activation,))
    return switches


def _code_of(module: nn.Module) -> set[str]:
    """The modules of transformers that the classes of a model come from."""
    names = {type(child).__module__ for child in module.modules()}
    return {name for name in names if name.startswith(_OWN_CODE)}


def _changes(
    before: list[tuple[dict[str, Any], dict[str, Any]]],
) -> list[tuple[dict[str, Any], str, Any]]:
    """(place, name, earlier value) of every name that has another value now than in the copy."""
    return [
        (place, name, values.get(name, _MISSING))
        for place, values in before
        for name, value in place.items()
        if values.get(name, _MISSING) is not value
    ]


def _undo(changes: list[tuple[dict[str, Any], str, Any]]) -> None:
    for place, name, earlier in changes:
        if earlier is _MISSING:
            del place[name]
        else:
            place[name] = earlier
