"""The processes of a sharded search: what they agree on, and the rows that go round."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from ilo_fast.arguments import true_or_false, whole_number
from ilo_fast.arrays import FLOATS, with_numbers
from ilo_fast.errors import InputError
from ilo_fast.ops.request import METRICS, check_metric
from ilo_fast.vectors import FLUSHED, flushes, has_subnormal

__all__ = ["Ring", "join"]

_COMMON = ("layers", "d", "dtype", "k", "metric", "exclude_self")  # the same in every process
_WORDS = {"dtype": FLOATS, "metric": (*METRICS, "another"), "exclude_self": (False, True)}
_SAID = (*_COMMON, "usable", "rows", "flushes", "subnormal")


@dataclass(frozen=True)
class Ring:
    """The processes, and how many rows each has."""

    group: dist.ProcessGroup | None
    rank: int
    counts: tuple[int, ...]

    @property
    def n(self) -> int:
        return sum(self.counts)

    def start(self, rank: int) -> int:
        """The number of a process's first point."""
        return sum(self.counts[:rank])

    def blocks(self, x: torch.Tensor) -> Iterator[tuple[int, torch.Tensor]]:
        """``(process, its rows)`` of every process, this one's first."""
        world = len(self.counts)
        # Rows travel as bytes: backends differ in the number types they know.
        held = x.contiguous()
        for step in range(world):
            owner = (self.rank - step) % world
            yield owner, held
            if step == world - 1:
                return
            coming = x.new_empty(self.counts[(owner - 1) % world], x.shape[1])
            peers = [(self.rank + 1) % world, (self.rank - 1) % world]
            if self.group is not None:
                peers = [dist.get_global_rank(self.group, peer) for peer in peers]
            requests = dist.batch_isend_irecv(
                [
                    dist.P2POp(dist.isend, held.view(torch.uint8), peers[0], self.group),
                    dist.P2POp(dist.irecv, coming.view(torch.uint8), peers[1], self.group),
                ]
            )
            for request in requests:
                request.wait()
            held = coming

    def largest(self, value: torch.Tensor) -> torch.Tensor:
        """The largest of a number over all processes."""
        value = value.clone()
        dist.all_reduce(value, dist.ReduceOp.MAX, group=self.group)
        return value

    def from_first(self, value: torch.Tensor) -> torch.Tensor:
        """The first process's tensor."""
        value = value.clone()
        source = dist.get_global_rank(self.group, 0) if self.group is not None else 0
        dist.broadcast(value, source, group=self.group)
        return value


def join(
    x: Any, k: Any, metric: str, exclude_self: bool, group: dist.ProcessGroup | None
) -> tuple[Ring, torch.Tensor, int]:
    """Exchange what everyone was called with; every process raises where one would.

    Returns the ring, the states ``[layers, n, d]`` and k.
    """
    fault: Exception | None = None
    said = dict.fromkeys(_SAID, 0)
    device = torch.device("cuda" if dist.get_backend(group) == "nccl" else "cpu")
    try:
        states, k = _usable(x, k)
        layers, n, d = states.shape
        said = {
            "layers": layers,
            "d": d,
            "dtype": FLOATS.index(states.dtype),
            "k": k,
            "metric": METRICS.index(metric) if metric in METRICS else -1,
            "exclude_self": int(true_or_false(exclude_self, "exclude_self")),
            "usable": 1,
            "rows": n,
            "flushes": int(flushes(states)),
            "subnormal": int(has_subnormal(states)),
        }
    except Exception as error:  # raised below, when the others know
        fault = error
    mine = torch.tensor([said[name] for name in _SAID], dtype=torch.int64, device=device)
    all_said = [torch.empty_like(mine) for _ in range(dist.get_world_size(group))]
    dist.all_gather(all_said, mine, group=group)
    columns = torch.stack(all_said, dim=1).tolist()
    heard = dict(zip(_SAID, columns, strict=True))
    if fault is not None:
        raise fault
    if 0 in heard["usable"]:
        raise InputError(
            f"x, k or exclude_self cannot be used in process {heard['usable'].index(0)}, which "
            "says why"
        )
    check_metric(metric)
    for name in _COMMON:
        if len(set(heard[name])) > 1:
            came = [_WORDS[name][at] for at in heard[name]] if name in _WORDS else heard[name]
            raise InputError(f"{name} must be the same in every process; got {came}")
    if any(heard["flushes"]) and any(heard["subnormal"]):
        raise InputError(FLUSHED)  # one process's points are searched in all
    counts = tuple(heard["rows"])
    most = sum(counts) - 1 if exclude_self else sum(counts)
    if min(counts) < 1 or layers < 1 or d < 1:
        raise InputError(
            f"x must hold at least 1 layer, row and dimension in every process; got {layers} "
            f"layers, {d} dimensions and rows {list(counts)}"
        )
    if not 1 <= k <= most:
        raise InputError(f"k must be between 1 and {most} for {sum(counts)} points; got {k}")
    return Ring(group, dist.get_rank(group), counts), states, k


def _usable(x: Any, k: Any) -> tuple[torch.Tensor, int]:
    """States ``[layers, n, d]`` and k, as far as one process can tell."""
    if not isinstance(x, torch.Tensor) or x.dtype not in FLOATS or x.layout != torch.strided:
        raise TypeError("x must be a dense floating-point torch tensor")
    with_numbers(x, "x")
    k = whole_number(k, "k")
    if abs(k) >= 2**62:
        raise InputError(f"k must be less than the number of points; got {k}")
    if x.ndim not in (2, 3):
        raise InputError(f"x must be [n, d] or [layers, n, d]; got shape {list(x.shape)}")
    return (x[None] if x.ndim == 2 else x).detach(), k
