# mypy: disable-error-code="no-untyped-def,untyped-decorator"
"""The Triton kernel of `ilo_fast.ops.segment_pool`: one program a sentence and block of columns."""

import triton
import triton.language as tl

__all__ = ["segment_pool_kernel"]


@triton.jit
def segment_pool_kernel(
    states,  # [tokens, dim]
    offsets,  # int64 [sentences + 1]
    out,  # float32 [sentences, dim]
    dim,
    row_stride,
    WEIGHTED: tl.constexpr,
    BLOCK_TOKENS: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
):
    sentence = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * BLOCK_DIM + tl.arange(0, BLOCK_DIM)
    inside = columns < dim
    first = tl.load(offsets + sentence)
    end = tl.load(offsets + sentence + 1)
    steps = tl.arange(0, BLOCK_TOKENS).to(tl.int64)
    total = tl.zeros((BLOCK_DIM,), tl.float32)
    token = first
    while token < end:
        rows = token + steps  # int64: tokens * dim passes 2^31
        block = tl.load(
            states + rows[:, None] * row_stride + columns[None, :],
            mask=(rows < end)[:, None] & inside[None, :],
            other=0.0,
        ).to(tl.float32)
        if WEIGHTED:
            block = block * (rows - first + 1).to(tl.float32)[:, None]
        total += tl.sum(block, axis=0)
        token += BLOCK_TOKENS
    length = (end - first).to(tl.float32)
    weight = length
    if WEIGHTED:
        weight = length * (length + 1.0) * 0.5
    # `/` of float32 is approximate on a card
    tl.store(out + sentence * dim + columns, tl.div_rn(total, weight), mask=inside)
