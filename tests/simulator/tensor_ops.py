"""tensor_ops.cc from Python: each function takes and gives NumPy arrays, and raises TensorError where it refuses."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, field
from functools import cache

import numpy as np
from machine import HERE, shared_library

KINDS = ("b1", "u8u8", "u8s8", "s8u8", "s8s8")
"""Element types of A and B of wgmma, as tensor_ops.h numbers them."""


class TensorError(Exception):
    """What the documents leave undefined, or a driver refuses."""


@cache
def library() -> ctypes.CDLL:
    found = ctypes.CDLL(str(shared_library("tensor_ops", [HERE / "tensor_ops_c.cc"])))
    for name in ("mma_b1", "mma_i8", "ldmatrix", "stmatrix", "wgmma_operand", "wgmma", "encode", "tensor_copy"):
        getattr(found, f"ops_{name}").restype = ctypes.c_char_p
    for name in ("bulk_copy", "mbarrier", "mbarrier_wait", "mbarrier_wait_parity", "mbarrier_pending"):
        getattr(found, f"ops_{name}").restype = ctypes.c_char_p
    return found


def call(name, *arguments):
    """Arrays by address, Python numbers as C int, NumPy scalars by their width."""
    kept = []
    for argument in arguments:
        if isinstance(argument, np.ndarray):
            assert argument.flags.c_contiguous
            kept.append(ctypes.c_void_p(argument.ctypes.data))
        elif isinstance(argument, np.generic):
            kept.append({4: ctypes.c_uint32, 8: ctypes.c_uint64}[argument.itemsize](int(argument)))
        else:
            kept.append(argument)
    answer = getattr(library(), f"ops_{name}")(*kept)
    if isinstance(answer, bytes) and answer:
        raise TensorError(answer.decode())
    return answer


def mma(shape, bits, a, b, c, *, xor=False, signed=(False, False), satfinite=False):
    """Registers uint32 ``[32, ...]`` of A, B and C to those of D."""
    d = np.zeros_like(c)
    if bits == 1:
        call("mma_b1", *shape, xor, a, b, c, d)
    else:
        call("mma_i8", *shape, *signed, satfinite, a, b, c, d)
    return d


def ldmatrix(rows, transposed):
    """uint8 ``[count, 8, 16]`` to registers uint32 ``[32, count]``."""
    registers = np.zeros((32, len(rows)), dtype=np.uint32)
    call("ldmatrix", len(rows), transposed, np.ascontiguousarray(rows), registers)
    return registers


def stmatrix(registers, transposed):
    rows = np.zeros((registers.shape[1], 8, 16), dtype=np.uint8)
    call("stmatrix", registers.shape[1], transposed, np.ascontiguousarray(registers), rows)
    return rows


def wgmma_operand(descriptor, rows):
    """Shared addresses, ``[rows, 2]``, of the 16-byte pieces of an operand."""
    addresses = np.zeros((rows, 2), dtype=np.uint32)
    call("wgmma_operand", np.uint64(descriptor), rows, addresses)
    return addresses


def wgmma_a_from_registers(registers):
    rows = np.zeros((64, 32), dtype=np.uint8)
    call("wgmma_a_from_registers", registers, rows)
    return rows


def wgmma(kind, a, b, d, *, scale_d=True, satfinite=False):
    """uint8 ``[64, 32]`` and ``[n, 32]``, accumulators uint32 ``[128, n / 2]``; gives new accumulators."""
    result = d.copy()
    call("wgmma", KINDS.index(kind), len(b), scale_d, satfinite, a, b, result)
    return result


@dataclass
class Map:
    """What cuTensorMapEncodeTiled takes; fastest dimension first, strides without the first."""

    address: int
    element_bytes: int
    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    box: tuple[int, ...]
    steps: tuple[int, ...] = ()
    swizzle: int = 0
    encoded: np.ndarray = field(init=False)

    def __post_init__(self):
        rank = len(self.sizes)
        numbers = np.zeros(24, dtype=np.uint64)
        numbers[:4] = self.address, self.element_bytes, rank, self.swizzle
        columns = (self.sizes, (self.element_bytes, *self.strides), self.box, self.steps or (1,) * rank)
        for start, values in zip((4, 9, 14, 19), columns, strict=True):
            numbers[start : start + min(len(values), 5)] = values[:5]
        self.encoded = np.zeros(128, dtype=np.uint8)
        call("encode", numbers, self.encoded)

    def copy(self, coordinates, shared, *, load=True):
        """Pieces (global, shared, bytes, is zero) ``[n, 4]``, and the bytes that the mbarrier counts."""
        pieces = np.zeros((1 << 16, 4), dtype=np.uint64)
        count, box = np.zeros(1, dtype=np.int32), np.zeros(1, dtype=np.uint32)
        at = np.array(coordinates, dtype=np.int32)
        call("tensor_copy", self.encoded, at, np.uint32(shared), load, pieces, count, box)
        return pieces[: count[0]].astype(np.int64), int(box[0])


def bulk_copy(address, shared, size):
    call("bulk_copy", np.uint64(address), np.uint32(shared), np.uint32(size))


class Mbarrier:
    """The word of an mbarrier and what can be done to it. Arrivals give the token of the phase."""

    OPERATIONS = ("init", "expect_tx", "complete_tx", "arrive", "arrive_no_complete", "arrive_drop")

    def __init__(self, count):
        self.word = np.zeros(1, dtype=np.uint64)
        self.apply("init", count)

    def apply(self, operation, value=1):
        token = np.zeros(1, dtype=np.uint64)
        call("mbarrier", self.OPERATIONS.index(operation), self.word, np.uint32(value), token)
        return int(token[0])

    def done(self, token):
        result = np.zeros(1, dtype=np.int32)
        call("mbarrier_wait", self.word[0], np.uint64(token), result)
        return bool(result[0])

    def done_parity(self, parity):
        result = np.zeros(1, dtype=np.int32)
        call("mbarrier_wait_parity", self.word[0], np.uint32(parity), result)
        return bool(result[0])


def pending(token):
    result = np.zeros(1, dtype=np.uint32)
    call("mbarrier_pending", np.uint64(token), result)
    return int(result[0])
