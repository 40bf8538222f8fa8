// Reading memory in 64-byte vectors, which each instruction set splits into its own. Included by one file per
// instruction set, inside of an unnamed namespace: nothing here is shared.

typedef uint64_t Line __attribute__((vector_size(64)));

constexpr int64_t kLineWords = 8;
constexpr int64_t kAhead = 1024;  // bytes between what is read and what is fetched
constexpr int kLines = 4;         // read in a step, from one stream or from four

template <bool kApart>
uint64_t read_lines(const uint64_t* words, int64_t count, int64_t times) {
  Line found[kLines] = {};
  const int64_t between = kApart ? count / kLines : kLineWords;
  const int64_t step = kApart ? kLineWords : kLines * kLineWords;
  const int64_t end = kApart ? count / kLines : count;
  for (int64_t time = 0; time < times; ++time) {
    asm volatile("" : "+r"(words) : : "memory");  // once more, whatever the compiler has seen
    for (int64_t at = 0; at < end; at += step) {
#pragma GCC unroll 4
      for (int i = 0; i < kLines; ++i) {
        const uint64_t* from = words + i * between + at;
        __builtin_prefetch(reinterpret_cast<const char*>(from) + kAhead);
        found[i] ^= *reinterpret_cast<const Line*>(from);
      }
    }
  }
  const Line all = found[0] ^ found[1] ^ found[2] ^ found[3];
  uint64_t result = 0;
  for (int i = 0; i < kLineWords; ++i) result ^= all[i];
  return result;
}

uint64_t read_words(const uint64_t* words, int64_t count, int64_t times, bool cold) {
  return cold ? read_lines<true>(words, count, times) : read_lines<false>(words, count, times);
}
