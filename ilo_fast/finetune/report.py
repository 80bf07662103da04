"""What was frozen: names, counts, shares, and the way back."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from torch import nn

__all__ = ["FreezeReport", "FrozenPart"]


@dataclass(frozen=True)
class FrozenPart:
    """One frozen part: ``"embeddings"``, ``"layer 3"``, ``"final norm"`` or ``"head"``.

    ``names`` are those of ``model.named_parameters()``; ``parameters`` counts numbers, not tensors;
    ``share`` is the part of the whole model's; ``already`` counts those frozen before.
    """

    part: str
    names: tuple[str, ...]
    parameters: int
    share: float
    already: int


@dataclass(frozen=True)
class FreezeReport:
    """What `freeze` froze; undoes it when left as a context manager, or by `undo`.

    Attributes:
        parts: in the model's order; a tied parameter is counted once, under its first name.
        parameters, frozen, trainable: numbers in the model, those that take no gradient now, and
            those that do.
        n_layers: layers in the stack that layers were frozen of.
        notes: what a reader should know: tied names, quantised weights, parts left out.
    """

    parts: tuple[FrozenPart, ...]
    parameters: int
    frozen: int
    trainable: int
    n_layers: int
    notes: tuple[str, ...]
    _changed: list[nn.Parameter] = field(default_factory=list, repr=False, compare=False)
    _cleanup: list[Any] = field(default_factory=list, repr=False, compare=False)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all frozen parameters."""
        return tuple(name for part in self.parts for name in part.names)

    @property
    def share(self) -> float:
        """The share of the model's parameters that take no gradient."""
        return self.frozen / self.parameters

    def undo(self) -> None:
        """Let the parameters that `freeze` changed take gradients again; twice is once."""
        for parameter in self._changed:
            parameter.requires_grad_(True)
        self._changed.clear()
        while self._cleanup:
            self._cleanup.pop()()

    def __enter__(self) -> "FreezeReport":
        return self

    def __exit__(self, *error: object) -> None:
        self.undo()

    def to_dict(self) -> dict[str, Any]:
        """The report as plain numbers and text, for a run record."""
        return {
            "parameters": self.parameters,
            "frozen": self.frozen,
            "trainable": self.trainable,
            "n_layers": self.n_layers,
            "parts": [
                {"part": part.part, "parameters": part.parameters, "names": list(part.names)}
                for part in self.parts
            ],
            "notes": list(self.notes),
        }

    def __str__(self) -> str:
        rows = [("part", "tensors", "parameters", "share")]
        rows += [
            (name, f"{tensors:,}", f"{parameters:,}", f"{parameters / self.parameters:.2%}")
            for name, tensors, parameters in _merge_layers(self.parts)
        ]
        rows += [
            ("frozen", "", f"{self.frozen:,}", f"{self.share:.2%}"),
            ("trainable", "", f"{self.trainable:,}", f"{1 - self.share:.2%}"),
            ("model", "", f"{self.parameters:,}", "100.00%"),
        ]
        widths = [max(len(row[column]) for row in rows) for column in range(4)]
        lines = [
            "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip()
            for row in rows
        ]
        return "\n".join([*lines, *self.notes])


def _merge_layers(parts: Iterable[FrozenPart]) -> list[tuple[str, int, int]]:
    """Runs of layers as one row: (name, tensors, parameters)."""
    rows: list[tuple[str, int, int]] = []
    start = end = -2
    kind = ""
    for part in parts:
        label, _, number = part.part.rpartition(" ")
        tensors, parameters = len(part.names), part.parameters
        if label.endswith("layer") and label == kind and int(number) == end + 1:
            end = int(number)
            _, before_tensors, before = rows.pop()
            row = (f"{label}s {start}–{end}", before_tensors + tensors, before + parameters)
        else:
            kind, start = (label, int(number)) if label.endswith("layer") else ("", -2)
            end = start
            row = (part.part, tensors, parameters)
        rows.append(row)
    return rows
