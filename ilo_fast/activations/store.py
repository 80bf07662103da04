"""`ActivationStore`: a vector for each layer and sentence, in memory, on the device or on disk."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ilo_fast.activations.space import free_memory, human
from ilo_fast.arguments import at_least_0, at_least_1, check_choice
from ilo_fast.errors import InputError
from ilo_fast.shown import Shown

__all__ = ["PLACES", "ActivationStore", "Sink", "TensorSink", "choose_place", "pinning_fits"]

PLACES = ("auto", "memory", "cuda", "disk")
# Shares of what is free that the states may take: the neighbour search needs room beside them on a
# device, the rest of the machine needs some of the host's.
_DEVICE_SHARE, _HOST_SHARE = 0.3, 0.6


@dataclass(frozen=True, eq=False, repr=False)
class ActivationStore(Shown):
    """Sentence vectors of some layers of one model over one corpus.

    ``states`` is float32 ``[layers, points, dim]``, points language-major; on the CPU, on the CUDA
    device, or a view of the file ``folder/states.safetensors``, read as it is touched. ``layers``
    names its rows (entries of ``hidden_states``); ``language_ids`` and ``sentence_ids`` are int64
    ``[points]``; ``record`` says how it was made.

    Raises:
        InputError, TypeError: where these do not fit together; the message names which.
    """

    states: Tensor
    layers: tuple[int, ...]
    languages: tuple[str, ...]
    language_ids: npt.NDArray[np.int64]
    sentence_ids: npt.NDArray[np.int64]
    record: dict[str, Any]
    folder: Path | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.states, Tensor):
            raise TypeError(f"states must be a tensor, got {type(self.states).__name__}")
        if self.states.ndim != 3 or not self.states.is_floating_point():
            raise InputError(
                "states: expected floating numbers [layers, points, dim], got "
                f"{self.states.dtype} {list(self.states.shape)}"
            )
        if not isinstance(self.record, Mapping):
            raise TypeError(f"record must be a mapping, got {type(self.record).__name__}")
        count, points, _ = self.states.shape
        layers = [at_least_0(layer, "layers") for layer in self.layers]
        if len(layers) != count or len(set(layers)) != count:
            raise InputError(
                f"layers: expected {count} different numbers, one of each layer of states, got "
                f"{layers}"
            )
        names = list(self.languages)
        if len(set(names)) != len(names) or not all(isinstance(name, str) for name in names):
            raise InputError(f"languages: expected different names, got {names}")
        for name in ("language_ids", "sentence_ids"):
            shape = np.shape(getattr(self, name))
            if shape != (points,):
                raise InputError(
                    f"{name}: expected one of each of the {points} points of states, got shape "
                    f"{list(shape)}"
                )

    @property
    def n_languages(self) -> int:
        return len(self.languages)

    @property
    def n_sentences(self) -> int:
        """Of each language."""
        return len(self.sentence_ids) // max(1, len(self.languages))

    def groups(
        self, max_bytes: int | None = None, *, device: torch.device | str | None = None
    ) -> Iterator[tuple[tuple[int, ...], Tensor]]:
        """Consecutive layers, as many at a time as fit in ``max_bytes`` (at least one).

        Yields ``(layers, states [group, points, dim])``, on ``device`` where one is given. The
        default for ``max_bytes`` is a quarter of what is free there. Layers on disk are read only
        when their group comes.

        >>> import numpy as np, torch
        >>> from ilo_fast import ActivationStore
        >>> ids = np.zeros(4, dtype=np.int64)
        >>> store = ActivationStore(torch.ones(3, 4, 2), (0, 5, 9), ("eng",), ids, ids, {})
        >>> [(layers, tuple(states.shape)) for layers, states in store.groups(max_bytes=64)]
        [((0, 5), (2, 4, 2)), ((9,), (1, 4, 2))]
        """
        place = self.states.device if device is None else torch.device(device)
        if max_bytes is None:
            max_bytes = max(1, free_memory(place) // 4)
        max_bytes = at_least_1(max_bytes, "max_bytes")
        layer_bytes = self.states[0].numel() * self.states.element_size()
        size = max(1, max_bytes // max(1, layer_bytes))
        for first in range(0, len(self.layers), size):
            part = self.states[first : first + size]
            yield self.layers[first : first + size], part.to(place)

    def by_layer(
        self, layers: Collection[int] | None = None, *, device: torch.device | str | None = None
    ) -> Iterator[tuple[int, Tensor]]:
        """Each layer, or each of ``layers``, and its states ``[points, dim]``, ascending.

        The states come on ``device`` if one is given.
        """
        for row in sorted(range(len(self.layers)), key=self.layers.__getitem__):
            if layers is None or self.layers[row] in layers:
                yield self.layers[row], self.states[row].to(device or self.states.device)


class Sink(Protocol):
    """Where batches of pooled states go."""

    def write(self, start: int, rows: npt.NDArray[np.int64], block: Tensor) -> None:
        """Keep ``block`` ``[layers, batch, dim]`` as points ``rows``, the places from start on."""

    def missing(self, start: int, stop: int) -> list[tuple[int, int]]:
        """The parts of batch ``(start, stop)`` that are not there yet."""

    def finish(self, record: dict[str, Any]) -> Tensor:
        """All batches are there: the states ``[layers, points, dim]``."""

    def close(self) -> None:
        """There will be no more batches; also after `finish`."""


class TensorSink:
    """States in one tensor, in host memory (pinned or not) or on a CUDA device."""

    def __init__(self, shape: tuple[int, int, int], device: torch.device, *, pin: bool) -> None:
        # an ordinary tensor even inside the caller's inference mode: another thread fills it
        with torch.inference_mode(False):
            self.states = torch.empty(shape, dtype=torch.float32, device=device, pin_memory=pin)

    def write(self, start: int, rows: npt.NDArray[np.int64], block: Tensor) -> None:
        index = torch.from_numpy(rows).to(self.states.device)
        self.states.index_copy_(1, index, block)

    def missing(self, start: int, stop: int) -> list[tuple[int, int]]:
        return [(start, stop)]

    def finish(self, record: dict[str, Any]) -> Tensor:
        return self.states

    def close(self) -> None:
        pass


def pinning_fits(need: int) -> bool:
    """Whether ``need`` bytes of host memory may be pinned, by what is free.

    torch takes pinned memory in powers of two, up to twice of what is asked for.
    """
    taken = 1 << max(0, need - 1).bit_length()
    return taken <= _HOST_SHARE * free_memory(torch.device("cpu"))


def choose_place(store: str, need: int, device: torch.device, folder: Path | None) -> str:
    """``"memory"``, ``"cuda"`` or ``"disk"`` for ``need`` bytes of states, by what is free.

    Raises:
        InputError: on an unknown place, one that cannot be had, or states that fit nowhere.
    """
    check_choice(store, "store", PLACES)
    host = torch.device("cpu")
    if store == "auto":
        if folder is not None:
            return "disk"
        if device.type == "cuda" and need <= _DEVICE_SHARE * free_memory(device):
            return "cuda"
        if need <= _HOST_SHARE * free_memory(host):
            return "memory"
        raise InputError(
            f"store: the states take {human(need)}, of {human(free_memory(host))} free memory; "
            "give a folder to keep them in (folder=...), or fewer layers"
        )
    if store == "disk" and folder is None:
        raise InputError("folder: expected a folder for store='disk', got None")
    if store != "disk" and folder is not None:
        raise InputError(f"folder: only store='disk' or 'auto' uses it, got store={store!r}")
    if store == "cuda" and device.type != "cuda":
        raise InputError(f"store: 'cuda' needs a model on a CUDA device, this one is on {device}")
    if store != "disk":
        place = device if store == "cuda" else host
        if need > free_memory(place):
            raise InputError(
                f"store: the states take {human(need)}, {human(free_memory(place))} are free "
                f"for store={store!r}"
            )
    return store
