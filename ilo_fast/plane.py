"""A layer's points in two dimensions: principal components, or UMAP over exact neighbours."""

import warnings
from typing import Any

import numpy as np
import torch

from ilo_fast.arguments import check_choice
from ilo_fast.errors import InputError
from ilo_fast.neighbors import knn
from ilo_fast.vectors import state_layers, unit_rows

__all__ = ["pca", "umap"]


def pca(states: Any, *, normalise: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """The two directions of largest variance.

    Args:
        states: floating ``[n, d]``, torch, NumPy, CuPy or DLPack; n and d at least 2.
        normalise: scale every point to length 1 first, as cosine does; the few massive dimensions
            of hidden states otherwise decide alone.

    Returns:
        float64 ``[n, 2]``, of a sign that makes the largest coordinate positive, and the shares of
        the variance that each explains, ``[2]``.

    Raises:
        InputError: on anything but one layer of at least two points and dimensions.
        HiddenStateError: on NaN or infinity.

    >>> points, shares = pca([[0.0, 1.0], [0.0, -1.0], [3.0, 0.0], [-3.0, 0.0]], normalise=False)
    >>> shares.round(2).tolist()
    [0.9, 0.1]
    """
    layer = _one_layer(states)
    table = unit_rows(layer) if normalise else layer.double()
    table = table - table.mean(dim=0)
    # the d × d covariance, or the n × n one where that is smaller
    n, d = table.shape
    small = table.T @ table if d <= n else table @ table.T
    values, vectors = torch.linalg.eigh(small)
    top = vectors[:, [-1, -2]]
    points = table @ top if d <= n else top * values[[-1, -2]].clamp(min=0).sqrt()
    points = points.cpu().numpy()
    largest = points[np.abs(points).argmax(axis=0), [0, 1]]
    total = float((table**2).sum())
    shares = values[[-1, -2]].clamp(min=0).cpu().numpy() / max(total, np.finfo(np.float64).tiny)
    return points * np.where(largest < 0, -1, 1), shares


def umap(
    states: Any, *, n_neighbors: int = 15, metric: str = "cosine", seed: int = 0
) -> np.ndarray:
    """UMAP over exact neighbours (McInnes, Healy, Melville 2018, arXiv 1802.03426).

    Args:
        states: floating ``[n, d]``.
        n_neighbors: the point itself counted, as UMAP does; at most n.
        metric: ``cosine`` or ``euclidean``.
        seed: of its optimisation.

    Returns:
        float64 ``[n, 2]``.

    Raises:
        InputError: when umap-learn is not installed, or on points that cannot be used.
        HiddenStateError: on NaN or infinity.
    """
    check_choice(metric, "metric", ("cosine", "euclidean"))
    layer = _one_layer(states).cpu().float()
    n = len(layer)
    count = min(n_neighbors, n)
    if count < 3:
        raise InputError(f"UMAP needs at least 3 points and neighbours, got {count}")
    try:
        from umap import UMAP
    except ImportError as error:
        raise InputError(
            "UMAP: umap-learn is not installed; install it with: pip install 'ilo-fast[umap]'"
        ) from error
    found = knn(layer, count - 1, metric=metric)
    indices = np.concatenate([np.arange(n)[:, None], found.indices.numpy()], axis=1)
    distances = np.pad(found.distances.numpy(), ((0, 0), (1, 0)))
    with warnings.catch_warnings():
        # no search index goes along: new points are not placed here
        warnings.filterwarnings("ignore", message=".*transform will be unavailable.*")
        warnings.filterwarnings("ignore", message=".*n_jobs value.*")
        reducer = UMAP(
            n_neighbors=count,
            metric=metric,
            random_state=seed,
            precomputed_knn=(indices.astype(np.int32), distances.astype(np.float32)),
        )
        placed = reducer.fit_transform(layer.numpy())
    return np.asarray(placed, dtype=np.float64)


def _one_layer(states: Any) -> torch.Tensor:
    layers = state_layers(states)
    if len(layers) != 1 or min(layers.shape[1:]) < 2:
        raise InputError(
            f"states must be one layer of at least 2 points and dimensions, got "
            f"{list(layers.shape)}"
        )
    return layers[0]
