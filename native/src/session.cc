#include "session.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "dispatch.h"
#include "error.h"

namespace binarynet {
namespace {

// Batches are computed in chunks whose intermediate values stay in the cache next to the processor, if that
// leaves enough images to share the work of reading the weights.
constexpr int64_t kChunkBytes = int64_t{4} << 20;
constexpr int64_t kMaxChunk = 1024;
// A thread is asked to help only for at least this much work (64-bit XNOR-popcounts: some ten microseconds).
constexpr int64_t kWorkPerTask = 32768;
constexpr size_t kMaxIdleWorkspaces = 8;
constexpr int32_t kMaxThreads = 1024;

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

struct Session::Workspace {
  AlignedBuffer arena;
  AlignedBuffer scratch;
};

// One step over one chunk, its units divided into `tasks` contiguous ranges, each with its own scratch
// memory.
struct Session::Call {
  const KernelSet* kernels;
  const Step* step;
  const void* prepared;
  const void* in;
  void* out;
  int64_t count;  // images
  int64_t units;
  int64_t tasks;
  char* scratch;
  size_t scratch_stride;
};

Session::Session(const Graph& graph, const binarynet_session_options& options)
    : kernels_(choose_kernels(options.isa)),
      num_threads_(checked_threads(options.num_threads)),
      plan_(make_plan(graph, checked_outputs(options))) {
  prepared_.resize(plan_.steps.size());
  for (size_t i = 0; i < plan_.steps.size(); ++i) {
    const Step& step = plan_.steps[i];
    if (step.kind != StepKind::block) continue;
    prepared_[i] = AlignedBuffer(kernels_.prepared_bytes(step.block));
    kernels_.prepare(step.block, prepared_[i].data());
  }
  const int64_t fitting = kChunkBytes / std::max<int64_t>(plan_.arena_bytes_per_image, 1);
  chunk_ = std::clamp<int64_t>(fitting, 1, kMaxChunk);
  idle_.reserve(kMaxIdleWorkspaces);
  if (num_threads_ > 1) pool_ = std::make_unique<ThreadPool>(num_threads_);
}

Session::~Session() = default;

void Session::run(const void* images, int64_t batch, void* const* outputs) const {
  check_arguments(images, batch, outputs);
  if (batch == 0) return;
  std::unique_ptr<Workspace> workspace = take_workspace();
  const int64_t num_chunks = (batch + chunk_ - 1) / chunk_;
  const int64_t per_chunk = (batch + num_chunks - 1) / num_chunks;
  for (int64_t begin = 0; begin < batch; begin += per_chunk) {
    run_chunk(static_cast<const char*>(images), begin, std::min(per_chunk, batch - begin), outputs,
              workspace.get());
  }
  give_workspace(std::move(workspace));
  for (const Copy& copy : plan_.copies) {
    const void* from = copy.from.kind == Place::input ? images : outputs[copy.from.index];
    std::memcpy(outputs[copy.to], from, static_cast<size_t>(batch * copy.from.bytes_per_image));
  }
}

void Session::check_arguments(const void* images, int64_t batch, void* const* outputs) const {
  int64_t largest = bytes_per_image(plan_.input);
  for (const binarynet_value_info& info : plan_.outputs) largest = std::max(largest, bytes_per_image(info));
  if (batch < 0 || batch > PTRDIFF_MAX / largest) {
    invalid("run: batch is ", batch, ", expected 0 to ", PTRDIFF_MAX / largest);
  }
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
                        Workspace* workspace) const {
  const size_t arena_bytes = static_cast<size_t>(plan_.arena_bytes_per_image * count);
  if (workspace->arena.bytes() < arena_bytes) workspace->arena = AlignedBuffer(arena_bytes);
  char* arena = static_cast<char*>(workspace->arena.data());
  const auto address = [&](const Place& place) -> char* {
    return place.kind == Place::output
               ? static_cast<char*>(outputs[place.index]) + begin * place.bytes_per_image
               : arena + place.offset * count;
  };
  for (size_t i = 0; i < plan_.steps.size(); ++i) {
    const Step& step = plan_.steps[i];
    const void* in =
        step.in.kind == Place::input ? images + begin * step.in.bytes_per_image : address(step.in);
    run_step(step, prepared_[i], in, address(step.out), count, &workspace->scratch);
  }
}

// Blocks are divided as their kernel wishes, flatten by images, the rest by rows of pixels.
int64_t Session::units_of(const Step& step, int64_t count) const {
  switch (step.kind) {
    case StepKind::block:
      return kernels_.unit_count(step.block, count);
    case StepKind::flatten_bits:
      return count;
    default:
      return count * step.geometry.out_h;
  }
}

void Session::run_step(const Step& step, const AlignedBuffer& prepared, const void* in, void* out,
                       int64_t count, AlignedBuffer* scratch) const {
  Call call{&kernels_, &step, prepared.data(), in, out, count, units_of(step, count), 1, nullptr, 0};
  if (pool_ != nullptr) {
    const int64_t worthwhile = static_cast<int64_t>(static_cast<double>(step.work_per_image) *
                                                    static_cast<double>(count) / kWorkPerTask);
    call.tasks = std::clamp<int64_t>(std::min(worthwhile, call.units), 1, num_threads_);
  }
  if (step.kind == StepKind::block) {
    const int64_t units_per_task = (call.units + call.tasks - 1) / call.tasks;
    call.scratch_stride = round_up(kernels_.workspace_bytes(step.block, count, units_per_task));
    const size_t bytes = call.scratch_stride * static_cast<size_t>(call.tasks);
    if (scratch->bytes() < bytes) *scratch = AlignedBuffer(bytes);
    call.scratch = static_cast<char*>(scratch->data());
  }
  if (call.tasks == 1) {
    run_units(&call, 0);
  } else {
    pool_->run(call.tasks, &Session::run_units, &call);
  }
}

void Session::run_units(const void* context, int64_t index) {
  const Call& call = *static_cast<const Call*>(context);
  const Step& step = *call.step;
  const int64_t share = call.units / call.tasks;
  const int64_t larger = call.units % call.tasks;  // so many ranges have one unit more
  const int64_t begin = index * share + std::min(index, larger);
  const int64_t end = begin + share + (index < larger ? 1 : 0);
  const auto* sums = static_cast<const int32_t*>(call.in);
  const auto* bits = static_cast<const uint64_t*>(call.in);
  switch (step.kind) {
    case StepKind::block: {
      void* scratch = call.scratch_stride == 0 ? nullptr : call.scratch + call.scratch_stride * index;
      call.kernels->run(step.block, call.prepared, call.in, call.out, call.count, begin, end, scratch);
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

std::unique_ptr<Session::Workspace> Session::take_workspace() const {
  {
    const std::lock_guard<std::mutex> lock(idle_mutex_);
    if (!idle_.empty()) {
      std::unique_ptr<Workspace> workspace = std::move(idle_.back());
      idle_.pop_back();
      return workspace;
    }
  }
  return std::make_unique<Workspace>();
}

void Session::give_workspace(std::unique_ptr<Workspace> workspace) const {
  const std::lock_guard<std::mutex> lock(idle_mutex_);
  if (idle_.size() < kMaxIdleWorkspaces) idle_.push_back(std::move(workspace));  // reserved: cannot throw
}

}  // namespace binarynet
