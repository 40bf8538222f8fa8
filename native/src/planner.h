// From a graph to a list of steps: what is fused, where each value lives, how much memory one image needs.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "graph.h"
#include "kernels/kernels.h"
#include "ops.h"

namespace binarynet {

enum class StepKind { block, max_pool_i32, max_pool_bits, threshold, affine, flatten_bits };

// Where the bytes of a value are. Views (a flatten that moves nothing) share their source's place.
struct Place {
  enum Kind { input, output, arena } kind = arena;
  int64_t index = 0;            // output: which one
  int64_t offset = 0;           // arena: bytes, for one image; times the number of images for several
  int64_t bytes_per_image = 0;  // exact
};

struct Step {
  StepKind kind;
  binarynet_value result;     // the value that it computes
  binarynet_value values[3];  // the values fused into it, in order; the last one is the result
  int32_t num_values;
  Place in, out;
  Block block;                                   // kind == block
  OpGeometry geometry;                           // all other kinds
  std::shared_ptr<const Parameters> parameters;  // threshold, affine; of a block: what its pointers refer to
  std::shared_ptr<const Parameters> threshold_parameters;  // of a block
  int64_t work_per_image;                                  // rough cost in 64-bit XNOR-popcounts
};

// Output `to` holds the same bytes as the place `from` (an earlier output, or the input).
struct Copy {
  Place from;
  int64_t to;
};

struct Plan {
  std::vector<Step> steps;
  std::vector<Copy> copies;
  std::vector<binarynet_value_info> outputs;
  binarynet_value_info input;
  int64_t arena_bytes_per_image = 0;  // a multiple of the alignment
  double work_per_image = 0;          // of all steps
};

Plan make_plan(const Graph& graph, const std::vector<binarynet_value>& outputs, int32_t num_threads);

}  // namespace binarynet
