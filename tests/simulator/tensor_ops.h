// What the tensor instructions of PTX do to values: no threads, no timing and no memory of a simulated GPU in
// here.
//
// Nothing here reads or writes the memory of the simulated GPU. A function either says which pieces of memory
// an instruction touches (the interpreter touches them, with its checks, when it likes) or turns the values
// that were read into those to be written. Shared addresses are offsets in the block's shared window (the
// shared::cta state space). Whatever the PTX ISA leaves undefined is a TensorError.
//
// Registers of several lanes lie lane after lane: registers[lane * registers_per_lane + index].
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

namespace simulator {

struct TensorError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// ---- mma.sync: one warp, 32 lanes
// ----------------------------------------------------------------------------------

enum class BitOp { And, Xor };

struct MmaShape {
  int m, n, k;
};

// 32-bit registers per lane of A, B and C (D has as many as C) for elements of `bits` bits (1 or 8).
// Shapes: 1 bit m8n8k128, m16n8k128, m16n8k256; 8 bits m8n8k16, m16n8k16, m16n8k32. TensorError for any
// other.
struct MmaRegisters {
  int a, b, c;
};
MmaRegisters mma_registers(MmaShape shape, int bits);

// d = popc(a op b) + c, .row.col, modulo 2^32. d may be c.
void mma_b1(MmaShape shape, BitOp op, const uint32_t* a, const uint32_t* b, const uint32_t* c, uint32_t* d);

// d = a * b + c with 8-bit elements, .row.col; clamped to int32 with .satfinite, else modulo 2^32. d may be
// c.
void mma_i8(MmaShape shape, bool a_signed, bool b_signed, bool satfinite, const uint32_t* a,
            const uint32_t* b, const uint32_t* c, uint32_t* d);

// ---- ldmatrix, stmatrix .m8n8.b16: one warp
// --------------------------------------------------------------------------

// Row r of matrix i is at the shared address that lane 8 * i + r gives (a multiple of 16), 16 bytes; `count`
// is 1, 2 or 4. rows: the bytes read, [count][8][16]; registers: [32][count].
void ldmatrix(int count, bool transposed, const uint8_t* rows, uint32_t* registers);
void stmatrix(int count, bool transposed, const uint32_t* registers, uint8_t* rows);

// ---- wgmma.mma_async: one warpgroup, 128 lanes
// -----------------------------------------------------------------------

enum class WgmmaKind { B1AndPopc, U8U8, U8S8, S8U8, S8S8 };  // types of A and B; accumulators are s32

// Whether m64nNk256 (b1) or m64nNk32 (8 bits) exists.
bool wgmma_n_valid(int n);

// Shared addresses of the 16-byte pieces of an operand that a matrix descriptor describes (K-major): two per
// row, the first 16 bytes of K, then the other 16; rows = 64 for A, N for B.
std::vector<uint32_t> wgmma_operand(uint64_t descriptor, int rows);

// A in registers: registers [128][4] to rows [64][32 bytes].
void wgmma_a_from_registers(const uint32_t* registers, uint8_t* rows);

// d = a * b + (scale_d ? d : 0), modulo 2^32 or clamped with .satfinite (8 bits only). a: [64][32 bytes], b:
// [n][32 bytes], d: registers [128][n / 2].
void wgmma(WgmmaKind kind, int n, bool scale_d, bool satfinite, const uint8_t* a, const uint8_t* b,
           uint32_t* d);

// ---- tensor maps and bulk copies
// -------------------------------------------------------------------------------------

// What cuTensorMapEncodeTiled is given; fastest dimension first. Interleave none, out of bounds reads as
// zero.
struct TensorMap {
  uint64_t address = 0;
  int element_bytes = 0;  // 1, 2, 4 or 8
  int rank = 0;           // 1 to 5
  uint64_t sizes[5] = {};
  uint64_t strides[5] = {};  // bytes; strides[0] is element_bytes, the others are multiples of 16
  uint32_t box[5] = {};
  uint32_t element_strides[5] = {};
  int swizzle = 0;  // 0, 32, 64 or 128 bytes
};

constexpr int kTensorMapBytes = 128;

// Why the driver would refuse such a map (an English sentence); empty if it would not.
std::string tensor_map_refusal(const TensorMap& map);

// The simulator's own encoding; encode throws TensorError where there is a refusal, decode where `bytes` are
// no tensor map.
void encode_tensor_map(const TensorMap& map, uint8_t bytes[kTensorMapBytes]);
TensorMap decode_tensor_map(const uint8_t bytes[kTensorMapBytes]);

// One contiguous piece of a copy. is_zero: nothing is read, zeros are written to shared memory (loads only).
struct BulkPiece {
  uint64_t global;
  uint32_t shared;
  uint32_t bytes;
  bool is_zero;
};

// Bytes of the box: what a load's mbarrier counts, elements out of bounds included.
uint32_t tensor_box_bytes(const TensorMap& map);

// cp.async.bulk.tensor.Nd tile mode; `coordinates` has map.rank elements, fastest first. A store leaves out
// what is out of bounds.
std::vector<BulkPiece> tensor_load(const TensorMap& map, const int32_t* coordinates, uint32_t shared);
std::vector<BulkPiece> tensor_store(const TensorMap& map, const int32_t* coordinates, uint32_t shared);

// cp.async.bulk, either direction: one piece, sizes and addresses multiples of 16 or TensorError.
BulkPiece bulk_copy(uint64_t global, uint32_t shared, uint32_t bytes);

// ---- mbarrier: a 64-bit word of shared memory
// ------------------------------------------------------------------------

// Each function takes the word, gives the new word and throws TensorError for a word that is no mbarrier, or
// a count out of its range.
uint64_t mbarrier_init(uint32_t count);
uint64_t mbarrier_expect_tx(uint64_t word, uint32_t bytes);
uint64_t mbarrier_complete_tx(uint64_t word, uint32_t bytes);

// `token` (the state operand of arrive, if asked for) is of the phase before the arrival. The optional
// expect_tx comes first, as arrive.expect_tx does: mbarrier_arrive(mbarrier_expect_tx(word, bytes)).
uint64_t mbarrier_arrive(uint64_t word, uint32_t count = 1, uint64_t* token = nullptr);
// arrive.noComplete: TensorError where it would complete the phase.
uint64_t mbarrier_arrive_no_complete(uint64_t word, uint32_t count, uint64_t* token = nullptr);
uint64_t mbarrier_arrive_drop(uint64_t word, uint32_t count = 1, uint64_t* token = nullptr);

// test_wait and try_wait: whether the phase that the token is of, or the phase of that parity, has completed.
bool mbarrier_test_wait(uint64_t word, uint64_t token);
bool mbarrier_test_wait_parity(uint64_t word, uint32_t parity);

uint32_t mbarrier_pending_count(uint64_t token);

// For messages: "phase 1, 1 of 2 arrivals pending, 4096 bytes expected".
std::string mbarrier_text(uint64_t word);

}  // namespace simulator
