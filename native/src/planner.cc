#include "planner.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "error.h"
#include "memory.h"

namespace binarynet {
namespace {

// One image's intermediate values may take this much; more is refused before anything is allocated.
constexpr int64_t kMaxArenaBytes = int64_t{1} << 34;

// Bytes that several values share, and from which to which step they are needed.
struct Storage {
  Place place;
  bool placed = false;
  int64_t first_step = 0;
  int64_t last_step = 0;
};

int32_t narrow(int64_t value) {
  return static_cast<int32_t>(value);
}  // all sizes are below 2^31, see graph.h

class Planner {
 public:
  Planner(const Graph& graph, const std::vector<binarynet_value>& outputs, int32_t num_threads)
      : values_(graph.values()), outputs_(outputs), num_threads_(num_threads) {}

  Plan plan() {
    find_users();
    for (size_t v = 0; v < values_.size(); ++v) {
      if (live_[v] && !done_[v]) add_step(static_cast<binarynet_value>(v));
    }
    place_outputs();
    place_arena();
    for (Step& step : plan_.steps) {
      step.in = storage_of(source_of(step)).place;
      step.out = storage_of(step.result).place;
    }
    plan_.input = values_.front().info;
    return std::move(plan_);
  }

 private:
  void find_users() {
    live_.assign(values_.size(), false);
    done_.assign(values_.size(), false);
    is_output_.assign(values_.size(), false);
    users_.assign(values_.size(), {});
    root_.resize(values_.size());
    for (const binarynet_value output : outputs_) {
      live_[output] = is_output_[output] = true;
    }
    for (size_t v = values_.size(); v-- > 1;) {
      if (!live_[v]) continue;
      live_[values_[v].source] = true;
      users_[values_[v].source].push_back(static_cast<binarynet_value>(v));
    }
    for (size_t v = 0; v < values_.size(); ++v) {
      root_[v] = is_view(values_[v]) ? root_[values_[v].source] : static_cast<binarynet_value>(v);
    }
    storages_.resize(values_.size());
  }

  // A flatten moves bits only if pixels have padding bits between them.
  bool is_view(const Value& value) const {
    if (value.op != Op::flatten) return false;
    const binarynet_value_info& source = values_[value.source].info;
    return source.type != BINARYNET_BITS || source.c % 64 == 0 || (source.h == 1 && source.w == 1);
  }

  // The one value computed from v with this operation, or -1 if v has other uses too.
  binarynet_value only_user(binarynet_value v, Op op) const {
    if (is_output_[v] || users_[v].size() != 1) return -1;
    const binarynet_value user = users_[v].front();
    return values_[user].op == op ? user : -1;
  }

  void add_step(binarynet_value v) {
    const Value& value = values_[v];
    if (value.op == Op::input || is_view(value)) return;
    Step step{};
    step.result = step.values[0] = v;
    step.num_values = 1;
    step.parameters = value.parameters;
    const binarynet_value_info& source = values_[value.source].info;
    step.geometry = {source.h, source.w, value.info.h, value.info.w, source.c, value.window};
    const int64_t elements = value.info.h * value.info.w * value.info.c;
    step.work_per_image = elements / 8 + 1;
    switch (value.op) {
      case Op::convolution:
        make_block(v, &step);
        break;
      case Op::max_pool: {
        const bool bits = value.info.type == BINARYNET_BITS;
        step.kind = bits ? StepKind::max_pool_bits : StepKind::max_pool_i32;
        const int64_t taps =
            std::min(value.window.kernel_h, source.h) * std::min(value.window.kernel_w, source.w);
        step.work_per_image = elements / (bits ? 64 : 4) * taps + 1;
        break;
      }
      case Op::threshold:
        step.kind = StepKind::threshold;
        break;
      case Op::affine:
        step.kind = StepKind::affine;
        break;
      case Op::flatten:
        step.kind = StepKind::flatten_bits;
        break;
      case Op::input:
        break;
    }
    const int64_t index = static_cast<int64_t>(plan_.steps.size());
    Storage& result = storage_of(step.result);
    result.place.bytes_per_image = bytes_per_image(values_[step.result].info);
    result.first_step = result.last_step = index;
    storage_of(value.source).last_step = index;
    source_of_step_.push_back(value.source);
    plan_.work_per_image += static_cast<double>(step.work_per_image);
    plan_.steps.push_back(std::move(step));
  }

  // convolution -> optional max_pool -> optional threshold, as far as nobody else needs what lies between.
  void make_block(binarynet_value v, Step* step) {
    const Value& convolution = values_[v];
    const binarynet_value_info& in = values_[convolution.source].info;
    const binarynet_window& window = convolution.window;
    Block block{};
    block.input = in.type == BINARYNET_U8 ? BlockInput::bytes : BlockInput::bits;
    block.output = BlockOutput::int32;
    block.threads = num_threads_;
    block.in_h = narrow(in.h);
    block.in_w = narrow(in.w);
    block.in_c = narrow(in.c);
    block.in_words = narrow(words(in.c));
    block.kernel_h = narrow(window.kernel_h);
    block.kernel_w = narrow(window.kernel_w);
    block.stride_h = narrow(window.stride_h);
    block.stride_w = narrow(window.stride_w);
    block.pad_h = narrow(window.pad_h);
    block.pad_w = narrow(window.pad_w);
    block.conv_h = block.out_h = narrow(convolution.info.h);
    block.conv_w = block.out_w = narrow(convolution.info.w);
    block.out_c = narrow(convolution.info.c);
    block.out_words = narrow(words(convolution.info.c));
    block.pool_h = block.pool_w = block.pool_stride_h = block.pool_stride_w = 1;
    block.weights = convolution.parameters->weights.data();

    const binarynet_value pool = only_user(v, Op::max_pool);
    if (pool >= 0) {
      const Value& value = values_[pool];
      block.pool_h = narrow(value.window.kernel_h);
      block.pool_w = narrow(value.window.kernel_w);
      block.pool_stride_h = narrow(value.window.stride_h);
      block.pool_stride_w = narrow(value.window.stride_w);
      block.pool_pad_h = narrow(value.window.pad_h);
      block.pool_pad_w = narrow(value.window.pad_w);
      block.out_h = narrow(value.info.h);
      block.out_w = narrow(value.info.w);
      step->result = pool;
    }
    const binarynet_value threshold = only_user(step->result, Op::threshold);
    if (threshold >= 0) {
      step->threshold_parameters = values_[threshold].parameters;
      block.output = BlockOutput::bits;
      block.thresholds = step->threshold_parameters->thresholds.data();
      block.falling = step->threshold_parameters->falling.data();
      step->result = threshold;
    }
    step->num_values = 0;
    for (const binarynet_value fused : {v, pool, threshold}) {
      if (fused < 0) continue;
      done_[fused] = true;
      step->values[step->num_values++] = fused;
    }
    step->kind = StepKind::block;
    step->block = block;
    // Eight bytes take about as long as 64 bits.
    const double tap_words =
        block.input == BlockInput::bytes ? static_cast<double>(in.c) / 8 : static_cast<double>(words(in.c));
    const double work = static_cast<double>(convolution.info.h * convolution.info.w * convolution.info.c) *
                        static_cast<double>(window.kernel_h * window.kernel_w) * tap_words;
    step->work_per_image = static_cast<int64_t>(std::clamp(work, 1.0, 1e15));
  }

  // An output's bytes are computed right where the caller wants them; whatever it shares them with is copied.
  void place_outputs() {
    Storage& input = storages_[0];
    input.place.kind = Place::input;
    input.place.bytes_per_image = bytes_per_image(values_[0].info);
    input.placed = true;
    for (size_t i = 0; i < outputs_.size(); ++i) {
      Storage& storage = storage_of(outputs_[i]);
      if (storage.placed) {
        plan_.copies.push_back({storage.place, static_cast<int64_t>(i)});
      } else {
        storage.place.kind = Place::output;
        storage.place.index = static_cast<int64_t>(i);
        storage.placed = true;
      }
      plan_.outputs.push_back(values_[outputs_[i]].info);
    }
  }

  // First fit, in order of computation: the lowest offset that is free while the value is needed.
  void place_arena() {
    std::vector<Storage*> placed;
    for (const Step& step : plan_.steps) {
      Storage& storage = storage_of(step.result);
      if (storage.placed) continue;
      const int64_t size = rounded(storage);
      int64_t offset = 0;
      for (const Storage* other : placed) {  // sorted by offset
        if (other->last_step < storage.first_step || other->first_step > storage.last_step) continue;
        if (offset + size <= other->place.offset) break;
        offset = std::max(offset, other->place.offset + rounded(*other));
      }
      storage.place.kind = Place::arena;
      storage.place.offset = offset;
      storage.placed = true;
      const auto above = [&storage](const Storage* other) {
        return other->place.offset > storage.place.offset;
      };
      placed.insert(std::find_if(placed.begin(), placed.end(), above), &storage);
      plan_.arena_bytes_per_image = std::max(plan_.arena_bytes_per_image, offset + size);
    }
    if (plan_.arena_bytes_per_image > kMaxArenaBytes) {
      throw Error(BINARYNET_OUT_OF_MEMORY,
                  text("intermediate values of one image need ", plan_.arena_bytes_per_image,
                       " bytes; the limit is ", kMaxArenaBytes));
    }
  }

  static int64_t rounded(const Storage& storage) {
    return static_cast<int64_t>(round_up(static_cast<size_t>(storage.place.bytes_per_image)));
  }

  Storage& storage_of(binarynet_value v) { return storages_[root_[v]]; }
  binarynet_value source_of(const Step& step) const { return source_of_step_[&step - plan_.steps.data()]; }

  const std::vector<Value>& values_;
  const std::vector<binarynet_value>& outputs_;
  const int32_t num_threads_;
  std::vector<bool> live_, done_, is_output_;
  std::vector<std::vector<binarynet_value>> users_;
  std::vector<binarynet_value> root_;            // value -> the value whose bytes it shares
  std::vector<Storage> storages_;                // by root
  std::vector<binarynet_value> source_of_step_;  // step -> value that it reads
  Plan plan_;
};

}  // namespace

Plan make_plan(const Graph& graph, const std::vector<binarynet_value>& outputs, int32_t num_threads) {
  if (outputs.empty()) invalid("session: no outputs asked for, expected at least one value");
  for (const binarynet_value output : outputs) graph.value(output, "session output");
  return Planner(graph, outputs, num_threads).plan();
}

}  // namespace binarynet
