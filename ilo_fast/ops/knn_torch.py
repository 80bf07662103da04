"""The plain-torch engine, CPU and any CUDA card: certified neighbours, layer by layer."""

import torch

from ilo_fast.ops.centred import centre
from ilo_fast.ops.exact import expand, list_length, pair_values
from ilo_fast.ops.full import rank_rows
from ilo_fast.ops.points import prepare_points
from ilo_fast.ops.precision import ieee_products
from ilo_fast.ops.request import EngineResult, NeighborStats, Request

__all__ = ["cannot_serve", "search"]


def cannot_serve(device: torch.device, request: Request | None = None) -> str:
    """Plain torch needs float64, which Apple's MPS lacks."""
    return "" if device.type in ("cpu", "cuda") else f"no float64 on {device.type}"


def search(request: Request) -> EngineResult:
    """Serve a request with float64 rows only."""
    layers, n, _ = request.shape
    k, device = request.k, request.x.device
    indices = torch.empty(layers, n, k, dtype=torch.int64, device=device)
    distances = torch.empty(layers, n, k, dtype=torch.float32, device=device)
    opened, duplicates = [], []
    with ieee_products(device):
        for layer in range(layers):
            points = prepare_points(request.x[layer], request.row_max[layer], request.metric)
            length = list_length(points, k, request.exclude_self)
            lists = torch.empty(points.u, length, dtype=torch.int64, device=device)
            values = torch.empty(points.u, length, dtype=torch.float64, device=device)
            if points.u == 1:
                only = torch.zeros(1, dtype=torch.int64, device=device)
                lists[0] = torch.arange(length, device=device)
                values[0] = pair_values(points, only, only)
                compared = 0
            else:
                compared = rank_rows(
                    points,
                    centre(points),
                    torch.arange(points.u, device=device),
                    order=None,
                    k=k,
                    length=length,
                    exclude_self=request.exclude_self,
                    out_indices=lists,
                    out_values=values,
                )
            indices[layer], distances[layer] = expand(
                points, lists, values, k=k, exclude_self=request.exclude_self
            )
            opened.append(compared / points.u)
            duplicates.append(points.n - points.u)
    return EngineResult(
        indices=indices,
        distances=distances,
        certified=torch.ones(layers, n, dtype=torch.bool, device=device),
        stats=NeighborStats(
            method=("float64",) * layers,
            rows_repaired=(0.0,) * layers,
            open_candidates=tuple(opened),
            duplicates=tuple(duplicates),
        ),
    )
