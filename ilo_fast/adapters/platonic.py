"""platonic-rep's alignment metrics from neighbours that are searched once a layer.

>>> import metrics, measure_alignment                                    # doctest: +SKIP
>>> from ilo_fast.adapters.platonic import patched
>>> with patched(metrics, measure_alignment):                            # doctest: +SKIP
...     score, layers = measure_alignment.compute_score(x_feats, y_feats)
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from ilo_fast.adapters._shared import neighbor_lists, replaced
from ilo_fast.cka import NearKernel
from ilo_fast.overlap import layer_overlap

__all__ = ["compute_score", "patched"]

_LIST_METRICS = ("mutual_knn", "cycle_knn", "lcs_knn", "edit_distance_knn")


@contextmanager
def patched(metrics: ModuleType, measure_alignment: ModuleType | None = None) -> Iterator[None]:
    """Replace the k-NN metrics of ``AlignmentMetrics`` and ``compute_score`` inside the block.

    mutual_knn, cycle_knn, lcs_knn, edit_distance_knn and cknna keep their signatures and return
    types; CKA and SVCCA stay theirs. Neighbours are by inner product of the features as they are,
    exact also where these are bfloat16, and equal ones come by the lower index. A tensor's are
    searched once inside the block, however many others it is compared with, and again where
    torch has seen it change; what is written past torch, through ``x.data`` or ``x.numpy()``,
    it does not see.

    Args:
        metrics: their module ``metrics``.
        measure_alignment: their module of that name, for its ``compute_score``.
    """
    theirs = metrics.AlignmentMetrics
    searched = _Searched()
    their_cknna: Callable[..., float] = theirs.cknna

    def of_lists(name: str) -> Any:
        def metric(feats_A: Tensor, feats_B: Tensor, topk: int) -> Any:
            value = layer_overlap(searched(feats_A, topk), searched(feats_B, topk), metric=name)
            return _as_theirs(name, float(value.values[0, 0]))

        return staticmethod(metric)

    def cknna(
        feats_A: Tensor,
        feats_B: Tensor,
        topk: int | None = None,
        distance_agnostic: bool = False,
        unbiased: bool = True,
    ) -> float:
        if distance_agnostic or not unbiased or topk is None or topk < 2:
            return their_cknna(feats_A, feats_B, topk, distance_agnostic, unbiased)
        left, right = (NearKernel(x.double(), searched(x, topk)[0]) for x in (feats_A, feats_B))
        return _alignment(left, right)

    with ExitStack() as stack:
        lists = {name: of_lists(name) for name in _LIST_METRICS}
        stack.enter_context(replaced(theirs, **lists, cknna=staticmethod(cknna)))
        if measure_alignment is not None:
            whole = _compute_score(measure_alignment.compute_score)
            stack.enter_context(replaced(measure_alignment, compute_score=whole))
        yield


def compute_score(
    x_feats: Tensor | Sequence[Tensor],
    y_feats: Tensor | Sequence[Tensor],
    metric: str = "mutual_knn",
    topk: int = 10,
    normalize: bool = True,
) -> tuple[float, tuple[int, int] | None]:
    """The best-aligned pair of layers, as ``measure_alignment.compute_score``; k-NN metrics only.

    Args:
        x_feats, y_feats: ``[n, layers, d]``, or a list of ``[n, d]``.
        metric: mutual_knn, cycle_knn, lcs_knn, edit_distance_knn or cknna.
        topk: neighbours a point.
        normalize: scale rows to length 1 first, in the features' dtype, as they do.

    Returns:
        The score and its layers, or ``(0, None)`` where no score is above 0.
    """
    x, y = (_layers(feats, normalize) for feats in (x_feats, y_feats))
    if metric == "cknna":
        left, right = (
            [NearKernel(z.double(), near) for z, near in zip(layers, lists, strict=True)]
            for layers, lists in ((x, _lists(x, topk)), (y, _lists(y, topk)))
        )
        values = np.array([[_alignment(one, two) for two in right] for one in left])
    elif metric in _LIST_METRICS:
        values = layer_overlap(_lists(x, topk), _lists(y, topk), metric=metric).values
    else:
        raise ValueError(f"metric must be cknna or one of {', '.join(_LIST_METRICS)}; got {metric}")
    known = np.nan_to_num(values, nan=0.0)  # cknna of points without variance
    best = np.unravel_index(int(known.argmax()), known.shape)
    if not known[best] > 0:
        return 0, None
    return _as_theirs(metric, float(values[best])), (int(best[0]), int(best[1]))


def _compute_score(theirs: Callable[..., Any]) -> Callable[..., Any]:
    def either(
        x_feats: Any,
        y_feats: Any,
        metric: str = "mutual_knn",
        topk: int = 10,
        normalize: bool = True,
    ) -> Any:
        ours = metric in _LIST_METRICS or metric == "cknna"
        return (compute_score if ours else theirs)(x_feats, y_feats, metric, topk, normalize)

    return either


def _layers(feats: Tensor | Sequence[Tensor], normalize: bool) -> list[Tensor]:
    layers = list(feats.unbind(1) if isinstance(feats, Tensor) else feats)
    return [torch.nn.functional.normalize(x, p=2, dim=-1) if normalize else x for x in layers]


def _lists(layers: Sequence[Tensor], topk: int) -> Tensor:
    return neighbor_lists(layers, topk, "inner_product")


class _Searched:
    """Neighbour lists ``[1, n, topk]`` of tensors, kept while these live unchanged."""

    def __init__(self) -> None:
        self._kept: Any = WeakTensorKeyDictionary()

    def __call__(self, feats: Tensor, topk: int) -> Tensor:
        if feats.is_inference():  # whether it changes is not known
            return _lists([feats], topk)
        # an assignment to `data` counts as no change: the memory is another then
        state = feats._version, feats.data_ptr(), feats.shape, feats.stride(), feats.dtype
        kept, lists = self._kept.get(feats, (None, {}))
        if kept != state:
            lists = {}
            self._kept[feats] = state, lists
        if topk not in lists:
            lists[topk] = _lists([feats], topk)
        return lists[topk]  # type: ignore[no-any-return]


def _as_theirs(metric: str, value: float) -> Any:
    """Floats, and tensors where they return tensors."""
    if metric == "lcs_knn":
        return torch.tensor(value, dtype=torch.float32)
    return torch.tensor(value, dtype=torch.float64) if metric == "edit_distance_knn" else value


def _alignment(one: NearKernel, two: NearKernel) -> float:
    """CKNNA with the 1e-6 they add to the denominator."""
    product = one.own * two.own
    return one.cross(two) / (math.sqrt(product) + 1e-6) if product >= 0 else math.nan
