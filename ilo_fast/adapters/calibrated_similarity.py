"""calibrated-similarity's two functions for k-NN metrics and CKA, each layer prepared once.

The package calls its ``sim`` once for every permutation and pair of layers; here each layer is
searched once and the permuted neighbours are the stored ones relabelled. For CKA each layer's
kernel is formed once and its rows and columns permuted.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ilo_fast.adapters._shared import neighbor_lists
from ilo_fast.arrays import as_tensor
from ilo_fast.calibration import calibrate as calibrate_values
from ilo_fast.overlap.layers import scorer
from ilo_fast.overlap.lists import LIST_METRICS
from ilo_fast.vectors import state_layers

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
    """``calibrated_similarity.calibrate`` for similarities of neighbours, and for CKA.

    Args:
        X, Y: the same n points in two spaces, ``[n, d]``.
        sim: "mutual_knn", "jaccard", "rank_similarity", "cycle_knn", "lcs_knn" or
            "edit_distance_knn"; or "cka", linear and biased, which holds an n × n float64 kernel
            a layer.
        topk, metric: the neighbours; "cka" reads neither.
        K, alpha, smax, generator, perm_fn: theirs; the same draws give the same result.

    Returns:
        ``(calibrated_score, p_value, tau)``, float32 tensors as theirs.

    Raises:
        ValueError: on another ``sim`` (a function is for theirs), when X and Y are not ``[n, d]``
            of the same n, on numbers out of range, NaN or infinity, a similarity that is NaN
            (CKA where all points of a layer are equal), or a ``perm_fn`` that gives no permutation.
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
    """``calibrated_similarity.calibrate_layers`` for similarities of neighbours, and for CKA.

    Args:
        X_layers, Y_layers: lists of ``[n, d]``.
        agg: "max", "mean" or a function of the ``[layers, layers]`` matrix.
        The rest: as `calibrate`.

    Raises:
        ValueError: as `calibrate`; on an unknown ``agg`` or a side without layers.
    """
    if smax is not None and smax <= 0:
        raise ValueError(f"smax must be positive, got {smax}")
    if agg not in ("max", "mean") and not callable(agg):
        raise ValueError("agg must be 'max', 'mean', or a callable.")
    if sim != "cka" and sim not in LIST_METRICS:
        raise ValueError(f"sim must be cka or one of {', '.join(LIST_METRICS)}; got {sim!r}")
    if K < 1:
        raise ValueError(f"K must be a positive integer, got {K}")
    n, device = _points(X_layers, Y_layers), X_layers[0].device
    compare = (
        _cka(X_layers, Y_layers)
        if sim == "cka"
        else _overlap(X_layers, Y_layers, sim, topk, metric)
    )

    def aggregate(order: Tensor | None) -> np.float32:
        matrix = compare(order).float()  # their precision, so that the same draws tie
        if callable(agg):
            return np.float32(float(agg(matrix)))
        return np.float32(float(matrix.max() if agg == "max" else matrix.mean()))

    observed = aggregate(None)
    draws = []
    for _ in range(K):
        if perm_fn is None:
            order = torch.randperm(n, device=device, generator=generator)
        else:
            order = _permutation(perm_fn(n, device), n)
        draws.append(aggregate(order))
    found = calibrate_values(observed, draws, alpha=alpha, ceiling=1.0 if smax is None else smax)
    score = found.score if smax is not None else np.maximum(observed - found.threshold, 0)
    return (
        torch.tensor(float(score), device=device),
        torch.tensor(float(found.p_value), device=device),
        torch.tensor(float(found.threshold), device=device),
    )


def _points(X_layers: Sequence[Tensor], Y_layers: Sequence[Tensor]) -> int:
    """How many points the layers have, which must all be ``[n, d]`` of one n."""
    for name, layers in (("X", X_layers), ("Y", Y_layers)):
        if len(layers) == 0:
            raise ValueError(f"{name} must have at least one layer")
        for layer in layers:
            if layer.ndim != 2:
                raise ValueError(f"{name} must be [n, d], got {list(layer.shape)}")
    counts = sorted({len(layer) for layer in (*X_layers, *Y_layers)})
    if len(counts) > 1:
        found = " and ".join(map(str, counts))
        raise ValueError(f"X and Y must have the same points in all layers, got {found}")
    return counts[0]


def _permutation(order: Any, n: int) -> Tensor:
    """What a ``perm_fn`` gave, checked: lists are moved by it, not searched again."""
    given = as_tensor(order, "perm_fn's permutation")
    every = torch.arange(n, device=given.device)
    if given.is_floating_point() or not torch.equal(given.sort().values, every):
        raise ValueError(f"perm_fn must give a permutation of 0 … {n - 1}")
    return given


def _overlap(
    X_layers: Sequence[Tensor], Y_layers: Sequence[Tensor], sim: str, topk: int, metric: str
) -> Callable[[Tensor | None], Tensor]:
    """Layers × layers of a similarity of neighbours, Y's points in a given order."""
    x, y = (neighbor_lists(layers, topk, metric) for layers in (X_layers, Y_layers))
    score = scorer(sim, x, y.to(x.device))
    return lambda order: torch.from_numpy(score(None if order is None else order.cpu().numpy()))


def _cka(
    X_layers: Sequence[Tensor], Y_layers: Sequence[Tensor]
) -> Callable[[Tensor | None], Tensor]:
    """Layers × layers of linear CKA, Y's points in a given order.

    With centred kernels of norm 1 it is their inner product, and permuting the points permutes
    rows and columns: n² multiply-adds a pair and permutation, whatever the width.
    """
    x, y = (
        torch.stack([_unit_kernel(layer) for layer in layers]) for layers in (X_layers, Y_layers)
    )

    def cka(order: Tensor | None) -> Tensor:
        permuted = y if order is None else y[:, order][:, :, order]
        values: Tensor = x.flatten(1) @ permuted.flatten(1).T
        return values

    return cka


def _unit_kernel(layer: Tensor) -> Tensor:
    """``K / |K|_F``, K the centred linear kernel in float64; NaN where all points are equal."""
    rows = state_layers(layer, "layer")[0].double()
    rows = rows - rows.mean(dim=0)
    kernel = rows @ rows.T
    unit: Tensor = kernel / kernel.norm()
    return unit
