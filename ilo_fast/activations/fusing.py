"""Fused kernels for the forward passes of an extraction: decided by trying them on the model."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch

from ilo_fast.activations.capability import states_apart, trial_states
from ilo_fast.errors import InputError
from ilo_fast.models.fused import liger_kernels, why_not_liger
from ilo_fast.models.structure import Backbone

__all__ = ["Fused", "fusing"]


@dataclass(frozen=True)
class Fused:
    """``kernels`` in place, as in ``"liger 0.8.5: rms_norm, rope"``, or the reason for none."""

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
    change beyond rounding, or that they cannot run, keeps its own.

    Args:
        backbone: where the hidden states come from, in evaluation mode.
        device: where it runs.
        fused: ``"auto"``, ``"off"`` or ``"liger"``.

    Yields:
        Fused: what is in place.

    Raises:
        InputError: when ``"liger"`` is forced and cannot serve; the message says why.
    """
    kernels, cause = None, None
    reason = why_not_liger(backbone.module, device, fused)
    with ExitStack() as stack:
        if reason is None:
            own = trial_states(backbone, device)
            try:
                kernels = stack.enter_context(liger_kernels(backbone.module))
                apart = states_apart(trial_states(backbone, device), own)
                reason = None if apart is None else f"they change {apart}"
            except Exception as error:  # any: Liger's, Triton's compiler's, the driver's
                reason = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"
                cause = error
            if reason is not None:
                stack.close()
                kernels, reason = None, f"tried on a few tokens: {reason}"
        if fused == "liger" and reason is not None:
            name = type(backbone.module).__name__
            raise InputError(f"fused: 'liger' cannot serve {name}: {reason}") from cause
        yield Fused(kernels, reason)
