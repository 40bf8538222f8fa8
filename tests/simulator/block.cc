// Which lanes run next: the lowest PC of a warp, warps in turn, blocks one after another.
#include <algorithm>

#include "async.h"
#include "core.h"

namespace simulator {

namespace {

constexpr uint32_t kFirstStep = 2;  // step 1: before everything
constexpr uint32_t kLastStep = (1u << 25) - 65536;

uint32_t lanes_at(const Warp& w, uint32_t pc, uint32_t among) {
  uint32_t mask = 0;
  for (uint32_t rest = among; rest; rest &= rest - 1) {
    const int l = __builtin_ctz(rest);
    mask |= static_cast<uint32_t>(w.pc[l] == pc) << l;
  }
  return mask;
}

void set_pc(Warp& w, uint32_t mask, uint32_t pc) {
  for_lanes(mask, [&](int l) { w.pc[l] = pc; });
}

void stall(Warp& w, uint32_t mask) {
  w.stalled |= mask;
  for_lanes(mask, [&](int l) { w.stamp[l] = w.block->events; });
}

uint32_t runnable(const Warp& w) {
  uint32_t mask = w.alive & ~w.stalled & ~w.held;
  for (uint32_t rest = w.alive & w.stalled & ~w.held; rest; rest &= rest - 1) {
    const int l = __builtin_ctz(rest);
    mask |= static_cast<uint32_t>(w.stamp[l] != w.block->events) << l;
  }
  return mask;
}

void hold(Warp& w, uint32_t lanes) {
  if (w.held) ++w.block->events;  // lanes that stalled for want of these may go on
  w.held = lanes;
}

std::string dim_text(Dim3 d) {
  return "(" + std::to_string(d.x) + ", " + std::to_string(d.y) + ", " + std::to_string(d.z) + ")";
}

}  // namespace

Block::Block() = default;
Block::~Block() = default;

void Block::start(Launch* l) {
  launch = l;
  const uint32_t count = (l->threads + kLanes - 1) / kLanes;
  register_bytes_ = (l->program->register_bytes + 63) / 64 * 64;
  local_bytes_ = l->program->info.local_bytes;
  registers_ = Pages(std::max<uint64_t>(64, register_bytes_ * count));
  local_ = Pages(std::max<uint64_t>(64, local_bytes_ * kLanes * count));
  shared.resize(l->shared_bytes);
  warps = std::vector<Warp>(count);
  for (uint32_t i = 0; i < count; ++i) {
    Warp& w = warps[i];
    w.block = this;
    w.index = i;
    w.registers = registers_.data() + register_bytes_ * i;
    w.local = local_.data() + local_bytes_ * kLanes * i;
    const uint32_t lanes = std::min<uint32_t>(kLanes, l->threads - i * kLanes);
    w.present = lanes == kLanes ? kFull : (1u << lanes) - 1;
    set_specials(w);
  }
}

void Block::set_specials(Warp& w) {
  const Dim3 block = launch->block, grid = launch->grid;
  for (const Special& s : launch->program->specials) {
    for (uint32_t l = 0; l < kLanes; ++l) {
      const uint32_t thread = w.index * kLanes + l;
      const uint32_t tid[3] = {thread % block.x, thread / block.x % block.y, thread / (block.x * block.y)};
      const uint32_t ntid[3] = {block.x, block.y, block.z}, nctaid[3] = {grid.x, grid.y, grid.z};
      const uint32_t ctaid[3] = {index.x, index.y, index.z};
      const uint32_t masks[5] = {1u << l, (2u << l) - 1, (1u << l) - 1, ~((1u << l) - 1), ~((2u << l) - 1)};
      uint64_t v = 0;
      switch (s.name) {
        case Special::Tid:
          v = tid[s.part];
          break;
        case Special::Ntid:
          v = ntid[s.part];
          break;
        case Special::Ctaid:
          v = ctaid[s.part];
          break;
        case Special::Nctaid:
          v = nctaid[s.part];
          break;
        case Special::Lane:
          v = l;
          break;
        case Special::Warp:
          v = w.index;
          break;
        case Special::Warps:
          v = (launch->threads + kLanes - 1) / kLanes;
          break;
        case Special::LaneMask:
          v = masks[s.part];
          break;
        case Special::DynamicShared:
          v = launch->dynamic_shared;
          break;
        case Special::TotalShared:
          v = launch->shared_bytes;
          break;
        case Special::Constant:
          v = s.value;
          break;
      }
      if (s.wide)
        w.at<uint64_t>(s.slot)[l] = v;
      else
        w.at<uint32_t>(s.slot)[l] = static_cast<uint32_t>(v);
    }
  }
}

void Block::reset(Dim3 at, uint64_t number) {
  index = at;
  linear = number;
  shared.forget();
  shared.step = kFirstStep;
  barriers = {};
  objects.clear();
  bulks.clear();
  wgmmas.clear();
  events = 1;
  polls = 0;
  alive_threads = launch->threads;
  for (Warp& w : warps) {
    w.alive = w.present;
    w.held = w.stalled = w.barrier_waiting = w.proxy_fence = 0;
    set_pc(w, kFull, 0);
    std::fill(std::begin(w.clocks.at), std::end(w.clocks.at), 1);
    w.clocks.at[w.index] = kNever;
    w.copies.clear();
    std::fill(std::begin(w.copy_group), std::end(w.copy_group), 0);
    std::fill(std::begin(w.bulk_group), std::end(w.bulk_group), 0);
    w.wgmmas.clear();
    w.pending.clear();
    w.pending_at.assign(register_bytes_ / 64 + 1, 0);
    w.has_pending = false;
    w.turns = 0;
    w.wgmma_group = 0;
    w.wgmma_issued = 0;
    w.wgmma_fenced = false;
    for (const Special& s : launch->program->specials)
      if (s.name == Special::Ctaid) {
        const uint32_t value = s.part == 0 ? at.x : s.part == 1 ? at.y : at.z;
        std::fill_n(w.at<uint32_t>(s.slot), kLanes, value);
      }
    if (local_bytes_) std::memset(w.local, 0xcd, local_bytes_ * kLanes);
  }
}

void Block::rebase_steps() {
  // Steps are 25 bits: once in 33 million instructions of a block the past is taken to be in order.
  shared.make_ancient();
  launch->memory->forget_writers();
  shared.step = kFirstStep;
  auto restart = [](Clocks& c) {
    for (uint32_t& at : c.at) at = at == kNever ? kNever : 1;
  };
  for (Warp& w : warps) {
    restart(w.clocks);
    w.proxy_fence = 1;
  }
  for (Barrier& b : barriers) {
    restart(b.clocks);
    restart(b.done_clocks);
  }
  for (auto& [offset, clocks] : objects) restart(clocks);
  for (Bulk& b : bulks) restart(b.clocks);
}

void Block::run(Dim3 at, uint64_t number) {
  reset(at, number);
  const size_t count = warps.size();
  std::vector<uint32_t> order(count);
  for (uint32_t i = 0; i < count; ++i) order[i] = launch->late() ? static_cast<uint32_t>(count) - 1 - i : i;
  const bool random = launch->options->schedule == Schedule::Random;
  while (alive_threads) {
    if (random) std::shuffle(order.begin(), order.end(), launch->random);
    bool progress = false;
    for (uint32_t i : order) {
      Warp& w = warps[i];
      if (!w.alive) continue;
      const uint32_t quantum = random ? 1 + launch->random() % 200 : launch->late() ? 2000 : 200;
      // Lanes of a warp need not run in step: now and then some are held back for a while.
      if (launch->chance(8)) {
        hold(w, static_cast<uint32_t>(launch->random()));
      } else if (launch->chance(4)) {
        hold(w, 0);
      }
      progress |= run_warp(w, quantum);
      if (!bulks.empty() && launch->chance(4)) {
        land(*this, launch->random() % bulks.size());
        progress = true;
      }
      if (shared.step > kLastStep) rebase_steps();
      if (launch->counts.lane_instructions > launch->options->instruction_budget)
        report({ErrorKind::Budget, "more than " + std::to_string(launch->options->instruction_budget) +
                                       " instructions in one launch: an endless loop?"},
               w, w.pc[__builtin_ctz(w.alive | 1u << 31)], w.alive);
    }
    for (Warp& w : warps) {
      if (progress || !(w.held & w.alive)) continue;
      hold(w, 0);
      progress = true;
    }
    if (progress) continue;
    if (bulks.empty()) deadlock();
    land(*this, random ? launch->random() % bulks.size() : 0);
  }
  for (const Bulk& b : bulks) {
    const char* text =
        b.kind == Bulk::Store
            ? "the block ends while a bulk store is under way: cp.async.bulk.wait_group is missing"
            : "the block ends while an asynchronous copy to its shared memory is under way";
    report({ErrorKind::Synchronization, text, static_cast<int>(b.lane)}, warps[b.warp], b.pc, 1u << b.lane);
  }
}

void Block::deadlock() {
  for (Warp& w : warps) {
    if (!w.alive) continue;
    const uint32_t pc = w.pc[__builtin_ctz(w.alive)];
    const Op& op = launch->program->ops[pc];
    uint32_t elsewhere = w.alive & ~lanes_at(w, pc, w.alive);
    std::string text = elsewhere ? "deadlock: lanes that this instruction names never come to it"
                                 : "deadlock: what this waits for never happens";
    if (elsewhere)
      text += "; other lanes of the warp are at PTX line " +
              std::to_string(launch->program->lines[w.pc[__builtin_ctz(elsewhere)]]);
    if (op.wait == mbarrier_wait) text += mbarrier_state(w, op, __builtin_ctz(lanes_at(w, pc, w.alive)));
    report({op.converge && elsewhere ? ErrorKind::Synchronization : ErrorKind::Deadlock, text}, w, pc,
           lanes_at(w, pc, w.alive));
  }
  throw Error(ErrorKind::Deadlock, "deadlock");
}

void Block::report(const Fault& fault, const Warp& w, uint32_t pc, uint32_t mask) {
  const Program& p = *launch->program;
  const int lane = fault.lane >= 0 ? fault.lane : mask ? __builtin_ctz(mask) : 0;
  const uint32_t thread = w.index * kLanes + lane;
  const Dim3 b = launch->block;
  const Dim3 tid{thread % b.x, thread / b.x % b.y, thread / (b.x * b.y)};
  const uint32_t line = pc < p.lines.size() ? p.lines[pc] : 0;
  std::string source = line && line <= p.text->size() ? (*p.text)[line - 1] : "";
  const size_t first = source.find_first_not_of(" \t");
  if (first != std::string::npos) source = source.substr(first);
  throw Error(fault.kind, "kernel " + p.info.name + ", block " + dim_text(index) + ", thread " +
                              dim_text(tid) + ": " + fault.text + "\n  PTX line " + std::to_string(line) +
                              ": " + source);
}

void Block::barriers_changed() {
  for (Barrier& b : barriers) {
    if (!b.active) continue;
    if (b.expected ? b.counted < b.expected : b.lanes < alive_threads) continue;
    b.done_clocks = b.clocks;
    b.done_all = b.all;
    b.done_any = b.any;
    b.done_ones = b.ones;
    b.clocks = {};
    b.active = false;
    b.counted = b.lanes = 0;
    ++b.phase;
    ++events;
  }
}

bool Block::run_warp(Warp& w, uint32_t quantum) {
  const Op* ops = launch->program->ops.data();
  bool progress = false;
  uint32_t pc = 0, active = 0;
  uint64_t lane_instructions = 0, warp_instructions = 0;
  // Now and then the lanes that are furthest, lest the lowest PC is a loop that waits for them.
  bool rotate = w.turns % 64 == 63;
  try {
    while (true) {
      const uint32_t ready = runnable(w);
      if (!ready || !quantum) break;
      pc = kNone;
      for (uint32_t rest = ready; rest; rest &= rest - 1) pc = std::min(pc, w.pc[__builtin_ctz(rest)]);
      if (rotate) {
        for (uint32_t rest = ready; rest; rest &= rest - 1) pc = std::max(pc, w.pc[__builtin_ctz(rest)]);
        rotate = false;
      }
      active = lanes_at(w, pc, w.alive & ~w.held);
      w.stalled &= ~active;
      const uint32_t others = w.alive & ~active;
      uint32_t meeting = kNone;  // the next PC at which other lanes are
      for (uint32_t rest = others; rest; rest &= rest - 1) {
        const uint32_t at = w.pc[__builtin_ctz(rest)];
        if (at > pc) meeting = std::min(meeting, at);
      }
      bool again = true;
      while (again && quantum) {
        const Op& op = ops[pc];
        uint32_t mask = active;
        if (op.guard != kNone) mask &= w.predicate(op.guard) ^ (op.guard_negated ? kFull : 0);
        --quantum;
        ++warp_instructions;
        lane_instructions += __builtin_popcount(mask);
        ++shared.step;
        if (op.kind == Kind::Simple && !op.converge) {
          if (mask) {
            if (__builtin_expect(w.has_pending, 0)) check_pending(w, op);
            op.run(w, op, mask);
          }
          ++pc;
          progress = true;
          if (pc == meeting) again = false;
          continue;
        }
        if (op.kind == Kind::Branch) {
          progress = true;
          const uint32_t target = static_cast<uint32_t>(op.value);
          if (mask == active) {
            pc = target;
          } else if (!mask) {
            ++pc;
          } else {
            set_pc(w, active & ~mask, pc + 1);
            set_pc(w, mask, target);
            active = 0;
            again = false;
          }
          if (others) again = false;
          continue;
        }
        // The rare ones go by lane.
        again = false;
        set_pc(w, active, pc);
        set_pc(w, active & ~mask, pc + 1);
        if (!mask) {
          active = 0;
          progress = true;
          continue;
        }
        uint32_t run = mask;
        if (op.converge) {
          const uint32_t named = op.m == kNone ? w.present : w.at<uint32_t>(op.m)[__builtin_ctz(mask)];
          run = mask & named;
          if (op.m != kNone) {
            // Lanes with another mask go on their own.
            for (uint32_t rest = run; rest; rest &= rest - 1) {
              const int l = __builtin_ctz(rest);
              if (w.at<uint32_t>(op.m)[l] != named) run &= ~(1u << l);
            }
            if (!(named >> __builtin_ctz(mask) & 1))
              throw Fault{ErrorKind::Synchronization,
                          "the member mask " + hex(named) + " does not name the lane that executes it",
                          __builtin_ctz(mask)};
          }
          if (run != (named & w.alive)) {
            stall(w, mask);
            active = 0;
            continue;
          }
        }
        if (op.kind == Kind::Exit) {
          w.alive &= ~run;
          alive_threads -= __builtin_popcount(run);
          ++events;
          barriers_changed();
          progress = true;
        } else if (op.kind == Kind::BranchTable) {
          for_lanes(run, [&](int l) {
            const uint32_t which = w.at<uint32_t>(op.a)[l];
            if (which >= op.count) throw Fault{ErrorKind::IllegalInstruction, "a branch beyond its table", l};
            w.pc[l] = launch->program->lists[op.list + which];
          });
          progress = true;
        } else if (op.kind == Kind::Wait) {
          const uint64_t before = events;
          const uint32_t done = op.wait(w, op, run);
          set_pc(w, done, pc + 1);
          if (run & ~done) stall(w, run & ~done);
          progress |= done != 0 || events != before;
        } else {
          if (w.has_pending) check_pending(w, op);
          op.run(w, op, run);
          set_pc(w, run, pc + 1);
          progress = true;
        }
        active = 0;
      }
      set_pc(w, active, pc);
      active = 0;
    }
  } catch (const Fault& fault) {
    report(fault, w, pc, active);
  } catch (const TensorError& error) {
    report({ErrorKind::IllegalInstruction, error.what()}, w, pc, active);
  }
  w.turns = w.alive && lanes_at(w, w.pc[__builtin_ctz(w.alive)], w.alive) != w.alive ? w.turns + 1 : 0;
  launch->counts.warp_instructions += warp_instructions;
  launch->counts.lane_instructions += lane_instructions;
  return progress || quantum == 0;  // 0: others of the warp may be ready
}

}  // namespace simulator
