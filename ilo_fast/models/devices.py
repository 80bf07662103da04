"""Where a model may run: the name of a device, held against what this machine has."""

from typing import Literal

import torch

from ilo_fast.errors import ModelError

__all__ = ["check_device", "default_device"]


def default_device() -> torch.device:
    """A CUDA device where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def check_device(device: str | torch.device) -> torch.device | Literal["balanced"]:
    """The device meant, ``"auto"`` resolved; ``"balanced"`` as it is.

    Raises:
        ModelError: on a device that this machine does not have.
    """
    if device == "balanced":
        if torch.cuda.device_count() == 0:
            raise ModelError("device: balanced asked for, this machine has 0 CUDA devices")
        return "balanced"
    if device == "auto":
        return default_device()
    expected = "device: expected 'auto', 'balanced', 'cpu', 'cuda', 'cuda:<n>' or 'mps'"
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise ModelError(f"{expected}, got {device!r}") from error
    if chosen.type not in ("cpu", "cuda", "mps"):
        raise ModelError(f"{expected}, got {str(device)!r}")
    if chosen.type == "mps" and not torch.backends.mps.is_available():
        raise ModelError(f"device: {device} asked for, this machine has no Apple GPU")
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise ModelError(f"device: {device} asked for, this machine has {count} CUDA devices")
    return chosen
