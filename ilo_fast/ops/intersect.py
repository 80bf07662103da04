"""Sizes of the intersections of neighbour lists, for every pair of layers of two sets.

|A_i ∩ B_i| is what mutual k-NN, Jaccard and neighbourhood overlap are made of; L layers against M
layers over the same points need L·M of them a point.
"""

from functools import cache

import torch

from ilo_fast.ops import cuda
from ilo_fast.ops.trial import agrees, passed

__all__ = ["intersect_torch", "intersection_sizes"]

_BLOCK_ELEMENTS = {"cpu": 1 << 20, "cuda": 1 << 26}
_GRID_Y = 65_535
_LONGEST = 32  # entries of a list that a thread holds in registers


def intersection_sizes(
    a: torch.Tensor, b: torch.Tensor, *, per_point: bool = False
) -> torch.Tensor:
    """Sizes of ``A_i ∩ B_i``: int64 ``[layers_a, layers_b]`` summed over points, or per point.

    Args:
        a: int64 ``[layers_a, n, k_a]``, distinct indices in each list.
        b: int64 ``[layers_b, n, k_b]``, likewise, over the same points.
        per_point: return ``[layers_a, layers_b, n]`` instead of the sum.

    Runs the CUDA kernel on a CUDA device with CuPy, plain torch elsewhere; as
    ``torch.ops.ilo_fast.intersection_sizes`` it works under ``torch.compile``.

    >>> a = torch.tensor([[[1, 2], [0, 2], [0, 1]]])
    >>> intersection_sizes(a, a).tolist(), intersection_sizes(a, a.flip(2), per_point=True).tolist()
    ([[6]], [[[2, 2, 2]]])
    """
    if torch.compiler.is_compiling():
        op = torch.ops.ilo_fast.intersection_sizes
        return op(a, b, per_point)  # type: ignore[no-any-return]
    # Not by the operator: a process's first one imports all of torch's compiler.
    serve = _intersection_sizes_cuda if a.is_cuda else intersect_torch
    return serve(a, b, per_point)


def intersect_torch(a: torch.Tensor, b: torch.Tensor, per_point: bool) -> torch.Tensor:
    """The same in plain torch, any device: the truth beside the kernel and the CPU's path."""
    (layers_a, n, k_a), (layers_b, _, k_b) = a.shape, b.shape
    shape = (layers_a, layers_b, n) if per_point else (layers_a, layers_b)
    sizes = torch.zeros(shape, dtype=torch.int64, device=a.device)
    elements = _BLOCK_ELEMENTS.get(a.device.type, _BLOCK_ELEMENTS["cuda"])
    step = max(1, elements // max(1, layers_b * k_a * k_b))
    for start in range(0, n, step):
        part = slice(start, start + step)
        other = b[:, part, None, :]
        for layer in range(layers_a):
            found = (a[layer, part, :, None] == other).sum(dim=(2, 3))
            if per_point:
                sizes[layer, :, part] = found
            else:
                sizes[layer] += found.sum(dim=1)
    return sizes


@torch.library.custom_op("ilo_fast::intersection_sizes", mutates_args=())
def _intersection_sizes(a: torch.Tensor, b: torch.Tensor, per_point: bool) -> torch.Tensor:
    return intersect_torch(a, b, per_point)


@_intersection_sizes.register_fake
def _(a: torch.Tensor, b: torch.Tensor, per_point: bool) -> torch.Tensor:
    shape = (a.shape[0], b.shape[0])
    return a.new_empty((*shape, a.shape[1]) if per_point else shape)


@_intersection_sizes.register_kernel("cuda")
def _intersection_sizes_cuda(a: torch.Tensor, b: torch.Tensor, per_point: bool) -> torch.Tensor:
    # No CuPy, or a kernel that fails its trial: the same numbers from plain torch.
    k = min(a.shape[2], _LONGEST + 8)  # longer lists than that run the same kernel
    if cuda.obstacle(a.device) or not passed(_trial, a.device, k, per_point):
        return intersect_torch(a, b, per_point)
    return _launch(a, b, per_point)


@cache
def _trial(device: torch.device, k: int, per_point: bool) -> str:
    """Why the kernel for lists of k should not serve on a device, "" when it may."""
    n = 300  # two blocks and a part
    entries = torch.arange(3 * n * k, device=device).view(3, n, k) % (2 * k + 1)
    a, b = entries[:2], entries.flip(1)[:, :, : k // 2 + 1] + 1

    def compare() -> bool:
        return torch.equal(_launch(a, b, per_point), intersect_torch(a, b, per_point))

    return agrees("intersect_points" if per_point else "intersect_sum", device, compare)


def _launch(a: torch.Tensor, b: torch.Tensor, per_point: bool) -> torch.Tensor:
    (layers_a, n, k_a), (layers_b, _, k_b) = a.shape, b.shape
    if per_point:
        name, sizes = "intersect_points", a.new_empty(layers_a, layers_b, n)
    else:
        name, sizes = "intersect_sum", a.new_zeros(layers_a, layers_b)
    cuda.launch(
        "intersect.cu", name, n,
        (a.contiguous(), b.contiguous(), sizes, layers_a, layers_b, n, k_a, k_b),
        device=a.device, defines=(f"LIST={k_a if k_a <= _LONGEST else 0}",),
        grid_y=max(1, min(layers_a, _GRID_Y)),
    )  # fmt: skip
    return sizes
