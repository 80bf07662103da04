"""A trial of the Triton engine on the card at hand, before ``auto`` lets it serve there.

Once a process and configuration: the card's sums must lie within the bound's model of them, and
the very launches that the search would make must find, on a few thousand points made to be hard,
the neighbours that plain torch proves. What fails is said, and plain torch serves instead.
"""

from functools import cache

import torch

from ilo_fast.errors import InputError
from ilo_fast.ops import knn_torch, knn_triton
from ilo_fast.ops.half_products import worst_share
from ilo_fast.ops.knn_triton import on_device
from ilo_fast.ops.memory import out_of_memory
from ilo_fast.ops.request import Request
from ilo_fast.ops.trial import verdict
from ilo_fast.ops.triton_config import Accumulation, FilterConfig, accumulation, filter_config

__all__ = ["doubt"]

_POINTS = 2083  # odd: seventeen row tiles and a ragged edge


def doubt(device: torch.device, request: Request) -> str:
    """Why ``auto`` should not take the engine for a request on a device, "" when it may."""
    if device.type != "cuda":
        return "its trial needs a card"
    index = torch.cuda.current_device() if device.index is None else device.index
    card = torch.device("cuda", index)
    major = torch.cuda.get_device_capability(card)[0]
    _, n, d = request.shape
    launch = filter_config(major, n, d, request.k)
    try:
        return sums(card, accumulation(major), (64, 4160)) or lists(
            card, launch, d, request.k, request.metric, request.x.dtype, request.exclude_self
        )
    except (RuntimeError, InputError) as error:
        if not out_of_memory(error):
            raise
        return "no memory is left for its trial on this card"  # may have room another time


@cache
def sums(device: torch.device, model: Accumulation, widths: tuple[int, ...]) -> str:
    """Why the bound's model of the card's sums does not hold, "" when it does."""
    from ilo_fast.ops import triton_probe

    try:
        with on_device(device):
            share, _ = worst_share(triton_probe.product, device, model.gamma, widths)
    except Exception as error:
        return verdict(error, device)
    return "" if share <= 1 else f"this card's products are off by {share:.2g} times their bound"


@cache
def lists(
    device: torch.device,
    launch: FilterConfig,
    d: int,
    k: int,
    metric: str,
    dtype: torch.dtype,
    exclude_self: bool,
    n: int = _POINTS,
) -> str:
    """Why the engine's lists of hard points are not plain torch's, "" when they are."""
    points = hard_points(n, d).to(dtype).to(device)
    x = torch.stack([points, points.flip(0)])
    row_max = x.abs().amax(dim=2).double()
    request = Request(x, row_max, k, metric, exclude_self=exclude_self)
    try:
        found = knn_triton.search(request, launch)
    except Exception as error:
        return verdict(error, device)
    wrong = int((found.indices != knn_torch.search(request).indices).any(dim=2).sum())
    if not wrong and bool(found.certified.all()):
        return ""
    return f"on this card {wrong} of {2 * n} rows of its trial differ from float64's"


def hard_points(n: int, d: int) -> torch.Tensor:
    """float32 ``[n, d]``: two massive dimensions, clusters, near copies, equal points, zeros, and
    points whose distances to one are the same sum in other orders."""
    generator = torch.Generator().manual_seed(20250311)

    def normal(rows: int, columns: int) -> torch.Tensor:  # whatever torch's defaults are
        return torch.randn(rows, columns, generator=generator, dtype=torch.float32, device="cpu")

    x = normal(n, d)
    x += 2 * normal(37, d)[torch.arange(n, device="cpu") % 37]
    x[:, 0] += 60
    x[:, d // 2] -= 25
    fifth = n // 5
    x[fifth : 2 * fifth] = x[:fifth] * (1 + 1e-6 * normal(fifth, 1))
    x[2 * fifth : 2 * fifth + 40] = x[7]
    star = x[3 * fifth : 3 * fifth + 16]
    star.zero_()
    star[1:, 1:] = torch.stack([x[0, 1:].roll(step) for step in range(15)])
    star[:, 0] = 512
    x[-3:] = 0
    return x
