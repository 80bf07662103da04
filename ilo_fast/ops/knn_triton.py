"""The Triton engine: certified neighbours of all layers in one sequence of launches.

prepare → filter → select → re-score → repair → sort, for as many layers at a time as the budget
holds, without a synchronisation before the last layer's statistics are read. Sets of points whose
bins do not fit go through in strips of rows.
"""

import os
from dataclasses import dataclass

import torch

from ilo_fast.errors import InputError
from ilo_fast.ops.memory import out_of_memory
from ilo_fast.ops.points import power_of_two, rounded_root
from ilo_fast.ops.request import EngineResult, NeighborStats, Request
from ilo_fast.ops.triton_config import (
    EXTRA,
    FilterConfig,
    RowConfig,
    accumulation,
    filter_config,
    padded_dims,
    row_config,
)

__all__ = ["MAX_DIMS", "MAX_POINTS", "Plan", "cannot_serve", "on_device", "plan", "search"]

MAX_DIMS = 16_384
MAX_POINTS = 1 << 24
_REPAIR_BYTES = 20 * 256 + 12 * 32
_BUDGET = 4 << 30  # bytes of bins in flight; halved whenever the device is out of memory


def cannot_serve(device: torch.device, request: Request | None = None) -> str:
    """Why this engine cannot serve a device or a request, "" when it can."""
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    if device.type != "cuda" and not interpreted:
        return f"Triton needs a CUDA device, not {device.type}"
    try:
        import triton  # noqa: F401
    except ImportError:
        return "the package triton is not installed"
    if device.type == "cuda" and torch.cuda.get_device_capability(device) < (7, 5):
        return "compute capability 7.5 or newer is needed"
    if request is not None:
        _, n, d = request.shape
        if d > MAX_DIMS:
            return f"at most {MAX_DIMS} dimensions, got {d}"
        if n > MAX_POINTS:
            return f"at most {MAX_POINTS} points, got {n}"
        if request.k > 128:
            return f"at most k = 128, got {request.k}"
    return ""


@dataclass(frozen=True)
class Plan:
    """layers at a time, rows a strip (``n_pad``: all, by symmetry), and the launches."""

    layers: int
    rows: int
    n_pad: int
    filter: FilterConfig
    row: RowConfig
    gamma: float


def plan(
    major: int,
    layers: int,
    n: int,
    d: int,
    k: int,
    budget: int = _BUDGET,
    launch: FilterConfig | None = None,
) -> Plan:
    """Choose launches and strips; a pure function of the shape, the card and the budget.

    ``launch`` is the filter's launch in place of the one chosen for the shape.

    >>> plan(9, 33, 30907, 4096, 5).rows == plan(9, 33, 30907, 4096, 5).n_pad
    True
    >>> plan(9, 1, 2_000_000, 1024, 5).rows < 20_000
    True
    """
    chosen = launch or filter_config(major, n, d, k)
    rows_config = row_config(major, d, k)
    multiple = chosen.row_multiple
    n_pad = -(-n // multiple) * multiple
    # Two tables of bins, a candidate list, and the partial lists of a repair.
    row_bytes = 8 * (n_pad // chosen.bin_width) + 8 * rows_config.capacity + _REPAIR_BYTES
    rows = min(n_pad, max(multiple, budget // row_bytes // multiple * multiple))
    together = 1
    if rows == n_pad:
        layer_bytes = row_bytes * n_pad + 2 * n_pad * (padded_dims(d) + EXTRA)
        together = min(layers, max(1, budget // layer_bytes))
    # One per cent over: the high halves alone can be a little longer than the rounded vector.
    gamma = 1.01 * accumulation(major).gamma(padded_dims(d) + 64)
    return Plan(together, rows, n_pad, chosen, rows_config, gamma)


def search(request: Request, launch: FilterConfig | None = None) -> EngineResult:
    """Serve a request on its device, every row proved (with ``exact=False``: most rows)."""
    layers, n, d = request.shape
    device = request.x.device
    major = torch.cuda.get_device_capability(device)[0] if device.type == "cuda" else 0
    made = _Results(request)
    budget = _BUDGET
    first = 0
    while first < layers:
        chosen = plan(major, layers - first, n, d, request.k, budget, launch)
        last = first + chosen.layers
        try:
            _search_layers(request, chosen, first, last, made)
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            if chosen.layers == 1 and chosen.rows == chosen.filter.row_multiple:
                raise InputError(_too_large(chosen, n, d)) from error
        else:
            first = last
            continue
        # Everything the failed layers held is free again by now; smaller strips go on.
        budget = min(budget, _bins_bytes(chosen)) // 2
        if device.type == "cuda":
            torch.cuda.empty_cache()  # the driver has no use of what torch keeps for itself
    return made.result()


def _bins_bytes(chosen: Plan) -> int:
    return 8 * chosen.layers * chosen.rows * (chosen.n_pad // chosen.filter.bin_width)


def _too_large(chosen: Plan, n: int, d: int) -> str:
    operands = 2 * chosen.n_pad * (padded_dims(d) + EXTRA) >> 20
    return (
        f"x is too large for the device's free memory: one layer of {n} points by {d} dimensions "
        f"needs {operands} MiB of float16 operands and {_bins_bytes(chosen) >> 20} MiB for the "
        "smallest strip; pass fewer points, or use backend='torch'"
    )


class _Results:
    """Outputs of a call; counts (int64 ``[2, layers]``, repaired and scored) stay on the device
    until ``result``."""

    def __init__(self, request: Request) -> None:
        layers, n, _ = request.shape
        device = request.x.device
        self.indices = torch.empty(layers, n, request.k, dtype=torch.int64, device=device)
        self.distances = torch.empty(layers, n, request.k, dtype=torch.float32, device=device)
        self.certified = torch.empty(layers, n, dtype=torch.bool, device=device)
        self.counts: list[torch.Tensor] = []

    def result(self) -> EngineResult:
        layers, n = self.certified.shape
        all_layers = self.counts[0] if len(self.counts) == 1 else torch.cat(self.counts, dim=1)
        counts = all_layers.tolist()
        return EngineResult(
            indices=self.indices,
            distances=self.distances,
            certified=self.certified,
            stats=NeighborStats(
                method=("filter",) * layers,
                rows_repaired=tuple(count / n for count in counts[0]),
                open_candidates=tuple(count / n for count in counts[1]),
                duplicates=(0,) * layers,
            ),
        )


def _search_layers(request: Request, chosen: Plan, first: int, last: int, made: _Results) -> None:
    from ilo_fast.ops.triton_filter import allocate, filter_bins
    from ilo_fast.ops.triton_order import sort_lists
    from ilo_fast.ops.triton_prepare import prepare
    from ilo_fast.ops.triton_repair import repair
    from ilo_fast.ops.triton_rescore import allocate_lists, rescore
    from ilo_fast.ops.triton_select import select

    x, largest = _scaled(request, first, last)
    layers, n, _ = x.shape
    with torch.no_grad(), on_device(x.device):
        operands = prepare(
            x, largest, request.metric,
            row_multiple=chosen.filter.row_multiple, gamma=chosen.gamma, config=chosen.row,
        )  # fmt: skip
        part = slice(first, last)
        lists = allocate_lists(layers, n, request.k, made.certified[part])
        bins = allocate(layers, n, chosen.n_pad, chosen.rows, chosen.filter, x.device)
        for first_row in range(0, n, chosen.rows):
            if first_row + chosen.rows > chosen.n_pad:
                rows = chosen.n_pad - first_row
                bins = allocate(layers, n, chosen.n_pad, rows, chosen.filter, x.device)
            filter_bins(
                operands, bins, chosen.filter,
                first_row=first_row, exclude_self=request.exclude_self,
            )  # fmt: skip
            candidates = select(operands, bins, request.k, first_row=first_row, config=chosen.row)
            unproved = rescore(
                x, operands, bins, candidates, lists,
                first_row=first_row, exact=request.exact, config=chosen.row,
            )  # fmt: skip
            repair(
                x, operands, bins, lists, unproved,
                first_row=first_row, exclude_self=request.exclude_self, config=chosen.row,
            )  # fmt: skip
        distances = made.distances[part]
        values = distances if request.metric == "cosine" else torch.empty_like(lists.value)
        sort_lists(lists, chosen.row, values=values, indices=made.indices[part])
        if request.metric != "cosine":
            wide = request.x.dtype == torch.float64
            distances.copy_(_distances(values, request.row_max[part], request.metric, wide))
        made.counts.append(lists.counts)


def on_device(device: torch.device) -> torch.cuda.device:
    """Triton launches on the current device; a context that does nothing off CUDA."""
    return torch.cuda.device(device if device.type == "cuda" else -1)


def _scaled(request: Request, first: int, last: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Layers with dense rows, and the magnitudes whose binary exponents the kernels scale by.

    A magnitude a row for cosine, ``[layers, n]``, one a layer otherwise, ``[layers, 1]``, as in
    ops.points. float64 layers are scaled here: their range needs two factors, and one float64
    number could not hold the product of the scale and a norm's inverse.
    """
    x, largest = request.x[first:last], request.row_max[first:last]
    if request.metric != "cosine":
        largest = largest.amax(dim=1, keepdim=True)
    if x.dtype == torch.float64:
        exponents = _exponents(largest)
        half = exponents // 2
        x = x * power_of_two(-half)[..., None]
        x.mul_(power_of_two(half - exponents)[..., None])
        largest = torch.full_like(largest, 0.5)  # exponent 0: nothing more to do
    if x.stride(2) != 1:
        x = x.contiguous()
    return x, largest


def _exponents(largest: torch.Tensor) -> torch.Tensor:
    return torch.frexp(largest).exponent.to(torch.int64)


def _distances(
    values: torch.Tensor, row_max: torch.Tensor, metric: str, wide: bool
) -> torch.Tensor:
    """Distances of values of scaled points, not cosine's; beyond float32's range inf or 0.

    values: float64 ``[layers, n, k]``; row_max: ``[layers, n]``, of the points as they were; wide:
    whether those are float64.
    """
    doublings = _exponents(row_max.amax(dim=1))
    if metric == "euclidean":
        values = rounded_root(2.0 * values)
    else:
        doublings = doublings * 2
    if not wide:  # within 2**±300
        return values * power_of_two(doublings)[:, None, None]
    for share in range(4):  # 2**2046 needs more than one float64 factor
        step = doublings // 4 + (doublings % 4 > share).to(torch.int64)
        values = values * power_of_two(step)[:, None, None]
    return values
