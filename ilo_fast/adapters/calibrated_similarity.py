"""calibrated-similarity's two functions for k-NN metrics, from stored neighbours.

The package calls its ``sim`` once for every permutation and pair of layers; here each layer is
searched once and the permuted neighbours are the stored ones relabelled.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ilo_fast.calibration import calibrate as calibrate_values
from ilo_fast.neighbors import knn
from ilo_fast.overlap import layer_overlap, relabel
from ilo_fast.overlap.join import LayerJoin

__all__ = ["calibrate", "calibrate_layers"]

Result = tuple[Tensor, Tensor, Tensor]


def calibrate(
    X: Tensor,
    Y: Tensor,
    sim: str = "mutual_knn",
    *,
    topk: int = 10,
    metric: str = "cosine",
    K: int = 200,
    alpha: float = 0.05,
    smax: float | None = 1.0,
    generator: torch.Generator | None = None,
    perm_fn: Callable[[int, torch.device], Tensor] | None = None,
) -> Result:
    """``calibrated_similarity.calibrate`` for a similarity that only reads neighbours.

    Args:
        X, Y: the same n points in two spaces, ``[n, d]``.
        sim: "mutual_knn", "jaccard", "rank_similarity", "cycle_knn", "lcs_knn" or
            "edit_distance_knn".
        topk, metric: the neighbours.
        K, alpha, smax, generator, perm_fn: theirs; the same draws give the same result.

    Returns:
        ``(calibrated_score, p_value, tau)``, float32 tensors as theirs.
    """
    return calibrate_layers(
        [X],
        [Y],
        sim,
        topk=topk,
        metric=metric,
        K=K,
        alpha=alpha,
        smax=smax,
        generator=generator,
        perm_fn=perm_fn,
    )


def calibrate_layers(
    X_layers: Sequence[Tensor],
    Y_layers: Sequence[Tensor],
    sim: str = "mutual_knn",
    *,
    agg: str | Callable[[Tensor], Any] = "max",
    topk: int = 10,
    metric: str = "cosine",
    K: int = 200,
    alpha: float = 0.05,
    smax: float | None = 1.0,
    generator: torch.Generator | None = None,
    perm_fn: Callable[[int, torch.device], Tensor] | None = None,
) -> Result:
    """``calibrated_similarity.calibrate_layers`` for a similarity that only reads neighbours.

    Args:
        X_layers, Y_layers: lists of ``[n, d]``.
        agg: "max", "mean" or a function of the ``[layers, layers]`` matrix.
        The rest: as `calibrate`.
    """
    if smax is not None and smax <= 0:
        raise ValueError(f"smax must be positive, got {smax}")
    if agg not in ("max", "mean") and not callable(agg):
        raise ValueError("agg must be 'max', 'mean', or a callable.")
    x, y = (_lists(layers, topk, metric) for layers in (X_layers, Y_layers))
    n, device = x.shape[1], X_layers[0].device
    join = LayerJoin(x.cpu().numpy(), y.cpu().numpy()) if sim == "mutual_knn" else None

    def aggregate(order: Tensor | None) -> np.float32:
        if join is not None:
            values = join.common(None if order is None else order.cpu().numpy()) / (n * topk)
        else:
            lists = y if order is None else relabel(y, order.cpu())
            values = layer_overlap(x, lists, metric=sim).values
        matrix = torch.from_numpy(values).float()  # their precision, so that the same draws tie
        if callable(agg):
            return np.float32(float(agg(matrix)))
        return np.float32(float(matrix.max() if agg == "max" else matrix.mean()))

    observed = aggregate(None)
    draws = []
    for _ in range(K):
        if perm_fn is None:
            order = torch.randperm(n, device=device, generator=generator)
        else:
            order = perm_fn(n, device)
        draws.append(aggregate(order))
    found = calibrate_values(observed, draws, alpha=alpha, ceiling=1.0 if smax is None else smax)
    score = found.score if smax is not None else np.maximum(observed - found.threshold, 0)
    return (
        torch.tensor(float(score), device=device),
        torch.tensor(float(found.p_value), device=device),
        torch.tensor(float(found.threshold), device=device),
    )


def _lists(layers: Sequence[Tensor], topk: int, metric: str) -> Tensor:
    return torch.stack([knn(x, topk, metric=metric).indices for x in layers])
