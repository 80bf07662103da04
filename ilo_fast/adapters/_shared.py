"""What several adapters need: lists that begin with the point itself, and patching that ends."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from ilo_fast.arguments import whole_number
from ilo_fast.arrays import to_torch, without_mask
from ilo_fast.neighbors import knn

__all__ = ["float_tensor", "neighbor_lists", "replaced", "self_first"]


def float_tensor(x: Any, name: str) -> torch.Tensor:
    """Dense points ``[n, d]`` as a torch tensor; integers become float64, as most tools take them.

    Raises:
        TypeError: on anything but a dense array of real numbers.
        ValueError: on another number of axes.
    """
    if isinstance(x, torch.Tensor):
        tensor = x if x.is_floating_point() else x.double()
    else:
        if isinstance(x, np.ndarray):
            without_mask(x, name)
        array = np.asarray(x)
        if array.dtype.kind not in "fiu":
            raise TypeError(f"{name} must be a dense array of numbers; got {type(x).__name__}")
        tensor, _ = to_torch(array if array.dtype.kind == "f" else array.astype(np.float64), name)
    if tensor.ndim != 2:
        raise ValueError(f"{name} must be [n, d]; got shape {list(tensor.shape)}")
    return tensor


def self_first(x: Any, n_neighbors: Any, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """Lists of `n_neighbors` entries with the point itself in front, also among copies of it.

    By inner product a point need not be its own nearest, so that is no metric here.

    Returns:
        indices int64 and distances float32, NumPy ``[n, n_neighbors]``, fresh memory.
    """
    if metric not in ("euclidean", "cosine"):
        raise ValueError(f"metric must be 'euclidean' or 'cosine'; got {metric!r}")
    points, count = float_tensor(x, "X"), whole_number(n_neighbors, "n_neighbors")
    n = points.shape[0]
    if not 1 <= count <= n:
        raise ValueError(f"n_neighbors must be 1 to {n}, the point itself counted; got {count}")
    own = np.arange(n)[:, None]
    if count == 1:
        return own, np.zeros((n, 1), dtype=np.float32)
    found = knn(points, count - 1, metric=metric)
    distances = np.pad(found.distances.cpu().numpy(), ((0, 0), (1, 0)))
    return np.concatenate([own, found.indices.cpu().numpy()], axis=1), distances


@contextmanager
def replaced(owner: Any, **values: Any) -> Iterator[None]:
    """Set attributes of a module or class and put the old ones back, whatever happens.

    Raises:
        AttributeError: the owner lacks one of them: not the version this was written for.
    """
    missing = [name for name in values if not hasattr(owner, name)]
    if missing:
        raise AttributeError(
            f"{owner.__name__} has no {', '.join(missing)}: not the version this adapter is for"
        )
    before = {name: vars(owner)[name] for name in values}
    try:
        for name, value in values.items():
            setattr(owner, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(owner, name, value)


def neighbor_lists(layers: Sequence[torch.Tensor], k: int, metric: str) -> torch.Tensor:
    """Neighbours of every layer ``[n, d]`` (their widths may differ), int64 ``[layers, n, k]``."""
    kinds = {(layer.shape, layer.dtype, layer.device) for layer in layers}
    if len(kinds) == 1:  # one call: a card searches all at once
        found: torch.Tensor = knn(torch.stack([*layers]), k, metric=metric).indices
        return found
    return torch.stack([knn(layer, k, metric=metric).indices for layer in layers])
