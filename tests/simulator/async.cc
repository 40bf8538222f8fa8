// What is under way when an instruction returns.
#include "async.h"

#include "decode.h"

namespace simulator {

void land(Block& block, size_t index) {
  block.bulks.erase(block.bulks.begin() + static_cast<std::ptrdiff_t>(index));
}

bool decode_async(Decoder&) { return false; }

}  // namespace simulator
