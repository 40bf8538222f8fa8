"""Ways to break the native code on purpose. The native tests must notice each of them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutation:
    """Replace ``old`` (which occurs exactly once) by ``new`` in ``native/src/<file>``.

    Needs a machine with the instruction set ``isa``. Of a header, ``compiled`` is the source file that takes it.
    """

    name: str
    file: str
    old: str
    new: str
    isa: str = "portable"
    compiled: str = ""


PORTABLE = "kernels/portable.cc"
CLASSES = "kernels/simd_classes.h"
TILES = "kernels/simd_tiles.h"
AVX2 = "avx2"
AVX2_BITS = "kernels/avx2_bits.cc"
AVX2_LAYOUT = "kernels/avx2_layout.h"
AVX2_LUT = "kernels/avx2_lut.cc"
AVX2_PAIRS = "kernels/avx2_pairs.cc"
AVX2_TABLES = "kernels/avx2_tables.cc"
AVX2_BY_TABLES = "kernels/avx2_by_tables.cc"
AVX2_MULTIPLY = "kernels/avx2_bytes_multiply.cc"
AVX2_LOOKUP = "kernels/avx2_bytes_lookup.cc"
AVX512 = "avx512_vpopcntdq"
AVX512_BITS = "kernels/avx512_vpopcntdq_bits.cc"
AVX512_DOT = "kernels/avx512_vpopcntdq_bytes_dot.cc"
AVX512_LOOKUP = "kernels/avx512_vpopcntdq_bytes_lookup.cc"
AVX512_STRIPS = "kernels/avx512_vpopcntdq_bytes_strips.h"
AVX512_TABLES = "kernels/avx512_vpopcntdq_bytes_tables.h"
VBMI = "avx512_vbmi"
VBMI_SLICES = "kernels/avx512_vbmi_slices.cc"
VBMI_TABLES = "kernels/avx512_vbmi_tables.cc"
PORTABLE_DENSE = "training/portable_dense.cc"
AVX512_DENSE = "training/avx512_vpopcntdq_dense.cc"

MUTATIONS = (
    Mutation("a byte counter overflows", PORTABLE, "kWordsPerFlush = 31", "kWordsPerFlush = 32"),
    Mutation("a 16-bit counter overflows", PORTABLE, "kBytesPerFlush = 257", "kBytesPerFlush = 258"),
    Mutation("one bit in 64 is not counted", PORTABLE, "k33 = {0x3333333333333333,", "k33 = {0x3333333333333331,"),
    Mutation("channel 5 of 8 reads its neighbour", PORTABLE, "load(w + 4)", "load(w + 3)"),
    Mutation("> instead of >=", PORTABLE, "sums[i] >= b.thresholds", "sums[i] > b.thresholds"),
    Mutation("falling is ignored", PORTABLE, "bits ^ b.falling[span]", "bits"),
    Mutation(
        "padding counts as -1",
        PORTABLE,
        "(ys.end - ys.begin) * (xs.end - xs.begin) * b.in_c;\n"
        "  for (int lane = 0; lane < kGroup; ++lane) {\n    sums[lane] = num_taps",
        "b.kernel_h * b.kernel_w * b.in_c;\n  for (int lane = 0; lane < kGroup; ++lane) {\n    sums[lane] = num_taps",
    ),
    Mutation(
        "padding of the first layer counts as u = 0",
        PORTABLE,
        "int32_t num_taps = (ys.end - ys.begin) * (xs.end - xs.begin) * b.in_c;\n"
        "  for (int lane = 0; lane < kGroup; ++lane) {\n    sums[lane] = 2 *",
        "int32_t num_taps = b.kernel_h * b.kernel_w * b.in_c;\n"
        "  for (int lane = 0; lane < kGroup; ++lane) {\n    sums[lane] = 2 *",
    ),
    Mutation("2u - 256", PORTABLE, "- 255 * (2 *", "- 256 * (2 *"),
    Mutation("the pool takes its first tap", PORTABLE, "sums[i] > best[i] ? sums[i] : best[i]", "best[i]"),
    Mutation("the pool forgets its padding", PORTABLE, "y * b.pool_stride_h - b.pool_pad_h", "y * b.pool_stride_h"),
    Mutation("column stride for rows", PORTABLE, "conv_y * b.stride_h", "conv_y * b.stride_w"),
    Mutation(
        "a row of taps too few",
        PORTABLE,
        "first + kernel > length ? length - first",
        "first + kernel >= length ? length - first - 1",
    ),
    Mutation("int32 sums in the wrong place", PORTABLE, "pixel * b.out_c + first_channel", "pixel * b.out_c"),
    Mutation(
        "the standalone threshold is strict", "ops.cc", "sums[first + i] >= thresholds", "sums[first + i] > thresholds"
    ),
    Mutation(
        "one rounding instead of two",
        "ops.cc",
        "result[i] = product + shift[i];",
        "result[i] = __builtin_fmaf(static_cast<float>(sums[i]), scale[i], shift[i]) + product * 0;",
    ),
    Mutation("a pool of bits is an AND", "ops.cc", "return a | b;", "return a & b;"),
    Mutation("flatten drops bits at word borders", "ops.cc", "if (shift + count > 64)", "if (shift + count > 72)"),
    Mutation(
        "values that are outputs are fused away",
        "planner.cc",
        "is_output_[v] || users_[v].size() != 1",
        "users_[v].size() != 1",
    ),
    Mutation("values with two users are fused away", "planner.cc", "users_[v].size() != 1", "users_[v].empty()"),
    Mutation("memory is reused too early", "planner.cc", "storage_of(value.source).last_step = index;", ""),
    Mutation("every flatten of bits is a view", "planner.cc", "source.type != BINARYNET_BITS || ", "true || "),
    Mutation(
        "later chunks overwrite the first",
        "session.cc",
        "static_cast<char*>(outputs[place.index]) + begin * place.bytes_per_image",
        "static_cast<char*>(outputs[place.index]) + 0 * begin * place.bytes_per_image",
    ),
    Mutation("threads leave out a unit", "session.cc", "+ (index < larger ? 1 : 0)", "+ 0 * larger"),
    Mutation(
        "a larger batch in the memory of a smaller one",
        "session.cc",
        "static_cast<size_t>(plan_.arena_bytes_per_image * chunk_)",
        "static_cast<size_t>(plan_.arena_bytes_per_image)",
    ),
    Mutation(
        "threads share scratch memory", "session.cc", "stride * static_cast<size_t>(participant)", "0 * participant"
    ),
    Mutation(
        "memory is not kept",
        "workspaces.cc",
        "if (slot.compare_exchange_strong(",
        "if (buffer == nullptr && slot.compare_exchange_strong(",
    ),
    Mutation("memory of somebody else", "workspaces.cc", "slot.exchange(nullptr, ", "slot.exchange(slot.load(), "),
    Mutation(
        "threads of a pool have the same number",
        "thread_pool.cc",
        "participants.fetch_add(1",
        "participants.fetch_add(0",
    ),
    Mutation(
        "a pool does not wait",
        "thread_pool.cc",
        "fetch_sub(finished, std::memory_order_acq_rel) != finished",
        "fetch_sub(finished, std::memory_order_acq_rel) < 0",
    ),
    Mutation(
        "padding bits of the input are not checked", "session.cc", "if (row >= 0) {", "if (row > batch * pixels) {"
    ),
    Mutation("padding bits are not checked", "graph.cc", "!= 0) return row;", "!= 0) return -1;"),
    Mutation("the limit of exact sums is not checked", "graph.cc", "info.c > limit /", "info.c > 2 * limit /"),
    Mutation(
        "an unknown instruction set falls back",
        "dispatch.cc",
        "} else if (std::string(requested) ==",
        "} else if (row.why_not.empty() || std::string(requested) ==",
    ),
    Mutation(
        "AVX2: a 16-bit count overflows",
        AVX2_PAIRS,
        "kMostGroupsOf16Bits = 65535 /",
        "kMostGroupsOf16Bits = 80000 /",
        AVX2,
    ),
    Mutation(
        "AVX2: falling is ignored",
        AVX2_LAYOUT,
        "sink.falling = b.falling + word",
        "sink.falling = kNoneFalling",
        AVX2,
        AVX2_PAIRS,
    ),
    Mutation("AVX2: every second column is lost", AVX2_PAIRS, "? first + words : zeros", "? zeros : zeros", AVX2),
    Mutation("AVX2: outside taps count", CLASSES, "outside = 2 * ones", "outside = 0 * ones", AVX2, AVX2_BITS),
    Mutation("AVX2: rounding of bounds", CLASSES, "value >= 0 ? value / 2 : ", "true ? value / 2 : ", AVX2, AVX2_BITS),
    Mutation("AVX2: a class per column too few", CLASSES, "* cols + col_class", "+ col_class", AVX2, AVX2_MULTIPLY),
    Mutation("AVX2: pooled tiles forget falling", TILES, "any ^ b.falling[word + k]", "any", AVX2, AVX2_PAIRS),
    Mutation("AVX2: few columns, half of the channels", AVX2_LUT, "v % 2 == 0 ? both :", "true ? both :", AVX2),
    Mutation("AVX2: tables: bytes overflow", AVX2_BY_TABLES, "== kWordsPerByteCount;", "== 4;", AVX2),
    Mutation(
        "AVX2: tables: 16 bits overflow",
        AVX2_BY_TABLES,
        "kMostWordsOf16Bits = 65535",
        "kMostWordsOf16Bits = 80000",
        AVX2,
    ),
    Mutation("AVX2: tables: one tap for all", AVX2_BY_TABLES, "kx * kTableFields", "0 * kx", AVX2),
    Mutation(
        "AVX2: tables: a bit counts twice",
        AVX2_TABLES,
        "_mm256_add_epi8(entry[i], delta[3 + flipped])",
        "entry[i]",
        AVX2,
    ),
    Mutation("AVX2: tables: the eighth byte", AVX2_TABLES, "bit / 8 == 7 ? 0x80", "bit / 8 >= 6 ? 0x80", AVX2),
    Mutation("AVX2: 16-bit sums of bytes overflow", AVX2_MULTIPLY, "kBlockQuads = 64", "kBlockQuads = 96", AVX2),
    Mutation("AVX2: sums of rows overflow", AVX2_LOOKUP, "kByteQuads = 8", "kByteQuads = 10", AVX2),
    Mutation("AVX2: 16-bit sums of pixels overflow", AVX2_LOOKUP, "kBlockQuads = 64", "kBlockQuads = 80", AVX2),
    Mutation("AVX2: signed sums of pixels overflow", AVX2_LOOKUP, "kNarrowQuads = 32", "kNarrowQuads = 64", AVX2),
    Mutation("AVX2: taps behind the last one count", AVX2_LOOKUP, "0xff << (l.taps % 8)", "0 << (l.taps % 8)", AVX2),
    Mutation("AVX2: outside pixels count", CLASSES, "? -510 *", "? -509 *", AVX2, AVX2_LOOKUP),
    Mutation("AVX2: sums out of order", AVX2_LOOKUP, "(odd_low, odd_high, 0x31)", "(odd_low, odd_high, 0x20)", AVX2),
    Mutation("AVX-512: <= instead of <", AVX512_BITS, "_mm512_cmplt_epi32_mask(", "_mm512_cmple_epi32_mask(", AVX512),
    Mutation("AVX-512: a strip of two is left out", AVX512_BITS, "pixels - pixel == 2", "pixels - pixel == 9", AVX512),
    Mutation("AVX-512: >= instead of >", AVX512_DOT, "_mm512_cmpgt_epi32_mask(", "_mm512_cmpge_epi32_mask(", AVX512),
    Mutation("AVX-512: 2u - 254", CLASSES, "-255 * weights_sum", "-254 * weights_sum", AVX512, AVX512_DOT),
    Mutation(
        "AVX-512: the last quad of a dense layer", AVX512_DOT, "quad % 16 * 4) & 15", "quad % 16 * 4) & 7", AVX512
    ),
    Mutation("AVX-512: 16-bit sums of pixels overflow", AVX512_LOOKUP, "kMostChunks = 8", "kMostChunks = 12", AVX512),
    Mutation(
        "AVX-512: 16-bit sums of centred pixels overflow",
        AVX512_LOOKUP,
        "kMostCentredChunks = 15",
        "kMostCentredChunks = 18",
        AVX512,
    ),
    Mutation("AVX-512: a 16-bit bound wraps", AVX512_LOOKUP, "larger(bound, INT16_MIN)", "bound", AVX512),
    Mutation(
        "AVX-512: a block starts anew in each pass",
        AVX512_STRIPS,
        "begun = !call.first",
        "begun = false",
        AVX512,
        AVX512_LOOKUP,
    ),
    Mutation("AVX-512: sums out of order", AVX512_LOOKUP, "(even, high, odd)", "(odd, high, even)", AVX512),
    Mutation(
        "AVX-512: taps behind the last one count as -128",
        AVX512_TABLES,
        "kCentred ? -128 : 0)",
        "0)",
        AVX512,
        AVX512_LOOKUP,
    ),
    Mutation(
        "AVX-512: the sixth tap is always added",
        AVX512_TABLES,
        "signs(kBit[4], 0)",
        "signs(kBit[4], ~0u)",
        AVX512,
        AVX512_LOOKUP,
    ),
    Mutation(
        "AVX-512: centred weights", CLASSES, "centred ? weights_sum", "centred ? -weights_sum", AVX512, AVX512_LOOKUP
    ),
    Mutation("slices: a carry is lost", VBMI_SLICES, "$0xe8, %3", "$0xe0, %3", VBMI),
    Mutation("slices: a carry of three is lost", VBMI_SLICES, "sum, 0x74)", "sum, 0x70)", VBMI),
    Mutation("slices: the last carry of 16 is lost", VBMI_SLICES, "planes[0], 0xb8)", "planes[0], 0xb0)", VBMI),
    Mutation("slices: a sum that is not there yet", VBMI_SLICES, "step.fresh ? 0 : 0xff", "0xff", VBMI),
    Mutation("slices: a parity is not carried on", VBMI_SLICES, "first >> 63}", "first >> 62 & 1}", VBMI),
    Mutation("slices: pending carries are lost", VBMI_SLICES, "(pending & 1) != 0", "(pending & 2) != 0", VBMI),
    Mutation("slices: the levels are out of step", VBMI_SLICES, "ctzll(~", "ctzll(2 | ~", VBMI),
    Mutation(
        "slices: <= instead of <", VBMI_SLICES, "compare(_mm512_setzero_si512(), ones)", "compare(ones, ones)", VBMI
    ),
    Mutation("slices: bounds wrap", VBMI_SLICES, "larger(0, smaller(most,", "larger(-1, smaller(most + 1,", VBMI),
    Mutation("slices: all pixels are inside", VBMI_SLICES, "bounds + w.pixels[i].class_offset", "bounds", VBMI),
    Mutation(
        "slices: falling is ignored",
        VBMI_SLICES,
        "maskz_loadu_epi64(mask, b.falling",
        "maskz_loadu_epi64(0, b.falling",
        VBMI,
    ),
    Mutation("slices: the last words of K", VBMI_SLICES, "if (word == words_of_k(b)) weights = {};", "", VBMI),
    Mutation("slices: one row of a table", VBMI_TABLES, "carry_function(5)", "carry_function(4)", VBMI),
    Mutation("slices: two channels change places", VBMI_TABLES, "4 * octet + c / 2", "4 * octet + (c / 2 ^ 1)", VBMI),
    Mutation("slices: the last pair of channels", VBMI_TABLES, "s / 2 < pairs", "s / 2 < pairs - 1", VBMI),
    Mutation("training: NaN has the bit 0", PORTABLE_DENSE, "!(values[col] < 0)", "values[col] >= 0"),
    Mutation("training: a group is its last term", PORTABLE_DENSE, "? term : sum + term", "? term : term"),
    Mutation("training: masked inputs count as 1", "training/dense.cc", "255 * masked", "256 * masked"),
    Mutation("training: -0 is not +1", AVX512_DENSE, "_CMP_NLT_UQ", "_CMP_NLE_UQ", AVX512),
    Mutation("training: 257 is a byte", AVX512_DENSE, "_mm512_set1_ps(255.0f)", "_mm512_set1_ps(257.0f)", AVX512),
    Mutation("training: the third step has no sign", AVX512_DENSE, "= table_signs(2)", "= table_signs(3)", AVX512),
    Mutation("training: blocks are not added", AVX512_DENSE, "block.first = step == 0", "block.first = true", AVX512),
)
