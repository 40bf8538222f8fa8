/* The library from C99: one small network built, compiled and run by hand. */
#include <stdio.h>
#include <string.h>

#include "binarynet.h"

#define REQUIRE(condition)                                                                        \
  do {                                                                                            \
    if (!(condition)) {                                                                           \
      fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, #condition, binarynet_last_error()); \
      return 1;                                                                                   \
    }                                                                                             \
  } while (0)

int main(void) {
  /* Two pixels of three channels; a 1 x 2 convolution to two channels; a threshold; scores. */
  const binarynet_window window = {1, 2, 1, 1, 0, 0};
  const binarynet_window dense = {1, 1, 1, 1, 0, 0};
  const uint64_t weights[] = {7, 7, 5, 2}; /* all +1; +-+ -+- */
  const int32_t thresholds[] = {0, 0};
  const uint64_t falling[] = {2};
  const uint64_t last_weights[] = {3};
  const float scale[] = {0.5f};
  const float shift[] = {0.25f};
  const uint8_t images[] = {255, 255, 255, 255, 255, 255, 0, 255, 0, 255, 0, 255};
  binarynet_graph* graph = NULL;
  binarynet_session* session = NULL;
  binarynet_session_options options;
  binarynet_value values[5];
  binarynet_value outputs[3];
  int32_t sums[4];
  uint64_t bits[2];
  float scores[2];
  void* memory[3];

  REQUIRE(binarynet_graph_create(&graph) == BINARYNET_OK);
  REQUIRE(binarynet_graph_add_input(graph, 1, 2, 3, &values[0]) == BINARYNET_OK);
  REQUIRE(binarynet_graph_add_convolution(graph, values[0], &window, 2, weights, 4, &values[1]) ==
          BINARYNET_OK);
  REQUIRE(binarynet_graph_add_threshold(graph, values[1], thresholds, falling, 2, &values[2]) ==
          BINARYNET_OK);
  REQUIRE(binarynet_graph_add_convolution(graph, values[2], &dense, 1, last_weights, 1, &values[3]) ==
          BINARYNET_OK);
  REQUIRE(binarynet_graph_add_affine(graph, values[3], scale, shift, 1, &values[4]) == BINARYNET_OK);

  outputs[0] = values[1];
  outputs[1] = values[2];
  outputs[2] = values[4];
  memset(&options, 0, sizeof(options));
  options.outputs = outputs;
  options.num_outputs = 3;
  REQUIRE(binarynet_session_create(graph, &options, &session) == BINARYNET_OK);
  binarynet_graph_free(graph);
  memory[0] = sums;
  memory[1] = bits;
  memory[2] = scores;
  REQUIRE(binarynet_session_run(session, images, 2, memory) == BINARYNET_OK);

  /* First image: all +255. Second: -+- +-+, times 255. */
  REQUIRE(sums[0] == 6 * 255 && sums[1] == 0);
  REQUIRE(sums[2] == 0 && sums[3] == -6 * 255);
  REQUIRE(bits[0] == 1 && bits[1] == 3); /* channel 1 is falling */
  REQUIRE(scores[0] == 0.25f && scores[1] == 1.25f);
  printf("%s on %s, %d threads: ok\n", binarynet_version(), binarynet_session_isa(session),
         (int)binarynet_session_num_threads(session));
  binarynet_session_free(session);
  return 0;
}
