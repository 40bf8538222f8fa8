// What is under way when an instruction returns: copies and wgmma.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "core.h"
#include "tensor_ops.h"

namespace simulator {

// Work of the copy engine that has not been done.
struct Bulk {
  enum Kind : uint8_t { Load, Store, Arrival };
  Kind kind = Load;
  std::vector<BulkPiece> pieces;
  uint32_t mbarrier = 0;                   // Load, Arrival: offset in shared memory
  uint32_t bytes = 0;                      // that the mbarrier is told of
  uint32_t warp = 0, lane = 0, group = 0;  // who issued it; the commit group of a Store
  uint32_t pc = 0;
  Clocks clocks;       // what the issuing thread knew
  uint32_t fence = 0;  // step of its last proxy fence
};

void land(Block& block, size_t index);                      // does one of block.bulks; throws Fault
void land_lane_copies(Warp& w, int lane, uint32_t groups);  // cp.async of groups below `groups`
void start_bulk(Warp& w, Bulk bulk);                        // now or later, by the schedule

// One wgmma of a warpgroup; it can run once its four warps have issued it.
struct Wgmma {
  struct Chained {  // an accumulator that an earlier wgmma gives
    std::shared_ptr<Wgmma> from;
    uint32_t warp, index, from_index;  // of the warpgroup; registers
  };
  WgmmaKind kind = WgmmaKind::B1AndPopc;
  int n = 0;
  bool scale_d = false, saturate = false, a_in_registers = false, ran = false;
  uint64_t a_descriptor = 0, b_descriptor = 0;
  uint32_t pc = 0, issued = 0;  // issued: bits of the warpgroup's warps
  std::vector<uint32_t> a;      // [128][4]
  std::vector<uint32_t> d;      // [128][n / 2]: accumulators, then results
  std::vector<Chained> chained;
  Clocks clocks[4];  // what each warp knew
  uint32_t fence = 0;
  uint32_t groups[4] = {};  // commit group per warp
};

// Handlers; addresses are slots of 64 bits (Decoder::address_slot).
uint32_t mbarrier_wait(Warp& w, const Op& op,
                       uint32_t mask);                        // d; a address, b parity or token; p: by parity
void mbarrier_test(Warp& w, const Op& op, uint32_t mask);     // as mbarrier_wait, but at once
std::string mbarrier_state(Warp& w, const Op& op, int lane);  // " (phase 0, ...)", for messages
enum class Mbarrier : uint8_t {
  Init,
  Inval,
  ExpectTx,
  CompleteTx,
  Arrive,
  ArriveExpectTx,
  ArriveNoComplete,
  ArriveDrop
};
void mbarrier_change(Warp& w, const Op& op,
                     uint32_t mask);  // p Mbarrier; a address, b count or kNone, d token
void mbarrier_pending(Warp& w, const Op& op, uint32_t mask);        // d = pending count of token a
void mbarrier_arrive_copies(Warp& w, const Op& op, uint32_t mask);  // cp.async.mbarrier.arrive.noinc

void copy_lane(Warp& w, const Op& op,
               uint32_t mask);  // cp.async: a to, b from, r bytes, c read bytes, e ignore
void commit_lane_copies(Warp& w, const Op& op, uint32_t mask);
void wait_lane_copies(Warp& w, const Op& op,
                      uint32_t mask);  // value: groups that may be under way, -1: none at all

void bulk_load(Warp& w, const Op& op, uint32_t mask);        // a to, b from, c mbarrier, e bytes
void bulk_store(Warp& w, const Op& op, uint32_t mask);       // a to, b from, e bytes
void tensor_load_op(Warp& w, const Op& op, uint32_t mask);   // a to, b map, c mbarrier, list: coordinates
void tensor_store_op(Warp& w, const Op& op, uint32_t mask);  // a map, b from, list: coordinates
void commit_bulks(Warp& w, const Op& op, uint32_t mask);
void wait_bulks(Warp& w, const Op& op, uint32_t mask);  // value: groups

void mma_bits(Warp& w, const Op& op, uint32_t mask);      // p, q, r: m, n, k / 4; s: xor; list: d, a, b, c
void mma_bytes(Warp& w, const Op& op, uint32_t mask);     // s: 1 a signed, 2 b signed, 4 saturate
void load_matrix(Warp& w, const Op& op, uint32_t mask);   // a address, list: registers, p: transposed
void store_matrix(Warp& w, const Op& op, uint32_t mask);  // the same

void wgmma_fence(Warp& w, const Op& op, uint32_t mask);
void wgmma_issue(Warp& w, const Op& op,
                 uint32_t mask);  // list: d, a; a, b: descriptors; c: scale-d; q: n / 8; r: kind
void wgmma_commit(Warp& w, const Op& op, uint32_t mask);
uint32_t wgmma_wait(Warp& w, const Op& op, uint32_t mask);  // value: groups
// Before an op of a warp that waits for registers: follows moves of such registers, throws where one is read.
void check_pending(Warp& w, const Op& op);

}  // namespace simulator
