// First layers with mma.sync on bytes (PTX ISA, mma; sm_80 and later): inputs u of 8 bits times weights of +1
// and -1, a step is 32 taps, a sum 2 (u w) + correction.
#include "common.cuh"

constexpr int FACTOR = 2;
constexpr bool COUNT_ONES = false;

__device__ __forceinline__ void multiply(int (&sums)[4], const u32 (&input)[4], u32 weights0, u32 weights1) {
  asm("mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+r"(sums[0]), "+r"(sums[1]), "+r"(sums[2]), "+r"(sums[3])
      : "r"(input[0]), "r"(input[1]), "r"(input[2]), "r"(input[3]), "r"(weights0), "r"(weights1));
}

#include "mma_block.cuh"

BLOCK_KERNEL(bytes_mma_block)
