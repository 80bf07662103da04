"""The few CUDA words that csrc uses, for the host's C++ compiler: threads run one by one."""

__all__ = ["WORDS"]

WORDS = """
#include <cstdint>
#define __global__
#define __device__
#define __forceinline__ inline
#define __restrict__
struct Place { long long x, y, z; };
static Place blockIdx, threadIdx, gridDim, blockDim;
static int __popcll(unsigned long long v) { return __builtin_popcountll(v); }
static unsigned __shfl_xor_sync(unsigned, unsigned, int) { return 0; }  // warps of one thread
template <class T> T atomicAdd(T* at, T v) { T old = *at; *at += v; return old; }
template <class T> T atomicOr(T* at, T v) { T old = *at; *at |= v; return old; }
"""
