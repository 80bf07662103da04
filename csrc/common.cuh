// Names shared by the kernels. No headers: run-time compilation has none of the host's.
#pragma once

typedef long long i64;
typedef unsigned long long u64;

// First item of a thread and its step in a one-dimensional grid-stride loop.
__device__ __forceinline__ i64 first_item() { return (i64)blockIdx.x * blockDim.x + threadIdx.x; }
__device__ __forceinline__ i64 item_step() { return (i64)gridDim.x * blockDim.x; }

// Sum over the lanes of a warp, all of which call it; and whether a thread is its warp's first.
__device__ __forceinline__ unsigned warp_sum(unsigned value) {
  for (int step = 16; step; step /= 2) value += __shfl_xor_sync(0xffffffffu, value, step);
  return value;
}
__device__ __forceinline__ bool first_of_warp() { return (threadIdx.x & 31) == 0; }
