"""From the states of a sentence's tokens to the sentence's vector."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ilo_fast.activations.packing import Segments
from ilo_fast.errors import InputError
from ilo_fast.ops.segment_pool import MODES, segment_pool

__all__ = ["Pool", "PoolSpec", "check_pool"]

PoolFunction = Callable[[Tensor, Tensor], Tensor]
PoolSpec = str | PoolFunction


@dataclass(frozen=True)
class Pool:
    """A checked pooling: its name for records, and the user's function where there is one."""

    name: str
    function: PoolFunction | None = None

    def __call__(self, states: Tensor, segments: Segments) -> Tensor:
        """float32 ``[sentences, dim]`` from packed ``states`` ``[tokens, dim]``."""
        offsets = segments.offsets_on(states.device)
        if self.function is None:
            return segment_pool(states, offsets, self.name)
        pooled = self.function(states, offsets)
        expected = (len(segments.lengths), states.shape[1])
        if not isinstance(pooled, Tensor) or tuple(pooled.shape) != expected:
            got = list(pooled.shape) if isinstance(pooled, Tensor) else type(pooled).__name__
            raise InputError(
                f"pool: expected {self.name} to return a tensor [sentences, dim] = "
                f"{list(expected)}, got {got}"
            )
        return pooled.to(torch.float32)


def check_pool(pool: PoolSpec) -> Pool:
    """A name among mean, last and weighted, or a function of packed states and offsets."""
    if callable(pool):
        return Pool(getattr(pool, "__qualname__", type(pool).__name__), pool)
    if not isinstance(pool, str) or pool not in MODES:
        raise InputError(
            f"pool: expected one of {', '.join(MODES)}, or a function (states [tokens, dim], "
            f"offsets int64 [sentences + 1]) -> [sentences, dim], got {pool!r}"
        )
    return Pool(pool)
