/* binarynet: run Binarized Neural Networks with XNOR and popcount. The one public C header.
 *
 * Encoding (see src/binarynet/encoding.py, the same truth in Python):
 *   - bit 1 is +1, bit 0 is -1; words are 64-bit little-endian, least significant bit first;
 *   - the channels of one pixel (or the features of one vector) are packed together: a value of shape
 *     [h, w, c] takes h * w * BINARYNET_WORDS(c) words per image; padding bits are 0;
 *   - an 8-bit input u stands for the odd integer 2u - 255;
 *   - a tap outside of the image (zero padding) contributes 0 to the sum, also in the first layer.
 *
 * A graph is built value by value, each addition is checked; a session is the compiled graph. A session is
 * immutable after creation: any number of threads may run it at the same time.
 * Every call that can fail returns a status; binarynet_last_error() has the text (per thread).
 */
#ifndef BINARYNET_H
#define BINARYNET_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define BINARYNET_WORDS(bits) (((bits) + 63) / 64)

typedef enum binarynet_status {
  BINARYNET_OK = 0,
  BINARYNET_INVALID_ARGUMENT = 1, /* the call's arguments contradict the header or one another */
  BINARYNET_OUT_OF_MEMORY = 2,
  BINARYNET_UNAVAILABLE = 3, /* an instruction set that is unknown, not built or not supported here */
  BINARYNET_INTERNAL = 4     /* a defect of this library */
} binarynet_status;

/* Text of the last failure on this thread; "" if none. Valid until the next failing call. */
const char* binarynet_last_error(void);

typedef enum binarynet_type {
  BINARYNET_U8 = 0,   /* uint8  [batch, h, w, c], only for the input and its flattened form */
  BINARYNET_BITS = 1, /* uint64 [batch, h, w, BINARYNET_WORDS(c)] */
  BINARYNET_I32 = 2,  /* int32  [batch, h, w, c] */
  BINARYNET_F32 = 3   /* float  [batch, h, w, c] */
} binarynet_type;

/* Type and shape of one value, batch left out. Feature vectors are h = w = 1. */
typedef struct binarynet_value_info {
  binarynet_type type;
  int64_t h, w, c;
} binarynet_value_info;

/* Window of a convolution or a pooling: rows first. */
typedef struct binarynet_window {
  int64_t kernel_h, kernel_w;
  int64_t stride_h, stride_w;
  int64_t pad_h, pad_w; /* symmetric: as many rows above as below, columns left as right */
} binarynet_window;

typedef struct binarynet_graph binarynet_graph;
typedef struct binarynet_session binarynet_session;
typedef int32_t binarynet_value; /* index of a value, in order of addition, from 0 (the input) */

binarynet_status binarynet_graph_create(binarynet_graph** graph);
void binarynet_graph_free(binarynet_graph* graph);
binarynet_status binarynet_graph_value_info(const binarynet_graph* graph, binarynet_value value,
                                            binarynet_value_info* info);

/* The input: uint8 [h, w, c]. First and once. */
binarynet_status binarynet_graph_add_input(binarynet_graph* graph, int64_t h, int64_t w, int64_t c,
                                           binarynet_value* value);
/* Instead of it: an input of packed bits, BITS [h, w, c], for a part of a network behind its first sign. */
binarynet_status binarynet_graph_add_bits_input(binarynet_graph* graph, int64_t h, int64_t w, int64_t c,
                                                binarynet_value* value);
/* Sums of a binary convolution: U8 or BITS [h, w, c] -> I32 [h', w', out_channels].
 * weights: BITS [out_channels, kernel_h, kernel_w, BINARYNET_WORDS(c)]; copied. A dense layer is a 1 x 1
 * window. Paddings are smaller than the kernel; 255 * fan-in (U8) or the fan-in (BITS) is at most 2^24. */
binarynet_status binarynet_graph_add_convolution(binarynet_graph* graph, binarynet_value source,
                                                 const binarynet_window* window, int64_t out_channels,
                                                 const uint64_t* weights, size_t num_weight_words,
                                                 binarynet_value* value);
/* Maximum over a window: I32 -> I32, BITS -> BITS (an OR). Taps outside of the image are ignored. */
binarynet_status binarynet_graph_add_max_pool(binarynet_graph* graph, binarynet_value source,
                                              const binarynet_window* window, binarynet_value* value);
/* I32 -> BITS: bit = (sum >= thresholds[channel]) XOR falling[channel].
 * thresholds: int32 [c]; falling: BITS [c]; both copied. */
binarynet_status binarynet_graph_add_threshold(binarynet_graph* graph, binarynet_value source,
                                               const int32_t* thresholds, const uint64_t* falling,
                                               size_t num_channels, binarynet_value* value);
/* I32 -> F32: float(sum) * scale[channel] + shift[channel], two float32 roundings; copied. */
binarynet_status binarynet_graph_add_affine(binarynet_graph* graph, binarynet_value source,
                                            const float* scale, const float* shift, size_t num_channels,
                                            binarynet_value* value);
/* [h, w, c] -> [1, 1, h * w * c], h slowest, c fastest; the type stays. */
binarynet_status binarynet_graph_add_flatten(binarynet_graph* graph, binarynet_value source,
                                             binarynet_value* value);

typedef struct binarynet_session_options {
  const char* isa;     /* NULL: what BINARYNET_FORCE_ISA names if set (and not ""), else the best */
  int32_t num_threads; /* 0: one per core this process may use */
  const binarynet_value* outputs; /* values to return from every run, in this order (taps included) */
  size_t num_outputs;
} binarynet_session_options;

/* Compile. The graph may be freed afterwards. Values that are not outputs may be fused away. */
binarynet_status binarynet_session_create(const binarynet_graph* graph,
                                          const binarynet_session_options* options,
                                          binarynet_session** session);
void binarynet_session_free(binarynet_session* session);
/* images: uint8 [batch, h, w, c], or, for an input of bits, uint64 [batch, h, w, BINARYNET_WORDS(c)] whose
 * padding bits are 0 (checked); outputs[i]: memory for [batch, ...] of the i-th output; each aligned to its
 * words or numbers, overlapping nothing. batch may be 0. Large batches are computed in chunks. */
binarynet_status binarynet_session_run(const binarynet_session* session, const void* images, int64_t batch,
                                       void* const* outputs);

/* What a run over this many images does: for people, and for whoever measures it. */
typedef struct binarynet_plan {
  int64_t num_chunks, chunk; /* the batch is computed in so many chunks of (at most) so many images */
  int64_t weight_bytes;      /* parameters of all steps as the kernels want them */
  int64_t arena_bytes;       /* values between the steps, of one chunk */
  int64_t scratch_bytes;     /* the kernels' own memory: the step that needs most */
  int64_t workspace_bytes;   /* allocated for each run at a time, kept for later ones; enough for any batch */
} binarynet_plan;

/* One step over one chunk. Texts live as long as the library. */
typedef struct binarynet_step {
  const char* kind;          /* "block" (convolution, max_pool, threshold in one), or the operation's name */
  const char* method;        /* how it is computed, in a few words */
  binarynet_value values[3]; /* the values that it computes, fused; only the last one goes to memory */
  int32_t num_values;
  int32_t threads;         /* that may take part */
  int64_t units, tasks;    /* work is divided into units, threads take ranges of them: so many tasks */
  const char* why_threads; /* why so many threads, in a few words */
  int64_t weight_bytes, scratch_bytes, in_bytes, out_bytes;
  int64_t work; /* rough: as many 64-bit XNOR-popcounts */
} binarynet_step;

int32_t binarynet_session_num_steps(const binarynet_session* session);
/* steps: memory for num_steps of them, as many as the session has. batch is at least 1. */
binarynet_status binarynet_session_describe(const binarynet_session* session, int64_t batch,
                                            binarynet_plan* plan, binarynet_step* steps, size_t num_steps);
/* binarynet_session_run() with a look at the clock before and after each step: the time of step i is added to
 * nanoseconds[i]. */
binarynet_status binarynet_session_profile(const binarynet_session* session, const void* images,
                                           int64_t batch, void* const* outputs, int64_t* nanoseconds,
                                           size_t num_steps);

/* Name of the instruction set in use: a string that lives as long as the library. "" for NULL. */
const char* binarynet_session_isa(const binarynet_session* session);
int32_t binarynet_session_num_threads(const binarynet_session* session);

/* The instruction sets of this build, best first. why_not: "" if usable here, else the reason. */
int32_t binarynet_isa_count(void);
const char* binarynet_isa_name(int32_t index);
const char* binarynet_isa_why_not(int32_t index);

const char* binarynet_version(void);

#ifdef __cplusplus
}
#endif
#endif
