// Languages of neighbours: bit masks, bridge counts and reach unions in one pass.
//
// A thread serves a point: it gathers the languages of its k neighbours into WORDS 64-bit words,
// clears its own, and adds to its language's results. Sums and unions of integers do not depend on
// the order of the threads, so the results are the same bit for bit on every run.
//
// WORDS (defined by the loader): 64-bit words that hold one bit a language.

#include "common.cuh"

#ifndef WORDS
#define WORDS 1
#endif

extern "C" __global__ void languages_of_neighbours(
    const i64* __restrict__ indices,   // [layers, n, k] neighbours of every point
    const i64* __restrict__ language,  // [n] language of every point, 0 .. languages - 1
    u64* __restrict__ masks,           // [layers, n, WORDS] out: languages seen, own left out
    u64* bridging,                     // [layers, languages] in zeros, out: points that bridge
    u64* reach,                        // [layers, languages, WORDS] in zeros, out: unions
    i64 layers, i64 n, i64 k, i64 languages, i64 threshold) {
  const i64 total = layers * n;
  for (i64 item = first_item(); item < total; item += item_step()) {
    const i64 layer = item / n;
    const i64 own = language[item - layer * n];
    u64 mask[WORDS];
#pragma unroll
    for (int word = 0; word < WORDS; ++word) mask[word] = 0;
    const i64* neighbours = indices + item * k;
    for (i64 j = 0; j < k; ++j) {
      const i64 seen = language[neighbours[j]];
      const u64 bit = 1ull << (seen & 63);
#pragma unroll
      for (int word = 0; word < WORDS; ++word)  // fixed indices keep the mask in registers
        if (word == (int)(seen >> 6)) mask[word] |= bit;
    }
    const u64 home = 1ull << (own & 63);
    u64* unions = reach + (layer * languages + own) * WORDS;
    i64 count = 0;
#pragma unroll
    for (int word = 0; word < WORDS; ++word) {
      if (word == (int)(own >> 6)) mask[word] &= ~home;
      masks[item * WORDS + word] = mask[word];
      count += __popcll(mask[word]);
      // Bits are only ever added, so a stale read costs an atomic and loses nothing.
      const u64 known = *(volatile u64*)(unions + word);
      if ((known & mask[word]) != mask[word]) atomicOr(unions + word, mask[word]);
    }
    if (count >= threshold) atomicAdd(bridging + layer * languages + own, 1ull);
  }
}
