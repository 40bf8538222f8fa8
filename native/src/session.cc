#include "session.h"

#include <algorithm>
#include <chrono>
#include <cstring>

#include "cores.h"
#include "dispatch.h"
#include "error.h"

namespace binarynet {
namespace {

// Batches are computed in chunks whose intermediate values stay in the cache next to the processor, if that
// leaves enough images to share the work of reading the weights.
constexpr int64_t kChunkBytes = int64_t{4} << 20;
constexpr int64_t kMaxChunk = 1024;
// A range of units that a thread takes has at least this much work (64-bit XNOR-popcounts: a microsecond or
// two with the widest instructions, some twenty with portable ones). There are two ranges per thread, so that
// one that comes late takes fewer; not more, because some kernels prepare something for each range.
constexpr int64_t kWorkPerTask = 65536;
constexpr int64_t kTasksPerThread = 2;
// Sleeping threads are woken only if the chunk still has this much work, or all is done when they come.
constexpr double kWorkToWake = 1 << 19;
constexpr int32_t kMaxThreads = 1024;
static_assert(kTasksPerThread * kMaxThreads <= ThreadPool::kMaxCount, "a pool counts tasks in 16 bits");

int32_t checked_threads(int32_t requested) {
  if (requested < 0 || requested > kMaxThreads) {
    invalid("session: num_threads is ", requested, ", expected 1 to ", kMaxThreads,
            ", or 0 for one per usable core");
  }
  return requested == 0 ? usable_cores() : requested;
}

std::vector<binarynet_value> checked_outputs(const binarynet_session_options& options) {
  if (options.num_outputs > 0 && options.outputs == nullptr) invalid("session: outputs is null");
  return {options.outputs, options.outputs + options.num_outputs};
}

}  // namespace

// One step over one chunk.
struct Session::Call {
  const Step* step;
  const void* prepared;
  const void* in;
  void* out;
  int64_t count;  // images
  Division division;
  char* scratch;
};

Session::Session(const Graph& graph, const binarynet_session_options& options)
    : kernels_(choose_kernels(options.isa)),
      num_threads_(checked_threads(options.num_threads)),
      plan_(make_plan(graph, checked_outputs(options), num_threads_)) {
  int64_t largest = bytes_per_image(plan_.input);
  for (const binarynet_value_info& info : plan_.outputs) largest = std::max(largest, bytes_per_image(info));
  max_batch_ = PTRDIFF_MAX / largest;
  const int64_t fitting = kChunkBytes / std::max<int64_t>(plan_.arena_bytes_per_image, 1);
  chunk_ = std::clamp<int64_t>(fitting, 1, kMaxChunk);
  arena_bytes_ = static_cast<size_t>(plan_.arena_bytes_per_image * chunk_);
  prepare_steps();
  workspaces_ = std::make_unique<Workspaces>(arena_bytes_ + scratch_bytes());
  if (num_threads_ > 1) pool_ = std::make_unique<ThreadPool>(num_threads_);
}

Session::~Session() = default;

void Session::prepare_steps() {
  prepared_.resize(plan_.steps.size());
  for (size_t i = 0; i < plan_.steps.size(); ++i) {
    const Step& step = plan_.steps[i];
    if (step.kind != StepKind::block) continue;
    const Engine& engine = kernels_.engine(step.block);
    prepared_[i] = AlignedBuffer(engine.prepared_bytes(step.block));
    engine.prepare(step.block, prepared_[i].data());
  }
}

// Of the step and the chunk that need most: kernels choose by the number of images, so every one is asked
// for.
size_t Session::scratch_bytes() const {
  size_t most = 0;
  for (const Step& step : plan_.steps) {
    if (step.kind != StepKind::block) continue;
    for (int64_t count = 1; count <= chunk_; ++count) {
      const Division division = divide(step, count);
      most = std::max(most, division.scratch_stride * static_cast<size_t>(division.threads));
    }
  }
  return most;
}

int64_t Session::chunk_of(int64_t batch) const {
  const int64_t num_chunks = (batch + chunk_ - 1) / chunk_;
  return (batch + num_chunks - 1) / num_chunks;
}

void Session::run(const void* images, int64_t batch, void* const* outputs, int64_t* nanoseconds) const {
  check_arguments(images, batch, outputs);
  if (batch == 0) return;
  const Workspaces::Lease workspace = workspaces_->take();
  const int64_t per_chunk = chunk_of(batch);
  for (int64_t begin = 0; begin < batch; begin += per_chunk) {
    run_chunk(static_cast<const char*>(images), begin, std::min(per_chunk, batch - begin), outputs,
              workspace.data(), nanoseconds);
  }
  for (const Copy& copy : plan_.copies) {
    const void* from = copy.from.kind == Place::input ? images : outputs[copy.from.index];
    std::memcpy(outputs[copy.to], from, static_cast<size_t>(batch * copy.from.bytes_per_image));
  }
}

void Session::check_batch(int64_t batch, const char* where) const {
  if (batch < 0 || batch > max_batch_) {
    invalid(where, ": batch is ", batch, ", expected 0 to ", max_batch_);
  }
}

void Session::check_arguments(const void* images, int64_t batch, void* const* outputs) const {
  check_batch(batch, "run");
  if (batch == 0) return;
  if (images == nullptr) invalid("run: images is null");
  if (plan_.input.type == BINARYNET_BITS) check_bits(images, batch);
  if (outputs == nullptr) invalid("run: outputs is null");
  for (size_t i = 0; i < plan_.outputs.size(); ++i) {
    const binarynet_type type = plan_.outputs[i].type;
    const uintptr_t alignment = type == BINARYNET_U8 ? 1 : type == BINARYNET_BITS ? 8 : 4;
    if (outputs[i] == nullptr) invalid("run: memory of output ", i, " is null");
    if (reinterpret_cast<uintptr_t>(outputs[i]) % alignment != 0) {
      invalid("run: memory of output ", i, " (", type_name(type), ") is not aligned to ", alignment,
              " bytes");
    }
  }
}

// What a kernel does with padding bits that are not 0 is undefined: they would be counted, or leak into
// pixels beside. One word of each pixel is read, far less than any layer reads.
void Session::check_bits(const void* images, int64_t batch) const {
  if (reinterpret_cast<uintptr_t>(images) % sizeof(uint64_t) != 0) {
    invalid("run: images (bits) are not aligned to ", sizeof(uint64_t), " bytes");
  }
  const int64_t pixels = plan_.input.h * plan_.input.w;
  const int64_t row = first_padded_row(static_cast<const uint64_t*>(images), batch * pixels, plan_.input.c);
  if (row >= 0) {
    invalid("run: padding bits of image ", row / pixels,
            " are not 0: of each pixel's last word only the lowest ", plan_.input.c % 64, " bits are used");
  }
}

void Session::run_chunk(const char* images, int64_t begin, int64_t count, void* const* outputs,
                        char* workspace, int64_t* nanoseconds) const {
  const auto address = [&](const Place& place) -> char* {
    return place.kind == Place::output
               ? static_cast<char*>(outputs[place.index]) + begin * place.bytes_per_image
               : workspace + place.offset * count;
  };
  double work_left = plan_.work_per_image * static_cast<double>(count);
  for (size_t i = 0; i < plan_.steps.size(); ++i) {
    const Step& step = plan_.steps[i];
    const void* in =
        step.in.kind == Place::input ? images + begin * step.in.bytes_per_image : address(step.in);
    const auto wake = work_left >= kWorkToWake ? ThreadPool::Wake::yes : ThreadPool::Wake::no;
    work_left -= static_cast<double>(step.work_per_image) * static_cast<double>(count);
    if (nanoseconds == nullptr) {
      run_step(i, in, address(step.out), count, workspace + arena_bytes_, wake);
    } else {
      const auto start = std::chrono::steady_clock::now();
      run_step(i, in, address(step.out), count, workspace + arena_bytes_, wake);
      const auto time = std::chrono::steady_clock::now() - start;
      nanoseconds[i] += std::chrono::duration_cast<std::chrono::nanoseconds>(time).count();
    }
  }
}

// Blocks are divided as their kernel wishes, flatten by images, the rest by rows of pixels.
Session::Division Session::divide(const Step& step, int64_t count) const {
  Division division{nullptr, 0, 1, 1, 0, "the session has one thread"};
  if (step.kind == StepKind::block) {
    division.method = &kernels_.engine(step.block).method(step.block, count);
    division.units = division.method->unit_count(step.block, count);
    division.scratch_stride = round_up(division.method->workspace_bytes(step.block, count));
  } else {
    division.units = step.kind == StepKind::flatten_bits ? count : count * step.geometry.out_h;
  }
  if (num_threads_ > 1) {
    const auto worthwhile = static_cast<int64_t>(static_cast<double>(step.work_per_image) *
                                                 static_cast<double>(count) / kWorkPerTask);
    division.tasks =
        std::clamp<int64_t>(std::min(worthwhile, division.units), 1, kTasksPerThread * num_threads_);
    if (division.tasks > num_threads_)
      division.tasks -= division.tasks % num_threads_;  // an equal number each
    division.threads = static_cast<int32_t>(std::min<int64_t>(division.tasks, num_threads_));
    division.why = division.tasks > 1    ? "shared"
                   : division.units == 1 ? "one unit: nothing to share"
                                         : "too little work to share";
  }
  return division;
}

void Session::run_step(size_t index, const void* in, void* out, int64_t count, char* scratch,
                       ThreadPool::Wake wake) const {
  const Step& step = plan_.steps[index];
  const Call call{&step, prepared_[index].data(), in, out, count, divide(step, count), scratch};
  if (call.division.tasks == 1) {
    run_units(&call, 0, 0);
  } else {
    pool_->run(call.division.tasks, &Session::run_units, &call, wake);
  }
}

void Session::run_units(const void* context, int64_t index, int32_t participant) {
  const Call& call = *static_cast<const Call*>(context);
  const Step& step = *call.step;
  const int64_t share = call.division.units / call.division.tasks;
  const int64_t larger = call.division.units % call.division.tasks;  // so many ranges have one unit more
  const int64_t begin = index * share + std::min(index, larger);
  const int64_t end = begin + share + (index < larger ? 1 : 0);
  const auto* sums = static_cast<const int32_t*>(call.in);
  const auto* bits = static_cast<const uint64_t*>(call.in);
  switch (step.kind) {
    case StepKind::block: {
      const size_t stride = call.division.scratch_stride;
      void* scratch = stride == 0 ? nullptr : call.scratch + stride * static_cast<size_t>(participant);
      call.division.method->run(step.block, call.prepared, call.in, call.out, call.count, begin, end,
                                scratch);
      break;
    }
    case StepKind::max_pool_i32:
      max_pool_i32(step.geometry, sums, static_cast<int32_t*>(call.out), begin, end);
      break;
    case StepKind::max_pool_bits:
      max_pool_bits(step.geometry, bits, static_cast<uint64_t*>(call.out), begin, end);
      break;
    case StepKind::threshold:
      threshold_rows(step.geometry, *step.parameters, sums, static_cast<uint64_t*>(call.out), begin, end);
      break;
    case StepKind::affine:
      affine_rows(step.geometry, *step.parameters, sums, static_cast<float*>(call.out), begin, end);
      break;
    case StepKind::flatten_bits:
      flatten_bits(step.geometry.in_h * step.geometry.in_w, step.geometry.channels, bits,
                   static_cast<uint64_t*>(call.out), begin, end);
      break;
  }
}

namespace {

const char* kind_name(const Step& step) {
  switch (step.kind) {
    case StepKind::block:
      return "block";
    case StepKind::max_pool_i32:
    case StepKind::max_pool_bits:
      return "max_pool";
    case StepKind::threshold:
      return "threshold";
    case StepKind::affine:
      return "affine";
    case StepKind::flatten_bits:
      return "flatten";
  }
  return "";
}

}  // namespace

void Session::describe(int64_t batch, binarynet_plan* plan, binarynet_step* steps) const {
  check_batch(batch, "plan");
  if (batch == 0) invalid("plan: batch is 0, expected at least 1");
  const int64_t count = chunk_of(batch);
  *plan = {};
  plan->chunk = count;
  plan->num_chunks = (batch + count - 1) / count;
  plan->arena_bytes = plan_.arena_bytes_per_image * count;
  plan->workspace_bytes = static_cast<int64_t>(workspaces_->bytes());
  for (size_t i = 0; i < plan_.steps.size(); ++i) {
    const Step& step = plan_.steps[i];
    const Division division = divide(step, count);
    binarynet_step& info = steps[i];
    info = {};
    info.kind = kind_name(step);
    info.method = division.method != nullptr ? division.method->name : "plain loop";
    std::copy_n(step.values, 3, info.values);
    info.num_values = step.num_values;
    info.units = division.units;
    info.tasks = division.tasks;
    info.threads = division.threads;
    info.why_threads = division.why;
    info.weight_bytes = static_cast<int64_t>(prepared_[i].bytes());
    info.scratch_bytes = static_cast<int64_t>(division.scratch_stride) * division.threads;
    info.in_bytes = step.in.bytes_per_image * count;
    info.out_bytes = step.out.bytes_per_image * count;
    info.work = static_cast<int64_t>(
        std::min(static_cast<double>(step.work_per_image) * static_cast<double>(count), 1e18));
    plan->weight_bytes += info.weight_bytes;
    plan->scratch_bytes = std::max(plan->scratch_bytes, info.scratch_bytes);
  }
}

}  // namespace binarynet
