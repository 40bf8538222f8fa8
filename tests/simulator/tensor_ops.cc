// Semantics: PTX ISA, sections on mma, ldmatrix and stmatrix (warp level matrix instructions), wgmma
// (warpgroup level, register fragments, matrix descriptors), tensors and cp.async.bulk.tensor, mbarrier; CUDA
// driver API, cuTensorMapEncodeTiled.
#include "tensor_ops.h"

#include <algorithm>
#include <cstring>

namespace simulator {

namespace {

constexpr int kLanes = 32;
constexpr int kWarpgroup = 128;
constexpr int kOperandBytes = 32;  // of K in one wgmma, whatever the element type
constexpr int kChunk = 16;         // bytes that stay together under every swizzle

[[noreturn]] void fail(const std::string& text) { throw TensorError(text); }

void require(bool holds, const std::string& text) {
  if (!holds) fail(text);
}

std::string str(uint64_t value) { return std::to_string(value); }

// ---- products of rows of 32-bit words ----

int32_t byte_of(uint32_t word, int index, bool is_signed) {
  const auto byte = static_cast<uint8_t>(word >> (8 * index));
  return is_signed ? static_cast<int8_t>(byte) : byte;
}

int64_t dot_i8(const uint32_t* a, const uint32_t* b, int words, bool a_signed, bool b_signed) {
  int64_t sum = 0;
  for (int w = 0; w < words; ++w) {
    for (int i = 0; i < 4; ++i) sum += byte_of(a[w], i, a_signed) * byte_of(b[w], i, b_signed);
  }
  return sum;
}

int64_t dot_b1(const uint32_t* a, const uint32_t* b, int words, BitOp op) {
  int64_t sum = 0;
  for (int w = 0; w < words; w += 2) {
    uint64_t x;
    uint64_t y;
    std::memcpy(&x, a + w, sizeof x);
    std::memcpy(&y, b + w, sizeof y);
    sum += __builtin_popcountll(op == BitOp::And ? x & y : x ^ y);
  }
  return sum;
}

uint32_t accumulate(uint32_t c, int64_t product, bool satfinite) {
  const int64_t sum = static_cast<int32_t>(c) + product;
  if (!satfinite) return static_cast<uint32_t>(static_cast<uint64_t>(sum));
  return static_cast<uint32_t>(std::clamp<int64_t>(sum, INT32_MIN, INT32_MAX));
}

// All mma.sync shapes of 1 and 8 bits share one fragment layout in units of 32-bit words of K: lane = 4 *
// group + member; register r of A holds word member + 4 * (r / 2) of row group + 8 * (r % 2) (m8: one
// register, row group); register r of B word member + 4 * r of column group; accumulator i row group + 8 * (i
// / 2), column 2 * member + i % 2.
template <typename Dot>
void mma(MmaShape shape, int bits, const uint32_t* a, const uint32_t* b, const uint32_t* c, uint32_t* d,
         bool satfinite, Dot dot) {
  const MmaRegisters count = mma_registers(shape, bits);
  const int words = shape.k * bits / 32;
  uint32_t rows[16][8] = {};
  uint32_t columns[8][8] = {};
  for (int lane = 0; lane < kLanes; ++lane) {
    const int group = lane / 4;
    const int member = lane % 4;
    for (int r = 0; r < count.a; ++r) {
      const int row = shape.m == 16 ? group + 8 * (r % 2) : group;
      rows[row][member + 4 * (shape.m == 16 ? r / 2 : r)] = a[lane * count.a + r];
    }
    for (int r = 0; r < count.b; ++r) columns[group][member + 4 * r] = b[lane * count.b + r];
  }
  for (int lane = 0; lane < kLanes; ++lane) {
    for (int i = 0; i < count.c; ++i) {
      const int row = lane / 4 + 8 * (i / 2);
      const int column = 2 * (lane % 4) + i % 2;
      const int at = lane * count.c + i;
      d[at] = accumulate(c[at], dot(rows[row], columns[column], words), satfinite);
    }
  }
}

// ---- swizzles ----

// 16-byte chunks of a row are permuted by the number of the row within the pattern: bits 4.. of the address
// are XORed with bits 7.., one bit for 32 bytes, two for 64, three for 128.
uint32_t swizzled(uint32_t address, int swizzle) {
  return swizzle == 0 ? address : address ^ (((address >> 7) & (swizzle / kChunk - 1)) << 4);
}

// Bytes after which a swizzle's pattern repeats.
uint32_t swizzle_period(int swizzle) { return 8 * swizzle; }

// ---- tensor maps ----

constexpr uint8_t kMapMagic[8] = {'s', 'i', 'm', 'm', 'a', 'p', '0', '1'};

uint32_t boxed(const TensorMap& map, int dimension) {
  const uint32_t step = dimension == 0 ? 1 : map.element_strides[dimension];
  return (map.box[dimension] + step - 1) / step;
}

template <typename T>
uint8_t* put(uint8_t* at, const T& value) {
  std::memcpy(at, &value, sizeof value);
  return at + sizeof value;
}

template <typename T>
const uint8_t* take(const uint8_t* at, T& value) {
  std::memcpy(&value, at, sizeof value);
  return at + sizeof value;
}

void append(std::vector<BulkPiece>& pieces, const BulkPiece& piece) {
  if (!pieces.empty()) {
    BulkPiece& last = pieces.back();
    const bool global_follows = piece.is_zero || last.global + last.bytes == piece.global;
    if (last.is_zero == piece.is_zero && last.shared + last.bytes == piece.shared && global_follows) {
      last.bytes += piece.bytes;
      return;
    }
  }
  pieces.push_back(piece);
}

std::vector<BulkPiece> tensor_copy(const TensorMap& map, const int32_t* coordinates, uint32_t shared,
                                   bool is_load) {
  require(shared % 128 == 0, "shared address " + str(shared) + " of a tensor copy is no multiple of 128");
  const uint32_t row_bytes = boxed(map, 0) * map.element_bytes;
  require(map.swizzle == 0 || static_cast<int>(row_bytes) == map.swizzle,
          "a box of " + str(row_bytes) + " inner bytes under a swizzle of " + str(map.swizzle) +
              ": its layout in shared memory is not documented well enough to simulate; make them equal");
  std::vector<BulkPiece> pieces;
  const uint32_t rows = tensor_box_bytes(map) / row_bytes;
  for (uint32_t row = 0; row < rows; ++row) {
    bool inside = true;
    uint64_t global = map.address;
    uint32_t rest = row;
    for (int dimension = 1; dimension < map.rank; ++dimension) {
      const int64_t at = static_cast<int64_t>(coordinates[dimension]) +
                         static_cast<int64_t>(rest % boxed(map, dimension)) * map.element_strides[dimension];
      rest /= boxed(map, dimension);
      inside = inside && at >= 0 && static_cast<uint64_t>(at) < map.sizes[dimension];
      global += static_cast<uint64_t>(at) * map.strides[dimension];
    }
    for (uint32_t byte = 0; byte < row_bytes; byte += map.element_bytes) {
      const int64_t at = static_cast<int64_t>(coordinates[0]) + byte / map.element_bytes;
      const bool valid = inside && at >= 0 && static_cast<uint64_t>(at) < map.sizes[0];
      if (!valid && !is_load) continue;
      const uint32_t target = swizzled(shared + row * row_bytes + byte, map.swizzle);
      append(pieces, {valid ? global + static_cast<uint64_t>(at) * map.element_bytes : 0, target,
                      static_cast<uint32_t>(map.element_bytes), !valid});
    }
  }
  return pieces;
}

// ---- mbarrier: valid (1 bit), phase (2), expected (20), pending (20), tx-count (21, two's complement) ----

constexpr uint32_t kMaxCount = (1u << 20) - 1;
constexpr int64_t kMaxTx = (1 << 20) - 1;

struct Barrier {
  uint32_t phase, expected, pending;
  int64_t tx;
};

Barrier unpack(uint64_t word) {
  require(word >> 63 != 0, "no mbarrier has been initialized here");
  const Barrier barrier{static_cast<uint32_t>(word >> 61 & 3), static_cast<uint32_t>(word >> 41 & kMaxCount),
                        static_cast<uint32_t>(word >> 21 & kMaxCount),
                        static_cast<int64_t>(word << 43) >> 43};
  require(barrier.pending <= barrier.expected, "the word of an mbarrier has been overwritten");
  return barrier;
}

uint64_t pack(const Barrier& barrier) {
  return uint64_t{1} << 63 | static_cast<uint64_t>(barrier.phase) << 61 |
         static_cast<uint64_t>(barrier.expected) << 41 | static_cast<uint64_t>(barrier.pending) << 21 |
         (static_cast<uint64_t>(barrier.tx) & 0x1FFFFF);
}

uint64_t complete_if_done(Barrier barrier) {
  if (barrier.pending == 0 && barrier.tx == 0) {
    barrier.phase = (barrier.phase + 1) & 3;
    barrier.pending = barrier.expected;
  }
  return pack(barrier);
}

Barrier arrived(uint64_t word, uint32_t count, uint64_t* token) {
  Barrier barrier = unpack(word);
  if (token != nullptr) *token = word;
  require(count >= 1 && count <= kMaxCount,
          "mbarrier arrival count " + str(count) + " is not in 1 to 2^20 - 1");
  require(count <= barrier.pending, "more arrivals at an mbarrier than it expects: " + str(count) + " with " +
                                        str(barrier.pending) + " pending (" + mbarrier_text(word) + ")");
  barrier.pending -= count;
  return barrier;
}

uint64_t with_tx(uint64_t word, int64_t change) {
  Barrier barrier = unpack(word);
  barrier.tx += change;
  require(barrier.tx >= -kMaxTx && barrier.tx <= kMaxTx,
          "the tx-count of an mbarrier leaves its range of +-(2^20 - 1) (" + mbarrier_text(word) + ")");
  return pack(barrier);
}

}  // namespace

// ---- mma.sync ----

MmaRegisters mma_registers(MmaShape shape, int bits) {
  const auto is = [&](int m, int k) { return shape.m == m && shape.n == 8 && shape.k == k; };
  if (bits == 1 ? is(8, 128) : bits == 8 && is(8, 16)) return {1, 1, 2};
  if (bits == 1 ? is(16, 128) : bits == 8 && is(16, 16)) return {2, 1, 4};
  if (bits == 1 ? is(16, 256) : bits == 8 && is(16, 32)) return {4, 2, 4};
  fail("no mma.sync shape: m" + std::to_string(shape.m) + "n" + std::to_string(shape.n) + "k" +
       std::to_string(shape.k) + " of " + std::to_string(bits) + " bits");
}

void mma_b1(MmaShape shape, BitOp op, const uint32_t* a, const uint32_t* b, const uint32_t* c, uint32_t* d) {
  mma(shape, 1, a, b, c, d, false,
      [op](const uint32_t* x, const uint32_t* y, int words) { return dot_b1(x, y, words, op); });
}

void mma_i8(MmaShape shape, bool a_signed, bool b_signed, bool satfinite, const uint32_t* a,
            const uint32_t* b, const uint32_t* c, uint32_t* d) {
  mma(shape, 8, a, b, c, d, satfinite, [&](const uint32_t* x, const uint32_t* y, int words) {
    return dot_i8(x, y, words, a_signed, b_signed);
  });
}

// ---- ldmatrix, stmatrix ----

namespace {

// Offset in rows [count][8][16] of the half `half` of lane's register of a matrix.
int matrix_offset(int matrix, int lane, int half, bool transposed) {
  const int row = transposed ? 2 * (lane % 4) + half : lane / 4;
  const int column = transposed ? lane / 4 : 2 * (lane % 4) + half;
  return (matrix * 8 + row) * 16 + 2 * column;
}

void require_matrices(int count) {
  require(count == 1 || count == 2 || count == 4, "ldmatrix and stmatrix move 1, 2 or 4 matrices");
}

}  // namespace

void ldmatrix(int count, bool transposed, const uint8_t* rows, uint32_t* registers) {
  require_matrices(count);
  for (int lane = 0; lane < kLanes; ++lane) {
    for (int matrix = 0; matrix < count; ++matrix) {
      uint32_t value = 0;
      for (int half = 0; half < 2; ++half) {
        const uint8_t* at = rows + matrix_offset(matrix, lane, half, transposed);
        value |= (at[0] | static_cast<uint32_t>(at[1]) << 8) << (16 * half);
      }
      registers[lane * count + matrix] = value;
    }
  }
}

void stmatrix(int count, bool transposed, const uint32_t* registers, uint8_t* rows) {
  require_matrices(count);
  for (int lane = 0; lane < kLanes; ++lane) {
    for (int matrix = 0; matrix < count; ++matrix) {
      for (int half = 0; half < 2; ++half) {
        const uint32_t value = registers[lane * count + matrix] >> (16 * half);
        uint8_t* at = rows + matrix_offset(matrix, lane, half, transposed);
        at[0] = static_cast<uint8_t>(value);
        at[1] = static_cast<uint8_t>(value >> 8);
      }
    }
  }
}

// ---- wgmma ----

bool wgmma_n_valid(int n) { return n >= 8 && n <= 256 && (n <= 32 ? n % 8 == 0 : n % 16 == 0); }

std::vector<uint32_t> wgmma_operand(uint64_t descriptor, int rows) {
  const auto field = [descriptor](int bit) { return static_cast<uint32_t>(descriptor >> bit & 0x3FFF) << 4; };
  const uint32_t start = field(0);
  const uint32_t leading = field(16);
  const uint32_t stride = field(32);
  constexpr int kSwizzles[4] = {0, 128, 64, 32};
  const int swizzle = kSwizzles[descriptor >> 62];
  constexpr uint64_t kUsed =
      0x3FFFull | 0x3FFFull << 16 | 0x3FFFull << 32 | uint64_t{7} << 49 | uint64_t{3} << 62;
  require((descriptor & ~kUsed) == 0, "a matrix descriptor has bits set that belong to no field");
  if (swizzle != 0) {
    require((descriptor >> 49 & 7) == 0 && start % swizzle_period(swizzle) < static_cast<uint32_t>(swizzle),
            "a matrix descriptor that starts inside of a swizzle pattern (address " + str(start) +
                ", base offset " + str(descriptor >> 49 & 7) +
                ") is not simulated: start at the pattern's first row, base offset 0");
    require(rows <= 8 || stride % swizzle_period(swizzle) == 0,
            "a matrix descriptor's stride byte offset " + str(stride) +
                " is no multiple of the swizzle pattern's " + str(swizzle_period(swizzle)));
    require(start % swizzle + kOperandBytes <= static_cast<uint32_t>(swizzle),
            "a matrix descriptor's start address " + str(start) +
                " leaves less than 32 bytes of K in a row of " + str(swizzle));
  }
  const uint32_t pitch = swizzle == 0 ? kChunk : static_cast<uint32_t>(swizzle);
  std::vector<uint32_t> addresses;
  for (int row = 0; row < rows; ++row) {
    for (uint32_t chunk = 0; chunk < 2; ++chunk) {
      const uint32_t address =
          start + row % 8 * pitch + row / 8 * stride + chunk * (swizzle == 0 ? leading : kChunk);
      addresses.push_back(swizzled(address, swizzle));
    }
  }
  return addresses;
}

// Warp w has rows 16 w to 16 w + 15; within a warp, the layout of mma.sync m16n8k256 and m16n8k32.
void wgmma_a_from_registers(const uint32_t* registers, uint8_t* rows) {
  for (int lane = 0; lane < kWarpgroup; ++lane) {
    for (int r = 0; r < 4; ++r) {
      const int row = 16 * (lane / 32) + lane % 32 / 4 + 8 * (r % 2);
      const int word = lane % 4 + 4 * (r / 2);
      std::memcpy(rows + row * kOperandBytes + 4 * word, &registers[lane * 4 + r], 4);
    }
  }
}

void wgmma(WgmmaKind kind, int n, bool scale_d, bool satfinite, const uint8_t* a, const uint8_t* b,
           uint32_t* d) {
  require(wgmma_n_valid(n), "no wgmma shape: m64n" + std::to_string(n));
  require(!satfinite || kind != WgmmaKind::B1AndPopc, "wgmma on bits has no .satfinite");
  const bool a_signed = kind == WgmmaKind::S8U8 || kind == WgmmaKind::S8S8;
  const bool b_signed = kind == WgmmaKind::U8S8 || kind == WgmmaKind::S8S8;
  constexpr int kWords = kOperandBytes / 4;
  for (int lane = 0; lane < kWarpgroup; ++lane) {
    for (int i = 0; i < n / 2; ++i) {
      const int row = 16 * (lane / 32) + lane % 32 / 4 + 8 * (i / 2 % 2);
      const int column = 8 * (i / 4) + 2 * (lane % 4) + i % 2;
      uint32_t x[kWords];
      uint32_t y[kWords];
      std::memcpy(x, a + row * kOperandBytes, sizeof x);
      std::memcpy(y, b + column * kOperandBytes, sizeof y);
      uint32_t& at = d[lane * (n / 2) + i];
      at = accumulate(scale_d ? at : 0,
                      kind == WgmmaKind::B1AndPopc ? dot_b1(x, y, kWords, BitOp::And)
                                                   : dot_i8(x, y, kWords, a_signed, b_signed),
                      satfinite);
    }
  }
}

// ---- tensor maps and bulk copies ----

std::string tensor_map_refusal(const TensorMap& map) {
  if (map.rank < 1 || map.rank > 5) return "a rank of " + std::to_string(map.rank) + " is not in 1 to 5";
  const int bytes = map.element_bytes;
  if (bytes != 1 && bytes != 2 && bytes != 4 && bytes != 8)
    return "elements of " + std::to_string(bytes) + " bytes";
  if (map.address == 0 || map.address % 16 != 0)
    return "address " + str(map.address) + " is no multiple of 16";
  if (map.swizzle != 0 && map.swizzle != 32 && map.swizzle != 64 && map.swizzle != 128)
    return "a swizzle of " + std::to_string(map.swizzle) + " bytes is none of 0, 32, 64, 128";
  for (int i = 0; i < map.rank; ++i) {
    const std::string which = " of dimension " + std::to_string(i);
    if (map.sizes[i] == 0 || map.sizes[i] > uint64_t{1} << 32)
      return "size " + str(map.sizes[i]) + which + " is not in 1 to 2^32";
    if (map.box[i] == 0 || map.box[i] > 256) return "box " + str(map.box[i]) + which + " is not in 1 to 256";
    if (i > 0 && (map.element_strides[i] == 0 || map.element_strides[i] > 8))
      return "element stride " + str(map.element_strides[i]) + which + " is not in 1 to 8";
    if (i > 0 && (map.strides[i] % 16 != 0 || map.strides[i] >= uint64_t{1} << 40))
      return "stride " + str(map.strides[i]) + which + " is no multiple of 16 below 2^40";
  }
  const uint32_t inner = map.box[0] * bytes;
  if (inner % 16 != 0) return "the box's inner " + str(inner) + " bytes are no multiple of 16";
  if (map.swizzle != 0 && static_cast<int>(inner) > map.swizzle)
    return "the box's inner " + str(inner) + " bytes are more than the swizzle's " +
           std::to_string(map.swizzle);
  return "";
}

// Sizes as 2^32 - 1 at most plus one, so that all fields fit: magic 8, address 8, sizes 20, strides 5 each,
// box 2 each, element strides 1 each, element bytes, rank, swizzle, zeros.
void encode_tensor_map(const TensorMap& map, uint8_t bytes[kTensorMapBytes]) {
  const std::string refusal = tensor_map_refusal(map);
  require(refusal.empty(), refusal);
  std::memset(bytes, 0, kTensorMapBytes);
  uint8_t* at = put(bytes, kMapMagic);
  at = put(at, map.address);
  for (int i = 0; i < map.rank; ++i) {
    uint8_t* const entry = at + 16 * i;
    put(put(put(put(entry, static_cast<uint32_t>(map.sizes[i] - 1)), map.strides[i]),
            static_cast<uint16_t>(map.box[i])),
        static_cast<uint16_t>(map.element_strides[i]));
  }
  put(put(put(at + 80, static_cast<uint8_t>(map.element_bytes)), static_cast<uint8_t>(map.rank)),
      static_cast<uint8_t>(map.swizzle));
}

TensorMap decode_tensor_map(const uint8_t bytes[kTensorMapBytes]) {
  require(std::equal(kMapMagic, kMapMagic + sizeof kMapMagic, bytes), "these 128 bytes are no tensor map");
  TensorMap map;
  const uint8_t* at = take(bytes + sizeof kMapMagic, map.address);
  map.element_bytes = at[80];
  map.rank = at[81];
  map.swizzle = at[82];
  for (int i = 0; i < std::min(map.rank, 5); ++i) {
    uint32_t size;
    uint16_t box;
    uint16_t step;
    take(take(take(take(at + 16 * i, size), map.strides[i]), box), step);
    map.sizes[i] = uint64_t{size} + 1;
    map.box[i] = box;
    map.element_strides[i] = step;
  }
  const std::string refusal = tensor_map_refusal(map);
  require(refusal.empty(), "a tensor map has been overwritten: " + refusal);
  return map;
}

uint32_t tensor_box_bytes(const TensorMap& map) {
  uint32_t bytes = map.element_bytes;
  for (int dimension = 0; dimension < map.rank; ++dimension) bytes *= boxed(map, dimension);
  return bytes;
}

std::vector<BulkPiece> tensor_load(const TensorMap& map, const int32_t* coordinates, uint32_t shared) {
  return tensor_copy(map, coordinates, shared, true);
}

std::vector<BulkPiece> tensor_store(const TensorMap& map, const int32_t* coordinates, uint32_t shared) {
  return tensor_copy(map, coordinates, shared, false);
}

BulkPiece bulk_copy(uint64_t global, uint32_t shared, uint32_t bytes) {
  require(global % 16 == 0 && shared % 16 == 0 && bytes % 16 == 0,
          "cp.async.bulk of " + str(bytes) + " bytes between global " + str(global) + " and shared " +
              str(shared) + ": all three must be multiples of 16");
  return {global, shared, bytes, false};
}

// ---- mbarrier ----

uint64_t mbarrier_init(uint32_t count) {
  require(count >= 1 && count <= kMaxCount,
          "mbarrier.init with a count of " + str(count) + ", not in 1 to 2^20 - 1");
  return pack({0, count, count, 0});
}

uint64_t mbarrier_expect_tx(uint64_t word, uint32_t bytes) { return with_tx(word, bytes); }

uint64_t mbarrier_complete_tx(uint64_t word, uint32_t bytes) {
  return complete_if_done(unpack(with_tx(word, -static_cast<int64_t>(bytes))));
}

uint64_t mbarrier_arrive(uint64_t word, uint32_t count, uint64_t* token) {
  return complete_if_done(arrived(word, count, token));
}

uint64_t mbarrier_arrive_no_complete(uint64_t word, uint32_t count, uint64_t* token) {
  const Barrier barrier = arrived(word, count, token);
  require(barrier.pending != 0, "mbarrier.arrive.noComplete completes the phase");
  return pack(barrier);
}

uint64_t mbarrier_arrive_drop(uint64_t word, uint32_t count, uint64_t* token) {
  Barrier barrier = arrived(word, count, token);
  barrier.expected -= count;
  return complete_if_done(barrier);
}

bool mbarrier_test_wait(uint64_t word, uint64_t token) {
  const uint32_t behind = (unpack(word).phase - unpack(token).phase) & 3;
  require(behind <= 1, "a wait for a phase that is neither the current one nor the one before it");
  return behind == 1;
}

bool mbarrier_test_wait_parity(uint64_t word, uint32_t parity) {
  require(parity <= 1, "a phase parity of " + str(parity) + " is neither 0 nor 1");
  return (unpack(word).phase & 1) != parity;
}

uint32_t mbarrier_pending_count(uint64_t token) { return unpack(token).pending; }

std::string mbarrier_text(uint64_t word) {
  const Barrier barrier = unpack(word);
  return "phase parity " + str(barrier.phase & 1) + ", " + str(barrier.pending) + " of " +
         str(barrier.expected) + " arrivals and " + std::to_string(barrier.tx) + " bytes pending";
}

}  // namespace simulator
