// Binary convolutions and dense layers with mma.sync AND + POPC on bits (PTX ISA, mma; sm_80 and later;
// hardware up to sm_90): a step is 256 taps, a sum 4 popc(a AND w) - 2 (ones of a) + correction.
#include "common.cuh"

constexpr int FACTOR = 4;
constexpr bool COUNT_ONES = true;

__device__ __forceinline__ void multiply(int (&sums)[4], const u32 (&input)[4], u32 weights0, u32 weights1) {
  asm("mma.sync.aligned.m16n8k256.row.col.s32.b1.b1.s32.and.popc {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, "
      "%9}, "
      "{%0, %1, %2, %3};"
      : "+r"(sums[0]), "+r"(sums[1]), "+r"(sums[2]), "+r"(sums[3])
      : "r"(input[0]), "r"(input[1]), "r"(input[2]), "r"(input[3]), "r"(weights0), "r"(weights1));
}

#include "mma_block.cuh"

BLOCK_KERNEL(mma_block)
