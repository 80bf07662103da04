"""The ILO score of points that arrive in pieces: batches, workers, ranks."""

from collections.abc import Mapping, Sequence
from typing import Any, SupportsIndex

import torch
import torch.distributed as dist

from ilo_fast.arguments import at_least_1, true_or_false
from ilo_fast.errors import InputError
from ilo_fast.ilo import ILOScores, ilo_scores
from ilo_fast.lists import Label, label_codes
from ilo_fast.neighbors import knn
from ilo_fast.ops import dispatch
from ilo_fast.ops.request import check_metric
from ilo_fast.shown import counted
from ilo_fast.vectors import state_layers

__all__ = [
    "ILO",
    "SHARED",
    "agreed",
    "canonical_order",
    "check_alike",
    "check_fit",
    "check_options",
    "label_rank",
    "score_points",
]

SHARED = ("k", "threshold", "metric")  # what scores of one set must have in common


class ILO:
    """Gather hidden states batch by batch, then score them as one set.

    ILO needs every point's neighbours among all others, so the state is a copy of the points, on
    the device they came on. `compute` puts them in an order of their own before the search, by
    language and then by value, so that any split into batches, any order of them and any order
    of merging gives one and the same result (points tied to rounding fall to the first in that
    order).

    Args:
        k: neighbours a point.
        threshold: other languages a point must see to bridge.
        metric: ``"cosine"``, ``"euclidean"`` or ``"inner_product"``.
        backend: as for `ilo_fast.knn`.
        sync: under an initialised ``torch.distributed``, `compute` gathers the points of all
            ranks, and every rank returns the result of all.

    Raises:
        ValueError, TypeError: a k or threshold that is no whole number above 0, another metric or
            backend.

    >>> metric = ILO(k=2, threshold=1)
    >>> metric.update(torch.tensor([[1.0, 0.0], [0.9, 0.1]]), ["en", "de"])
    >>> metric.update(torch.tensor([[0.0, 1.0], [0.1, 0.9]]), ["en", "de"])
    >>> scores = metric.compute()
    >>> scores.languages, scores.ilo.tolist()
    (('de', 'en'), [[1.0, 1.0]])
    """

    def __init__(
        self,
        *,
        k: SupportsIndex = 5,
        threshold: int = 3,
        metric: str = "cosine",
        backend: str = "auto",
        sync: bool = True,
    ) -> None:
        self.k, self.threshold = check_options(k, threshold, metric, backend)
        self.metric = metric
        self.backend = backend
        self.sync = true_or_false(sync, "sync")
        self.reset()

    def __repr__(self) -> str:
        return f"ILO(k={self.k}, threshold={self.threshold}, metric={self.metric!r}, n={self.n})"

    @property
    def n(self) -> int:
        """Points gathered on this process."""
        return sum(len(labels) for _, labels in self._batches)

    def reset(self) -> None:
        """Forget all points."""
        # points and labels in one entry, so that threads that add batches cannot part them
        self._batches: list[tuple[torch.Tensor, list[Label]]] = []

    def update(self, hidden: Any, languages: Any) -> None:
        """Add a batch.

        Args:
            hidden: pooled hidden states ``[n, d]`` or ``[layers, n, d]``, any float dtype; a
                torch tensor, or a NumPy, CuPy or DLPack array.
            languages: n labels, strings or integers.

        Raises:
            InputError: on another number of layers, dimensions or labels, or another device.
            HiddenStateError: NaN or infinity, naming layer and row.
        """
        states = state_layers(hidden, "hidden").detach()
        names, codes = label_codes(languages, states.shape[1])
        if self._batches:
            check_fit(states, self._batches[0][0])
        self._batches.append((states.clone(), [names[code] for code in codes.tolist()]))

    def merge_state(self, incoming: "ILO | Mapping[str, Any]") -> None:
        """Add the points of another `ILO`, or of its `state`.

        Raises:
            TypeError: anything else.
            InputError: as `update` does, this very `ILO`, one of another k, threshold or metric, or
                a mapping that is not such a state.
        """
        if not isinstance(incoming, ILO | Mapping):
            raise TypeError(f"incoming must be an ILO or its state; got {type(incoming).__name__}")
        if incoming is self:
            raise InputError(
                "incoming must be another ILO; got itself, whose points would be twice"
            )
        if isinstance(incoming, ILO):
            check_alike(self, incoming)
        state = incoming.state() if isinstance(incoming, ILO) else incoming
        missing = [key for key in ("hidden", "languages") if key not in state]
        if missing:
            raise InputError(
                "incoming must be the state of an ILO, with hidden and languages; got one without "
                + " and ".join(missing)
            )
        if state["hidden"] is not None:
            self.update(state["hidden"], state["languages"])

    def state(self) -> dict[str, Any]:
        """All points as ``{"hidden": [layers, n, d] or None, "languages": [...]}``."""
        batches = list(self._batches)
        hidden = torch.cat([states for states, _ in batches], dim=1) if batches else None
        return {"hidden": hidden, "languages": [label for _, labels in batches for label in labels]}

    def compute(self) -> ILOScores:
        """Score all points gathered so far.

        Languages come sorted, integers before strings: which appears first would depend on the
        order of merging.

        Raises:
            InputError: no points, fewer than k + 1 of them, one language only, or another k,
                threshold or metric on another rank.
        """
        state = self.state()
        hidden, languages = state["hidden"], state["languages"]
        if self.sync and dist.is_available() and dist.is_initialized():
            options = {name: getattr(self, name) for name in SHARED}
            hidden, languages = _gather(hidden, languages, options)
        return score_points(self, hidden, languages)


def check_options(k: SupportsIndex, threshold: int, metric: str, backend: str) -> tuple[int, int]:
    """k and threshold as Python's; raises on what `ILO` cannot use."""
    check_metric(metric)
    dispatch.check_name(backend)
    return at_least_1(k, "k"), at_least_1(threshold, "threshold")


def label_rank(label: Label) -> tuple[bool, Label]:
    """What labels are sorted by: integers before strings."""
    return isinstance(label, str), label


def score_points(how: Any, hidden: torch.Tensor | None, languages: Sequence[Label]) -> ILOScores:
    """The scores of all points gathered, languages sorted; ``how`` has the options of `ILO`.

    Raises:
        InputError: as `ILO.compute`.
    """
    if hidden is None:
        raise InputError("nothing to compute: update was never called")
    if hidden.shape[1] == 1:
        raise InputError("nothing to compute: one point has no neighbours")
    order = canonical_order(hidden, languages)
    found = knn(hidden[:, order], how.k, metric=how.metric, backend=how.backend)
    ordered = [languages[index] for index in order.tolist()]
    return ilo_scores(found, ordered, threshold=how.threshold)


def canonical_order(hidden: torch.Tensor, languages: Sequence[Label]) -> torch.Tensor:
    """An order of the points that depends on their labels and values only.

    Sorted by label (integers before strings), then by a 128-bit fingerprint of the values; equal
    points of a language are interchangeable. Computed where the points are.

    Args:
        hidden: ``[layers, n, d]``.
        languages: n labels.

    Returns:
        int64 ``[n]`` on the points' device.

    >>> canonical_order(torch.zeros(1, 3, 2), ["b", "a", "b"])
    tensor([1, 0, 2])
    """
    names, codes = label_codes(languages, hidden.shape[1], device=hidden.device)
    ranked = sorted(range(len(names)), key=lambda code: label_rank(names[code]))
    rank = torch.empty(len(names), dtype=torch.int64, device=hidden.device)
    rank[torch.tensor(ranked, device=hidden.device)] = torch.arange(len(names), device=rank.device)
    order = torch.arange(hidden.shape[1], device=hidden.device)
    for key in (*_fingerprints(hidden), rank[codes]):
        order = order[torch.argsort(key[order], stable=True)]
    return order


def _fingerprints(hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Two 64-bit hashes of every point's values; integer sums wrap, exact in any order."""
    _, n, d = hidden.shape
    generator = torch.Generator().manual_seed(0)
    hashes = torch.zeros(2, n, dtype=torch.int64, device=hidden.device)
    for layer in hidden:
        odd = torch.randint(-(2**62), 2**62, (2, d), generator=generator, device="cpu") * 2 + 1
        odd = odd.to(hidden.device)
        for rows in torch.split(torch.arange(n, device=hidden.device), max(1, (1 << 22) // d)):
            bits = (layer[rows].double() + 0.0).view(torch.int64)  # -0.0 is 0.0
            bits = bits ^ (bits >> 29)
            for number in range(2):
                hashes[number, rows] += (bits * odd[number]).sum(dim=1)
                bits = bits ^ (bits >> 31)
    return hashes[0], hashes[1]


def _gather(
    hidden: torch.Tensor | None, languages: list[Label], options: dict[str, Any]
) -> tuple[torch.Tensor | None, list[Label]]:
    """The points of all ranks; ranks may hold different numbers of them, also none."""
    ranks = dist.get_world_size()
    mine = None if hidden is None else (hidden.shape[0], hidden.shape[2], hidden.dtype)
    reports: list[Any] = [None] * ranks
    dist.all_gather_object(reports, (mine, languages, options))
    common = agreed([shape for shape, _, _ in reports], [said for _, _, said in reports])
    if common is None:
        return None, []
    layers, d, dtype = common
    longest = max(len(labels) for _, labels, _ in reports)
    on_cuda = dist.get_backend() == "nccl"
    device = torch.device("cuda", torch.cuda.current_device()) if on_cuda else torch.device("cpu")
    padded = torch.zeros(layers, longest, d, dtype=dtype, device=device)
    if hidden is not None:
        padded[:, : hidden.shape[1]] = hidden
    parts = [torch.empty_like(padded) for _ in range(ranks)]
    dist.all_gather(parts, padded)
    joined = [part[:, : len(labels)] for part, (_, labels, _) in zip(parts, reports, strict=True)]
    everything = torch.cat(joined, dim=1)
    if hidden is not None:
        everything = everything.to(hidden.device)
    return everything, [label for _, labels, _ in reports for label in labels]


def agreed(
    shapes: Sequence[tuple[int, int, torch.dtype] | None], options: Sequence[Mapping[str, Any]]
) -> tuple[int, int, torch.dtype] | None:
    """Layers, dimensions and a dtype that holds the points of all ranks; None where none has any.

    Every rank raises InputError where they differ in an option, in layers or in dimensions.
    """
    for name in options[0]:
        said = [of_rank[name] for of_rank in options]
        if any(one != said[0] for one in said):
            raise InputError(f"{name} must be the same on every rank; got {said}")
    some = [shape for shape in shapes if shape is not None]
    if not some:
        return None
    if len({shape[:2] for shape in some}) > 1:
        raise InputError(f"ranks hold points of different layers and dimensions: {some}")
    layers, d, dtype = some[0]
    for _, _, other in some[1:]:
        dtype = torch.promote_types(dtype, other)
    return layers, d, dtype


def check_alike(own: Any, incoming: Any) -> None:
    """InputError where two metrics cannot share one set of points."""
    for name in SHARED:
        mine, other = getattr(own, name), getattr(incoming, name)
        if mine != other:
            raise InputError(f"incoming must have {name} {mine!r} like this ILO; got {other!r}")


def check_fit(new: torch.Tensor, old: torch.Tensor) -> None:
    """InputError where a batch ``[layers, n, d]`` cannot be joined to another."""
    if new.shape[0] != old.shape[0] or new.shape[2] != old.shape[2]:
        raise InputError(
            f"hidden must have {counted(old.shape[0], 'layer')} of "
            f"{counted(old.shape[2], 'dimension')} like the batches before; "
            f"got {new.shape[0]} and {new.shape[2]}"
        )
    if new.device != old.device:
        raise InputError(
            f"hidden must be on {old.device} like the batches before; got {new.device}"
        )
