#include "avx2_tables.h"

#include <immintrin.h>

#include <cstring>

namespace binarynet::avx2 {
namespace {

constexpr int kFields = kTableFields;
constexpr int kEntry = 32;  // bytes

// How a word is split: the widths of the fields, from bit 0 up. Neighbours are counted together.
constexpr int kWidth[kFields] = {7, 6, 7, 6, 7, 6, 7, 6, 6, 6};

constexpr int first_bit(int field) {
  int bit = 0;
  for (int i = 0; i < field; ++i) bit += kWidth[i];
  return bit;
}

constexpr int table_begin(int field) {
  int bytes = 0;
  for (int i = 0; i < field; ++i) bytes += kEntry << kWidth[i];
  return bytes;
}

constexpr bool nibbles_suffice() {
  for (int i = 0; i < kFields; i += 2) {
    if (kWidth[i] + kWidth[i + 1] > 15) return false;
  }
  return true;
}
static_assert(nibbles_suffice() && first_bit(kFields) == 64 && table_begin(kFields) == kTablesBytes &&
                  kTablesBytes <= 65536,
              "a nibble counts to 15, a word has 64 bits, an offset 16");

// ---- Making tables

// Entries in the order of a Gray code over all but the three lowest bits, so that each is one addition and
// one store. delta[j] is what bit j of the activations adds to the counts: +1 or -1 in each nibble; as counts
// stay within 0..15, borrows between nibbles cancel.
template <int kBits>
inline __attribute__((always_inline)) void make_table(__m256i first, const __m256i* delta, uint8_t* to) {
  __m256i entry[8];
  entry[0] = first;
#pragma GCC unroll 3
  for (int j = 0; j < 3; ++j) {
#pragma GCC unroll 4
    for (int i = 0; i < 1 << j; ++i) entry[i + (1 << j)] = _mm256_add_epi8(entry[i], delta[j]);
  }
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) store(to + kEntry * i, entry[i]);
#pragma GCC unroll 16
  for (int step = 1; step < 1 << (kBits - 3); ++step) {
    const int flipped = __builtin_ctz(static_cast<unsigned>(step));
    const int gray = step ^ (step >> 1);
    const bool on = (gray >> flipped & 1) != 0;
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) {
      entry[i] =
          on ? _mm256_add_epi8(entry[i], delta[3 + flipped]) : _mm256_sub_epi8(entry[i], delta[3 + flipped]);
      store(to + kEntry * (8 * gray + i), entry[i]);
    }
  }
}

template <int kField>
inline __attribute__((always_inline)) void make_tables_from(const uint8_t* packed, int64_t group_stride,
                                                            uint8_t* to) {
  if constexpr (kField < kFields) {
    constexpr int kBits = kWidth[kField];
    const __m256i one = _mm256_set1_epi8(0x11);
    __m256i delta[kBits];
    __m256i first = _mm256_setzero_si256();
#pragma GCC unroll 7
    for (int j = 0; j < kBits; ++j) {
      const int bit = first_bit(kField) + j;
      const __m256i group = load(packed + bit / 4 * group_stride);
      const __m256i w = _mm256_and_si256(_mm256_srli_epi16(group, bit % 4), one);
      first = _mm256_add_epi8(first, w);
      delta[j] = _mm256_sub_epi8(one, _mm256_add_epi8(w, w));
    }
    make_table<kBits>(first, delta, to + table_begin(kField));
    make_tables_from<kField + 1>(packed, group_stride, to);
  }
}

}  // namespace

void make_tables(const uint8_t* packed, int64_t group_stride, int32_t groups, uint8_t* to) {
  if (groups == kWordGroups) return make_tables_from<0>(packed, group_stride, to);
  alignas(32) uint8_t whole[kWordGroups * 32];
  memset(whole, 0, sizeof(whole));
  for (int32_t group = 0; group < groups; ++group) {
    store(whole + 32 * group, load(packed + group * group_stride));
  }
  make_tables_from<0>(whole, 32, to);
}

namespace {

// ---- Offsets

// Lane i takes the two bytes of the word that hold field i, shifts it to bit 9 (the factor) and then to bit 5
// (entries have 32 bytes), and adds where the field's table begins. A field of up to 7 bits lies in two
// bytes.
struct alignas(32) OffsetLanes {
  uint8_t bytes[32];
  uint16_t factor[16], mask[16], begin[16];
};

constexpr OffsetLanes make_offset_lanes() {
  OffsetLanes lanes = {};
  for (int lane = 0; lane < 16; ++lane) {
    const int field = lane < kFields ? lane : kFields - 1;
    const int bit = first_bit(field);
    lanes.bytes[2 * lane] = static_cast<uint8_t>(bit / 8);
    lanes.bytes[2 * lane + 1] = static_cast<uint8_t>(bit / 8 == 7 ? 0x80 : bit / 8 + 1);  // 0x80: zero
    lanes.factor[lane] = static_cast<uint16_t>(1 << (9 - bit % 8));
    lanes.mask[lane] = static_cast<uint16_t>(((1 << kWidth[field]) - 1) * kEntry);
    lanes.begin[lane] = static_cast<uint16_t>(table_begin(field));
  }
  return lanes;
}

constexpr OffsetLanes kOffsetLanes = make_offset_lanes();

}  // namespace

void table_offsets(const uint64_t* from, int64_t pixels, int32_t words, int64_t word_stride, uint16_t* to) {
  constexpr int32_t kLineWords = 8;  // read whole cache lines: rows of activations can be far apart
  const __m256i bytes = load(kOffsetLanes.bytes);
  const __m256i factor = load(kOffsetLanes.factor);
  const __m256i mask = load(kOffsetLanes.mask);
  const __m256i begin = load(kOffsetLanes.begin);
  for (int32_t word = 0; word < words; word += kLineWords) {
    const int32_t stop = words - word < kLineWords ? words : word + kLineWords;
    for (int64_t pixel = 0; pixel < pixels; ++pixel) {
      for (int32_t k = word; k < stop; ++k) {
        __m256i offsets = begin;
        if (from != nullptr) {
          const __m256i all = _mm256_set1_epi64x(static_cast<int64_t>(from[pixel * words + k]));
          const __m256i field = _mm256_mullo_epi16(_mm256_shuffle_epi8(all, bytes), factor);
          offsets = _mm256_add_epi16(begin, _mm256_and_si256(_mm256_srli_epi16(field, 4), mask));
        }
        store(to + k * word_stride + pixel * kFields, offsets);
      }
    }
  }
}

namespace {

// ---- Counting

// Reads offsets two at a time: the loads of a word are what limits it.
inline __attribute__((always_inline)) void count_word(const uint16_t* offsets, const uint8_t* tables,
                                                      __m256i nibble, __m256i& total, __m256i& high) {
#pragma GCC unroll 5
  for (int field = 0; field < kFields; field += 2) {
    uint32_t two;
    memcpy(&two, offsets + field, sizeof(two));
    asm("" : "+r"(two));  // or the compiler makes two loads of it
    const __m256i x = _mm256_add_epi8(load(tables + (two & 0xffff)), load(tables + (two >> 16)));
    add_bytes(total, x);
    add_bytes(high, _mm256_and_si256(_mm256_srli_epi16(x, 4), nibble));
  }
}

template <bool kStart, bool kFlush>
void count_rows(const TablePass& pass) {
  // Copies: the compiler must assume that a store of bytes changes what is behind a reference.
  const Sink sink = pass.sink;
  const uint8_t* const tables = pass.tables;
  const int64_t col_stride = pass.col_stride;
  const __m256i nibble = _mm256_set1_epi8(15);
  uint8_t* bytes = pass.bytes;
  uint16_t* sums = pass.sums;
  for (int64_t image = 0; image < pass.images; ++image) {
    for (int64_t row = 0; row < sink.rows; ++row) {
      const uint16_t* offsets = pass.offsets + image * pass.image_stride + row * pass.row_stride;
      for (int64_t col = 0; col < sink.cols; ++col, offsets += col_stride, bytes += kTableLanes) {
        __m256i total = kStart ? _mm256_setzero_si256() : load(bytes);
        __m256i high = kStart ? _mm256_setzero_si256() : load(bytes + 32);
        count_word(offsets, tables, nibble, total, high);
        if constexpr (kFlush) {
          const __m256i sixteen_high = _mm256_slli_epi16(_mm256_and_si256(high, nibble), 4);
          const __m256i columns[2] = {_mm256_sub_epi8(total, sixteen_high), high};
          flush_column<2>(sink, columns, sums, image, row, col);
          sums += kTableLanes;
        } else {
          store(bytes, total);
          store(bytes + 32, high);
        }
      }
    }
  }
}

}  // namespace

void count_by_tables(const TablePass& pass) {
  if (pass.start) {
    pass.flush ? count_rows<true, true>(pass) : count_rows<true, false>(pass);
  } else {
    pass.flush ? count_rows<false, true>(pass) : count_rows<false, false>(pass);
  }
}

}  // namespace binarynet::avx2
