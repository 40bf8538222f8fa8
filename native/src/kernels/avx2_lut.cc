#include "avx2_lut.h"

#include <immintrin.h>

#include <cstring>

namespace binarynet::avx2 {
namespace {

// The constant tables: rows of 16 bytes, see avx2_lut.h.
struct alignas(64) PairTable {
  uint8_t rows[256][kTableRow];
};
struct alignas(64) SingleTable {
  uint8_t rows[16][kTableRow];
};

constexpr uint8_t popcount4(unsigned value) {
  return static_cast<uint8_t>((value & 1) + (value >> 1 & 1) + (value >> 2 & 1) + (value >> 3 & 1));
}

constexpr PairTable make_pair_table() {
  PairTable table = {};
  for (unsigned pair = 0; pair < 256; ++pair) {
    for (unsigned a = 0; a < 16; ++a) {
      table.rows[pair][a] =
          static_cast<uint8_t>(popcount4(a ^ (pair & 15)) | popcount4(a ^ (pair >> 4)) << 4);
    }
  }
  return table;
}

constexpr SingleTable make_single_table() {
  SingleTable table = {};
  for (unsigned n = 0; n < 16; ++n) {
    for (unsigned a = 0; a < 16; ++a) table.rows[n][a] = popcount4(a ^ n);
  }
  return table;
}

constexpr PairTable kPairTable = make_pair_table();
constexpr SingleTable kSingleTable = make_single_table();

inline __m256i table_row(const void* table, uint16_t offset) {
  return _mm256_broadcastsi128_si256(
      _mm_load_si128(reinterpret_cast<const __m128i*>(static_cast<const uint8_t*>(table) + offset)));
}

// The weights of a vector's channels for one group, one nibble per byte.
template <bool kPacked>
inline __attribute__((always_inline)) __m256i group_nibbles(const uint8_t* group, int v, __m256i nibble) {
  if (!kPacked) return load(group + 32 * v);
  const __m256i both = load(group + 32 * (v / 2));
  return _mm256_and_si256(v % 2 == 0 ? both : _mm256_srli_epi16(both, 4), nibble);
}

template <int kVectors, bool kPacked>
void lut_block_vectors(const LutBlock& b) {
  constexpr int kGroupBytes = 32 * (kPacked ? (kVectors + 1) / 2 : kVectors);
  const __m256i nibble = _mm256_set1_epi8(15);
  const int64_t pairs = (b.sink.cols + 1) / 2;
  uint16_t* saved = b.sums;
  for (int64_t image = 0; image < b.images; ++image) {
    for (int64_t row = 0; row < b.sink.rows; ++row) {
      const uint16_t* pair_index = b.index + image * b.image_stride + row * b.row_stride;
      for (int64_t pair = 0; pair < pairs; ++pair, pair_index += b.pair_stride) {
        __m256i total[kVectors], high[kVectors];
#pragma GCC unroll 4
        for (int v = 0; v < kVectors; ++v) total[v] = high[v] = _mm256_setzero_si256();
        const uint8_t* w = b.weights;
        for (int32_t s = 0; s < b.num_segments; ++s) {
          const uint16_t* index = pair_index + b.segments[s].index;
          const uint16_t* end = index + 3 * b.segments[s].triples;
          do {
            const __m256i row0 = table_row(&kPairTable, index[0]);
            const __m256i row1 = table_row(&kPairTable, index[1]);
            const __m256i row2 = table_row(&kPairTable, index[2]);
#pragma GCC unroll 4
            for (int v = 0; v < kVectors; ++v) {
              const __m256i w0 = group_nibbles<kPacked>(w, v, nibble);
              const __m256i w1 = group_nibbles<kPacked>(w + kGroupBytes, v, nibble);
              const __m256i w2 = group_nibbles<kPacked>(w + 2 * kGroupBytes, v, nibble);
              __m256i x = _mm256_shuffle_epi8(row0, w0);
              x = _mm256_add_epi8(x, _mm256_shuffle_epi8(row1, w1));
              x = _mm256_add_epi8(x, _mm256_shuffle_epi8(row2, w2));
              add_bytes(total[v], x);
              add_bytes(high[v], _mm256_and_si256(_mm256_srli_epi16(x, 4), nibble));
            }
            index += 3;
            w += 3 * kGroupBytes;
          } while (index != end);
        }
#pragma GCC unroll 4
        for (int v = 0; v < kVectors; ++v) {
          const __m256i sixteen_high = _mm256_slli_epi16(_mm256_and_si256(high[v], nibble), 4);
          total[v] = _mm256_sub_epi8(total[v], sixteen_high);
        }
        flush_column<kVectors>(b.sink, total, saved, image, row, 2 * pair);
        flush_column<kVectors>(b.sink, high, saved + 32 * kVectors, image, row, 2 * pair + 1);
        saved += 2 * 32 * kVectors;
      }
    }
  }
}

template <int kVectors>
void unpack_groups_vectors(const uint8_t* packed, int32_t groups, uint8_t* unpacked) {
  constexpr int kPackedVectors = (kVectors + 1) / 2;
  const __m256i nibble = _mm256_set1_epi8(15);
  for (int32_t group = 0; group < groups; ++group) {
#pragma GCC unroll 2
    for (int v = 0; v < kPackedVectors; ++v) {
      const __m256i both = load(packed + 32 * v);
      store(unpacked + 64 * v, _mm256_and_si256(both, nibble));
      if (2 * v + 1 < kVectors) {
        store(unpacked + 64 * v + 32, _mm256_and_si256(_mm256_srli_epi16(both, 4), nibble));
      }
    }
    packed += 32 * kPackedVectors;
    unpacked += 32 * kVectors;
  }
}

// Out of line, or what follows spoils the code of the loop. Counts of `groups` groups (a
// multiple of 3) for one column, into 16-bit sums. A byte takes 63 groups, 16 bits take 16380.
template <int kVectors, bool kPrefetch>
__attribute__((noinline)) void column_sums(const uint8_t* packed, const uint16_t* index, int64_t groups,
                                           Sums<kVectors>* sums) {
  constexpr int kPackedVectors = (kVectors + 1) / 2;
  const __m256i nibble = _mm256_set1_epi8(15);
  const __m256i zero = _mm256_setzero_si256();
#pragma GCC unroll 8
  for (int h = 0; h < 2 * kVectors; ++h) sums->half[h] = zero;
  while (groups > 0) {
    const int64_t block = groups < kBlockGroups ? groups : kBlockGroups;
    __m256i bytes[2 * kPackedVectors];
#pragma GCC unroll 4
    for (int v = 0; v < 2 * kPackedVectors; ++v) bytes[v] = zero;
    for (int64_t group = 0; group < block; group += 3) {
#pragma GCC unroll 3
      for (int g = 0; g < 3; ++g) {
        if (kPrefetch) _mm_prefetch(reinterpret_cast<const char*>(packed + 8192), _MM_HINT_T0);
        const __m256i row = table_row(&kSingleTable, index[group + g]);
#pragma GCC unroll 2
        for (int v = 0; v < kPackedVectors; ++v) {
          const __m256i both = load(packed + 32 * v);
          const __m256i even = _mm256_and_si256(both, nibble);
          const __m256i odd = _mm256_and_si256(_mm256_srli_epi16(both, 4), nibble);
          add_bytes(bytes[2 * v], _mm256_shuffle_epi8(row, even));
          add_bytes(bytes[2 * v + 1], _mm256_shuffle_epi8(row, odd));
        }
        packed += 32 * kPackedVectors;
      }
    }
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      sums->half[2 * v] = _mm256_add_epi16(sums->half[2 * v], _mm256_unpacklo_epi8(bytes[v], zero));
      sums->half[2 * v + 1] = _mm256_add_epi16(sums->half[2 * v + 1], _mm256_unpackhi_epi8(bytes[v], zero));
    }
    index += block;
    groups -= block;
  }
}

template <int kVectors, bool kPrefetch>
void lut_column_vectors(const uint8_t* packed, const uint16_t* index, int64_t groups, const Sink& b) {
  Sums<kVectors> sums;
  column_sums<kVectors, kPrefetch>(packed, index, groups, &sums);
  emit<kVectors>(b, sums, 0, 0, 0);
}

}  // namespace

void lut_block(int32_t vectors, const LutBlock& block) {
  switch (vectors) {
    case 1:
      return lut_block_vectors<1, false>(block);
    case 2:
      return lut_block_vectors<2, false>(block);
    case 3:
      return lut_block_vectors<3, false>(block);
    default:
      return lut_block_vectors<4, false>(block);
  }
}

void lut_packed_block(int32_t vectors, const LutBlock& block) {
  switch (vectors) {
    case 1:
      return lut_block_vectors<1, true>(block);
    case 2:
      return lut_block_vectors<2, true>(block);
    case 3:
      return lut_block_vectors<3, true>(block);
    default:
      return lut_block_vectors<4, true>(block);
  }
}

void unpack_groups(int32_t vectors, const uint8_t* packed, int32_t groups, uint8_t* unpacked) {
  switch (vectors) {
    case 1:
      return unpack_groups_vectors<1>(packed, groups, unpacked);
    case 2:
      return unpack_groups_vectors<2>(packed, groups, unpacked);
    case 3:
      return unpack_groups_vectors<3>(packed, groups, unpacked);
    default:
      return unpack_groups_vectors<4>(packed, groups, unpacked);
  }
}

void lut_column(int32_t vectors, const uint8_t* packed, const uint16_t* index, int64_t groups, bool prefetch,
                const Sink& sink) {
  switch (vectors) {
    case 1:
      return lut_column_vectors<1, false>(packed, index, groups, sink);
    case 2:
      return lut_column_vectors<2, false>(packed, index, groups, sink);
    case 3:
      return lut_column_vectors<3, false>(packed, index, groups, sink);
    default:
      return prefetch ? lut_column_vectors<4, true>(packed, index, groups, sink)
                      : lut_column_vectors<4, false>(packed, index, groups, sink);
  }
}

void pair_offsets(const uint64_t* first, const uint64_t* second, int32_t words, uint16_t* offsets) {
  const __m128i nibble = _mm_set1_epi8(15);
  for (int32_t word = 0; word < words; ++word) {
    const __m128i a = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(first + word));
    const __m128i b = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(second + word));
    const __m128i a_high = _mm_and_si128(_mm_srli_epi16(a, 4), nibble);
    const __m128i b_low = _mm_slli_epi16(_mm_and_si128(b, nibble), 4);
    const __m128i even = _mm_or_si128(_mm_and_si128(a, nibble), b_low);
    const __m128i odd = _mm_or_si128(a_high, _mm_andnot_si128(nibble, b));
    const __m256i pairs = _mm256_cvtepu8_epi16(_mm_unpacklo_epi8(even, odd));
    store(offsets + 16 * static_cast<int64_t>(word), _mm256_slli_epi16(pairs, 4));
  }
}

}  // namespace binarynet::avx2
