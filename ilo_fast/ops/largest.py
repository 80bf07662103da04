"""The largest entries of every row or column of some matrices, and the best rival of each.

Matrices are float32 ``[P, R, C]``, dense. ``dim=2`` looks along rows, ``dim=1`` along columns; S is
the number of slices, R or C.

- `largest_entries`: the keep largest of each slice, descending, and where they are.
- `best_rivals`: the largest of each slice after each entry's own number is taken off,
  ``max_a (x_a - shift_a)``, each difference rounded to float32.

The truth is plain torch, by way of the maxima of strided bins: a slice's K largest entries lie in
the K bins with the largest maxima. On a card a Triton kernel reads every entry once and takes the
largest from registers, K times.
"""

from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from ilo_fast.ops.segment_pool import obstacle
from ilo_fast.ops.trial import agrees, passed

__all__ = ["BINS", "best_rivals", "largest_entries", "obstacle"]

BINS = 64
_LONGEST = 4096  # entries of a slice that registers hold


def largest_entries(form: Tensor, keep: int, dim: int) -> tuple[Tensor, Tensor]:
    """Values float32 ``[P, S, keep]`` and places int64; of equal entries any.

    Plain torch wants the length of a slice to be a multiple of `BINS`, and keep at most that.
    """
    if _kernel_serves(form, dim, _largest_trial, keep):
        return launch_largest(form, keep, dim)
    return (_largest_of_rows if dim == 2 else _largest_of_columns)(form, keep)


def best_rivals(form: Tensor, shift: Tensor, dim: int, room: Callable[[], Tensor]) -> Tensor:
    """float32 ``[P, S]``; shift ``[P, length]``; plain torch writes to ``room()``, like form."""
    if _kernel_serves(form, dim, _rivals_trial):
        return launch_rivals(form, shift, dim)
    return torch.sub(form, shift.unsqueeze(3 - dim), out=room()).amax(dim=dim)


def _largest_of_rows(form: Tensor, keep: int) -> tuple[Tensor, Tensor]:
    count, rows, columns = form.shape
    cells = form.view(count, rows, columns // BINS, BINS)
    _, bins = _highest(cells.amax(dim=2), keep)  # [P, R, keep]
    inside = cells.gather(3, bins[:, :, None, :].expand(-1, -1, columns // BINS, -1))
    return _largest_inside(inside.flatten(2), bins)


def _largest_of_columns(form: Tensor, keep: int) -> tuple[Tensor, Tensor]:
    count, rows, columns = form.shape
    cells = form.view(count, rows // BINS, BINS, columns)
    maxima = cells.amax(dim=1).transpose(1, 2).contiguous()
    _, bins = _highest(maxima, keep)  # [P, C, keep]
    asked = bins.transpose(1, 2)[:, None].expand(-1, rows // BINS, -1, -1)
    inside = cells.gather(2, asked)  # [P, slots, keep, C]
    return _largest_inside(inside.flatten(1, 2).transpose(1, 2).contiguous(), bins)


def _largest_inside(inside: Tensor, bins: Tensor) -> tuple[Tensor, Tensor]:
    """The largest of ``[P, S, slots * keep]`` and where they were before bins were picked."""
    keep = bins.shape[2]
    values, places = _highest(inside, keep)
    return values, places // keep * BINS + bins.gather(2, places % keep)


def _highest(entries: Tensor, keep: int) -> tuple[Tensor, Tensor]:
    """``entries.topk(keep)`` of float32 numbers, dense."""
    if not entries.is_cpu:
        return entries.topk(keep, dim=-1)
    # NumPy's partition of integers uses a processor's vectors, which torch's topk does not: each
    # entry's bits, in the order of the numbers, with its place below them.
    bits = entries.view(torch.int32)
    ordered = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    length = entries.shape[-1]
    packed = (ordered.long() << 32) | torch.arange(length, device=entries.device)
    packed.numpy().partition(length - keep, axis=-1)
    kept = packed[..., length - keep :]
    kept.numpy().sort(axis=-1)
    places = kept.flip(-1) & 0xFFFFFFFF
    return entries.gather(-1, places), places


def _kernel_serves(form: Tensor, dim: int, trial: Callable[..., str], *options: int) -> bool:
    if obstacle(form.device) or form.shape[dim] > _LONGEST:
        return False
    return passed(trial, form.device, _launch(form, dim)[1], dim, *options)


@cache
def _largest_trial(device: torch.device, length: int, dim: int, keep: int) -> str:
    """Why the kernel should not serve slices up to a length on a device, "" when it may."""

    def compare() -> bool:
        form, lines, _ = _hard_case(device, length, dim)
        values, places = launch_largest(form, keep, dim)
        right = torch.equal(values, lines.topk(keep, dim=2).values)
        right &= torch.equal(lines.gather(2, places), values)
        return right and not bool((places.sort(dim=2).values.diff(dim=2) == 0).any())

    return agrees(f"the {keep} largest entries along dimension {dim}", device, compare)


@cache
def _rivals_trial(device: torch.device, length: int, dim: int) -> str:
    """The same of the kernel of `best_rivals`."""

    def compare() -> bool:
        form, lines, shift = _hard_case(device, length, dim)
        return torch.equal(launch_rivals(form, shift, dim), (lines - shift[:, None]).amax(dim=2))

    return agrees(f"best rivals along dimension {dim}", device, compare)


def _hard_case(device: torch.device, length: int, dim: int) -> tuple[Tensor, Tensor, Tensor]:
    """Matrices with many equal entries and masked ones, their slices as rows, a shift for each.

    Sizes are multiples of 16, as those of the pair scores are, so that the same kernels run.
    """
    shape = (2, 32, length - 16)
    entries = torch.arange(2 * 32 * shape[2], dtype=torch.float32, device=device)
    lines = entries.mul(0.37).sin().mul(8).round().mul(0.125).view(shape)
    lines[0, :, ::7] = -1.0e30
    form = lines if dim == 2 else lines.transpose(1, 2).contiguous()
    return form, lines, lines[:, 1].contiguous()


def _launch(form: Tensor, dim: int) -> tuple[int, int, int]:
    """Slices a program holds, the power of two that holds a slice, and warps."""
    length = 1 << max(6, (form.shape[dim] - 1).bit_length())
    if dim == 2:  # a row is a warp's own up to 1,024 entries: its maxima cross no barrier
        return 1, length, max(1, length // 1024)
    # columns side by side are read together: 32 to 64 bytes a row
    return (16 if length <= 2048 else 8), length, 8


@cache
def _kernels() -> Any:
    return import_module("ilo_fast.ops.triton_largest")


def launch_largest(form: Tensor, keep: int, dim: int) -> tuple[Tensor, Tensor]:
    """Run the Triton kernel of `largest_entries`, for any sizes up to its longest slice."""
    slices = form.shape[3 - dim]
    values = form.new_empty(form.shape[0], slices, keep)
    places = torch.empty_like(values, dtype=torch.int64)
    _run(_kernels().largest_kernel, form, dim, values, places, KEEP=keep)
    return values, places


def launch_rivals(form: Tensor, shift: Tensor, dim: int) -> Tensor:
    """Run the Triton kernel of `best_rivals`."""
    out = form.new_empty(form.shape[0], form.shape[3 - dim])
    _run(_kernels().rivals_kernel, form, dim, shift.contiguous(), out)
    return out


def _run(kernel: Any, form: Tensor, dim: int, *others: Tensor, **options: int) -> None:
    slices, length = form.shape[3 - dim], form.shape[dim]
    at_once, held, warps = _launch(form, dim)
    # Triton launches on the current device, which the matrices need not lie on.
    with torch.cuda.device(form.device if form.is_cuda else -1):
        kernel[-(-slices // at_once), form.shape[0]](
            form,
            *others,
            form.stride(0),
            slices,
            length,
            form.stride(3 - dim),
            form.stride(dim),
            **options,
            SLICES=at_once,
            LENGTH=held,
            num_warps=warps,
            enable_fp_fusion=False,  # said, as defaults differ: nothing is fused here
        )
