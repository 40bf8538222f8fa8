#include "memory.h"

#include <sys/mman.h>

#include <cstring>
#include <utility>

namespace simulator {

namespace {

constexpr uint64_t kAlign = 256;
constexpr uint64_t kGap = 1 << 20;  // between allocations, so that a stray access rarely meets another one

}  // namespace

std::string hex(uint64_t value) {
  char text[32];
  snprintf(text, sizeof text, "0x%llx", static_cast<unsigned long long>(value));
  return text;
}

Pages::Pages(uint64_t bytes) : bytes_(bytes) {
  void* pages =
      mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (pages == MAP_FAILED)
    throw Error(ErrorKind::OutOfMemory,
                "the simulator itself is out of memory: " + std::to_string(bytes) + " bytes");
  data_ = static_cast<uint8_t*>(pages);
}

Pages::~Pages() {
  if (data_) munmap(data_, bytes_);
}

Pages::Pages(Pages&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}

Pages& Pages::operator=(Pages&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

void Pages::clear() {
  if (data_) madvise(data_, bytes_, MADV_DONTNEED);
}

void Allocation::track_writers() {
  if (!writers.data()) writers = Pages(bytes * 8);
  has_writers = true;
}

Allocation* Memory::allocate(uint64_t bytes, bool initialized) {
  if (bytes == 0) throw Error(ErrorKind::InvalidValue, "an allocation of 0 bytes");
  if (bytes > capacity_ - used_)
    throw Error(ErrorKind::OutOfMemory, "the simulated device is out of memory: " + std::to_string(bytes) +
                                            " bytes asked for, " + std::to_string(capacity_ - used_) +
                                            " free");
  auto a = std::make_unique<Allocation>();
  a->base = next_;
  a->bytes = bytes;
  a->data = Pages(bytes);
  a->written = Pages(bytes);
  if (initialized) std::memset(a->written.data(), 1, bytes);
  next_ += (bytes + kGap + kAlign - 1) / kAlign * kAlign;
  used_ += bytes;
  Allocation* result = a.get();
  allocations_[result->base] = std::move(a);
  return result;
}

void Memory::free(uint64_t address, bool variable) {
  auto found = allocations_.find(address);
  if (found == allocations_.end() || found->second->variable != variable)
    throw Error(ErrorKind::InvalidValue, "free of " + hex(address) + ", which " + describe(address, 1) +
                                             "; expected what allocate gave");
  used_ -= found->second->bytes;
  freed_[address] = found->second->bytes;
  allocations_.erase(found);
}

Allocation* Memory::find(uint64_t address, uint64_t bytes) const {
  auto after = allocations_.upper_bound(address);
  if (after == allocations_.begin()) return nullptr;
  Allocation* a = std::prev(after)->second.get();
  const uint64_t offset = address - a->base;
  return offset < a->bytes && bytes <= a->bytes - offset ? a : nullptr;
}

Allocation* Memory::host(uint64_t address, uint64_t bytes) const {
  Allocation* a = find(address, bytes);
  if (!a)
    throw Error(ErrorKind::IllegalAddress,
                std::to_string(bytes) + " bytes at " + hex(address) + ", which " + describe(address, bytes));
  return a;
}

std::string Memory::describe(uint64_t address, uint64_t bytes) const {
  auto after = allocations_.upper_bound(address);
  if (after != allocations_.begin()) {
    const Allocation& a = *std::prev(after)->second;
    if (address - a.base < a.bytes + kGap / 2) {
      if (address - a.base < a.bytes && bytes <= a.bytes - (address - a.base))
        return "starts a buffer or lies in one";
      return "reaches past the end of a buffer of " + std::to_string(a.bytes) + " bytes: offset " +
             std::to_string(address - a.base);
    }
  }
  if (after != allocations_.end() && after->second->base - address < kGap / 2)
    return "lies " + std::to_string(after->second->base - address) + " bytes before a buffer of " +
           std::to_string(after->second->bytes) + " bytes";
  auto freed = freed_.upper_bound(address);
  if (freed != freed_.begin()) {
    --freed;
    if (address - freed->first < freed->second) return "lies in a buffer that was freed";
  }
  return "lies in no buffer";
}

void Memory::forget_writers() {
  for (auto& [base, a] : allocations_) {
    if (a->has_writers) a->writers.clear();
    a->has_writers = false;
  }
}

}  // namespace simulator
