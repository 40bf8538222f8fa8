#include "training/elementwise.h"

#include <algorithm>

#include "dispatch.h"
#include "training/choice.h"
#include "training/parallel.h"

namespace binarynet::training {
namespace {

constexpr int64_t kShare = 1 << 14;  // elements; below it a thread costs more than it gives
static_assert(kShare % kNoiseBlock == 0);

const ElementwiseKernels& kernels() {
#if defined(BINARYNET_HAVE_AVX512_VPOPCNTDQ)
  return choose(&kAvx512VpopcntdqElementwise, kPortableElementwise);
#else
  return choose<ElementwiseKernels>(nullptr, kPortableElementwise);
#endif
}

// body(begin, end) for shares of [0, count).
template <class Body>
void share(int64_t count, int32_t num_threads, const Body& body) {
  parallel(num_threads, (count + kShare - 1) / kShare, 0,
           [&](int64_t unit, void*) { body(unit * kShare, std::min(count, (unit + 1) * kShare)); });
}

// body(begin, end) for shares of the groups of images.
template <class Body>
void share_images(const Images& images, int32_t num_threads, const Body& body) {
  const int64_t groups = images.images * (images.pixels / kNoiseWords);
  const int64_t size = std::max<int64_t>(1, kShare / (kNoiseWords * std::max<int64_t>(1, images.channels)));
  parallel(num_threads, (groups + size - 1) / size, 0,
           [&](int64_t unit, void*) { body(unit * size, std::min(groups, (unit + 1) * size)); });
}

}  // namespace

void sign(const float* x, float* out, int64_t count, int32_t num_threads) {
  const ElementwiseKernels& chosen = kernels();
  share(count, num_threads,
        [&](int64_t begin, int64_t end) { chosen.sign(x + begin, out + begin, end - begin); });
}

void inside_window(const float* g, const float* x, float* out, int64_t count, int32_t num_threads) {
  const ElementwiseKernels& chosen = kernels();
  share(count, num_threads, [&](int64_t begin, int64_t end) {
    chosen.inside_window(g + begin, x + begin, out + begin, end - begin);
  });
}

void round_to_ap2(const float* x, float* out, int64_t count, int32_t num_threads) {
  const ElementwiseKernels& chosen = kernels();
  share(count, num_threads,
        [&](int64_t begin, int64_t end) { chosen.round_to_ap2(x + begin, out + begin, end - begin); });
}

void random_sign(const float* x, float* out, int64_t count, uint64_t key, int32_t num_threads) {
  const ElementwiseKernels& chosen = kernels();
  share(count, num_threads, [&](int64_t begin, int64_t end) { chosen.random_sign(x, out, begin, end, key); });
}

void drop(const float* x, float* out, int64_t count, uint64_t key, uint32_t threshold, int32_t num_threads) {
  const ElementwiseKernels& chosen = kernels();
  share(count, num_threads,
        [&](int64_t begin, int64_t end) { chosen.drop(x, out, begin, end, key, threshold); });
}

void random_sign_images(const float* x, float* out, const Images& images, uint64_t key, int32_t num_threads) {
  const ElementwiseKernels& chosen = kernels();
  share_images(images, num_threads, [&](int64_t begin, int64_t end) {
    chosen.random_sign_images(x, out, images, begin, end, key);
  });
}

void drop_images(const float* x, float* out, const Images& images, uint64_t key, uint32_t threshold,
                 int32_t num_threads) {
  const ElementwiseKernels& chosen = kernels();
  share_images(images, num_threads, [&](int64_t begin, int64_t end) {
    chosen.drop_images(x, out, images, begin, end, key, threshold);
  });
}

void adam(const AdamStep& step, int64_t count, int32_t num_threads) {
  const ElementwiseKernels& chosen = kernels();
  share(count, num_threads, [&](int64_t begin, int64_t end) { chosen.adam(step, begin, end); });
}

void ada_max(const AdaMaxStep& step, int64_t count, int32_t num_threads) {
  const ElementwiseKernels& chosen = kernels();
  share(count, num_threads, [&](int64_t begin, int64_t end) { chosen.ada_max(step, begin, end); });
}

}  // namespace binarynet::training
