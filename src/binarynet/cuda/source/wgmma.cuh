// Instructions of Hopper (sm_90a) that the wgmma kernels are made of: barriers in shared memory (PTX ISA,
// mbarrier), bulk copies (cp.async.bulk, cp.async.bulk.tensor) and products of warpgroups (wgmma).
#pragma once

#include "common.cuh"

constexpr int WARPGROUP = 128;

// What the driver makes of a description of device memory.
struct alignas(64) TensorMap {
  u64 opaque[16];
};

// ---- barriers ------------------------------------------------------------------------------------------

__device__ __forceinline__ void barrier_init(u32 barrier, u32 arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}

// Barriers just made become visible to bulk copies.
__device__ __forceinline__ void publish_barriers() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

__device__ __forceinline__ void barrier_arrive(u32 barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}

// The phase ends when all arrived and so many bytes more have been copied.
__device__ __forceinline__ void barrier_arrive_expecting(u32 barrier, u32 bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes)
               : "memory");
}

// Waits for the end of a phase of this parity. The phase before the first one has parity 1 and is over.
__device__ __forceinline__ void barrier_wait(u32 barrier, u32 parity) {
  u32 over;
  do {
    asm volatile(
        "{ .reg .pred over; mbarrier.try_wait.parity.shared::cta.b64 over, [%1], %2; "
        "selp.u32 %0, 1, 0, over; }"
        : "=r"(over)
        : "r"(barrier), "r"(parity)
        : "memory");
  } while (!over);
}

// A ring of stages in shared memory: which one is next, and the parity of its barriers' phase.
struct Ring {
  int stage = 0;
  u32 parity = 0;

  __device__ __forceinline__ void advance(int stages) {
    if (++stage == stages) {
      stage = 0;
      parity ^= 1;
    }
  }
};

// ---- bulk copies from device memory, counted by a barrier ----------------------------------------------

__device__ __forceinline__ void prefetch_map(const TensorMap& map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(&map) : "memory");
}

// The box at these coordinates (fastest dimension first); elements outside of the array arrive as zeros.
__device__ __forceinline__ void copy_box(u32 shared, const TensorMap& map, u32 barrier, int x, int y) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%3, "
      "%4}], "
      "[%2];" ::"r"(shared),
      "l"(&map), "r"(barrier), "r"(x), "r"(y)
      : "memory");
}

__device__ __forceinline__ void copy_box(u32 shared, const TensorMap& map, u32 barrier, int x, int y, int z,
                                         int w) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, "
      "%5, "
      "%6}], [%2];" ::"r"(shared),
      "l"(&map), "r"(barrier), "r"(x), "r"(y), "r"(z), "r"(w)
      : "memory");
}

// Addresses and bytes: multiples of 16.
__device__ __forceinline__ void copy_bytes(u32 shared, const void* global, u32 bytes, u32 barrier) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(shared),
      "l"(__cvta_generic_to_global(global)), "r"(bytes), "r"(barrier)
      : "memory");
}

// ---- products of warpgroups ----------------------------------------------------------------------------

// Descriptor of an operand in shared memory, K-major: `first` is its address, `next_k` and `next_rows` the
// bytes from 128 bits to the next 128 and from 8 rows to the next 8. With SWIZZLED, rows are 128 bytes wide,
// swizzled within 1024 bytes, and next_k is not used.
constexpr u64 SWIZZLED = u64{1} << 62;

__device__ __forceinline__ u64 operand(u32 first, u32 next_k, u32 next_rows, u64 swizzle) {
  return static_cast<u64>((first & 0x3ffff) >> 4) | static_cast<u64>(next_k >> 4) << 16 |
         static_cast<u64>(next_rows >> 4) << 32 | swizzle;
}

// Registers and shared memory written before are seen by the products that follow.
__device__ __forceinline__ void begin_products() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }

__device__ __forceinline__ void commit_products() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

// Waits until at most PENDING of the latest groups are under way.
template <int PENDING>
__device__ __forceinline__ void wait_for_products() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(PENDING) : "memory");
}

// The compiler must not read or move sums while products are under way; after this it may.
template <int N>
__device__ __forceinline__ void settle(int (&sums)[N]) {
#pragma unroll
  for (int i = 0; i < N; i++) asm volatile("" : "+r"(sums[i])::"memory");
}

// Barriers of threads: 0 is that of the whole block, 1 and following those of the consumer warpgroups, 9 and
// following those at which one consumer lets the next begin. Warps must come to them as a whole.
constexpr int OF_CONSUMER = 1;
constexpr int BEGIN = 9;

__device__ __forceinline__ void synchronize_warpgroup(int consumer) {
  __syncwarp();
  asm volatile("bar.sync %0, %1;" ::"r"(OF_CONSUMER + consumer), "n"(WARPGROUP) : "memory");
}

// Consumers begin one after the other and so stay apart: while one writes its output, others multiply. Each
// that has work calls the first, and the second once where the next one has.
__device__ __forceinline__ void wait_to_begin(int consumer) {
  __syncwarp();
  if (consumer > 0) asm volatile("bar.sync %0, %1;" ::"r"(BEGIN + consumer), "n"(2 * WARPGROUP) : "memory");
}

__device__ __forceinline__ void let_next_begin(int consumer, int consumers) {
  __syncwarp();
  if (consumer + 1 < consumers) {
    asm volatile("bar.arrive %0, %1;" ::"r"(BEGIN + consumer + 1), "n"(2 * WARPGROUP) : "memory");
  }
}

template <int REGISTERS>
__device__ __forceinline__ void more_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(REGISTERS));
}

template <int REGISTERS>
__device__ __forceinline__ void fewer_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(REGISTERS));
}

// sums += popc(a AND b), or = where `accumulate` is false: 64 rows of A by N of B, 256 bits each. Thread
// 32 w + 4 g + t holds of row 16 w + g + 8 h and column 8 j + 2 t + c the sum 4 j + 2 h + c.
#define WGMMA_SUMS_4(i) "+r"(sums[i]), "+r"(sums[i + 1]), "+r"(sums[i + 2]), "+r"(sums[i + 3])
#define WGMMA_SUMS_16(i) WGMMA_SUMS_4(i), WGMMA_SUMS_4(i + 4), WGMMA_SUMS_4(i + 8), WGMMA_SUMS_4(i + 12)

__device__ __forceinline__ void multiply_add(int (&sums)[64], u64 a, u64 b, bool accumulate) {
  asm volatile(
      "{ .reg .pred accumulate; setp.ne.b32 accumulate, %66, 0; "
      "wgmma.mma_async.sync.aligned.m64n128k256.s32.b1.b1.and.popc {"
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
      "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
      "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
      "}, %64, %65, accumulate; }"
      : WGMMA_SUMS_16(0), WGMMA_SUMS_16(16), WGMMA_SUMS_16(32), WGMMA_SUMS_16(48)
      : "l"(a), "l"(b), "r"(static_cast<int>(accumulate)));
}

__device__ __forceinline__ void multiply_add(int (&sums)[128], u64 a, u64 b, bool accumulate) {
  asm volatile(
      "{ .reg .pred accumulate; setp.ne.b32 accumulate, %130, 0; "
      "wgmma.mma_async.sync.aligned.m64n256k256.s32.b1.b1.and.popc {"
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
      "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
      "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, "
      "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, "
      "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, "
      "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, "
      "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"
      "}, %128, %129, accumulate; }"
      : WGMMA_SUMS_16(0), WGMMA_SUMS_16(16), WGMMA_SUMS_16(32), WGMMA_SUMS_16(48), WGMMA_SUMS_16(64),
        WGMMA_SUMS_16(80), WGMMA_SUMS_16(96), WGMMA_SUMS_16(112)
      : "l"(a), "l"(b), "r"(static_cast<int>(accumulate)));
}

#undef WGMMA_SUMS_16
#undef WGMMA_SUMS_4
