// mma.sync, ldmatrix, stmatrix; wgmma, whose results come later.
#include <algorithm>

#include "access.h"
#include "async.h"
#include "lanes.h"
#include "ops.h"

namespace simulator {

namespace {

// Registers of a list, lane after lane.
void read_registers(Warp& w, uint32_t list, int count, uint32_t* result) {
  const uint32_t* slots = w.block->launch->program->lists.data() + list;
  for (int i = 0; i < count; ++i) {
    const uint32_t* from = w.at<uint32_t>(slots[i]);
    for (int l = 0; l < kLanes; ++l) result[l * count + i] = from[l];
  }
}

void write_registers(Warp& w, uint32_t list, int count, const uint32_t* values) {
  const uint32_t* slots = w.block->launch->program->lists.data() + list;
  for (int i = 0; i < count; ++i) {
    if (slots[i] == kNone) continue;
    uint32_t* to = w.at<uint32_t>(slots[i]);
    for (int l = 0; l < kLanes; ++l) to[l] = values[l * count + i];
  }
}

void require_all(const Warp& w, uint32_t mask, const char* what) {
  if (mask != kFull)
    throw Fault{ErrorKind::Synchronization, std::string(what) + " by a part of a warp of " +
                                                std::to_string(__builtin_popcount(w.present)) + " lanes"};
}

struct MmaValues {
  uint32_t a[kLanes * 8], b[kLanes * 8], c[kLanes * 8], d[kLanes * 8];
};

MmaRegisters read_mma(Warp& w, const Op& op, uint32_t mask, MmaShape shape, int bits, MmaValues* v) {
  require_all(w, mask, "mma");
  const MmaRegisters r = mma_registers(shape, bits);
  const uint32_t a = op.list + static_cast<uint32_t>(r.c), b = a + static_cast<uint32_t>(r.a);
  read_registers(w, a, r.a, v->a);
  read_registers(w, b, r.b, v->b);
  read_registers(w, b + static_cast<uint32_t>(r.b), r.c, v->c);
  return r;
}

}  // namespace

void mma_bits(Warp& w, const Op& op, uint32_t mask) {
  const MmaShape shape{op.p, op.q, op.r * 4};
  MmaValues v;
  const MmaRegisters r = read_mma(w, op, mask, shape, 1, &v);
  mma_b1(shape, op.s ? BitOp::Xor : BitOp::And, v.a, v.b, v.c, v.d);
  write_registers(w, op.list, r.c, v.d);
}

void mma_bytes(Warp& w, const Op& op, uint32_t mask) {
  const MmaShape shape{op.p, op.q, op.r * 4};
  MmaValues v;
  const MmaRegisters r = read_mma(w, op, mask, shape, 8, &v);
  mma_i8(shape, op.s & 1, op.s & 2, op.s & 4, v.a, v.b, v.c, v.d);
  write_registers(w, op.list, r.c, v.d);
}

namespace {

uint32_t matrix_row(Warp& w, const Op& op, uint32_t lane) {
  uint64_t address = w.at<uint64_t>(op.a)[lane];
  if (address >= kWindowBytes && resolve_generic(address, &address) != Space::Shared)
    throw Fault{ErrorKind::IllegalAddress, "the matrix is not in shared memory: " + hex(address),
                static_cast<int>(lane)};
  return shared_offset(w, address, 16, 16, static_cast<int>(lane), "moves a row of a matrix in");
}

}  // namespace

void load_matrix(Warp& w, const Op& op, uint32_t mask) {
  require_all(w, mask, "ldmatrix");
  uint8_t rows[4 * 8 * 16];
  uint32_t values[kLanes * 4];
  for (uint32_t l = 0; l < 8 * op.count; ++l) {
    const uint32_t offset = matrix_row(w, op, l);
    w.block->shared.read(offset, 16, w.index, w.clocks, static_cast<int>(l), Access::Plain);
    std::memcpy(rows + 16 * l, w.block->shared.data() + offset, 16);
  }
  ldmatrix(static_cast<int>(op.count), op.p, rows, values);
  write_registers(w, op.list, static_cast<int>(op.count), values);
}

void store_matrix(Warp& w, const Op& op, uint32_t mask) {
  require_all(w, mask, "stmatrix");
  uint8_t rows[4 * 8 * 16];
  uint32_t values[kLanes * 4];
  read_registers(w, op.list, static_cast<int>(op.count), values);
  stmatrix(static_cast<int>(op.count), op.p, values, rows);
  for (uint32_t l = 0; l < 8 * op.count; ++l)
    w.block->shared.write(matrix_row(w, op, l), 16, rows + 16 * l, w.index, w.clocks, static_cast<int>(l),
                          Access::Plain);
}

// ---- wgmma ----

namespace {

constexpr int kWarpsOfGroup = 4;

uint64_t uniform(Warp& w, uint32_t slot) {
  const uint64_t* values = w.at<uint64_t>(slot);
  for (int l = 1; l < kLanes; ++l)
    if (values[l] != values[0])
      throw Fault{ErrorKind::Synchronization, "a matrix descriptor differs between the lanes of a warp", l};
  return values[0];
}

// clocks: of rows / `count` rows each, what those who read them know.
void read_operand(Warp& w, const Wgmma& op, uint64_t descriptor, int rows, const Clocks* clocks, int count,
                  uint8_t* result) {
  uint32_t fences[kLanes] = {};
  for (const Warp& other : w.block->warps) fences[other.index] = other.proxy_fence;
  const std::vector<uint32_t> pieces = wgmma_operand(descriptor, rows);
  for (size_t i = 0; i < pieces.size(); ++i) {
    const uint32_t offset = pieces[i];
    const Clocks& known = clocks[i * static_cast<size_t>(count) / pieces.size()];
    check_bounds(w, Space::Shared, offset, 16, 16, -1, "reads an operand in");
    w.block->shared.read_async(offset, 16, kTensorCore, known, fences, op.fence, -1);
    std::memcpy(result, w.block->shared.data() + offset, 16);
    result += 16;
  }
}

void run_wgmma(Warp& w, Wgmma& op) {
  if (op.ran) return;
  op.ran = true;
  for (const Wgmma::Chained& c : op.chained) {
    run_wgmma(w, *c.from);
    const uint32_t width = static_cast<uint32_t>(op.n / 2), from = static_cast<uint32_t>(c.from->n / 2);
    for (uint32_t l = c.warp * kLanes; l < (c.warp + 1) * kLanes; ++l)
      op.d[l * width + c.index] = c.from->d[l * from + c.from_index];
  }
  op.chained.clear();
  std::vector<uint8_t> a(64 * 32), b(static_cast<size_t>(op.n) * 32);
  if (op.a_in_registers)
    wgmma_a_from_registers(op.a.data(), a.data());
  else
    read_operand(w, op, op.a_descriptor, 64, op.clocks, kWarpsOfGroup, a.data());
  // A warp multiplies 16 rows of A by all of B: of B, what all four know is what can be relied on.
  Clocks all = op.clocks[0];
  for (const Clocks& c : op.clocks)
    for (uint32_t i = 0; i < kActors; ++i) all.at[i] = std::min(all.at[i], c.at[i]);
  read_operand(w, op, op.b_descriptor, op.n, &all, 1, b.data());
  wgmma(op.kind, op.n, op.scale_d, op.saturate, a.data(), b.data(), op.d.data());
}

void differs(const char* what) {
  throw Fault{ErrorKind::Synchronization,
              std::string("the warps of a warpgroup issue one wgmma with different ") + what};
}

}  // namespace

void wgmma_fence(Warp& w, const Op&, uint32_t) { w.wgmma_fenced = true; }

void wgmma_issue(Warp& w, const Op& op, uint32_t mask) {
  require_all(w, mask, "wgmma");
  if (!w.wgmma_fenced)
    throw Fault{ErrorKind::Synchronization, "wgmma.mma_async without wgmma.fence before it"};
  Block& block = *w.block;
  const uint32_t group = w.index / 4, part = w.index % 4;
  if ((group + 1) * 4 > block.warps.size())
    throw Fault{ErrorKind::Synchronization, "wgmma by a warpgroup of less than four warps"};
  const int n = op.q * 8;
  const uint32_t width = static_cast<uint32_t>(n / 2);
  auto& record = block.wgmmas[{group, w.wgmma_issued}];
  const uint32_t pc = static_cast<uint32_t>(&op - block.launch->program->ops.data());
  const bool first = !record;
  const uint64_t a = op.a == kNone ? 0 : uniform(w, op.a), b = uniform(w, op.b);
  const uint32_t scale = w.predicate(op.c) ^ (op.p & 2 ? kFull : 0);
  if (scale != 0 && scale != kFull)
    throw Fault{ErrorKind::Synchronization, "scale-d differs between the lanes of a warp"};
  if (first) {
    record = std::make_shared<Wgmma>();
    record->kind = static_cast<WgmmaKind>(op.r);
    record->n = n;
    record->saturate = op.p & 1;
    record->a_in_registers = op.a == kNone;
    record->a_descriptor = a;
    record->b_descriptor = b;
    record->scale_d = scale != 0;
    record->pc = pc;
    record->d.assign(size_t{128} * width, 0);
    record->a.assign(size_t{128} * 4, 0);
  }
  const std::shared_ptr<Wgmma> g = record;
  if (g->pc != pc) differs("instructions");
  if (g->a_descriptor != a || g->b_descriptor != b) differs("matrix descriptors");
  if (g->scale_d != (scale != 0)) differs("scale-d");
  g->issued |= 1u << part;
  release(g->clocks[part], w);
  g->fence = first ? w.proxy_fence : std::min(g->fence, w.proxy_fence);
  if (g->a_in_registers) read_registers(w, op.list + width, 4, g->a.data() + part * kLanes * 4);

  const uint32_t* slots = block.launch->program->lists.data() + op.list;
  for (uint32_t i = 0; i < width; ++i) {
    auto& held = w.pending[slots[i]];
    if (g->scale_d && held.first) {
      g->chained.push_back({held.first, part, i, held.second});
    } else if (g->scale_d) {
      for (uint32_t l = 0; l < kLanes; ++l)
        g->d[(part * kLanes + l) * width + i] = w.at<uint32_t>(slots[i])[l];
    }
    held = {g, i};
    w.pending_at[slots[i] / 64] = 1;
  }
  w.has_pending = true;
  g->groups[part] = w.wgmma_group;
  w.wgmmas.push_back(g);
  ++w.wgmma_issued;
  ++block.events;
  if (g->issued == 15) {
    block.wgmmas.erase({group, w.wgmma_issued - 1});
    if (block.launch->early() || block.launch->chance(2)) run_wgmma(w, *g);
  }
}

void wgmma_commit(Warp& w, const Op&, uint32_t) { ++w.wgmma_group; }

uint32_t wgmma_wait(Warp& w, const Op& op, uint32_t mask) {
  const uint32_t part = w.index % 4;
  auto due = [&](const Wgmma& g) { return g.groups[part] + static_cast<uint32_t>(op.value) < w.wgmma_group; };
  for (const auto& g : w.wgmmas)
    if (due(*g) && g->issued != 15) return 0;  // the other warps have to come first
  for (auto it = w.wgmmas.begin(); it != w.wgmmas.end();) {
    const std::shared_ptr<Wgmma> g = *it;
    if (!due(*g)) {
      ++it;
      continue;
    }
    it = w.wgmmas.erase(it);
    run_wgmma(w, *g);
    const uint32_t width = static_cast<uint32_t>(g->n / 2);
    for (auto held = w.pending.begin(); held != w.pending.end();) {
      if (held->second.first != g) {
        ++held;
        continue;
      }
      for (uint32_t l = 0; l < kLanes; ++l)
        w.at<uint32_t>(held->first)[l] = g->d[(part * kLanes + l) * width + held->second.second];
      w.pending_at[held->first / 64] = 0;
      held = w.pending.erase(held);
    }
  }
  w.has_pending = !w.pending.empty();
  w.clocks.at[kTensorCore] = w.block->shared.step;
  return mask;
}

void check_pending(Warp& w, const Op& op) {
  if (op.run == wgmma_issue) return;
  const Program& p = *w.block->launch->program;
  const size_t index = static_cast<size_t>(&op - p.ops.data());
  const auto [first, count] = p.reads[index];
  bool moved = false;
  for (uint32_t i = first; i < first + count; ++i) {
    const uint32_t slot = p.slots[i];
    if (!w.pending_at[slot / 64] || !w.pending.count(slot)) continue;
    if (op.run != move32 || op.d == kNone)
      throw Fault{ErrorKind::Synchronization, "uses a register that a wgmma (PTX line " +
                                                  std::to_string(p.lines[w.pending[slot].first->pc]) +
                                                  ") writes, without wgmma.wait_group before"};
    w.pending[op.d] = w.pending[slot];
    w.pending_at[op.d / 64] = 1;
    moved = true;
  }
  if (moved) return;
  const auto [written, writes] = p.writes[index];
  for (uint32_t i = written; i < written + writes; ++i) {
    const uint32_t slot = p.slots[i];
    if (w.pending_at[slot / 64] && w.pending.erase(slot)) w.pending_at[slot / 64] = 0;
  }
}

}  // namespace simulator
