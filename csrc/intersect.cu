// Sizes of the intersections of neighbour lists, for all pairs of layers of two sets.
//
// A block serves one pair of layers and some of the points, a thread one point at a time. Lists
// hold distinct indices. Lists of a point stay in the first-level cache while its threads compare.

#include "common.cuh"

__device__ __forceinline__ i64 common_entries(
    const i64* __restrict__ a, const i64* __restrict__ b, i64 k_a, i64 k_b) {
  i64 count = 0;
  for (i64 i = 0; i < k_a; ++i) {
    const i64 wanted = a[i];
    for (i64 j = 0; j < k_b; ++j) count += b[j] == wanted;
  }
  return count;
}

extern "C" __global__ void intersect_sum(
    const i64* __restrict__ a,  // [layers_a, n, k_a]
    const i64* __restrict__ b,  // [layers_b, n, k_b]
    u64* sums,                  // [layers_a, layers_b] in zeros, out: sum over points
    i64 layers_a, i64 layers_b, i64 n, i64 k_a, i64 k_b) {
  for (i64 pair = blockIdx.y; pair < layers_a * layers_b; pair += gridDim.y) {
    const i64* first = a + (pair / layers_b) * n * k_a;
    const i64* second = b + (pair % layers_b) * n * k_b;
    u64 own = 0;
    for (i64 point = first_item(); point < n; point += item_step())
      own += common_entries(first + point * k_a, second + point * k_b, k_a, k_b);
    if (own) atomicAdd(sums + pair, own);
  }
}

extern "C" __global__ void intersect_points(
    const i64* __restrict__ a, const i64* __restrict__ b,
    i64* __restrict__ sizes,  // [layers_a, layers_b, n] out
    i64 layers_a, i64 layers_b, i64 n, i64 k_a, i64 k_b) {
  for (i64 pair = blockIdx.y; pair < layers_a * layers_b; pair += gridDim.y) {
    const i64* first = a + (pair / layers_b) * n * k_a;
    const i64* second = b + (pair % layers_b) * n * k_b;
    for (i64 point = first_item(); point < n; point += item_step())
      sizes[pair * n + point] =
          common_entries(first + point * k_a, second + point * k_b, k_a, k_b);
  }
}
