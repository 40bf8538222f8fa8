"""Ways to break the NEON kernels on purpose (see ``native_mutations``). The native tests must notice each of them."""

from __future__ import annotations

from native_mutations import CLASSES, Mutation

NEON = "neon"
BITS = "kernels/neon_bits.cc"
BYTES = "kernels/neon_bytes.cc"

MUTATIONS = (
    Mutation("an upper count of 3 bits", BITS, "vshlq_n_u8(upper[p][v], 4)", "vshlq_n_u8(upper[p][v], 3)", NEON),
    Mutation("the third word of a block is lost", BITS, "if (i >= words.count)", "if (i >= 2)", NEON),
    Mutation("a triple too few", BITS, "(16 * count + 2) / 3", "16 * count / 3", NEON),
    Mutation("AND instead of XOR", BITS, "veorq_u8(", "vandq_u8(", NEON),
    Mutation("<= instead of <", BITS, "vcltq_u16(vld1q_u16(sums), ", "vcleq_u16(vld1q_u16(sums), ", NEON),
    Mutation("a 16-bit count overflows", BITS, "kSpanWords = 1023", "kSpanWords = 2046", NEON),
    Mutation("outside taps count", CLASSES, "outside = 2 * ones", "outside = 0 * ones", NEON, BITS),
    Mutation(">= instead of >", BYTES, "vcgtq_s32(vld1q_s32(counts), ", "vcgeq_s32(vld1q_s32(counts), ", NEON),
    Mutation("16-bit sums of bytes overflow", BYTES, "kBlockBytes = 32", "kBlockBytes = 48", NEON),
    Mutation("the fourth tap of both quads", BYTES, "4 * kQuad + 3", "3", NEON),
    Mutation("noise behind the last tap", BYTES, "memset(w.taps, 0,", "memset(w.taps, 1,", NEON),
)
