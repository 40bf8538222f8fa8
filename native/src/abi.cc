// The C interface: checks pointers, calls the core, turns exceptions into status codes. Nothing else catches.
#include <cstdio>
#include <memory>
#include <new>
#include <stdexcept>

#include "binarynet.h"
#include "dispatch.h"
#include "error.h"
#include "graph.h"
#include "session.h"

struct binarynet_graph {
  binarynet::Graph graph;
};

struct binarynet_session {
  binarynet_session(const binarynet::Graph& graph, const binarynet_session_options& options)
      : session(graph, options) {}
  binarynet::Session session;
};

namespace {

using binarynet::invalid;

thread_local char last_error[1024] = "";

binarynet_status fail(binarynet_status status, const char* text) noexcept {
  std::snprintf(last_error, sizeof(last_error), "%s", text);
  return status;
}

template <class Function>
binarynet_status guarded(Function&& function) noexcept {
  try {
    function();
    return BINARYNET_OK;
  } catch (const binarynet::Error& error) {
    return fail(error.status(), error.what());
  } catch (const std::bad_alloc&) {
    return fail(BINARYNET_OUT_OF_MEMORY, "out of memory");
  } catch (const std::length_error&) {
    return fail(BINARYNET_OUT_OF_MEMORY, "out of memory: a size is beyond what can be allocated");
  } catch (const std::exception& error) {
    return fail(BINARYNET_INTERNAL, error.what());
  } catch (...) {
    return fail(BINARYNET_INTERNAL, "unknown exception");
  }
}

template <class Pointer>
void require(Pointer pointer, const char* name) {
  if (pointer == nullptr) invalid(name, " is null");
}

template <class Function>
binarynet_status add_value(binarynet_graph* graph, binarynet_value* value, Function&& function) noexcept {
  return guarded([&] {
    require(graph, "graph");
    require(value, "value");
    *value = function(graph->graph);
  });
}

void require_steps(const binarynet_session& session, size_t given) {
  if (given != static_cast<size_t>(session.session.num_steps())) {
    invalid("num_steps is ", given, ", but the session has ", session.session.num_steps(), " steps");
  }
}

const binarynet::InstructionSet* instruction_set(int32_t index) {
  const auto& table = binarynet::instruction_sets();
  return index >= 0 && static_cast<size_t>(index) < table.size() ? &table[static_cast<size_t>(index)]
                                                                 : nullptr;
}

}  // namespace

const char* binarynet_last_error(void) { return last_error; }

binarynet_status binarynet_graph_create(binarynet_graph** graph) {
  return guarded([&] {
    require(graph, "graph");
    *graph = new binarynet_graph;
  });
}

void binarynet_graph_free(binarynet_graph* graph) { delete graph; }

binarynet_status binarynet_graph_value_info(const binarynet_graph* graph, binarynet_value value,
                                            binarynet_value_info* info) {
  return guarded([&] {
    require(graph, "graph");
    require(info, "info");
    *info = graph->graph.value(value, "value_info").info;
  });
}

binarynet_status binarynet_graph_add_input(binarynet_graph* graph, int64_t h, int64_t w, int64_t c,
                                           binarynet_value* value) {
  return add_value(graph, value, [&](binarynet::Graph& g) { return g.add_input(BINARYNET_U8, h, w, c); });
}

binarynet_status binarynet_graph_add_bits_input(binarynet_graph* graph, int64_t h, int64_t w, int64_t c,
                                                binarynet_value* value) {
  return add_value(graph, value, [&](binarynet::Graph& g) { return g.add_input(BINARYNET_BITS, h, w, c); });
}

binarynet_status binarynet_graph_add_convolution(binarynet_graph* graph, binarynet_value source,
                                                 const binarynet_window* window, int64_t out_channels,
                                                 const uint64_t* weights, size_t num_weight_words,
                                                 binarynet_value* value) {
  return add_value(graph, value, [&](binarynet::Graph& g) {
    require(window, "window");
    require(weights, "weights");
    return g.add_convolution(source, *window, out_channels, weights, num_weight_words);
  });
}

binarynet_status binarynet_graph_add_max_pool(binarynet_graph* graph, binarynet_value source,
                                              const binarynet_window* window, binarynet_value* value) {
  return add_value(graph, value, [&](binarynet::Graph& g) {
    require(window, "window");
    return g.add_max_pool(source, *window);
  });
}

binarynet_status binarynet_graph_add_threshold(binarynet_graph* graph, binarynet_value source,
                                               const int32_t* thresholds, const uint64_t* falling,
                                               size_t num_channels, binarynet_value* value) {
  return add_value(graph, value, [&](binarynet::Graph& g) {
    require(thresholds, "thresholds");
    require(falling, "falling");
    return g.add_threshold(source, thresholds, falling, num_channels);
  });
}

binarynet_status binarynet_graph_add_affine(binarynet_graph* graph, binarynet_value source,
                                            const float* scale, const float* shift, size_t num_channels,
                                            binarynet_value* value) {
  return add_value(graph, value, [&](binarynet::Graph& g) {
    require(scale, "scale");
    require(shift, "shift");
    return g.add_affine(source, scale, shift, num_channels);
  });
}

binarynet_status binarynet_graph_add_flatten(binarynet_graph* graph, binarynet_value source,
                                             binarynet_value* value) {
  return add_value(graph, value, [&](binarynet::Graph& g) { return g.add_flatten(source); });
}

binarynet_status binarynet_session_create(const binarynet_graph* graph,
                                          const binarynet_session_options* options,
                                          binarynet_session** session) {
  return guarded([&] {
    require(graph, "graph");
    require(options, "options");
    require(session, "session");
    *session = new binarynet_session(graph->graph, *options);
  });
}

void binarynet_session_free(binarynet_session* session) { delete session; }

binarynet_status binarynet_session_run(const binarynet_session* session, const void* images, int64_t batch,
                                       void* const* outputs) {
  return guarded([&] {
    require(session, "session");
    session->session.run(images, batch, outputs);
  });
}

int32_t binarynet_session_num_steps(const binarynet_session* session) {
  return session == nullptr ? 0 : session->session.num_steps();
}

binarynet_status binarynet_session_describe(const binarynet_session* session, int64_t batch,
                                            binarynet_plan* plan, binarynet_step* steps, size_t num_steps) {
  return guarded([&] {
    require(session, "session");
    require(plan, "plan");
    if (num_steps > 0) require(steps, "steps");
    require_steps(*session, num_steps);
    session->session.describe(batch, plan, steps);
  });
}

binarynet_status binarynet_session_profile(const binarynet_session* session, const void* images,
                                           int64_t batch, void* const* outputs, int64_t* nanoseconds,
                                           size_t num_steps) {
  return guarded([&] {
    require(session, "session");
    if (num_steps > 0) require(nanoseconds, "nanoseconds");
    require_steps(*session, num_steps);
    session->session.run(images, batch, outputs, nanoseconds);
  });
}

const char* binarynet_session_isa(const binarynet_session* session) {
  return session == nullptr ? "" : session->session.isa();
}

int32_t binarynet_session_num_threads(const binarynet_session* session) {
  return session == nullptr ? 0 : session->session.num_threads();
}

int32_t binarynet_isa_count(void) { return static_cast<int32_t>(binarynet::instruction_sets().size()); }

const char* binarynet_isa_name(int32_t index) {
  const binarynet::InstructionSet* row = instruction_set(index);
  return row == nullptr ? "" : row->kernels->name;
}

const char* binarynet_isa_why_not(int32_t index) {
  const binarynet::InstructionSet* row = instruction_set(index);
  return row == nullptr ? "there is no such instruction set" : row->why_not.c_str();
}

const char* binarynet_version(void) { return BINARYNET_VERSION; }
