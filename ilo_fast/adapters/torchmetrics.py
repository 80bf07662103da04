"""The ILO score as a ``torchmetrics.Metric``: for `self.log`, MetricCollection and the rest."""

from collections.abc import Sequence
from typing import Any

import torch
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from ilo_fast.alignment import language_order
from ilo_fast.errors import InputError
from ilo_fast.ilo import ILOScores, ilo_scores
from ilo_fast.lists import label_codes, state_layers
from ilo_fast.neighbors import knn
from ilo_fast.streaming_ilo import canonical_order, check_fit, check_options

__all__ = ["ILO"]


class ILO(Metric):  # type: ignore[misc]
    """Mean ILO over languages: a scalar, or ``[layers]`` where several layers are given.

    Args:
        languages: all labels that can come, at least two, in the same order on every process; None
            where the labels are integers (of 64 bits) already.
        k, threshold, metric, backend: as for `ilo_fast.ILO`.
        **kwargs: torchmetrics' own (``sync_on_compute``, ``dist_sync_fn``, ...).

    Calling the metric (`forward`) also scores the batch by itself, which needs more than k points;
    in a training loop use `update`.

    Raises:
        ValueError, TypeError: languages that are no such labels, or a k, threshold or metric that
            `ilo_fast.ILO` refuses; from `update`, a label that ``languages`` does not hold, or
            states of another shape than those before; from `compute`, what `ilo_fast.ILO` says.

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
        self.languages = None if languages is None else language_order(languages)
        if self.languages is not None and len(self.languages) < 2:
            raise InputError(f"languages must name at least 2, got {list(self.languages)}")
        self.k, self.threshold = check_options(k, threshold, metric, backend)
        self.metric, self.backend = metric, backend
        # Points first, as torchmetrics joins states along the first axis: [n, layers, d] and [n].
        self.add_state("hidden", default=[], dist_reduce_fx="cat")
        self.add_state("codes", default=[], dist_reduce_fx="cat")

    def update(self, hidden: torch.Tensor, languages: Any) -> None:
        """Add a batch: hidden states ``[n, d]`` or ``[layers, n, d]``, n labels."""
        states = state_layers(hidden, "hidden").detach()
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
        self.hidden.append(states.transpose(0, 1).contiguous())
        self.codes.append(torch.tensor(numbers, device=states.device)[codes])

    def set_dtype(self, dst_type: str | torch.dtype) -> "ILO":
        """Turn the points gathered so far to another dtype; their labels stay integers."""
        codes = self.codes
        super().set_dtype(dst_type)
        self.codes = codes
        return self

    def scores(self) -> ILOScores:
        """Bridge, reach and ILO of every layer and language, sorted, of this process's points."""
        if not len(self.hidden):
            raise InputError("nothing to compute: update was never called")
        hidden = dim_zero_cat(self.hidden).transpose(0, 1)
        if hidden.shape[1] == 1:
            raise InputError("nothing to compute: one point has no neighbours")
        numbers = dim_zero_cat(self.codes).tolist()
        labels = [self.languages[number] if self.languages else number for number in numbers]
        order = canonical_order(hidden, labels)
        found = knn(hidden[:, order], self.k, metric=self.metric, backend=self.backend)
        return ilo_scores(found, [labels[i] for i in order.tolist()], threshold=self.threshold)

    def compute(self) -> torch.Tensor:
        """Mean ILO over languages."""
        mean = torch.from_numpy(self.scores().ilo.mean(axis=1)).float()
        return mean[0] if mean.shape[0] == 1 else mean
