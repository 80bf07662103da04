"""Who may attend to whom within a packed sentence, kept as the model's own function of places.

What a mask is (none, causal, a band, something else) is read off the square of one length, once a
forward pass, so that the attention can leave a plain one to its kernel.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ilo_fast.activations.packing import sent

__all__ = ["MaskFunction", "PackedMask"]

MaskFunction = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]

_CPU = torch.device("cpu")


@dataclass
class PackedMask:
    """One kind of mask of a model: who sees whom, as a function of indices within a sentence."""

    function: MaskFunction
    _blocks: dict[int, Tensor] = field(default_factory=dict)
    _moved: dict[tuple[int, torch.device], Tensor] = field(default_factory=dict)
    _forms: dict[int, str] = field(default_factory=dict)
    _windows: dict[int, tuple[int, int] | None] = field(default_factory=dict)

    def block(self, length: int, device: torch.device = _CPU) -> Tensor:
        """bool ``[length, length]`` on the CPU: may query q see key k?

        ``device`` is the model's, for a function that holds tensors there.
        """
        if length not in self._blocks:
            try:
                seen = self._seen(length, _CPU)
            except RuntimeError:  # tensors on two devices: asked there, at the price of waiting
                if device == _CPU:
                    raise
                seen = self._seen(length, device).cpu()
            self._blocks[length] = seen.to(torch.bool).expand(length, length)
        return self._blocks[length]

    def _seen(self, length: int, device: torch.device) -> Tensor:
        zero = torch.zeros((), dtype=torch.int64, device=device)
        index = torch.arange(length, device=device)
        return self.function(zero, zero, index[:, None], index[None, :])

    def block_on(self, length: int, device: torch.device) -> Tensor:
        """``block`` on a device, copied there once for all layers of a forward pass."""
        key = (length, device)
        if key not in self._moved:
            self._moved[key] = sent(self.block(length, device).contiguous(), device)
        return self._moved[key]

    def form(self, length: int, device: torch.device = _CPU) -> str:
        """``"full"``, ``"causal"`` or ``"other"``, for sentences of this length."""
        if length not in self._forms:
            block = self.block(length, device)
            causal = torch.ones(length, length, dtype=torch.bool, device=_CPU).tril()
            full = bool(block.all())
            named = "full" if full else "causal" if torch.equal(block, causal) else "other"
            self._forms[length] = named
        return self._forms[length]

    def window(self, length: int, device: torch.device = _CPU) -> tuple[int, int] | None:
        """The mask as ``(left, right)`` of ``varlen_attn``, or None where it is no such band.

        A query sees keys from ``left`` places before it to ``right`` after it; -1 is no limit.
        """
        if length not in self._windows:  # asked by every layer of a forward pass
            self._windows[length] = _window(self.block(length, device))
        return self._windows[length]


def _window(block: Tensor) -> tuple[int, int] | None:
    """The band ``(left, right)`` of a square mask; None where it is no band."""
    length = block.shape[0]
    index = torch.arange(length, device=block.device)
    first = block.byte().argmax(dim=1)
    last = length - 1 - block.flip(1).byte().argmax(dim=1)
    left, right = int((index - first).max()), int((last - index).max())
    above, below = index[:, None] - left, index[:, None] + right
    if left < 0 or right < 0 or not torch.equal(block, (above <= index) & (index <= below)):
        return None
    # a limit that no pair of this length reaches is none
    return (-1 if left >= length - 1 else left, -1 if right >= length - 1 and right else right)
