// tensor_ops.h with C linkage, for tests from Python. Functions that can fail return the error's text, or "".
#include <cstring>

#include "tensor_ops.h"

#define API extern "C" __attribute__((visibility("default")))

using namespace simulator;

namespace {

thread_local std::string error;

template <typename Work>
const char* caught(Work work) {
  error.clear();
  try {
    work();
  } catch (const TensorError& failure) {
    error = failure.what();
  }
  return error.c_str();
}

TensorMap make_map(const uint64_t* numbers) {
  TensorMap map;
  map.address = numbers[0];
  map.element_bytes = static_cast<int>(numbers[1]);
  map.rank = static_cast<int>(numbers[2]);
  map.swizzle = static_cast<int>(numbers[3]);
  for (int i = 0; i < 5; ++i) {
    map.sizes[i] = numbers[4 + i];
    map.strides[i] = numbers[9 + i];
    map.box[i] = static_cast<uint32_t>(numbers[14 + i]);
    map.element_strides[i] = static_cast<uint32_t>(numbers[19 + i]);
  }
  return map;
}

}  // namespace

API const char* ops_mma_b1(int m, int n, int k, int is_xor, const uint32_t* a, const uint32_t* b,
                           const uint32_t* c, uint32_t* d) {
  return caught([&] { mma_b1({m, n, k}, is_xor ? BitOp::Xor : BitOp::And, a, b, c, d); });
}

API const char* ops_mma_i8(int m, int n, int k, int a_signed, int b_signed, int satfinite, const uint32_t* a,
                           const uint32_t* b, const uint32_t* c, uint32_t* d) {
  return caught([&] { mma_i8({m, n, k}, a_signed, b_signed, satfinite, a, b, c, d); });
}

API const char* ops_ldmatrix(int count, int transposed, const uint8_t* rows, uint32_t* registers) {
  return caught([&] { ldmatrix(count, transposed, rows, registers); });
}

API const char* ops_stmatrix(int count, int transposed, const uint32_t* registers, uint8_t* rows) {
  return caught([&] { stmatrix(count, transposed, registers, rows); });
}

API int ops_wgmma_n_valid(int n) { return wgmma_n_valid(n); }

API const char* ops_wgmma_operand(uint64_t descriptor, int rows, uint32_t* addresses) {
  return caught([&] {
    const std::vector<uint32_t> found = wgmma_operand(descriptor, rows);
    std::memcpy(addresses, found.data(), 4 * found.size());
  });
}

API void ops_wgmma_a_from_registers(const uint32_t* registers, uint8_t* rows) {
  wgmma_a_from_registers(registers, rows);
}

API const char* ops_wgmma(int kind, int n, int scale_d, int satfinite, const uint8_t* a, const uint8_t* b,
                          uint32_t* d) {
  return caught([&] { wgmma(static_cast<WgmmaKind>(kind), n, scale_d, satfinite, a, b, d); });
}

// A tensor map as 24 numbers: address, element bytes, rank, swizzle, then 5 each of sizes, strides, box,
// element strides.
API const char* ops_encode(const uint64_t* numbers, uint8_t* bytes) {
  return caught([&] { encode_tensor_map(make_map(numbers), bytes); });
}

// Copies through the encoded map. Pieces are rows of (global, shared, bytes, is_zero); `count` is their
// number.
API const char* ops_tensor_copy(const uint8_t* encoded, const int32_t* coordinates, uint32_t shared,
                                int is_load, uint64_t* pieces, int* count, uint32_t* box_bytes) {
  return caught([&] {
    const TensorMap map = decode_tensor_map(encoded);
    *box_bytes = tensor_box_bytes(map);
    const auto found =
        is_load ? tensor_load(map, coordinates, shared) : tensor_store(map, coordinates, shared);
    *count = static_cast<int>(found.size());
    for (const BulkPiece& piece : found) {
      *pieces++ = piece.global;
      *pieces++ = piece.shared;
      *pieces++ = piece.bytes;
      *pieces++ = piece.is_zero;
    }
  });
}

API const char* ops_bulk_copy(uint64_t global, uint32_t shared, uint32_t bytes) {
  return caught([&] { bulk_copy(global, shared, bytes); });
}

// operation: 0 init, 1 expect_tx, 2 complete_tx, 3 arrive, 4 arrive.noComplete, 5 arrive_drop; changes the
// word.
API const char* ops_mbarrier(int operation, uint64_t* word, uint32_t value, uint64_t* token) {
  return caught([&] {
    switch (operation) {
      case 0:
        *word = mbarrier_init(value);
        break;
      case 1:
        *word = mbarrier_expect_tx(*word, value);
        break;
      case 2:
        *word = mbarrier_complete_tx(*word, value);
        break;
      case 3:
        *word = mbarrier_arrive(*word, value, token);
        break;
      case 4:
        *word = mbarrier_arrive_no_complete(*word, value, token);
        break;
      case 5:
        *word = mbarrier_arrive_drop(*word, value, token);
        break;
      default:
        throw TensorError("no such operation");
    }
  });
}

API const char* ops_mbarrier_wait(uint64_t word, uint64_t token, int* done) {
  return caught([&] { *done = mbarrier_test_wait(word, token); });
}

API const char* ops_mbarrier_wait_parity(uint64_t word, uint32_t parity, int* done) {
  return caught([&] { *done = mbarrier_test_wait_parity(word, parity); });
}

API const char* ops_mbarrier_pending(uint64_t token, uint32_t* count) {
  return caught([&] { *count = mbarrier_pending_count(token); });
}
