// Asynchronous copies: cp.async of lanes, and the copy engine (cp.async.bulk).
#include "async.h"

#include "access.h"
#include "lanes.h"
#include "ops.h"

namespace simulator {

namespace {

void land_lane_copy(Warp& w, const LaneCopy& c) {
  uint8_t values[16] = {};
  if (c.read) {
    const Allocation* a = global_at(w, nullptr, c.global, c.read, c.lane, "copies");
    check_initialized(*a, c.global, c.read, c.lane);
    std::memcpy(values, a->at(c.global), c.read);
  }
  w.block->shared.write(c.shared, c.bytes, values, w.index, w.clocks, c.lane, Access::Plain);
}

uint64_t global_address(uint64_t address, int lane) {
  uint64_t in_space = 0;
  if (resolve_generic(address, &in_space) != Space::Global)
    throw Fault{ErrorKind::IllegalAddress,
                "a bulk copy between shared memory and " + hex(address) + ", which is not global", lane};
  return address;
}

uint32_t shared_address(Warp& w, uint64_t address, uint32_t bytes, uint32_t align, int lane) {
  if (address >= kWindowBytes && resolve_generic(address, &address) != Space::Shared)
    throw Fault{ErrorKind::IllegalAddress, "the address is not in shared memory: " + hex(address), lane};
  return shared_offset(w, address, bytes, align, lane, "copies");
}

void land_load(Block& block, Warp& w, const Bulk& b) {
  const int lane = static_cast<int>(b.lane);
  const uint32_t actor = loads_of(b.mbarrier);
  std::vector<uint8_t> values;
  for (const BulkPiece& p : b.pieces) {
    check_bounds(w, Space::Shared, p.shared, p.bytes, 0, lane, "copies to");
    values.assign(p.bytes, 0);
    if (!p.is_zero) {
      const Allocation* a = global_at(w, nullptr, p.global, p.bytes, lane, "copies");
      check_initialized(*a, p.global, p.bytes, lane);
      std::memcpy(values.data(), a->at(p.global), p.bytes);
    }
    block.shared.write(p.shared, p.bytes, values.data(), actor, b.clocks, lane, Access::Plain);
  }
  uint64_t word;
  block.shared.read(b.mbarrier, 8, actor, b.clocks, lane, Access::Atomic);
  std::memcpy(&word, block.shared.data() + b.mbarrier, 8);
  word = mbarrier_complete_tx(word, b.bytes);
  block.shared.write(b.mbarrier, 8, &word, actor, b.clocks, lane, Access::Atomic);
  Clocks& object = block.objects[b.mbarrier];
  object.at[actor] = std::max(object.at[actor], block.shared.step);
}

void land_store(Block& block, Warp& w, const Bulk& b) {
  const int lane = static_cast<int>(b.lane);
  uint32_t fences[kLanes] = {};
  for (const Warp& other : block.warps) fences[other.index] = other.proxy_fence;
  for (const BulkPiece& p : b.pieces) {
    check_bounds(w, Space::Shared, p.shared, p.bytes, 0, lane, "copies");
    block.shared.read_async(p.shared, p.bytes, kCopyEngine, b.clocks, fences, b.fence, lane);
    Allocation* a = global_at(w, nullptr, p.global, p.bytes, lane, "copies to");
    write_global(w, *a, p.global, p.bytes, lane, true, block.shared.data() + p.shared);
  }
}

}  // namespace

void land(Block& block, size_t index) {
  const Bulk b = std::move(block.bulks[index]);
  block.bulks.erase(block.bulks.begin() + static_cast<std::ptrdiff_t>(index));
  Warp& w = block.warps[b.warp];
  ++block.shared.step;
  ++block.events;
  try {
    if (b.kind == Bulk::Load) {
      land_load(block, w, b);
    } else if (b.kind == Bulk::Store) {
      land_store(block, w, b);
    } else {
      land_lane_copies(w, static_cast<int>(b.lane), kNever);
      uint64_t word;
      std::memcpy(&word, block.shared.data() + b.mbarrier, 8);
      word = mbarrier_arrive(word);
      block.shared.write(b.mbarrier, 8, &word, w.index, w.clocks, static_cast<int>(b.lane), Access::Atomic);
      release(w, b.mbarrier);
    }
  } catch (const Fault& fault) {
    block.report(fault, w, b.pc, 1u << b.lane);
  } catch (const TensorError& error) {
    block.report({ErrorKind::IllegalInstruction, error.what()}, w, b.pc, 1u << b.lane);
  }
}

void start_bulk(Warp& w, Bulk b) {
  Block& block = *w.block;
  b.clocks = w.clocks;
  b.clocks.at[w.index] = block.shared.step;
  b.fence = w.proxy_fence;
  block.bulks.push_back(std::move(b));
  if (block.launch->early() || block.launch->chance(2)) land(block, block.bulks.size() - 1);
}

// ---- cp.async ----

void land_lane_copies(Warp& w, int lane, uint32_t groups) {
  for (size_t i = 0; i < w.copies.size();) {
    const LaneCopy c = w.copies[i];
    if (c.lane != lane || c.group >= groups) {
      ++i;
      continue;
    }
    w.copies.erase(w.copies.begin() + static_cast<std::ptrdiff_t>(i));
    land_lane_copy(w, c);
  }
}

void copy_lane(Warp& w, const Op& op, uint32_t mask) {
  const Launch& launch = *w.block->launch;
  for_lanes(mask, [&](int l) {
    LaneCopy c;
    c.lane = static_cast<uint8_t>(l);
    c.group = w.copy_group[l];
    c.bytes = op.r;
    c.read = op.c == kNone ? c.bytes : w.at<uint32_t>(op.c)[l];
    if (c.read > c.bytes)
      throw Fault{ErrorKind::IllegalInstruction,
                  "cp.async reads more bytes than it writes: " + std::to_string(c.read), l};
    if (op.e != kNone && (w.predicate(op.e) >> l & 1)) c.read = 0;
    c.shared = shared_address(w, w.at<uint64_t>(op.a)[l], c.bytes, c.bytes, l);
    c.global = global_address(w.at<uint64_t>(op.b)[l], l);
    if (c.read) {
      check_bounds(w, Space::Global, c.global, c.read, c.bytes, l, "copies");
      global_at(w, &op, c.global, c.read, l, "copies");
    }
    if (launch.early() || w.block->launch->chance(2))
      land_lane_copy(w, c);
    else
      w.copies.push_back(c);
  });
}

void commit_lane_copies(Warp& w, const Op&, uint32_t mask) {
  for_lanes(mask, [&](int l) { ++w.copy_group[l]; });
}

void wait_lane_copies(Warp& w, const Op& op, uint32_t mask) {
  if (w.copies.empty()) return;
  // Lanes of one group and one order land together: by copy, not by lane, which is quicker.
  std::deque<LaneCopy> rest;
  std::deque<LaneCopy> all;
  all.swap(w.copies);
  for (const LaneCopy& c : all) {
    const bool waits = mask >> c.lane & 1;
    const bool due = op.value < 0 || c.group + static_cast<uint32_t>(op.value) < w.copy_group[c.lane];
    if (waits && due)
      land_lane_copy(w, c);
    else
      rest.push_back(c);
  }
  w.copies.swap(rest);
}

// ---- cp.async.bulk ----

namespace {

Bulk new_bulk(Warp& w, const Op& op, int lane, Bulk::Kind kind) {
  Bulk b;
  b.kind = kind;
  b.warp = w.index;
  b.lane = static_cast<uint32_t>(lane);
  b.group = w.bulk_group[lane];
  b.pc = static_cast<uint32_t>(&op - w.block->launch->program->ops.data());
  return b;
}

TensorMap map_at(Warp& w, const Op& op, uint32_t slot, int lane) {
  uint64_t address = w.at<uint64_t>(slot)[lane];
  const Space space = resolve_generic(address, &address);
  uint8_t bytes[kTensorMapBytes];
  check_bounds(w, space, address, kTensorMapBytes, 64, lane, "reads a tensor map in");
  if (space == Space::Param) {
    std::memcpy(bytes, w.block->launch->parameters.data() + address, sizeof bytes);
  } else if (space == Space::Global) {
    const Allocation* a = global_at(w, nullptr, address, sizeof bytes, lane, "reads a tensor map of");
    check_initialized(*a, address, sizeof bytes, lane);
    std::memcpy(bytes, a->at(address), sizeof bytes);
  } else {
    throw Fault{ErrorKind::IllegalAddress, "tensor maps are parameters or in global memory", lane};
  }
  const TensorMap map = decode_tensor_map(bytes);
  if (map.rank != static_cast<int>(op.count))
    throw Fault{ErrorKind::IllegalInstruction,
                "a copy of " + std::to_string(op.count) + " dimensions with a tensor map of " +
                    std::to_string(map.rank),
                lane};
  return map;
}

void coordinates(Warp& w, const Op& op, int lane, int32_t* result) {
  for (uint32_t i = 0; i < op.count; ++i)
    result[i] = static_cast<int32_t>(w.at<uint32_t>(w.block->launch->program->lists[op.list + i])[lane]);
}

void mbarrier_of(Warp& w, const Op& op, int lane, Bulk* b) {
  b->mbarrier = shared_address(w, w.at<uint64_t>(op.c)[lane], 8, 8, lane);
  w.block->shared.read(b->mbarrier, 8, w.index, w.clocks, lane, Access::Atomic);
}

}  // namespace

void bulk_load(Warp& w, const Op& op, uint32_t mask) {
  for_lanes(mask, [&](int l) {
    Bulk b = new_bulk(w, op, l, Bulk::Load);
    b.bytes = w.at<uint32_t>(op.e)[l];
    const uint32_t to = shared_address(w, w.at<uint64_t>(op.a)[l], b.bytes, 16, l);
    const uint64_t from = global_address(w.at<uint64_t>(op.b)[l], l);
    b.pieces = {bulk_copy(from, to, b.bytes)};
    global_at(w, &op, from, b.bytes, l, "copies");
    mbarrier_of(w, op, l, &b);
    start_bulk(w, std::move(b));
  });
}

void bulk_store(Warp& w, const Op& op, uint32_t mask) {
  for_lanes(mask, [&](int l) {
    Bulk b = new_bulk(w, op, l, Bulk::Store);
    b.bytes = w.at<uint32_t>(op.e)[l];
    const uint32_t from = shared_address(w, w.at<uint64_t>(op.b)[l], b.bytes, 16, l);
    b.pieces = {bulk_copy(global_address(w.at<uint64_t>(op.a)[l], l), from, b.bytes)};
    start_bulk(w, std::move(b));
  });
}

void tensor_load_op(Warp& w, const Op& op, uint32_t mask) {
  for_lanes(mask, [&](int l) {
    Bulk b = new_bulk(w, op, l, Bulk::Load);
    const TensorMap map = map_at(w, op, op.b, l);
    int32_t at[5];
    coordinates(w, op, l, at);
    b.bytes = tensor_box_bytes(map);
    b.pieces = tensor_load(map, at, shared_address(w, w.at<uint64_t>(op.a)[l], b.bytes, 1, l));
    mbarrier_of(w, op, l, &b);
    start_bulk(w, std::move(b));
  });
}

void tensor_store_op(Warp& w, const Op& op, uint32_t mask) {
  for_lanes(mask, [&](int l) {
    Bulk b = new_bulk(w, op, l, Bulk::Store);
    const TensorMap map = map_at(w, op, op.a, l);
    int32_t at[5];
    coordinates(w, op, l, at);
    b.bytes = tensor_box_bytes(map);
    b.pieces = tensor_store(map, at, shared_address(w, w.at<uint64_t>(op.b)[l], b.bytes, 1, l));
    start_bulk(w, std::move(b));
  });
}

void commit_bulks(Warp& w, const Op&, uint32_t mask) {
  for_lanes(mask, [&](int l) { ++w.bulk_group[l]; });
}

void wait_bulks(Warp& w, const Op& op, uint32_t mask) {
  Block& block = *w.block;
  for (size_t i = 0; i < block.bulks.size();) {
    const Bulk& b = block.bulks[i];
    const bool due = b.kind == Bulk::Store && b.warp == w.index && (mask >> b.lane & 1) &&
                     b.group + static_cast<uint32_t>(op.value) < w.bulk_group[b.lane];
    if (due)
      land(block, i);
    else
      ++i;
  }
  w.clocks.at[kCopyEngine] = block.shared.step;
}

}  // namespace simulator
