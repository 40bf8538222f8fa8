// Streams as queues of tasks, and what a stream that captures does with work instead.
#include <algorithm>

#include "state.h"

namespace simulated_driver {

std::shared_ptr<Stream> Driver::stream(Handle handle) {
  if (handle > kPerThreadStream) {
    const auto it = streams.find(handle);
    if (it == streams.end()) fail(INVALID_HANDLE, "no such stream");
    check(*context(it->second->context));
    return it->second;
  }
  Context& here = current();
  std::shared_ptr<Stream>& stream =
      handle == kPerThreadStream ? here.per_thread[std::this_thread::get_id()] : here.legacy;
  if (!stream) {
    stream = std::make_shared<Stream>();
    stream->handle = next_handle();
    stream->context = here.handle;
    stream->flags = 0;
    stream->priority = 0;
    streams[stream->handle] = stream;
  }
  return stream;
}

std::shared_ptr<Stream> Driver::stream_of(Context& context, Handle handle) {
  std::shared_ptr<Stream> found = stream(handle);
  if (found->context != context.handle)
    fail(INVALID_HANDLE, "the stream is of another context than the current one");
  return found;
}

std::shared_ptr<Event> Driver::event(Handle handle) {
  const auto it = events.find(handle);
  if (it == events.end()) fail(INVALID_HANDLE, "no such event");
  return it->second;
}

bool Driver::done(Ticket ticket) {
  const auto it = streams.find(ticket.stream);
  if (it == streams.end()) return true;
  return it->second->tasks.empty() || it->second->tasks.front().number > ticket.number;
}

void Driver::step(Stream& stream) {
  if (stream.tasks.empty()) return;
  const Task task = std::move(stream.tasks.front());
  stream.tasks.pop_front();
  // Every dependency was queued before this task, so that this comes to an end.
  for (const Ticket& ticket : task.after) run(ticket);
  perform(*context(stream.context), task.action);
}

void Driver::run(Ticket ticket) {
  const auto it = streams.find(ticket.stream);
  if (it == streams.end()) return;
  const std::shared_ptr<Stream> stream = it->second;
  while (!stream->tasks.empty() && stream->tasks.front().number <= ticket.number) step(*stream);
}

void Driver::run(Context& context) {
  std::vector<std::shared_ptr<Stream>> all;
  for (const auto& [_, stream] : streams) {
    if (stream->context == context.handle) all.push_back(stream);
  }
  if (schedule == -2) std::reverse(all.begin(), all.end());
  if (schedule >= 0) std::shuffle(all.begin(), all.end(), random);
  for (const auto& stream : all) run(Ticket{stream->handle, stream->last});
}

Ticket Driver::enqueue(Stream& stream, Action action, std::vector<Ticket> after) {
  Context& here = *context(stream.context);
  if (&stream == here.legacy.get()) {
    for (const auto& [handle, other] : streams) {
      if (other->context == stream.context && other.get() != &stream && !(other->flags & kNonBlocking)) {
        after.push_back({handle, other->last});
      }
    }
  } else if (!(stream.flags & kNonBlocking) && here.legacy) {
    after.push_back({here.legacy->handle, here.legacy->last});
  }
  stream.last = next_handle();
  const Ticket ticket{stream.handle, stream.last};
  stream.tasks.push_back({stream.last, std::move(after), std::move(action)});
  if (schedule == -1) run(ticket);
  if (schedule >= 0) {
    for (const auto& [_, other] : std::map<Handle, std::shared_ptr<Stream>>(streams)) {
      if (random() % 3 == 0) step(*other);
    }
  }
  return ticket;
}

void Driver::submit(Stream& stream, Action action) {
  if (stream.capture) {
    Capture& capture = *stream.capture;
    if (!capture.valid) fail(STREAM_CAPTURE_INVALIDATED, "the capture was invalidated by an earlier error");
    capture.graph->nodes.push_back({std::move(action), capture.ends[stream.handle]});
    capture.ends[stream.handle] = {capture.graph->nodes.size() - 1};
    return;
  }
  Context& here = *context(stream.context);
  if (&stream == here.legacy.get()) {
    for (const auto& [_, other] : streams) {
      if (other->context == here.handle && other->capture && !(other->flags & kNonBlocking)) {
        invalidate(*other->capture);
        fail(STREAM_CAPTURE_IMPLICIT, "the default stream would wait for a stream that captures");
      }
    }
  }
  enqueue(stream, std::move(action));
}

void Driver::synchronize(Stream& stream) {
  if (stream.capture) {
    invalidate(*stream.capture);
    fail(STREAM_CAPTURE_UNSUPPORTED, "a stream that captures cannot be waited for");
  }
  Context& here = *context(stream.context);
  run(Ticket{stream.handle, stream.last});
  check(here);
}

void Driver::execute(Context& context, const Graph& graph) {
  std::vector<bool> finished(graph.nodes.size());
  for (size_t count = 0; count < graph.nodes.size(); ++count) {
    std::vector<size_t> ready;
    for (size_t i = 0; i < graph.nodes.size(); ++i) {
      const std::vector<size_t>& after = graph.nodes[i].after;
      if (!finished[i] && std::all_of(after.begin(), after.end(), [&](size_t j) { return finished[j]; })) {
        ready.push_back(i);
      }
    }
    const size_t next = schedule == -1   ? ready.front()
                        : schedule == -2 ? ready.back()
                                         : ready[random() % ready.size()];
    perform(context, graph.nodes[next].action);
    finished[next] = true;
  }
}

void Driver::invalidate(Capture& capture) { capture.valid = false; }

void Driver::refuse_while_capturing(const char* name) {
  const int mode = thread_capture_mode();
  if (mode == CAPTURE_RELAXED) return;
  for (const std::shared_ptr<Capture>& capture : captures) {
    const bool own = capture->owner == std::this_thread::get_id();
    if (own ? capture->mode != CAPTURE_RELAXED : mode == CAPTURE_GLOBAL && capture->mode == CAPTURE_GLOBAL) {
      invalidate(*capture);
      fail(STREAM_CAPTURE_UNSUPPORTED, std::string(name) + " while a stream captures" +
                                           (own ? "" : " (in another thread, with the global mode)"));
    }
  }
}

}  // namespace simulated_driver
