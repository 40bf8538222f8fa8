// What is under way: bulk copies and wgmma.
#pragma once

#include <cstdint>
#include <vector>

#include "core.h"
#include "tensor_ops.h"

namespace simulator {

// A copy by the copy engine that has not landed.
struct Bulk {
  bool store = false;  // shared to global
  std::vector<BulkPiece> pieces;
  uint32_t mbarrier = 0;  // loads: offset of the mbarrier, and what it is told at the end
  uint32_t bytes = 0;
  uint32_t warp = 0, lane = 0, group = 0;  // who issued it; group: of stores
  uint32_t pc = 0;
  bool arrival = false;  // no copy: an arrival at the mbarrier once the lane's cp.async are done
  Clocks clocks;         // what the issuing thread knew
  uint32_t fence = 0;    // step of its last proxy fence
};

void land(Block& block, size_t index);                      // of block.bulks
void land_lane_copies(Warp& w, int lane, uint32_t groups);  // cp.async of groups below `groups`

// One wgmma of a warpgroup: complete (issued by its four warps) before it can run.
struct Wgmma {
  WgmmaKind kind = WgmmaKind::B1AndPopc;
  int n = 0;
  bool scale_d = false, saturate = false, a_in_registers = false, ran = false;
  uint64_t a_descriptor = 0, b_descriptor = 0;
  uint32_t pc = 0, issued = 0;  // bits: warps of the warpgroup
  std::vector<uint32_t> a;      // [128][4]
  std::vector<uint32_t> d;      // [128][n / 2]: accumulators, then results
  // Accumulators that earlier wgmmas hold: index in d of the first lane, from which, where.
  struct Chained {
    std::shared_ptr<Wgmma> from;
    uint32_t warp, index, from_index;
  };
  std::vector<Chained> chained;
  Clocks clocks;
  uint32_t fence = 0;
  uint32_t groups[4] = {};  // commit group per warp
};

void run_wgmma(Warp& w, Wgmma& op);

}  // namespace simulator
