// Handlers by name, as the decoder asks for them; nullptr where there is none.
#pragma once

#include <string>

#include "core.h"
#include "types.h"

namespace simulator {

Handler integer_handler(const std::string& name, Type type);
Handler bits_handler(const std::string& name, Type type);  // what integer_handler does not know
Handler dot_handler(const std::string& name, bool a_signed, bool b_signed);  // dp4a, dp2a.lo, dp2a.hi
Handler float_handler(const std::string& name, Type type);

enum class Compare : uint8_t { Eq, Ne, Lt, Le, Gt, Ge, Equ, Neu, Ltu, Leu, Gtu, Geu, Num, Nan };
// setp: d = (a cmp b) [op.q: 1 and, 2 or, 3 xor] c, e = (not (a cmp b)) [..] c; op.r: c negated.
// set: op.s is 1 for all bits, 2 for 1.0.
Handler compare_handler(Compare compare, Type type);
Handler select_handler(Type type);  // selp: d = c ? a : b

// cvt: op.p and op.q are the types, op.r a Rounding, op.s bits: 1 saturate, 2 destination slot is wide, 4
// source slot is wide, 8 destination is a 16-bit register.
enum class Rounding : uint8_t { None, Nearest, Zero, Down, Up };
void convert(Warp& w, const Op& op, uint32_t mask);

void move32(Warp& w, const Op& op, uint32_t mask);
void move64(Warp& w, const Op& op, uint32_t mask);
void move_predicate(Warp& w, const Op& op, uint32_t mask);  // op.q: a negated
void predicate_logic(Warp& w, const Op& op,
                     uint32_t mask);                // op.p: 0 and, 1 or, 2 xor, 3 not; q, r: a, b negated
void pack(Warp& w, const Op& op, uint32_t mask);    // list to d; op.p: bytes of an element, op.q: d is wide
void unpack(Warp& w, const Op& op, uint32_t mask);  // a to list
void read_clock(Warp& w, const Op& op, uint32_t mask);  // op.p: wide
void shift_value(Warp& w, const Op& op,
                 uint32_t mask);  // d = a + value on 64 bits: cvta; op.p: 32-bit d and a

void add_wide(Warp& w, const Op& op, uint32_t mask);    // d = a + value, all of 64 bits
void add_narrow(Warp& w, const Op& op, uint32_t mask);  // the same with a of 32 bits, modulo 2^32

// Memory: op.a base slot or kNone, op.value displacement; op.p Space, op.q flags, op.r bytes of an element,
// op.s width of the registers in bytes (4 or 8) | signed << 4; list: registers.
enum MemoryFlags : uint8_t { kWideBase = 1, kStrong = 2 };
void load(Warp& w, const Op& op, uint32_t mask);
void store(Warp& w, const Op& op, uint32_t mask);
void address_space_test(Warp& w, const Op& op, uint32_t mask);  // isspacep: op.p Space

enum class Atomic : uint8_t { Add, Min, Max, And, Or, Xor, Exch, Cas, Inc, Dec };
// op.a, op.value, op.p, op.q as for load; op.r Atomic, op.s Type; op.b, op.c operands; op.d result or kNone.
void atomic(Warp& w, const Op& op, uint32_t mask);

// Warps.
enum class Shuffle : uint8_t { Up, Down, Bfly, Idx };
void shuffle(Warp& w, const Op& op, uint32_t mask);  // op.p Shuffle; d, e (or kNone); a value, b, c
enum class Vote : uint8_t { Ballot, Any, All, Uni };
void vote(Warp& w, const Op& op, uint32_t mask);    // op.p Vote, op.q: a negated
void match(Warp& w, const Op& op, uint32_t mask);   // op.p: all, op.q: 64 bits
void reduce(Warp& w, const Op& op, uint32_t mask);  // op.p Atomic, op.q signed
void active_mask(Warp& w, const Op& op, uint32_t mask);
void elect(Warp& w, const Op& op, uint32_t mask);  // d lane, e predicate

// Barriers. op.a barrier, op.b threads or kNone; op.p: aligned.
uint32_t barrier_wait(Warp& w, const Op& op,
                      uint32_t mask);  // op.q: 1 popc, 2 and, 3 or; op.c predicate, op.r negated
void barrier_arrive(Warp& w, const Op& op, uint32_t mask);
void nothing(Warp& w, const Op& op, uint32_t mask);
void trap(Warp& w, const Op& op, uint32_t mask);
void proxy_fence(Warp& w, const Op& op, uint32_t mask);
void unknown(Warp& w, const Op& op, uint32_t mask);  // value: Program::messages

}  // namespace simulator
