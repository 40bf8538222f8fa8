// 8-bit pixels, AVX-512: which of its two ways serves a block.
#include "avx512_vpopcntdq_bytes.h"

#include "avx512_vpopcntdq.h"
#include "simd_tiles.h"

namespace binarynet::avx512_vpopcntdq {
namespace {

// Tables are made for each pixel, and pay when enough channels look into them and when a convolution's serve
// every row of its window. Measured on Zen 5: look-ups are faster from 96 (3 x 3 windows over three colours)
// to 128 channels on (dense layers, batches), 1.5 to 4 times from 256 on.
constexpr int32_t kLeastChannels = 112;
constexpr int32_t kLeastTaps = 16;

bool by_lookup(const Block& b) {
  return b.out_c >= kLeastChannels && int64_t{b.kernel_h} * b.kernel_w * b.in_c >= kLeastTaps &&
         (b.stride_h <= 2 || is_flat(b));
}

}  // namespace

size_t bytes_prepared_bytes(const Block& block) {
  return by_lookup(block) ? lookup::prepared_bytes(block) : dot::prepared_bytes(block);
}

void bytes_prepare(const Block& block, void* prepared) {
  by_lookup(block) ? lookup::prepare(block, prepared) : dot::prepare(block, prepared);
}

int64_t bytes_unit_count(const Block& block, int64_t batch) {
  return by_lookup(block) ? lookup::unit_count(block, batch) : dot::unit_count(block, batch);
}

size_t bytes_workspace_bytes(const Block& block, int64_t batch) {
  return by_lookup(block) ? lookup::workspace_bytes(block, batch) : dot::workspace_bytes(block, batch);
}

void bytes_run(const Block& block, const void* prepared, const uint8_t* in, void* out, int64_t batch,
               int64_t unit_begin, int64_t unit_end, void* workspace) {
  const auto run = by_lookup(block) ? lookup::run : dot::run;
  run(block, prepared, in, out, batch, unit_begin, unit_end, workspace);
}

const char* bytes_method(const Block& block, int64_t /*batch*/) {
  return by_lookup(block) ? "table look-ups of 5 and 6 pixels" : "dot products of bytes";
}

}  // namespace binarynet::avx512_vpopcntdq
