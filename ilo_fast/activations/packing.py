"""Sentences end to end in a row of tokens, and how to cut a corpus into such rows."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ilo_fast.arguments import whole_number
from ilo_fast.errors import InputError

__all__ = ["Group", "Segments", "batch_order", "batch_size", "check_batch_tokens", "sent"]


def check_batch_tokens(batch_tokens: Any) -> int | None:
    """The most tokens of a batch; None for ``"auto"``, which the device decides."""
    if isinstance(batch_tokens, str) and batch_tokens == "auto":
        return None
    try:
        tokens = whole_number(batch_tokens, "batch_tokens")
    except TypeError:
        raise InputError(
            f"batch_tokens: expected 'auto' or a number of tokens, got {batch_tokens!r}"
        ) from None
    if tokens < 1:
        raise InputError(f"batch_tokens: expected at least 1, got {tokens}")
    return tokens


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """A CPU tensor on a device; the copy to a CUDA device waits for none of the work before it."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)  # unpinned, it would


@dataclass(frozen=True)
class Group:
    """A run of ``count`` neighbouring sentences of ``length`` tokens each, from row ``start``."""

    start: int
    count: int
    length: int

    @property
    def end(self) -> int:
        return self.start + self.count * self.length


@dataclass(frozen=True)
class Segments:
    """Where the sentences of a packed row begin and end; ``lengths`` in tokens, all at least 1."""

    lengths: tuple[int, ...]
    _moved: dict[tuple[torch.device, torch.dtype], Tensor] = field(
        default_factory=dict, repr=False, compare=False
    )

    @cached_property  # like longest, asked for by every layer
    def n_tokens(self) -> int:
        return sum(self.lengths)

    @cached_property
    def longest(self) -> int:
        return max(self.lengths)

    @cached_property
    def offsets(self) -> Tensor:
        """int64 ``[sentences + 1]`` on the CPU: the first row of each sentence, then the end."""
        return torch.from_numpy(np.cumsum((0, *self.lengths), dtype=np.int64))

    def offsets_on(self, device: torch.device, dtype: torch.dtype = torch.int64) -> Tensor:
        """``offsets`` on a device, copied there once."""
        key = (device, dtype)
        if key not in self._moved:
            self._moved[key] = sent(self.offsets.to(dtype), device)
        return self._moved[key]

    @cached_property
    def groups(self) -> tuple[Group, ...]:
        """Runs of neighbouring sentences of one length, in order."""
        found, start = [], 0
        for length, run in groupby(self.lengths):
            group = Group(start, sum(1 for _ in run), length)
            found.append(group)
            start = group.end
        return tuple(found)

    def positions(self, first: int = 0) -> Tensor:
        """int64 ``[tokens]``: each token's place in its sentence, counted from ``first``."""
        starts = torch.repeat_interleave(self.offsets[:-1], self.offsets.diff())
        return torch.arange(self.n_tokens, device=starts.device) - starts + first


def batch_order(lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Sentences from long to short, equal lengths in corpus order.

    Long first: if memory does not hold the budget, the first batch says so. Sorted: sentences of
    one length lie together, so attention takes them in few calls.
    """
    return np.lexsort((np.arange(len(lengths)), -lengths)).astype(np.int64)


def batch_size(
    lengths: Sequence[int], budget: int, *, equal_lengths: bool, turn: int | None = None
) -> int:
    """How many of these sentences, from the first on, make a batch of at most ``budget`` tokens.

    A single sentence over the budget is a batch of its own. With ``equal_lengths`` a batch also
    ends where the length changes; with ``turn`` none holds lengths both up to that and beyond.
    """
    first, tokens = lengths[0], 0
    for count, length in enumerate(lengths):
        tokens += length
        full = tokens > budget or (equal_lengths and length != first)
        if turn is not None:
            full |= (length > turn) != (first > turn)
        if count and full:
            return count
    return len(lengths)
