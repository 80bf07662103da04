"""What an engine is given and what it hands back: the one contract all backends share."""

from dataclasses import dataclass

import torch

from ilo_fast.arguments import check_choice

__all__ = ["METRICS", "EngineResult", "NeighborStats", "Request", "check_metric"]

METRICS = ("cosine", "euclidean", "inner_product")


def check_metric(metric: str) -> None:
    """Raise unless ``metric`` is one of `METRICS`, as `check_choice`."""
    check_choice(metric, "metric", METRICS)


@dataclass(frozen=True)
class Request:
    """A neighbour search that passed validation at the public edge.

    x: finite floating-point tensor ``[layers, n, d]``, any strides, no gradient, on the device
    the engine is to work on. row_max: ``[layers, n]`` float64, the largest magnitude of each row.
    ``k`` is at most ``n - 1`` (``n`` when ``exclude_self`` is false) and ``metric`` is one of
    ``METRICS``.
    """

    x: torch.Tensor
    row_max: torch.Tensor
    k: int
    metric: str
    exact: bool = True
    exclude_self: bool = True

    @property
    def shape(self) -> tuple[int, int, int]:
        layers, n, d = self.x.shape
        return layers, n, d


@dataclass(frozen=True)
class NeighborStats:
    """How the neighbours were found, one entry a layer.

    method: ``"filter"`` (low-precision filter, then float64), ``"float64"`` (every pair in
    float64) or ``"reference"``. rows_repaired: share of rows the filter could not serve, which
    were recomputed against every point in float64. open_candidates: mean number of candidates a
    row that were compared in float64 after the filter. duplicates: points that are exact copies
    of an earlier one in the metric's sense and were searched once.
    """

    method: tuple[str, ...]
    rows_repaired: tuple[float, ...]
    open_candidates: tuple[float, ...]
    duplicates: tuple[int, ...]


@dataclass(frozen=True)
class EngineResult:
    """indices int64 and distances float32 ``[layers, n, k]``, certified bool ``[layers, n]``."""

    indices: torch.Tensor
    distances: torch.Tensor
    certified: torch.Tensor
    stats: NeighborStats
