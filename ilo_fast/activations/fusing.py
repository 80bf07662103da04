"""Fused kernels for the forward passes of an extraction: decided by trying them on the model."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass

import torch

from ilo_fast.activations.capability import states_apart, trial_states
from ilo_fast.errors import InputError
from ilo_fast.models.compiled import COMPILED, compiled_layers, nothing_new
from ilo_fast.models.fused import liger_kernels, why_not_liger
from ilo_fast.models.structure import Backbone

__all__ = ["Fused", "forced_kernels", "fusing"]


@dataclass(frozen=True)
class Fused:
    """``kernels`` in place, as in ``"liger 0.8.5: rms_norm, rope"`` or ``"torch.compile 2.13.0"``,
    or the reason for none."""

    kernels: str | None
    reason: str | None

    @property
    def description(self) -> str:
        """For the record: the kernels, or ``"off: <reason>"``."""
        return self.kernels or f"off: {self.reason}"


@contextmanager
def fusing(backbone: Backbone, device: torch.device, fused: str) -> Iterator[Fused]:
    """Fused kernels in the model while the block runs, where they serve.

    They are tried on a few tokens beside the model's own code: a model whose hidden states they
    change beyond rounding, or that they cannot run, keeps its own. Layers that came compiled run
    as they were written: with hooks on them, each packed row would be compiled anew.

    Args:
        backbone: where the hidden states come from, in evaluation mode.
        device: where it runs.
        fused: ``"auto"``, ``"off"``, ``"liger"`` or ``"compile"``.

    Yields:
        Fused: what is in place.

    Raises:
        InputError: when ``"liger"`` or ``"compile"`` is forced and cannot serve; the message says
            why.
    """
    kernels, cause = None, None
    reason = _why_not(backbone, device, fused)
    stance = "default" if fused == "compile" else "force_eager"
    with torch.compiler.set_stance(stance), ExitStack() as stack:
        if reason is None:
            own = trial_states(backbone, device)
            try:
                kernels = stack.enter_context(_in_place(backbone, fused))
                apart = states_apart(trial_states(backbone, device), own)
                reason = None if apart is None else f"they change {apart}"
                if fused == "compile" and reason is None:
                    with nothing_new():
                        trial_states(backbone, device, shorter=True)
            except Exception as error:  # any: Liger's, torch's or Triton's compiler's, the driver's
                reason = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"
                cause = error
            if reason is not None:
                stack.close()
                kernels, reason = None, f"tried on a few tokens: {reason}"
        if fused in ("liger", "compile") and reason is not None:
            name = type(backbone.module).__name__
            raise InputError(f"fused: {fused!r} cannot serve {name}: {reason}") from cause
        yield Fused(kernels, reason)


def forced_kernels(backbone: Backbone, device: torch.device, fused: str) -> str | None:
    """The name of kernels that `fusing` puts in place or raises; None where their trial decides."""
    if fused not in ("liger", "compile") or _why_not(backbone, device, fused) is not None:
        return None
    if fused == "compile":
        return COMPILED
    with liger_kernels(backbone.module) as kernels:
        return kernels


def _why_not(backbone: Backbone, device: torch.device, fused: str) -> str | None:
    if fused != "compile":
        return why_not_liger(backbone.module, device, fused)
    if backbone.blocks is None:
        return "its layers cannot be told apart"
    came_compiled = any(layer._compiled_call_impl is not None for layer in backbone.blocks)
    return "its layers are compiled already" if came_compiled else None


def _in_place(backbone: Backbone, fused: str) -> AbstractContextManager[str]:
    if fused != "compile":
        return liger_kernels(backbone.module)
    assert backbone.blocks is not None
    return compiled_layers(backbone.blocks)
