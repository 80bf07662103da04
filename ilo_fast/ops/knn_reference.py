"""The public research code's neighbours, for comparison: float32, no certificate.

What it does (HLTCHKUST/interlingua, the code behind arXiv 2503.11280): one float32 matrix of all
distances, the k + 1 smallest of each row, the first of them dropped as "self". With duplicates
the first need not be the point itself: then a real neighbour is lost and the point stays in its
own list. Strips of rows keep the memory bounded here; the values are those of one product.
"""

import torch

from ilo_fast.ops.precision import ieee_products
from ilo_fast.ops.request import EngineResult, NeighborStats, Request

__all__ = ["cannot_serve", "search"]

_STRIP_BYTES = 256 << 20


def cannot_serve(device: torch.device, request: Request | None = None) -> str:
    """The research code knows cosine and euclidean, always drops a column and is not exact."""
    if request is None:
        return ""
    if request.metric == "inner_product":
        return "the public code knows the metrics cosine and euclidean only"
    if not request.exclude_self:
        return "the public code always drops the first neighbour as self"
    return ""


def search(request: Request) -> EngineResult:
    """k + 1 smallest float32 distances of each row, first column dropped."""
    layers, n, _ = request.shape
    k, device = request.k, request.x.device
    strip = max(1, _STRIP_BYTES // (8 * n))
    with ieee_products(device):
        indices = torch.empty(layers, n, k, dtype=torch.int64, device=device)
        distances = torch.empty(layers, n, k, dtype=torch.float32, device=device)
        for layer in range(layers):
            points = request.x[layer].to(torch.float32)
            if request.metric == "cosine":
                points = torch.nn.functional.normalize(points, p=2.0, dim=1)
            for start in range(0, n, strip):
                rows = points[start : start + strip]
                if request.metric == "cosine":
                    distance = torch.matmul(rows, points.T).neg_().add_(1.0)
                else:
                    # Ask for the mode one call on all points would take by itself.
                    mode = "use_mm_for_euclid_dist" if n > 25 else "donot_use_mm_for_euclid_dist"
                    distance = torch.cdist(rows, points, p=2.0, compute_mode=mode)
                best = torch.topk(-distance, k + 1, dim=1)
                indices[layer, start : start + strip] = best.indices[:, 1:]
                distances[layer, start : start + strip] = -best.values[:, 1:]
    return EngineResult(
        indices=indices,
        distances=distances,
        certified=torch.zeros(layers, n, dtype=torch.bool, device=device),
        stats=NeighborStats(
            method=("reference",) * layers,
            rows_repaired=(0.0,) * layers,
            open_candidates=(float(n),) * layers,
            duplicates=(0,) * layers,
        ),
    )
