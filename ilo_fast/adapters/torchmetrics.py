"""The ILO score as a ``torchmetrics.Metric``: for `self.log`, MetricCollection and the rest."""

from collections.abc import Mapping, Sequence
from copy import copy
from typing import Any

import torch
import torch.distributed as dist
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat
from torchmetrics.utilities.distributed import gather_all_tensors

from ilo_fast.alignment import language_order
from ilo_fast.errors import InputError
from ilo_fast.ilo import ILOScores
from ilo_fast.lists import label_codes
from ilo_fast.streaming_ilo import (
    SHARED,
    agreed,
    check_alike,
    check_fit,
    check_options,
    label_rank,
    score_points,
)
from ilo_fast.vectors import state_layers

__all__ = ["ILO"]


class ILO(Metric):  # type: ignore[misc]
    """Mean ILO over languages: a scalar, or ``[layers]`` where several layers are given.

    Args:
        languages: all labels that can come, at least two, the same on every process; None where
            the labels are integers (of 64 bits) already.
        k, threshold, metric, backend: as for `ilo_fast.ILO`.
        **kwargs: torchmetrics' own (``sync_on_compute``, ``dist_sync_fn``, ...).

    Calling the metric (`forward`) also scores the batch by itself, which needs more than k points;
    in a training loop use `update`.

    Raises:
        ValueError, TypeError: languages that are no such labels, or a k, threshold or metric that
            `ilo_fast.ILO` refuses; from `update`, a label that ``languages`` does not hold, or
            states of another shape than those before; from `compute`, what `ilo_fast.ILO` says,
            also where processes differ in languages, k, threshold, metric, layers or dimensions.

    >>> metric = ILO(["en", "de"], k=2, threshold=1)
    >>> metric.update(torch.tensor([[1.0, 0.0], [0.9, 0.1]]), ["en", "de"])
    >>> metric.update(torch.tensor([[0.0, 1.0], [0.1, 0.9]]), ["en", "de"])
    >>> metric.compute()
    tensor(1.)
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    hidden: list[torch.Tensor]
    codes: list[torch.Tensor]

    def __init__(
        self,
        languages: Sequence[str | int] | None = None,
        *,
        k: int = 5,
        threshold: int = 3,
        metric: str = "cosine",
        backend: str = "auto",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        # Sorted, so that metrics of the same languages number them alike: MetricCollection lets
        # metrics of equal states share them, and ranks gather numbers.
        self.languages = (
            None if languages is None else tuple(sorted(language_order(languages), key=label_rank))
        )
        if self.languages is not None and len(self.languages) < 2:
            raise InputError(f"languages must name at least 2, got {list(self.languages)}")
        self.k, self.threshold = check_options(k, threshold, metric, backend)
        self.metric, self.backend = metric, backend
        # Points first, as torchmetrics joins states along the first axis: [n, layers, d] and [n].
        self.add_state("hidden", default=[], dist_reduce_fx="cat")
        self.add_state("codes", default=[], dist_reduce_fx="cat")

    def update(self, hidden: torch.Tensor, languages: Any) -> None:
        """Add a copy of a batch: hidden states ``[n, d]`` or ``[layers, n, d]``, n labels."""
        states = state_layers(hidden, "hidden").detach()
        if self.compute_on_cpu:  # where torchmetrics keeps those before
            states = states.cpu()
        if self.hidden:
            check_fit(states, self.hidden[0].transpose(0, 1))
        names, codes = label_codes(languages, states.shape[1], device=states.device)
        known = {name: code for code, name in enumerate(self.languages or ())}
        numbers = []
        for name in names:
            number = name if self.languages is None else known.get(name)
            if not isinstance(number, int) or not -(1 << 63) <= number < 1 << 63:
                known_as = self.languages or "integers of 64 bits"
                raise InputError(f"languages must hold only {known_as}; got {name!r}")
            numbers.append(number)
        points = states.transpose(0, 1)
        self.hidden.append(points.clone(memory_format=torch.contiguous_format))
        self.codes.append(torch.tensor(numbers, device=states.device)[codes])

    def forward(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Add a batch and return the score of it alone; one that fails leaves the metric as it was.

        torchmetrics takes the points before away while it scores the batch.
        """
        before = {**vars(self), "hidden": copy(self.hidden), "codes": copy(self.codes)}
        try:
            value: torch.Tensor = super().forward(*args, **kwargs)
        except BaseException:
            self.__dict__.update(before)
            raise
        return value

    def merge_state(self, incoming_state: "ILO | Mapping[str, Any]") -> None:
        """Add the points of another such metric, or of its ``metric_state``.

        Raises:
            TypeError: anything else.
            ValueError: this very metric, one of another k, threshold or metric, or points and
                labels that `update` refuses.
        """
        if not isinstance(incoming_state, ILO | Mapping):
            raise TypeError(
                "incoming_state must be an ILO of torchmetrics or its metric_state; got "
                f"{type(incoming_state).__module__}.{type(incoming_state).__name__}"
            )
        if incoming_state is self:
            raise InputError(
                "incoming_state must be another ILO; got itself, whose points would be twice"
            )
        languages, state = self.languages, incoming_state
        if isinstance(incoming_state, ILO):
            check_alike(self, incoming_state)
            languages, state = incoming_state.languages, incoming_state.metric_state
        if not {"hidden", "codes"} <= state.keys():
            raise InputError(f"incoming_state must have hidden and codes; got {sorted(state)}")
        if len(state["hidden"]):
            hidden = dim_zero_cat(state["hidden"]).transpose(0, 1)
            self.update(hidden, _labels(dim_zero_cat(state["codes"]), languages))

    def _sync_dist(self, dist_sync_fn: Any = gather_all_tensors, process_group: Any = None) -> None:
        """torchmetrics' gathering, whose processes abort on states of other dtypes or none."""
        if dist_sync_fn is gather_all_tensors:
            self._agree(process_group or self.process_group)
        super()._sync_dist(dist_sync_fn, process_group=process_group)

    def _agree(self, group: Any) -> None:
        """Give the states of all ranks one dtype and number of axes, or raise on all of them."""
        mine = None
        if len(self.hidden):
            self.hidden, self.codes = [dim_zero_cat(self.hidden)], [dim_zero_cat(self.codes)]
            points = self.hidden[0]
            mine = (points.shape[1], points.shape[2], points.dtype)
        options = {name: getattr(self, name) for name in ("languages", *SHARED)}
        reports: list[Any] = [None] * dist.get_world_size(group)
        dist.all_gather_object(reports, (mine, options), group=group)
        common = agreed([shape for shape, _ in reports], [said for _, said in reports])
        if common is None:
            return
        layers, d, dtype = common
        if mine is None:
            self.hidden = [torch.empty(0, layers, d, dtype=dtype, device=self.device)]
            self.codes = [torch.empty(0, dtype=torch.int64, device=self.device)]
        self.hidden = [self.hidden[0].to(dtype)]

    def set_dtype(self, dst_type: str | torch.dtype) -> "ILO":
        """Turn the points gathered so far to another dtype; their labels stay integers."""
        codes = self.codes
        super().set_dtype(dst_type)
        self.codes = codes
        return self

    def scores(self) -> ILOScores:
        """Bridge, reach and ILO of every layer and language, sorted, of this process's points."""
        if not len(self.hidden):
            return score_points(self, None, [])
        hidden = dim_zero_cat(self.hidden).transpose(0, 1)
        return score_points(self, hidden, _labels(dim_zero_cat(self.codes), self.languages))

    def compute(self) -> torch.Tensor:
        """Mean ILO over languages."""
        mean = torch.from_numpy(self.scores().ilo.mean(axis=1)).float()
        return mean[0] if mean.shape[0] == 1 else mean


def _labels(codes: torch.Tensor, languages: tuple[str | int, ...] | None) -> list[str | int]:
    """The labels that were given for these numbers."""
    numbers: list[int] = codes.tolist()
    if languages is None:
        return [*numbers]
    if any(not 0 <= number < len(languages) for number in set(numbers)):
        raise InputError(f"the points must be labelled by {languages}; got numbers beyond these")
    return [languages[number] for number in numbers]
