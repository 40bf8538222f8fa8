// Streams and events.
#include <cmath>

#include "state.h"

namespace simulated_driver {

namespace {

int create(const char* name, Handle* result, unsigned flags, int priority) {
  return call_in_context(name, [&](Driver& driver, Context& context) {
    if (flags > kNonBlocking) fail(INVALID_VALUE, "flags");
    auto stream = std::make_shared<Stream>();
    stream->handle = *result = driver.next_handle();
    stream->context = context.handle;
    stream->flags = flags;
    stream->priority = std::min(0, std::max(-5, priority));
    driver.streams[stream->handle] = stream;
  });
}

int stream_create(Handle* result, unsigned flags) { return create("cuStreamCreate", result, flags, 0); }

int stream_create_with_priority(Handle* result, unsigned flags, int priority) {
  return create("cuStreamCreateWithPriority", result, flags, priority);
}

int stream_destroy(Handle handle) {
  return call_in_context("cuStreamDestroy", [&](Driver& driver, Context&) {
    if (handle <= kPerThreadStream) fail(INVALID_HANDLE, "a default stream cannot be destroyed");
    const std::shared_ptr<Stream> stream = driver.stream(handle);
    if (stream->capture) {
      driver.invalidate(*stream->capture);
      driver.captures.erase(stream->capture);
      stream->capture->active = false;
    }
    driver.run(Ticket{handle, stream->last});
    driver.streams.erase(handle);
  });
}

int stream_query(Handle handle) {
  return call_in_context("cuStreamQuery", [&](Driver& driver, Context&) {
    const std::shared_ptr<Stream> stream = driver.stream(handle);
    if (stream->capture) {
      driver.invalidate(*stream->capture);
      fail(STREAM_CAPTURE_UNSUPPORTED, "a stream that captures cannot be asked");
    }
    driver.step(*stream);  // so that asking again and again comes to an end
    driver.check(*driver.context(stream->context));
    if (!stream->tasks.empty()) fail(NOT_READY);
  });
}

int stream_synchronize(Handle handle) {
  return call_in_context("cuStreamSynchronize", [&](Driver& driver, Context&) {
    const std::shared_ptr<Stream> stream = driver.stream(handle);
    driver.synchronize(*stream);
  });
}

int stream_get_priority(Handle handle, int* priority) {
  return call_in_context("cuStreamGetPriority",
                         [&](Driver& driver, Context&) { *priority = driver.stream(handle)->priority; });
}

int stream_get_flags(Handle handle, unsigned* flags) {
  return call_in_context("cuStreamGetFlags",
                         [&](Driver& driver, Context&) { *flags = driver.stream(handle)->flags; });
}

int stream_get_id(Handle handle, unsigned long long* id) {
  return call_in_context("cuStreamGetId",
                         [&](Driver& driver, Context&) { *id = driver.stream(handle)->handle; });
}

int stream_get_context(Handle handle, Handle* context) {
  return call_in_context("cuStreamGetCtx",
                         [&](Driver& driver, Context&) { *context = driver.stream(handle)->context; });
}

int stream_get_context_or_green(Handle handle, Handle* context, Handle* green) {
  *green = 0;
  return stream_get_context(handle, context);
}

int stream_get_device(Handle handle, int* ordinal) {
  return call_in_context("cuStreamGetDevice", [&](Driver& driver, Context&) {
    *ordinal = driver.context(driver.stream(handle)->context)->device->ordinal;
  });
}

int event_create(Handle* result, unsigned flags) {
  return call_in_context("cuEventCreate", [&](Driver& driver, Context& context) {
    *result = driver.next_handle();
    auto event = std::make_shared<Event>();
    event->context = context.handle;
    event->flags = flags;
    driver.events[*result] = event;
  });
}

int event_destroy(Handle handle) {
  return call_in_context("cuEventDestroy", [&](Driver& driver, Context&) {
    driver.event(handle);
    driver.events.erase(handle);
  });
}

int event_record(Handle handle, Handle stream_handle) {
  return call_in_context("cuEventRecord", [&](Driver& driver, Context&) {
    const std::shared_ptr<Event> event = driver.event(handle);
    const std::shared_ptr<Stream> stream = driver.stream(stream_handle);
    if (event->context != stream->context) fail(INVALID_HANDLE, "event and stream are of different contexts");
    if (stream->capture) {
      if (!stream->capture->valid) fail(STREAM_CAPTURE_INVALIDATED);
      event->capture = stream->capture;
      event->nodes = stream->capture->ends[stream->handle];
      return;
    }
    event->capture.reset();
    event->milliseconds = -1;
    driver.submit(*stream, {7, [event] {
                              const auto now = std::chrono::steady_clock::now().time_since_epoch();
                              event->milliseconds = std::chrono::duration<double, std::milli>(now).count();
                            }});
    event->ticket = {stream->handle, stream->last};
  });
}

int event_record_with_flags(Handle handle, Handle stream, unsigned) { return event_record(handle, stream); }

void refuse_captured(const Event& event) {
  if (event.capture) fail(CAPTURED_EVENT, "the event was last recorded in a stream that captured");
}

int event_query(Handle handle) {
  return call_in_context("cuEventQuery", [&](Driver& driver, Context&) {
    const std::shared_ptr<Event> event = driver.event(handle);
    refuse_captured(*event);
    driver.refuse_while_capturing("cuEventQuery");
    const auto stream = driver.streams.find(event->ticket.stream);
    if (!driver.done(event->ticket)) driver.step(*stream->second);
    driver.check(*driver.context(event->context));
    if (!driver.done(event->ticket)) fail(NOT_READY);
  });
}

int event_synchronize(Handle handle) {
  return call_in_context("cuEventSynchronize", [&](Driver& driver, Context&) {
    const std::shared_ptr<Event> event = driver.event(handle);
    refuse_captured(*event);
    driver.refuse_while_capturing("cuEventSynchronize");
    driver.run(event->ticket);
    driver.check(*driver.context(event->context));
  });
}

int event_elapsed_time(float* milliseconds, Handle start, Handle end) {
  return call_in_context("cuEventElapsedTime", [&](Driver& driver, Context&) {
    const std::shared_ptr<Event> first = driver.event(start), second = driver.event(end);
    refuse_captured(*first);
    refuse_captured(*second);
    if ((first->flags | second->flags) & kDisableTiming) fail(INVALID_HANDLE, "an event without timing");
    if (first->ticket.stream == 0 || second->ticket.stream == 0)
      fail(INVALID_HANDLE, "an event never recorded");
    if (!driver.done(first->ticket) || !driver.done(second->ticket)) fail(NOT_READY);
    *milliseconds = static_cast<float>(second->milliseconds - first->milliseconds);
  });
}

int stream_wait_event(Handle stream_handle, Handle handle, unsigned) {
  return call_in_context("cuStreamWaitEvent", [&](Driver& driver, Context&) {
    const std::shared_ptr<Stream> stream = driver.stream(stream_handle);
    const std::shared_ptr<Event> event = driver.event(handle);
    if (event->capture) {
      Capture& capture = *event->capture;
      if (!capture.active) fail(CAPTURED_EVENT, "the capture in which the event was recorded has ended");
      if (!capture.valid) fail(STREAM_CAPTURE_INVALIDATED);
      if (stream->capture && stream->capture != event->capture) {
        driver.invalidate(capture);
        driver.invalidate(*stream->capture);
        fail(STREAM_CAPTURE_MERGE, "two captures would become one");
      }
      stream->capture = event->capture;  // from here on it takes part
      std::vector<size_t>& ends = capture.ends[stream->handle];
      ends.insert(ends.end(), event->nodes.begin(), event->nodes.end());
      return;
    }
    if (stream->capture) {
      driver.invalidate(*stream->capture);
      fail(STREAM_CAPTURE_ISOLATION, "a stream that captures would wait for work outside of the capture");
    }
    if (event->ticket.stream != 0) driver.enqueue(*stream, {6, [] {}}, {event->ticket});
  });
}

}  // namespace

std::vector<Entry> stream_entries() {
  return {
      entry("cuStreamCreate", 2000, stream_create),
      entry("cuStreamCreateWithPriority", 5050, stream_create_with_priority),
      entry("cuStreamDestroy", 4000, stream_destroy),
      entry("cuStreamQuery", 2000, stream_query),
      entry("cuStreamSynchronize", 2000, stream_synchronize),
      entry("cuStreamGetPriority", 5050, stream_get_priority),
      entry("cuStreamGetFlags", 5050, stream_get_flags),
      entry("cuStreamGetId", 12000, stream_get_id),
      entry("cuStreamGetCtx", 9020, stream_get_context),
      entry("cuStreamGetCtx", 12050, stream_get_context_or_green),
      entry("cuStreamGetDevice", 12080, stream_get_device),
      entry("cuStreamWaitEvent", 3020, stream_wait_event),
  };
}

std::vector<Entry> event_entries() {
  return {
      entry("cuEventCreate", 2000, event_create),
      entry("cuEventDestroy", 4000, event_destroy),
      entry("cuEventRecord", 2000, event_record),
      entry("cuEventRecordWithFlags", 11010, event_record_with_flags),
      entry("cuEventQuery", 2000, event_query),
      entry("cuEventSynchronize", 2000, event_synchronize),
      entry("cuEventElapsedTime", 12080, event_elapsed_time),
  };
}

}  // namespace simulated_driver
