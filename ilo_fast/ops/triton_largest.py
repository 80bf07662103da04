# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator"
"""The Triton kernels of `ilo_fast.ops.largest`: a program holds whole rows, or whole columns.

A slice is a row or a column of one matrix; strides say which. Entry a of slice s of matrix p lies
at ``p * matrix + s * slice_stride + a * entry_stride``.
"""

import triton
import triton.language as tl

__all__ = ["largest_kernel", "rivals_kernel"]


@triton.jit
def _slices_of(form, matrix, slices, length, slice_stride, entry_stride,
               SLICES: tl.constexpr, LENGTH: tl.constexpr):  # fmt: skip
    """This program's slices ``[SLICES, LENGTH]``, -inf outside."""
    own = tl.program_id(0) * SLICES + tl.arange(0, SLICES)
    entry = tl.arange(0, LENGTH)
    start = form + tl.program_id(1).to(tl.int64) * matrix
    inside = (own < slices)[:, None] & (entry < length)[None, :]
    return tl.load(
        start + own[:, None] * slice_stride + entry[None, :] * entry_stride,
        mask=inside,
        other=-float("inf"),
    )


@triton.jit
def largest_kernel(
    form,  # float32, P matrices
    values,  # float32 [P, slices, KEEP]
    places,  # int64, as values
    matrix,
    slices,
    length,
    slice_stride,
    entry_stride,
    KEEP: tl.constexpr,
    SLICES: tl.constexpr,
    LENGTH: tl.constexpr,
):
    left = _slices_of(form, matrix, slices, length, slice_stride, entry_stride, SLICES, LENGTH)
    own = tl.program_id(0) * SLICES + tl.arange(0, SLICES)
    out = (tl.program_id(1).to(tl.int64) * slices + own) * KEEP
    entry = tl.arange(0, LENGTH)
    for rank in range(KEEP):
        best, place = tl.max(left, axis=1, return_indices=True)
        tl.store(values + out + rank, best, mask=own < slices)
        tl.store(places + out + rank, place.to(tl.int64), mask=own < slices)
        left = tl.where(entry[None, :] == place[:, None], -float("inf"), left)


@triton.jit
def rivals_kernel(
    form,  # float32, P matrices
    shift,  # float32 [P, length]
    out,  # float32 [P, slices]
    matrix,
    slices,
    length,
    slice_stride,
    entry_stride,
    SLICES: tl.constexpr,
    LENGTH: tl.constexpr,
):
    held = _slices_of(form, matrix, slices, length, slice_stride, entry_stride, SLICES, LENGTH)
    pair = tl.program_id(1).to(tl.int64)
    entry = tl.arange(0, LENGTH)
    less = tl.load(shift + pair * length + entry, mask=entry < length, other=0.0)
    own = tl.program_id(0) * SLICES + tl.arange(0, SLICES)
    tl.store(out + pair * slices + own, tl.max(held - less[None, :], axis=1), mask=own < slices)
