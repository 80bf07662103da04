"""Neighbour lists kept beside a result, as one row a point and layer."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ilo_fast.errors import InputError
from ilo_fast.tables import read_beside

__all__ = ["NEIGHBORS_FILE", "list_rows", "lists_of", "read_lists"]

NEIGHBORS_FILE = "neighbors.parquet"
"""Where a results folder keeps its neighbour lists."""


def list_rows(lists: npt.NDArray[np.int64], layers: Sequence[int]) -> pd.DataFrame:
    """Neighbour lists ``[layers, points, k]`` as a table: layer, point, neighbors (int32 lists).

    >>> import numpy as np
    >>> list_rows(np.array([[[1], [0]]]), [4]).values.tolist()
    [[4, 0, array([1], dtype=int32)], [4, 1, array([0], dtype=int32)]]
    """
    count, n, k = lists.shape
    return pd.DataFrame(
        {
            "layer": np.repeat(np.asarray(layers, dtype=np.int64), n),
            "point": np.tile(np.arange(n, dtype=np.int64), count),
            "neighbors": list(lists.reshape(-1, k).astype(np.int32)),
        }
    )


def read_lists(
    path: Path, layers: Sequence[int], points: int, k: int, record: Mapping[str, Any]
) -> npt.NDArray[np.int64]:
    """The lists of a results folder, int64 ``[layers, points, k]``.

    Raises InputError when they are of another run than ``record`` says the scores are of, or are
    not those of every point and layer.
    """
    return lists_of(read_beside(path, record), layers, points, k, repr(str(path)))


def lists_of(
    table: pd.DataFrame, layers: Sequence[int], points: int, k: int, name: str
) -> npt.NDArray[np.int64]:
    """What `list_rows` made a table of, int64 ``[layers, points, k]``.

    Raises InputError when it does not hold the lists of every point and layer.
    """
    ordered = table.sort_values(["layer", "point"], kind="stable")
    whole = np.array_equal(ordered["layer"], np.repeat(layers, points)) and np.array_equal(
        ordered["point"], np.tile(np.arange(points), len(layers))
    )
    if not whole or set(ordered["neighbors"].map(len)) != {k}:
        raise InputError(
            f"{name} must hold {k} neighbours of {points} points in each layer {list(layers)}"
        )
    lists = np.stack(ordered["neighbors"].to_list()).astype(np.int64)
    return lists.reshape(len(layers), points, k)
