#include "shared.h"

#include <algorithm>
#include <cstring>

#include "core.h"

namespace simulator {

namespace {

constexpr uint32_t kStepBits = 25, kStepMask = (1u << kStepBits) - 1, kAtomic = 1u << 31;

uint32_t actor_of(uint32_t stamp) { return stamp >> kStepBits & (kActors - 1); }
uint32_t step_of(uint32_t stamp) { return stamp & kStepMask; }

std::string actor_name(uint32_t actor) {
  if (actor == kTensorCore) return "wgmma";
  if (actor >= kLoads) return "an asynchronous copy";
  return "warp " + std::to_string(actor);
}

}  // namespace

void SharedMemory::resize(uint32_t bytes) {
  size_ = bytes;
  data_.assign(bytes, 0xcd);
  writes_.assign(bytes, 0);
  reads_.assign(bytes, 0);
  other_reads_.assign(bytes, 0);
}

void SharedMemory::forget() {
  std::fill(data_.begin(), data_.end(), 0xcd);
  std::fill(writes_.begin(), writes_.end(), 0);
  std::fill(reads_.begin(), reads_.end(), 0);
  std::fill(other_reads_.begin(), other_reads_.end(), 0);
  step = 1;
}

void SharedMemory::make_ancient() {
  for (uint32_t& stamp : writes_)
    if (stamp) stamp = 1;  // written, by step 1
  std::fill(reads_.begin(), reads_.end(), 0);
  std::fill(other_reads_.begin(), other_reads_.end(), 0);
}

void SharedMemory::race(uint32_t offset, uint32_t stamp, const char* was, const char* is, int lane) {
  throw Fault{ErrorKind::Race,
              std::string("race in shared memory at ") + std::to_string(offset) + ": " + is + " what " +
                  actor_name(actor_of(stamp)) + " " + was + " without a barrier in between",
              lane};
}

template <uint32_t N>
void SharedMemory::read_n(uint32_t offset, uint32_t actor, const Clocks& clocks, int lane, Access access) {
  const uint32_t* written = writes_.data() + offset;
  uint32_t* reads = reads_.data() + offset;
  uint32_t* others = other_reads_.data() + offset;
  const uint32_t current = (access == Access::Atomic ? kAtomic : 0) | actor << kStepBits | step;
  const uint32_t w0 = written[0], r0 = reads[0];
  uint32_t differs = 0;
  for (uint32_t i = 1; i < N; ++i) differs |= (written[i] ^ w0) | (reads[i] ^ r0);
  if (!differs && w0 && step_of(w0) <= clocks.at[actor_of(w0)]) {
    if (actor_of(r0) != actor)
      for (uint32_t i = 0; i < N; ++i) others[i] = r0;
    for (uint32_t i = 0; i < N; ++i) reads[i] = current;
    return;
  }
  for (uint32_t i = 0; i < N; ++i) {
    if (!written[i])
      throw Fault{ErrorKind::Uninitialized,
                  "reads shared memory at " + std::to_string(offset + i) + ", which nothing has written",
                  lane};
    if (step_of(written[i]) > clocks.at[actor_of(written[i])] &&
        !(access == Access::Atomic && (written[i] & kAtomic)))
      race(offset + i, written[i], "wrote", "reads", lane);
    if (actor_of(reads[i]) != actor) others[i] = reads[i];
    reads[i] = current;
  }
}

template <uint32_t N>
void SharedMemory::write_n(uint32_t offset, const uint8_t* values, uint32_t actor, const Clocks& clocks,
                           int lane, Access access) {
  uint32_t* written = writes_.data() + offset;
  const uint32_t* reads = reads_.data() + offset;
  const uint32_t* others = other_reads_.data() + offset;
  const uint32_t current = (access == Access::Atomic ? kAtomic : 0) | actor << kStepBits | step;
  const uint32_t w0 = written[0], r0 = reads[0], o0 = others[0];
  uint32_t differs = 0;
  for (uint32_t i = 1; i < N; ++i) differs |= (written[i] ^ w0) | (reads[i] ^ r0) | (others[i] ^ o0);
  const bool fine = !differs && step_of(w0) <= clocks.at[actor_of(w0)] &&
                    step_of(r0) <= clocks.at[actor_of(r0)] && step_of(o0) <= clocks.at[actor_of(o0)] &&
                    w0 != current;
  if (!fine) {
    for (uint32_t i = 0; i < N; ++i) {
      const bool both_atomic = access == Access::Atomic && (written[i] & kAtomic);
      const bool same_value = values[i] == data_[offset + i];
      if (step_of(written[i]) > clocks.at[actor_of(written[i])] && !both_atomic && !same_value)
        race(offset + i, written[i], "wrote", "overwrites", lane);
      if (written[i] == current && !both_atomic && !same_value)
        throw Fault{ErrorKind::Race,
                    "race in shared memory at " + std::to_string(offset + i) +
                        ": two threads of a warp write different values in one instruction",
                    lane};
      if (same_value && written[i]) continue;
      for (uint32_t stamp : {reads[i], others[i]})
        if (step_of(stamp) > clocks.at[actor_of(stamp)] && !(access == Access::Atomic && (stamp & kAtomic)))
          race(offset + i, stamp, "read", "overwrites", lane);
    }
  }
  for (uint32_t i = 0; i < N; ++i) written[i] = current;
  std::memcpy(data_.data() + offset, values, N);
}

void SharedMemory::read(uint32_t offset, uint32_t bytes, uint32_t actor, const Clocks& clocks, int lane,
                        Access access) {
  switch (bytes) {
    case 4:
      return read_n<4>(offset, actor, clocks, lane, access);
    case 8:
      return read_n<8>(offset, actor, clocks, lane, access);
    case 16:
      return read_n<16>(offset, actor, clocks, lane, access);
    default:
      for (uint32_t i = 0; i < bytes; ++i) read_n<1>(offset + i, actor, clocks, lane, access);
  }
}

void SharedMemory::write(uint32_t offset, uint32_t bytes, const void* values, uint32_t actor,
                         const Clocks& clocks, int lane, Access access) {
  const uint8_t* from = static_cast<const uint8_t*>(values);
  for (; bytes >= 16; bytes -= 16, offset += 16, from += 16)
    write_n<16>(offset, from, actor, clocks, lane, access);
  for (; bytes >= 4; bytes -= 4, offset += 4, from += 4)
    write_n<4>(offset, from, actor, clocks, lane, access);
  for (; bytes; --bytes, ++offset, ++from) write_n<1>(offset, from, actor, clocks, lane, access);
}

void SharedMemory::read_async(uint32_t offset, uint32_t bytes, uint32_t actor, const Clocks& clocks,
                              const uint32_t* fences, uint32_t own_fence, int lane) {
  for (uint32_t i = 0; i < bytes; ++i) {
    const uint32_t stamp = writes_[offset + i], writer = actor_of(stamp);
    if (stamp && writer < 32 && step_of(stamp) > 1 && step_of(stamp) > fences[writer] &&
        step_of(stamp) > own_fence)
      throw Fault{ErrorKind::Race,
                  "an asynchronous read of shared memory at " + std::to_string(offset + i) + ", which warp " +
                      std::to_string(writer) + " wrote without fence.proxy.async after it",
                  lane};
  }
  for (; bytes >= 16; bytes -= 16, offset += 16) read_n<16>(offset, actor, clocks, lane, Access::Plain);
  for (; bytes; --bytes, ++offset) read_n<1>(offset, actor, clocks, lane, Access::Plain);
}

}  // namespace simulator
