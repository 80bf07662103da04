// Sizes of the intersections of neighbour lists, for all pairs of layers of two sets.
//
// A thread serves a point of one layer of a: it keeps that list in registers and compares it with
// the point's list in every layer of b, so each pair of layers costs one reading of b's lists.
// Lists hold distinct indices. Sums go through a warp first: one atomic addition a warp and pair;
// sums of integers do not depend on the order of the threads.
//
// LIST (defined by the loader): the length of a's lists, 0 for one that registers do not hold.

#include "common.cuh"

#ifndef LIST
#define LIST 0
#endif

struct OwnList {
#if LIST > 0
  i64 entries[LIST];
  __device__ __forceinline__ OwnList(const i64* __restrict__ list, i64) {
#pragma unroll
    for (int i = 0; i < LIST; ++i) entries[i] = list[i];
  }
  __device__ __forceinline__ unsigned common(const i64* __restrict__ other, i64 k) const {
    unsigned count = 0;
    for (i64 j = 0; j < k; ++j) {
      const i64 wanted = other[j];
#pragma unroll
      for (int i = 0; i < LIST; ++i) count += entries[i] == wanted;
    }
    return count;
  }
#else
  const i64* entries;
  i64 length;
  __device__ __forceinline__ OwnList(const i64* __restrict__ list, i64 k)
      : entries(list), length(k) {}
  __device__ __forceinline__ unsigned common(const i64* __restrict__ other, i64 k) const {
    unsigned count = 0;
    for (i64 j = 0; j < k; ++j) {
      const i64 wanted = other[j];
      for (i64 i = 0; i < length; ++i) count += entries[i] == wanted;
    }
    return count;
  }
#endif
};

extern "C" __global__ void intersect_sum(
    const i64* __restrict__ a,  // [layers_a, n, k_a]
    const i64* __restrict__ b,  // [layers_b, n, k_b]
    u64* sums,                  // [layers_a, layers_b] in zeros, out: sum over points
    i64 layers_a, i64 layers_b, i64 n, i64 k_a, i64 k_b) {
  for (i64 layer = blockIdx.y; layer < layers_a; layer += gridDim.y) {
    // All threads of a block take every turn: a warp adds up together.
    for (i64 start = (i64)blockIdx.x * blockDim.x; start < n; start += item_step()) {
      const i64 point = start + threadIdx.x;
      const i64 readable = point < n ? point : n - 1;
      const OwnList own(a + (layer * n + readable) * k_a, k_a);
      for (i64 other = 0; other < layers_b; ++other) {
        const unsigned found = own.common(b + (other * n + readable) * k_b, k_b);
        const unsigned sum = warp_sum(point < n ? found : 0u);
        if (sum && first_of_warp()) atomicAdd(sums + layer * layers_b + other, (u64)sum);
      }
    }
  }
}

extern "C" __global__ void intersect_points(
    const i64* __restrict__ a, const i64* __restrict__ b,
    i64* __restrict__ sizes,  // [layers_a, layers_b, n] out
    i64 layers_a, i64 layers_b, i64 n, i64 k_a, i64 k_b) {
  for (i64 layer = blockIdx.y; layer < layers_a; layer += gridDim.y)
    for (i64 point = first_item(); point < n; point += item_step()) {
      const OwnList own(a + (layer * n + point) * k_a, k_a);
      for (i64 other = 0; other < layers_b; ++other)
        sizes[(layer * layers_b + other) * n + point] =
            own.common(b + (other * n + point) * k_b, k_b);
    }
}
