"""Trials on the card at hand: a kernel serves once it has found there what plain torch finds.

Every kernel is proved under an interpreter or an emulation, and compiled; a driver, a compiler or a
library of the machine at hand can still be at odds with it. So a kernel is tried once a process,
card and launch, on a small problem made to be hard; one that fails leaves its work to plain torch,
and a warning says why.
"""

import warnings
from collections.abc import Callable, Hashable

import torch

from ilo_fast.ops.memory import out_of_memory

__all__ = ["agrees", "passed", "verdict"]


def passed(trial: Callable[..., str], device: torch.device, *launch: Hashable) -> bool:
    """Whether a (cached) trial of a launch passed; warns of one that did not."""
    doubt = trial(device, *launch)
    if doubt:
        warnings.warn(f"plain torch serves instead of a kernel: {doubt}", RuntimeWarning, 2)
    return not doubt


def agrees(name: str, device: torch.device, compare: Callable[[], bool]) -> str:
    """Why a kernel should not serve: ``compare`` fails or finds a difference. "" when it may."""
    try:
        right = compare()
    except Exception as error:
        return f"{name}: {verdict(error, device)}"
    return "" if right else f"{name}: its trial on {device} differs from plain torch"


def verdict(error: Exception, device: torch.device) -> str:
    """What an error of a compiler or a launch says of this card.

    Lack of memory says nothing and is raised; so is what broke the CUDA context, where plain torch
    could not serve either.
    """
    if out_of_memory(error):
        raise error
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:200]}"
