// Names shared by the kernels. No headers: run-time compilation has none of the host's.
#pragma once

typedef long long i64;
typedef unsigned long long u64;

// First item of a thread and its step in a one-dimensional grid-stride loop.
__device__ __forceinline__ i64 first_item() { return (i64)blockIdx.x * blockDim.x + threadIdx.x; }
__device__ __forceinline__ i64 item_step() { return (i64)gridDim.x * blockDim.x; }
