// Stream capture and graphs. A graph's nodes run one at a time, in an order that its dependencies allow.
#include <algorithm>

#include "state.h"

namespace simulated_driver {

namespace {

int begin_capture(Handle handle, int mode) {
  return call_in_context("cuStreamBeginCapture", [&](Driver& driver, Context& context) {
    const std::shared_ptr<Stream> stream = driver.stream(handle);
    if (mode < CAPTURE_GLOBAL || mode > CAPTURE_RELAXED) fail(INVALID_VALUE, "mode");
    if (stream == context.legacy) fail(STREAM_CAPTURE_UNSUPPORTED, "the default stream cannot capture");
    if (stream->capture) fail(ILLEGAL_STATE, "the stream captures already");
    auto capture = std::make_shared<Capture>();
    capture->id = driver.next_handle();
    capture->origin = stream->handle;
    capture->context = stream->context;
    capture->mode = mode;
    capture->owner = std::this_thread::get_id();
    capture->graph = std::make_shared<Graph>();
    capture->ends[stream->handle] = {};
    stream->capture = capture;
    driver.captures.insert(capture);
  });
}

// Whether the origin's next node would come after everything that was captured.
bool joined(const Capture& capture) {
  const std::vector<Node>& nodes = capture.graph->nodes;
  std::vector<bool> before(nodes.size());
  std::vector<size_t> open = capture.ends.at(capture.origin);
  while (!open.empty()) {
    const size_t node = open.back();
    open.pop_back();
    if (before[node]) continue;
    before[node] = true;
    open.insert(open.end(), nodes[node].after.begin(), nodes[node].after.end());
  }
  return std::all_of(before.begin(), before.end(), [](bool b) { return b; });
}

int end_capture(Handle handle, Handle* graph) {
  return call_in_context("cuStreamEndCapture", [&](Driver& driver, Context&) {
    *graph = 0;
    const std::shared_ptr<Stream> stream = driver.stream(handle);
    const std::shared_ptr<Capture> capture = stream->capture;
    if (!capture) fail(ILLEGAL_STATE, "the stream does not capture");
    if (capture->origin != stream->handle)
      fail(STREAM_CAPTURE_UNMATCHED, "the capture began in another stream");
    if (capture->mode != CAPTURE_RELAXED && capture->owner != std::this_thread::get_id()) {
      fail(STREAM_CAPTURE_WRONG_THREAD, "the capture began in another thread");
    }
    driver.captures.erase(capture);
    capture->active = false;
    for (const auto& [member, _] : capture->ends) {
      const auto it = driver.streams.find(member);
      if (it != driver.streams.end() && it->second->capture == capture) it->second->capture.reset();
    }
    if (!capture->valid) fail(STREAM_CAPTURE_INVALIDATED, "the capture was invalidated by an earlier error");
    if (!joined(*capture))
      fail(STREAM_CAPTURE_UNJOINED, "work of another stream was captured and never waited for");
    *graph = driver.next_handle();
    driver.graphs[*graph] = capture->graph;
  });
}

int status_of(const Stream& stream) {
  return !stream.capture ? CAPTURE_NONE : stream.capture->valid ? CAPTURE_ACTIVE : CAPTURE_INVALIDATED;
}

int is_capturing(Handle handle, int* status) {
  return call_in_context("cuStreamIsCapturing",
                         [&](Driver& driver, Context&) { *status = status_of(*driver.stream(handle)); });
}

int capture_info_3(Handle handle, int* status, uint64_t* id, Handle* graph, const Handle** dependencies,
                   const void** edges, size_t* count) {
  return call_in_context("cuStreamGetCaptureInfo", [&](Driver& driver, Context&) {
    const std::shared_ptr<Stream> stream = driver.stream(handle);
    *status = status_of(*stream);
    if (id) *id = stream->capture ? stream->capture->id : 0;
    // Nodes of a graph under construction have no handles here.
    if (graph) *graph = 0;
    if (dependencies) *dependencies = nullptr;
    if (edges) *edges = nullptr;
    if (count) *count = 0;
  });
}

int capture_info_2(Handle handle, int* status, uint64_t* id, Handle* graph, const Handle** dependencies,
                   size_t* count) {
  return capture_info_3(handle, status, id, graph, dependencies, nullptr, count);
}

int exchange_capture_mode(int* mode) {
  return call("cuThreadExchangeStreamCaptureMode", true,
              [&](Driver& driver) { std::swap(*mode, driver.thread_capture_mode()); });
}

std::shared_ptr<Graph> graph_of(Driver& driver, Handle handle) {
  const auto it = driver.graphs.find(handle);
  if (it == driver.graphs.end()) fail(INVALID_VALUE, "no such graph");
  return it->second;
}

int create(Handle* graph, unsigned) {
  return call("cuGraphCreate", true, [&](Driver& driver) {
    *graph = driver.next_handle();
    driver.graphs[*graph] = std::make_shared<Graph>();
  });
}

int get_nodes(Handle handle, Handle* nodes, size_t* count) {
  return call("cuGraphGetNodes", true, [&](Driver& driver) {
    const std::shared_ptr<Graph> graph = graph_of(driver, handle);
    if (nodes) {
      for (size_t i = 0; i < *count; ++i) nodes[i] = i < graph->nodes.size() ? handle + 1 + i : 0;
    }
    *count = nodes ? std::min(*count, graph->nodes.size()) : graph->nodes.size();
  });
}

int instantiate(Handle* executable, Handle handle, unsigned long long) {
  return call_in_context("cuGraphInstantiate", [&](Driver& driver, Context& context) {
    driver.refuse_while_capturing("cuGraphInstantiate");
    *executable = driver.next_handle();
    driver.executables[*executable] = {context.handle, std::make_shared<Graph>(*graph_of(driver, handle))};
  });
}

std::shared_ptr<Graph> executable_of(Driver& driver, Handle handle) {
  const auto it = driver.executables.find(handle);
  if (it == driver.executables.end()) fail(INVALID_VALUE, "no such executable graph");
  return it->second.second;
}

int upload(Handle executable, Handle stream) {
  return call_in_context("cuGraphUpload", [&](Driver& driver, Context& context) {
    executable_of(driver, executable);
    driver.stream_of(context, stream);
  });
}

int launch(Handle executable, Handle handle) {
  return call_in_context("cuGraphLaunch", [&](Driver& driver, Context& context) {
    const std::shared_ptr<Graph> graph = executable_of(driver, executable);
    const std::shared_ptr<Stream> stream = driver.stream(handle);
    ++driver.counters["graph_launches"];
    driver.submit(*stream, {4, [&driver, &context, graph] { driver.execute(context, *graph); }});
  });
}

int destroy(Handle graph) {
  return call("cuGraphDestroy", true, [&](Driver& driver) {
    graph_of(driver, graph);
    driver.graphs.erase(graph);
  });
}

int destroy_executable(Handle executable) {
  return call_in_context("cuGraphExecDestroy", [&](Driver& driver, Context&) {
    executable_of(driver, executable);
    driver.executables.erase(executable);
  });
}

}  // namespace

std::vector<Entry> graph_entries() {
  return {
      entry("cuStreamBeginCapture", 10010, begin_capture),
      entry("cuStreamEndCapture", 10000, end_capture),
      entry("cuStreamIsCapturing", 10000, is_capturing),
      entry("cuStreamGetCaptureInfo", 11030, capture_info_2),
      entry("cuStreamGetCaptureInfo", 12030, capture_info_3),
      entry("cuThreadExchangeStreamCaptureMode", 10010, exchange_capture_mode),
      entry("cuGraphCreate", 10000, create),
      entry("cuGraphGetNodes", 10000, get_nodes),
      entry("cuGraphInstantiateWithFlags", 11040, instantiate),
      entry("cuGraphUpload", 11010, upload),
      entry("cuGraphLaunch", 10000, launch),
      entry("cuGraphDestroy", 10000, destroy),
      entry("cuGraphExecDestroy", 10000, destroy_executable),
  };
}

}  // namespace simulated_driver
