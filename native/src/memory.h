// Memory aligned to cache lines. Running out of it is std::bad_alloc, which abi.cc turns into a status.
#pragma once

#include <cstddef>
#include <cstdint>
#include <new>
#include <utility>

namespace binarynet {

constexpr size_t kAlignment = 64;

constexpr size_t round_up(size_t bytes, size_t to = kAlignment) { return (bytes + to - 1) / to * to; }

class AlignedBuffer {
 public:
  AlignedBuffer() = default;
  explicit AlignedBuffer(size_t bytes) : bytes_(bytes) {
    if (bytes > static_cast<size_t>(PTRDIFF_MAX) - kAlignment) throw std::bad_alloc();
    if (bytes > 0) data_ = ::operator new(bytes, std::align_val_t{kAlignment});
  }
  AlignedBuffer(AlignedBuffer&& other) noexcept { swap(other); }
  AlignedBuffer& operator=(AlignedBuffer&& other) noexcept {
    AlignedBuffer taken(std::move(other));
    swap(taken);
    return *this;
  }
  ~AlignedBuffer() {
    if (data_ != nullptr) ::operator delete(data_, std::align_val_t{kAlignment});
  }

  void* data() const { return data_; }
  size_t bytes() const { return bytes_; }

 private:
  void swap(AlignedBuffer& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
  }

  void* data_ = nullptr;
  size_t bytes_ = 0;
};

}  // namespace binarynet
