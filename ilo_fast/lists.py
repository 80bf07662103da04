"""Neighbour lists and the points' labels as tensors: the checks that the metrics share.

Lists come as a `Neighbors` or a bare index array. Both become one int64 tensor ``[layers, n, k]``
here, checked once, on the device it came from.
"""

from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ilo_fast.arrays import as_tensor, with_numbers, without_mask
from ilo_fast.errors import InputError
from ilo_fast.shown import counted

__all__ = [
    "Label",
    "ParallelPoints",
    "group_mean",
    "index_lists",
    "label_codes",
    "language_codes",
    "no_own_points",
    "one_metric_per_layer",
    "paired_lists",
]

Label = str | int


class ParallelPoints(Protocol):
    """The points of parallel text, one language after the other, as a corpus and states have them:
    ``language_ids`` and ``sentence_ids`` are int64 ``[n_languages × n_sentences]``."""

    @property
    def languages(self) -> tuple[str, ...]: ...
    @property
    def n_languages(self) -> int: ...
    @property
    def n_sentences(self) -> int: ...
    @property
    def language_ids(self) -> npt.NDArray[np.int64]: ...
    @property
    def sentence_ids(self) -> npt.NDArray[np.int64]: ...


def index_lists(neighbors: Any, name: str = "neighbors") -> Tensor:
    """The neighbour indices of a `Neighbors` or an array as int64 ``[layers, n, k]``.

    Args:
        neighbors: a `Neighbors`, or integer indices ``[n, k]`` or ``[layers, n, k]``.
        name: what the error message calls the argument.

    Raises:
        InputError: when the indices are not integers, have another number of
            axes, are empty, or point outside 0 … n - 1.

    >>> index_lists([[1], [0]]).shape
    torch.Size([1, 2, 1])
    """
    raw = neighbors
    if not isinstance(raw, (Tensor, np.ndarray, list, tuple)):
        raw = getattr(raw, "indices", raw)
    indices = as_tensor(raw, name)
    if indices.dtype.is_floating_point or indices.dtype.is_complex or indices.dtype == torch.bool:
        raise InputError(f"{name} must hold integer indices, got dtype {indices.dtype}")
    if indices.ndim == 2:
        indices = indices.unsqueeze(0)
    if indices.ndim != 3 or 0 in indices.shape:
        raise InputError(
            f"{name} must have shape [n, k] or [layers, n, k] with no empty axis, "
            f"got {list(indices.shape)}"
        )
    n, indices = indices.shape[1], indices.long()
    low, high = (int(bound) for bound in torch.aminmax(indices))
    if low < 0 or high >= n:
        raise InputError(
            f"{name} must point at 0 … {n - 1} ({counted(n, 'point')}), found {low} … {high}"
        )
    return indices


def paired_lists(a: Any, b: Any) -> tuple[Tensor, Tensor]:
    """Both neighbour sets as int64 ``[layers, n, k]`` on one device, of the same n and k.

    Raises:
        InputError: when they do not fit, or a list names a point twice.
    """
    first = index_lists(a, "a")
    second = first if b is a else index_lists(b, "b")
    if first.shape[1:] != second.shape[1:]:
        raise InputError(
            f"a and b must have the same points and k, got [n, k] = {list(first.shape[1:])} "
            f"and {list(second.shape[1:])}"
        )
    for name, lists in (("a", first), ("b", second))[: 1 if b is a else 2]:
        ordered = lists.sort(dim=2).values
        if bool((ordered[..., 1:] == ordered[..., :-1]).any()):
            raise InputError(f"{name} must name a point once in a list, found one twice")
    return first, second.to(first.device)


def no_own_points(lists: Tensor, name: str) -> None:
    """InputError where lists ``[layers, n, k]`` have a point as its own neighbour."""
    own = torch.arange(lists.shape[1], device=lists.device)
    if bool((lists == own[:, None]).any()):
        raise InputError(f"{name} must not list a point as its own neighbour")


def label_codes(
    labels: Any, n: int, name: str = "languages", device: torch.device | str = "cpu"
) -> tuple[tuple[Label, ...], Tensor]:
    """The distinct labels in order of first appearance, and each point's number among them.

    Args:
        labels: n labels, strings or integers, in the points' order: a sequence, or a 1-d array or
            tensor.
        n: how many points there are.

    Returns:
        The distinct labels as plain str and int, and int64 codes ``[n]``.

    Raises:
        InputError: when there are not n labels, or one is neither a string nor an integer.
        TypeError: what is no sequence, or has no order.

    >>> label_codes(["de", "en", "de"], 3)
    (('de', 'en'), tensor([0, 1, 0]))
    """
    if isinstance(labels, (str, bytes)):
        raise InputError(f"{name} must be {n} labels, got one {type(labels).__name__}")
    if isinstance(labels, Tensor):
        with_numbers(labels, name)
        if labels.is_floating_point() or labels.is_complex():
            raise InputError(f"{name} must be strings or integers, got dtype {labels.dtype}")
        labels = labels.cpu().numpy()
    shape = getattr(labels, "shape", None)
    if isinstance(shape, tuple) and len(shape) != 1:  # a table is iterated by its columns' names
        raise InputError(f"{name} must have one axis, got shape {list(shape)}")
    if isinstance(labels, np.ndarray):
        without_mask(labels, name)
        if labels.dtype.kind in "iu" and len(labels) == n:
            return _number_codes(labels, device)
    if not isinstance(labels, Iterable):
        raise TypeError(f"{name} must be {n} labels, got {type(labels).__name__}")
    if isinstance(labels, Set | Mapping):
        raise TypeError(f"{name} must have an order, got a {type(labels).__name__}")
    as_list = next((m for m in ("tolist", "to_pylist") if hasattr(labels, m)), None)
    items: Sequence[Any] = list(labels) if as_list is None else getattr(labels, as_list)()
    if len(items) != n:
        raise InputError(f"{name} must have one label per point, {n}, got {len(items)}")
    table: dict[Label, int] = {}
    codes = []
    for item in items:
        if isinstance(item, bool) or not isinstance(item, (str, int, np.integer)):
            raise InputError(f"{name} must be strings or integers, got {item!r}")
        # plain values, not NumPy's or an enumeration's
        label = str.__str__(item) if isinstance(item, str) else int(item)
        codes.append(table.setdefault(label, len(table)))
    return tuple(table), torch.tensor(codes, dtype=torch.int64, device=device)


def language_codes(
    languages: Any, n: int, device: torch.device | str = "cpu"
) -> tuple[tuple[Label, ...], Tensor]:
    """`label_codes` of the languages of ``n`` points; InputError where they are all of one."""
    names, codes = label_codes(languages, n, device=device)
    if len(names) < 2:
        raise InputError(f"languages must name at least 2 languages; got 1: {names[0]!r}")
    return names, codes


def _number_codes(
    labels: np.ndarray, device: torch.device | str
) -> tuple[tuple[Label, ...], Tensor]:
    """`label_codes` of integers ``[n]``, without a look at each in Python."""
    found, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    order = np.argsort(first)
    code = np.empty_like(order)
    code[order] = np.arange(len(order))
    return tuple(found[order].tolist()), torch.from_numpy(code[inverse]).to(device)


def group_mean(values: Tensor, codes: Tensor, groups: int) -> Tensor:
    """Mean of a value per point over the points of each group, float64 ``[groups]``."""
    totals = torch.zeros(groups, dtype=torch.float64, device=values.device)
    totals.index_add_(0, codes, values.double())
    return totals / torch.bincount(codes, minlength=groups)


def one_metric_per_layer(layers: list[Tensor]) -> np.ndarray:
    """Stack one small tensor per layer and bring it to the host as NumPy: one copy in all."""
    return np.asarray(torch.stack(layers).cpu().numpy())
