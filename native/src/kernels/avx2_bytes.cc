// 8-bit pixels, AVX2: which of its two ways serves a block.
#include "avx2_bytes.h"

#include "avx2.h"

namespace binarynet::avx2 {
namespace {

// Tables are made for each pixel, and pay when enough channels look into them. Measured on Zen 5: level at 96
// to 128 channels, 1.3 to 1.9 times as fast from 256 on.
constexpr int32_t kLeastChannels = 96;

bool by_lookup(const Block& b) { return b.out_c >= kLeastChannels; }

}  // namespace

size_t bytes_prepared_bytes(const Block& block) {
  return by_lookup(block) ? lookup::prepared_bytes(block) : multiply::prepared_bytes(block);
}

void bytes_prepare(const Block& block, void* prepared) {
  by_lookup(block) ? lookup::prepare(block, prepared) : multiply::prepare(block, prepared);
}

int64_t bytes_unit_count(const Block& block, int64_t batch) {
  return by_lookup(block) ? lookup::unit_count(block, batch) : multiply::unit_count(block, batch);
}

size_t bytes_workspace_bytes(const Block& block, int64_t batch) {
  return by_lookup(block) ? lookup::workspace_bytes(block, batch) : multiply::workspace_bytes(block, batch);
}

void bytes_run(const Block& block, const void* prepared, const uint8_t* in, void* out, int64_t batch,
               int64_t unit_begin, int64_t unit_end, void* workspace) {
  const auto run = by_lookup(block) ? lookup::run : multiply::run;
  run(block, prepared, in, out, batch, unit_begin, unit_end, workspace);
}

const char* bytes_method(const Block& block, int64_t /*batch*/) {
  return by_lookup(block) ? "table look-ups of 4 pixels" : "multiply-add of bytes";
}

}  // namespace binarynet::avx2
