// Convolution and dense layers on packed bits, AVX-512: counts of 512 channels in bit slices, many pixels.
//
// A vector is one bit for each of 512 output channels. Counts are sums of carries: a full adder takes the
// parity of all disagreements so far and two more of them, gives the new parity (weight 1) and a carry
// (weight 2). Parities are linear, so neither needs an operation here:
//   - The parity q[j] of the activation bits up to bit j is computed once per pixel (make_parities()). The
//     weights' goes into the tables.
//   - The carry of bits 2i and 2i + 1 depends on the weights and on q[2i - 1], q[2i], q[2i + 1] alone: 8
//     vectors, in a table (avx512_vbmi_tables.cc) that is built once per tile and serves all of its pixels.
// What is left is to add 32 looked-up carries per word of K, again by full adders, into the planes of weight
// 2 to 64 (two words at a time, which halves their loads and stores): 32 loads and 75 operations for 64 * 512
// bits, where counting each vector would take 192. With indices and moves that is 183 instructions: 23 cycles
// where 8 start per cycle. A Zen 5 needs 30 to 32 (about 1050 bits per cycle; tables, parities and bounds
// come on top), and 26 without any index: it starts 4 ternary operations per cycle only if operands are old.
//
// The carry of weight 128 is added to upper planes, lazily: level l adds its pending and its new carry every
// 2^(l + 1) steps. At the end the count is compared with the bound bit by bit, for all channels at once, and
// the result is 512 bits of output.
//
// The planes of the weights are a second copy of them, as large as popcount's, which serves small batches.
// Making them from that one for every tile would take as long as building the tables of two words.
#include <immintrin.h>

#include <cstring>

#include "avx512_bits_layout.h"
#include "avx512_vbmi.h"
#include "avx512_vpopcntdq.h"
#include "simd_classes.h"
#include "simd_output.h"
#include "simd_source.h"
#include "simd_tiles.h"

namespace binarynet::avx512_vbmi {
namespace {

constexpr int32_t kPlaneBytes = 64;
constexpr int32_t kLowPlanes = 6;  // of weight 2 to 64
constexpr int32_t kStepWords = 2;  // words of K that are added at a time
constexpr int32_t kGroupWords = kSliceChannels / 64;

int32_t slice_groups(const Block& b) { return static_cast<int32_t>(divide_up(b.out_c, kSliceChannels)); }

// Steps through K; a word that is missing in the last one has weights and activations 0.
int64_t steps_of(const Block& b) { return divide_up(words_of_k(b), kStepWords); }

// Upper levels: of weight 128, 256, ... up to what the steps can carry.
int32_t levels_of(const Block& b) { return 64 - __builtin_clzll(static_cast<uint64_t>(steps_of(b))); }

int32_t count_planes(const Block& b) { return 1 + kLowPlanes + levels_of(b); }

// Of one slice group.
int64_t group_planes_bytes(const Block& b) { return steps_of(b) * kStepWords * kWordPlanesBytes; }

struct Prepared {
  BitsPrepared bits;
  uint8_t* planes;  // [slice group][words of all steps][64 bits of K][64]
  uint8_t* bounds;  // [slice group][class][count_planes][64]
  size_t bytes;
};

Prepared carve_prepared(const Block& b, void* memory) {
  Prepared p = {};
  p.bits = carve_bits_prepared(b, memory);
  Carver carver = {static_cast<uint8_t*>(memory), p.bits.bytes};
  p.planes = carver.take<uint8_t>(slice_groups(b) * group_planes_bytes(b));
  p.bounds = carver.take<uint8_t>(slice_groups(b) * p.bits.classes.count() * count_planes(b) * kPlaneBytes);
  p.bytes = carver.used;
  return p;
}

void prepare_planes(const Block& b, const Prepared& p) {
  alignas(64) uint8_t scratch[kWordPlanesBytes];
  uint8_t* to = p.planes;
  for (int32_t group = 0; group < slice_groups(b); ++group) {
    WordWeights weights = {};
    for (int32_t g = 0; g < kGroupWords && group * kGroupWords + g < channel_groups(b); ++g) {
      weights.vectors[g] = group_weights(b, p.bits, group * kGroupWords + g);
      weights.pairs[g] = group_pairs(b, group * kGroupWords + g);
    }
    for (int64_t word = 0; word < kStepWords * steps_of(b); ++word, to += kWordPlanesBytes) {
      if (word == words_of_k(b)) weights = {};
      slice_word(weights, to, scratch);
      for (int32_t g = 0; g < kGroupWords; ++g) weights.vectors[g] += 16 * weights.pairs[g];
    }
  }
}

// Bounds beyond any count act as the nearest count: a count is less than bound 0 never, than K + 1 always.
void prepare_bounds_planes(const Block& b, const Prepared& p) {
  const Classes& classes = p.bits.classes;
  const int64_t most = static_cast<int64_t>(b.kernel_h) * b.kernel_w * b.in_c + 1;
  const int32_t planes = count_planes(b);
  const int64_t bytes = slice_groups(b) * classes.count() * planes * kPlaneBytes;
  memset(p.bounds, 0, static_cast<size_t>(bytes));
  for (int64_t k = 0; k < classes.count(); ++k) {
    for (int64_t channel = 0; channel < classes.width; ++channel) {
      const int64_t bound = larger(0, smaller(most, classes.bounds[k * classes.width + channel]));
      const int64_t group = channel / kSliceChannels;
      uint8_t* to = p.bounds + (group * classes.count() + k) * planes * kPlaneBytes;
      for (int32_t plane = 0; plane < planes; ++plane) {
        to[plane * kPlaneBytes + channel % kSliceChannels / 8] |=
            static_cast<uint8_t>((bound >> plane & 1) << channel % 8);
      }
    }
  }
}

// Tables are built once per tile, so tiles are large; state of so many pixels stays in the second-level
// cache.
Tiling slice_tiling(const Block& b, int64_t batch) {
  return shared_tiling(b, batch, slice_groups(b), 512, 32, 1);
}

struct Workspace {
  uint8_t* source;     // activations, then their parities
  Pixel* pixels;       // of the tile. class_offset: into the bounds
  uint64_t* parities;  // [1 + words of all steps][stride]: bit j is that of all activation bits up to bit j
                       // of the word; the first row is 0
  uint8_t* parity;     // [64]: of the weights
  uint8_t* tables;
  uint8_t* low;     // [pixel][kLowPlanes][64]
  uint8_t* levels;  // [level][pixel][sum, pending][64]
  uint64_t* pool;   // [pixel][words of the group] if pooled
  int64_t stride;   // pixels of the largest tile, and two more for reading ahead
  int64_t level_bytes;
  size_t bytes;
};

Workspace carve_workspace(const Block& b, const Tiling& tiling, void* memory) {
  const int64_t pixels = most_pixels(b, tiling);
  const int64_t pixel_bytes = 8 * int64_t{b.in_words};
  Carver carver = {static_cast<uint8_t*>(memory), 0};
  Workspace w = {};
  w.source = carver.take<uint8_t>(tiling.flat ? pixels * words_of_k(b) * 8
                                              : source_bytes(b, tiling, pixel_bytes, 1));
  w.pixels = carver.take<Pixel>(pixels);
  w.stride = pixels + 2;
  w.parities = carver.take<uint64_t>((1 + kStepWords * steps_of(b)) * w.stride);
  w.parity = carver.take<uint8_t>(kPlaneBytes);
  w.tables = carver.take<uint8_t>(kStepWords * kAllTablesBytes);
  w.level_bytes = (2 * pixels + 10) * kPlaneBytes;  // not all levels of a pixel in the same lines of a cache
  w.low = carver.take<uint8_t>(pixels * kLowPlanes * kPlaneBytes);
  w.levels = carver.take<uint8_t>(levels_of(b) * w.level_bytes);
  w.pool = carver.take<uint64_t>(has_pool(b) ? pixels * kGroupWords : 0);
  w.bytes = carver.used;
  return w;
}

// Bit j of each word becomes the parity of its bits 0 to j. `from` may be `to`.
void make_parities(const uint8_t* from, int64_t words, uint8_t* to) {
  for (int64_t word = 0; word < words; word += 8) {
    const __mmask8 mask = static_cast<__mmask8>(0xff >> (8 - smaller(8, words - word)));
    __m512i x = _mm512_maskz_loadu_epi64(mask, from + 8 * word);
    x = _mm512_xor_si512(x, _mm512_maskz_slli_epi64(0xff, x, 1));
    x = _mm512_xor_si512(x, _mm512_maskz_slli_epi64(0xff, x, 2));
    x = _mm512_xor_si512(x, _mm512_maskz_slli_epi64(0xff, x, 4));
    x = _mm512_xor_si512(x, _mm512_maskz_slli_epi64(0xff, x, 8));
    x = _mm512_xor_si512(x, _mm512_maskz_slli_epi64(0xff, x, 16));
    x = _mm512_xor_si512(x, _mm512_maskz_slli_epi64(0xff, x, 32));
    _mm512_mask_storeu_epi64(to + 8 * word, mask, x);
  }
}

// From the parities within each word of the source to those of all words so far, pixels side by side.
void join_parities(const Source& source, int64_t words, const Workspace& w, int64_t pixels) {
  memset(w.parities, 0, static_cast<size_t>(w.stride) * sizeof(uint64_t));
  const uint64_t* before = w.parities;
  uint64_t* to = w.parities + w.stride;
  for (int32_t run = 0; run < source.runs; ++run) {
    const int64_t begin = run * source.run_stride;
    for (int64_t at = begin; at < begin + source.run_bytes; at += 8) {
      for (int64_t i = 0; i < pixels; ++i) {
        uint64_t word;
        memcpy(&word, w.pixels[i].taps + at, sizeof(word));
        to[i] = word ^ static_cast<uint64_t>(static_cast<int64_t>(before[i]) >> 63);
      }
      to[pixels] = to[pixels + 1] = 0;
      before = to;
      to += w.stride;
    }
  }
  if (words % kStepWords != 0) {
    for (int64_t i = 0; i < pixels; ++i) {
      to[i] = static_cast<uint64_t>(static_cast<int64_t>(before[i]) >> 63);
    }
    to[pixels] = to[pixels + 1] = 0;
  }
}

// A full adder: sum += b + c; returns the carry. Written out because the compiler makes more copies.
inline __attribute__((always_inline)) __m512i add(__m512i* sum, __m512i b, __m512i c) {
  __m512i carry;
  __asm__ volatile(
      "vmovdqa64 %2, %0\n\t"
      "vpternlogq $0xe8, %3, %1, %0\n\t"
      "vpternlogq $0x96, %3, %2, %1"
      : "=&v"(carry), "+v"(*sum)
      : "v"(b), "v"(c));
  return carry;
}

// The tables of one word, for one pixel.
struct Lookup {
  const uint8_t* middle;  // of the tables, so that displacements fit into a byte
  uint64_t parities;      // of the word and all before it
  uint64_t before;        // 0 or 1: that of all before it

  // The 3 parities that choose the row of an adder, times the bytes of a row. Rotations cost no copy.
  template <int kAdder>
  inline __attribute__((always_inline)) uint64_t row() const {
    if (kAdder == 0) return (2 * parities + before) << 6 & 0x1c0;
    uint64_t rotated;
    __asm__("rorx %2, %1, %0" : "=r"(rotated) : "r"(parities), "i"((2 * kAdder - 7) & 63));
    return static_cast<uint32_t>(rotated) & 0x1c0;
  }
  template <int kAdder>
  static constexpr int displacement() {
    return kAdder * kTableBytes - kAllTablesBytes / 2;
  }
};

struct Added {
  __m512i sum, carry;
};

// Counts in registers: planes of weight 2 to 64. The functions add the carries of adders [kAdder, kAdder + n)
// and return a carry of weight 2 * n. Three looked-up carries at a time are added to each other first: if
// each waited for the sum before, a step would take 66 cycles for that alone, at two per operation. All is
// volatile to keep the order, which fits the registers.
struct Sums {
  __m512i planes[kLowPlanes];

  template <int kAdder>
  static inline __attribute__((always_inline)) __m512i look_up(const Lookup& t) {
    __m512i carry;
    __asm__ volatile("vmovdqa64 %c2(%1,%3), %0"
                     : "=v"(carry)
                     : "r"(t.middle), "i"(Lookup::displacement<kAdder>()), "r"(t.row<kAdder>()));
    return carry;
  }
  template <int kAdder>
  static inline __attribute__((always_inline)) __m512i differ(const Lookup& t, __m512i other) {
    __m512i result;
    __asm__ volatile("vpxorq %c3(%2,%4), %1, %0"
                     : "=v"(result)
                     : "v"(other), "r"(t.middle), "i"(Lookup::displacement<kAdder>()), "r"(t.row<kAdder>()));
    return result;
  }
  template <int kAdder>
  static inline __attribute__((always_inline)) Added add3(const Lookup& t) {
    const __m512i first = look_up<kAdder>(t);
    const __m512i differ2 = differ<kAdder + 1>(t, first);
    __m512i sum = differ<kAdder + 2>(t, differ2);
    // differ2 ? third : first, with third = differ2 ^ sum
    __m512i carry = _mm512_ternarylogic_epi64(first, differ2, sum, 0x74);
    __asm__ volatile("" : "+v"(carry), "+v"(sum));
    return {sum, carry};
  }
  // sum: one more carry of weight 2.
  template <int kAdder>
  inline __attribute__((always_inline)) __m512i add1(const Lookup& t, __m512i sum) {
    const __m512i differs = differ<kAdder>(t, sum);
    __m512i carry = _mm512_ternarylogic_epi64(sum, differs, planes[0], 0xb8);  // differs ? plane : sum
    planes[0] = _mm512_xor_si512(planes[0], differs);
    __asm__ volatile("" : "+v"(carry), "+v"(planes[0]));
    return carry;
  }
  template <int kAdder>
  inline __attribute__((always_inline)) __m512i add16(const Lookup& t) {
    const Added a = add3<kAdder>(t);
    const Added b = add3<kAdder + 3>(t);
    const __m512i ab = add(&planes[0], a.sum, b.sum);
    const __m512i fours1 = add(&planes[1], a.carry, b.carry);
    const Added c = add3<kAdder + 6>(t);
    const __m512i fours2 = add(&planes[1], ab, c.carry);
    const __m512i eights1 = add(&planes[2], fours1, fours2);
    const Added d = add3<kAdder + 9>(t);
    const __m512i cd = add(&planes[0], c.sum, d.sum);
    const __m512i fours3 = add(&planes[1], cd, d.carry);
    const Added e = add3<kAdder + 12>(t);
    const __m512i last = add1<kAdder + 15>(t, e.sum);
    const __m512i fours4 = add(&planes[1], last, e.carry);
    return add(&planes[3], eights1, add(&planes[2], fours3, fours4));
  }
  inline __attribute__((always_inline)) __m512i add_word(const Lookup& t) {
    const __m512i first = add16<0>(t);
    return add(&planes[4], first, add16<16>(t));
  }
};

// What adding two words of K to the counts of a tile's pixels needs.
struct Step {
  const uint64_t* before;  // parities of the word before: [pixel]
  int64_t stride;          // from these to the next word's; two more pixels may be read
  int64_t pixels;
  const uint8_t* tables;
  uint8_t* low;
  uint8_t* levels;
  int64_t level_bytes;
  int32_t full;  // levels that have a pending carry, from the lowest on
  bool fresh;    // the last one of these has no sum yet
};

// kFirst: there are no counts yet. kFull: step.full; kManyFull: any.
constexpr int kManyFull = -1;
template <bool kFirst, int kFull>
__attribute__((noinline)) void add_words(const Step& step) {
  const uint64_t* before = step.before;
  const uint64_t* end = before + step.pixels;
  const int64_t stride = step.stride * 8;
  const uint8_t* tables = step.tables + kAllTablesBytes / 2;
  const uint8_t* tables2 = tables + kAllTablesBytes;
  uint8_t* low = step.low;
  uint8_t* levels = step.levels;
  const int32_t full = kFull == kManyFull ? step.full : kFull;
  const __mmask8 last_sum = step.fresh ? 0 : 0xff;
  __asm__ volatile("" ::: "memory");  // the tables, which are read by assembly
  uint64_t first = before[step.stride];
  uint64_t next_first = before[step.stride + 1];
  uint64_t second = before[step.stride * 2];
  uint64_t next_second = before[step.stride * 2 + 1];
  for (; before != end; ++before) {
    // Loads of 64 bytes take all load slots in program order: without reading ahead, indices come late.
    const Lookup lookup = {tables, first, *before >> 63};
    const Lookup lookup2 = {tables2, second, first >> 63};
    first = next_first;
    second = next_second;
    __asm__ volatile("movq 16(%1,%2), %0" : "=r"(next_first) : "r"(before), "r"(stride));
    __asm__ volatile("movq 16(%1,%2,2), %0" : "=r"(next_second) : "r"(before), "r"(stride));
    Sums sums;
#pragma GCC unroll 6
    for (int k = 0; k < kLowPlanes; ++k) {
      sums.planes[k] = kFirst ? _mm512_setzero_si512() : _mm512_load_si512(low + k * kPlaneBytes);
    }
    const __m512i carry1 = sums.add_word(lookup);
    __m512i carry = add(&sums.planes[5], carry1, sums.add_word(lookup2));
#pragma GCC unroll 6
    for (int k = 0; k < kLowPlanes; ++k) _mm512_store_si512(low + k * kPlaneBytes, sums.planes[k]);
    low += kLowPlanes * kPlaneBytes;
    uint8_t* level = levels;
    for (int32_t l = 0; l < full; ++l, level += step.level_bytes) {
      __m512i sum = _mm512_maskz_load_epi64(l + 1 < full ? 0xff : last_sum, level);
      carry = add(&sum, _mm512_load_si512(level + kPlaneBytes), carry);
      _mm512_store_si512(level, sum);
    }
    _mm512_store_si512(level + kPlaneBytes, carry);
    levels += 2 * kPlaneBytes;
  }
}

// What the channel groups of one tile share.
struct Job {
  const Block& b;
  const Prepared& p;
  const Workspace& w;
  const Tile& tile;
  Source source;
  void* out;
};

// Compares the counts of every pixel with its bounds and stores the bits.
void finish_pixels(const Job& job, int32_t group) {
  const Block& b = job.b;
  const Workspace& w = job.w;
  const int64_t pixels = tile_pixels(job.tile);
  const int32_t word = group * kGroupWords;
  const int32_t words = static_cast<int32_t>(smaller(kGroupWords, b.out_words - word));
  const __mmask8 mask = static_cast<__mmask8>(0xff >> (kGroupWords - words));
  const int32_t planes = count_planes(b);
  const uint8_t* bounds = job.p.bounds + group * job.p.bits.classes.count() * planes * kPlaneBytes;
  const uint64_t num_steps = static_cast<uint64_t>(steps_of(b));
  const __m512i parity = _mm512_load_si512(w.parity);
  const uint64_t* last = w.parities + words_of_k(b) * w.stride;
  __m512i falling = _mm512_setzero_si512();
  uint64_t* to = w.pool;
  int64_t stride = words;
  if (!has_pool(b)) {
    falling = _mm512_maskz_loadu_epi64(mask, b.falling + word);
    to = static_cast<uint64_t*>(job.out) + first_out_pixel(b, job.tile) * b.out_words + word;
    stride = b.out_words;
  }
  const uint8_t* low = w.low;
  for (int64_t i = 0; i < pixels; ++i, to += stride) {
    const uint8_t* bound = bounds + w.pixels[i].class_offset;
    // less: the planes so far, as a number, are less than the bound's.
    const auto compare = [&bound](__m512i less, __m512i plane) {
      const __m512i result = _mm512_ternarylogic_epi64(_mm512_load_si512(bound), plane, less, 0xb2);
      bound += kPlaneBytes;
      return result;
    };
    const __m512i ones = _mm512_xor_si512(parity, _mm512_set1_epi64(static_cast<int64_t>(last[i]) >> 63));
    __m512i less = compare(_mm512_setzero_si512(), ones);
    for (int k = 0; k < kLowPlanes; ++k, low += kPlaneBytes) less = compare(less, _mm512_load_si512(low));
    __m512i carry = _mm512_setzero_si512();
    const uint8_t* level = w.levels + i * 2 * kPlaneBytes;
    for (uint64_t pending = num_steps; pending != 0; pending >>= 1, level += w.level_bytes) {
      __m512i sum = _mm512_maskz_load_epi64(pending > 1 ? 0xff : 0, level);  // none yet: 0
      carry = add(&sum, (pending & 1) != 0 ? _mm512_load_si512(level + kPlaneBytes) : _mm512_setzero_si512(),
                  carry);
      less = compare(less, sum);
    }
    _mm512_mask_storeu_epi64(to, mask, _mm512_xor_si512(less, falling));
  }
  if (has_pool(b)) pool_bits(b, job.tile, w.pool, words, word, static_cast<uint64_t*>(job.out));
}

void run_slice_group(const Job& job, int32_t group) {
  const Block& b = job.b;
  const Workspace& w = job.w;
  const int64_t pixels = tile_pixels(job.tile);
  memset(w.parity, 0, kPlaneBytes);
  const uint8_t* planes = job.p.planes + group * group_planes_bytes(b);
  Step step = {w.parities, w.stride, pixels, w.tables, w.low, w.levels, w.level_bytes, 0, false};
  for (int64_t number = 0; number < steps_of(b); ++number) {
    for (int32_t k = 0; k < kStepWords; ++k, planes += kWordPlanesBytes) {
      build_tables(planes, w.parity, w.tables + k * kAllTablesBytes);
    }
    // Level l has a pending carry if bit l of the number of steps so far is 1.
    step.full = __builtin_ctzll(~static_cast<uint64_t>(number));
    step.fresh = number + 1 == int64_t{1} << step.full;
    const auto add_step = number == 0      ? add_words<true, 0>
                          : step.full == 0 ? add_words<false, 0>
                          : step.full == 1 ? add_words<false, 1>
                          : step.full == 2 ? add_words<false, 2>
                                           : add_words<false, kManyFull>;
    add_step(step);
    step.before += kStepWords * w.stride;
  }
  finish_pixels(job, group);
}

size_t prepared_bytes(const Block& block) { return carve_prepared(block, nullptr).bytes; }

void prepare(const Block& block, void* prepared) {
  avx512_vpopcntdq::kBits.prepare(block, prepared);
  const Prepared p = carve_prepared(block, prepared);
  prepare_planes(block, p);
  prepare_bounds_planes(block, p);
}

int64_t unit_count(const Block& block, int64_t batch) {
  return slice_tiling(block, batch).tiles * slice_groups(block);
}

size_t workspace_bytes(const Block& block, int64_t batch) {
  return carve_workspace(block, slice_tiling(block, batch), nullptr).bytes;
}

void run(const Block& block, const void* prepared, const void* in, void* out, int64_t batch,
         int64_t unit_begin, int64_t unit_end, void* workspace) {
  const int32_t groups = slice_groups(block);
  const Tiling tiling = slice_tiling(block, batch);
  const Prepared p = carve_prepared(block, const_cast<void*>(prepared));
  const Workspace w = carve_workspace(block, tiling, workspace);
  const auto run_groups = [&](const Tile& tile, int32_t first, int32_t last) {
    Job job = {block, p, w, tile, {}, out};
    job.source = load_source(block, tile, tiling.flat, in, 8 * int64_t{block.in_words}, 1, w.source);
    const int64_t pixels = tile_pixels(tile);
    const int64_t words =
        tiling.flat ? pixels * words_of_k(block) : job.source.image_stride * tile.images / 8;
    make_parities(job.source.base, words, w.source);
    job.source.base = w.source;
    list_pixels(job.source, p.bits.classes, tile, w.pixels);
    for (int64_t i = 0; i < pixels; ++i) {
      w.pixels[i].class_offset =
          w.pixels[i].class_offset / p.bits.classes.width * count_planes(block) * kPlaneBytes;
    }
    join_parities(job.source, words_of_k(block), w, pixels);
    for (int32_t group = first; group < last; ++group) run_slice_group(job, group);
  };
  for_each_tile(block, tiling, groups, unit_begin, unit_end, run_groups);
}

const Method kSlices = {"bit slices", unit_count, workspace_bytes, run};

const Method& method(const Block& b, int64_t batch) {
  // Fewer pixels do not pay for the tables. `binarynet bench gemm --shapes 24x4096x4096,24x1024x1024,...`,
  // with
  // --engine avx512_vpopcntdq beside: on a Zen 5 slices are ahead by 12 % and level; with 32 pixels ahead by
  // 23 % and 7 %.
  constexpr int64_t kLeastPixels = 24;
  const bool few = batch * b.conv_h * b.conv_w < kLeastPixels;
  return few ? avx512_vpopcntdq::kBits.method(b, batch) : kSlices;
}

}  // namespace

bool slices_possible(const Block& b) {
  if (b.input != BlockInput::bits || b.output != BlockOutput::bits) return false;
  // Measured like kLeastPixels: with 448 of 512 lanes in use slices are ahead by 9 %, with 384 behind by 4 %.
  const int64_t lanes = slice_groups(b) * int64_t{kSliceChannels};
  return int64_t{b.out_c} * 8 >= lanes * 7;
}

const Engine kWideBits = {prepared_bytes, prepare, method};

}  // namespace binarynet::avx512_vbmi
