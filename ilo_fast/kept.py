"""Neighbour lists kept beside a result, as one row a point and layer."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from ilo_fast.errors import InputError
from ilo_fast.tables import read_beside

__all__ = ["NEIGHBORS_FILE", "list_rows", "lists_of", "read_lists", "stack_lists"]

NEIGHBORS_FILE = "neighbors.parquet"
"""Where a results folder keeps its neighbour lists."""

_TYPES = {"layer": pa.int64(), "point": pa.int64(), "neighbors": pa.list_(pa.int32())}


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
    return lists_of(read_beside(path, record, _TYPES), layers, points, k, repr(str(path)))


def lists_of(
    table: pd.DataFrame, layers: Sequence[int], points: int, k: int, name: str
) -> npt.NDArray[np.int64]:
    """What `list_rows` made a table of, int64 ``[layers, points, k]``.

    Raises InputError when it does not hold the lists of every point and layer.
    """
    try:
        if len(table) != len(layers) * points:  # first: points may be any number
            raise ValueError(f"it has {len(table)} rows")
        if set(table["layer"]) != set(layers):
            raise ValueError(f"it has the layers {sorted(set(table['layer']))}")
        by_layer = table.groupby("layer")
        return np.stack([stack_lists(by_layer.get_group(one), points, k) for one in layers])
    except ValueError as error:
        raise InputError(
            f"{name} must hold {k} neighbours of {points} points in each layer {list(layers)}: "
            f"{error}"
        ) from error


def stack_lists(table: pd.DataFrame, points: int, k: int) -> npt.NDArray[np.int64]:
    """The lists of one layer's rows, int64 ``[points, k]``; ValueError where they are others."""
    table = table.sort_values("point", kind="stable")
    if len(table) != points or not np.array_equal(table["point"], np.arange(points)):
        raise ValueError("some points are not there, or more than once")
    if set(table["neighbors"].map(len)) != {k}:
        raise ValueError(f"some lists are not of {k}")
    lists = np.stack(table["neighbors"].to_list()).astype(np.int64)
    if lists.min() < 0 or lists.max() >= points:
        raise ValueError("some neighbours are none of the points")
    return lists
