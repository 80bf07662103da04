"""Do a few points sit in everyone's neighbour list?"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ilo_fast.arguments import real_number
from ilo_fast.errors import InputError
from ilo_fast.lists import index_lists
from ilo_fast.shown import Shown

__all__ = ["Hubness", "hubness", "k_occurrence"]


@dataclass(frozen=True, eq=False, repr=False)
class Hubness(Shown):
    """How unevenly points are chosen as neighbours; float64 ``[layers]`` unless said.

    Attributes:
        occurrence: int64 ``[layers, n]``, how many lists each point is in.
        skewness: of the occurrences, population form; 0 where all are equal.
        orphans: share of points in no list (anti-hubs).
        hubs: share of points in more than ``hub_factor * k`` lists.
        hub_entries: share of all list entries that are hubs.
    """

    occurrence: np.ndarray
    skewness: np.ndarray
    orphans: np.ndarray
    hubs: np.ndarray
    hub_entries: np.ndarray
    hub_factor: float


def k_occurrence(neighbors: Any) -> np.ndarray:
    """How often each point is a neighbour: ``N_k(j) = |{i: j in N_k(i)}|``.

    Args:
        neighbors: a `Neighbors`, or integer indices ``[n, k]`` or ``[layers, n, k]``.

    Returns:
        int64 ``[layers, n]``; every layer sums to n k.

    Raises:
        InputError: on lists that cannot be used.

    >>> k_occurrence([[1], [0], [0]])
    array([[2, 1, 0]])
    """
    indices = index_lists(neighbors)
    n = indices.shape[1]
    counts = [torch.bincount(layer.flatten(), minlength=n) for layer in indices]
    return np.asarray(torch.stack(counts).cpu().numpy())


def hubness(neighbors: Any, *, hub_factor: float = 2.0) -> Hubness:
    """Skewness of the k-occurrence, and the shares of orphans and hubs.

    ``S = E[(N_k - mean)^3] / std^3`` (Radovanović, Nanopoulos, Ivanović, "Hubs in Space",
    JMLR 2010); the mean of N_k is k. A point is a hub when ``N_k > hub_factor * k``, an
    orphan when ``N_k = 0``.

    Args:
        neighbors: a `Neighbors`, or integer indices ``[n, k]`` or ``[layers, n, k]``.
        hub_factor: above 0; how many times the average makes a hub.

    Returns:
        A `Hubness`.

    Raises:
        InputError: on lists or a factor that cannot be used.

    >>> result = hubness([[1], [0], [0], [0]])
    >>> result.occurrence.tolist(), result.orphans.tolist(), result.hubs.tolist()
    ([[3, 1, 0, 0]], [0.5], [0.25])
    """
    hub_factor = real_number(hub_factor, "hub_factor")
    if not hub_factor > 0:
        raise InputError(f"hub_factor must be above 0, got {hub_factor!r}")
    occurrence = k_occurrence(neighbors)
    n = occurrence.shape[1]
    entries = occurrence.sum(axis=1)
    k = entries[0] / n
    centred = occurrence - k
    spread = np.sqrt((centred**2).mean(axis=1))
    third = (centred**3).mean(axis=1)
    is_hub = occurrence > hub_factor * k
    return Hubness(
        occurrence=occurrence,
        skewness=np.divide(third, spread**3, out=np.zeros_like(third), where=spread > 0),
        orphans=(occurrence == 0).mean(axis=1),
        hubs=is_hub.mean(axis=1),
        hub_entries=(occurrence * is_hub).sum(axis=1) / entries,
        hub_factor=hub_factor,
    )
