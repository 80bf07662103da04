"""One batch of sentences through the model, pooled on the way."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.profiler import record_function

from ilo_fast.activations.attention import packed_rows, without_plans
from ilo_fast.activations.capability import Capability, Forward
from ilo_fast.activations.hooks import ForwardStopped, check_states, hooked
from ilo_fast.activations.packing import Segments, sent
from ilo_fast.activations.task import Task
from ilo_fast.errors import ModelError

__all__ = ["Runner", "running"]


class Runner:
    """Made by `running`; its ``kernels`` names the ways attention was computed on packed rows."""

    def __init__(self, task: Task, way: Capability, enter_row: Any) -> None:
        self._task, self._way, self._enter_row = task, way, enter_row
        self._entries, self._device = task.entries, task.device
        self._segments, self._batch = Segments(()), torch.Size()
        self._pooled: dict[int, Tensor] = {}
        self.module, self._forward = task.backbone.module, Forward(task.backbone)
        self.kernels: set[str] = set()

    def receive(self, entry: int, states: Tensor) -> None:
        """Pool the states of a hook, ``[batch, tokens, dim]``, which hold no padding."""
        check_states(self._task.backbone, entry, states)
        if states.shape[:2] != self._batch:
            raise ModelError(
                f"model: hidden state {entry} of {type(self.module).__name__} must have a vector "
                f"for each of {list(self._batch)} tokens, got {list(states.shape)}"
            )
        packed = states.reshape(-1, states.shape[-1])
        self._pooled[entry] = self._task.pool(packed, self._segments)

    def run(self, row: npt.NDArray[np.int64], lengths: Sequence[int]) -> Tensor:
        """float32 ``[layers, sentences, dim]`` on the model's input device.

        ``row`` holds the token ids of all sentences end to end.
        """
        self._segments, self._pooled = Segments(tuple(lengths)), {}
        ids = torch.from_numpy(row)
        packed = self._way.batches == "packed"
        ids = ids[None] if packed else ids.view(len(lengths), -1)
        self._batch = ids.shape
        ids = sent(ids, self._device)
        with ExitStack() as stack:
            stack.enter_context(record_function("forward"))
            kernels = stack.enter_context(self._enter_row(self._segments)) if packed else set()
            try:
                if self._way.taps == "hooks":
                    self._forward(ids, self._segments if packed else None)
                else:
                    output = self._forward(ids, None, output_hidden_states=True)
                    for entry in self._entries:
                        self.receive(entry, output.hidden_states[entry])
            except ForwardStopped:
                pass  # the deepest layer asked for is in
            self.kernels |= kernels
        # a copy to the host that nobody waits for would be read before it is there
        at_once = self._device.type == "cuda"
        pooled = (self._pooled[entry] for entry in self._entries)
        block = [each.to(self._device, non_blocking=at_once) for each in pooled]
        self._pooled = {}
        return torch.stack(block)


@contextmanager
def running(task: Task, way: Capability) -> Iterator[Runner]:
    """Hooks and attention set for extraction; they are as they were when the block ends."""
    module = task.backbone.module
    with ExitStack() as stack:
        stack.enter_context(without_plans(task.device))
        enter_row = stack.enter_context(packed_rows(module)) if way.batches == "packed" else None
        runner = Runner(task, way, enter_row)
        if way.taps == "hooks":
            stack.enter_context(
                hooked(task.backbone, task.entries, runner.receive, stop_early=True)
            )
        yield runner
