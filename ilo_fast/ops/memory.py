"""Which errors mean that memory is short: torch, the CUDA driver, Triton and CuPy each say it."""

import torch

__all__ = ["out_of_memory"]

_SAID = (
    "can't allocate memory",  # torch's allocator of host memory
    "CUDA error: out of memory",
    "Triton Error [CUDA]: out of memory",  # a kernel's module or its stack
    "CUBLAS_STATUS_ALLOC_FAILED",  # a product's workspace
    "CUDA_ERROR_OUT_OF_MEMORY",  # CuPy's words: a kernel's module or its stack
)


def out_of_memory(error: BaseException | None) -> bool:
    """Whether an error, or what caused it, is that memory is short.

    >>> out_of_memory(RuntimeError("Triton Error [CUDA]: out of memory"))
    True
    >>> out_of_memory(RuntimeError("CUDA_ERROR_OUT_OF_MEMORY: out of memory"))
    True
    >>> out_of_memory(RuntimeError("out of resource: shared memory"))
    False
    """
    if error is None:
        return False
    if isinstance(error, torch.OutOfMemoryError) or any(text in str(error) for text in _SAID):
        return True
    return out_of_memory(error.__cause__)
