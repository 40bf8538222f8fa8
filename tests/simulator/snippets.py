"""Small kernels for tests: CUDA C++ to PTX, and PTX around one instruction."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

from binarynet.cuda.compiler import compile_source

BITS = {"u16": 16, "s16": 16, "b16": 16, "u32": 32, "s32": 32, "b32": 32, "f32": 32, "u64": 64, "s64": 64, "b64": 64,
        "f64": 64}  # fmt: skip
HEAD = """
typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long long u64;
#define KERNEL extern "C" __global__ void
static __device__ u32 shared_at(const void* p) { return (u32)__cvta_generic_to_shared(p); }
"""


@cache
def ptx(source: str, architecture: str = "90a") -> bytes:
    """What NVRTC makes of CUDA C++, with :data:`HEAD` before it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "snippet.cu"
        path.write_text(HEAD + source)
        return compile_source(str(path), architecture, code="ptx")


def one_instruction(text: str, result: str, operands: tuple[str, ...]) -> str:
    """A kernel ``k(result, operands...)`` of arrays in global memory that executes ``text`` per thread.

    Args:
        text: instructions with %d for the result and %a, %b, %c, %e for the operands.
        result, operands: types.
    """
    names = "abce"[: len(operands)]
    lines = [".version 8.0", ".target sm_75", ".address_size 64", ".visible .entry k("]
    lines += [",\n".join(f".param .u64 p{i}" for i in range(len(operands) + 1)) + ")", "{", ".reg .b64 %q, %i;"]
    lines += [".reg .b32 %t;", ".reg .pred %p, %r;", f".reg .b{BITS[result]} %d;"]
    lines += [f".reg .b{BITS[kind]} %{name};" for name, kind in zip(names, operands, strict=True)]
    lines += ["mov.u32 %t, %tid.x;"]
    for i, (name, kind) in enumerate(zip(names, operands, strict=True)):
        lines += [f"ld.param.u64 %q, [p{i + 1}];", f"mul.wide.u32 %i, %t, {BITS[kind] // 8};", "add.s64 %q, %q, %i;"]
        lines += [f"ld.global.b{BITS[kind]} %{name}, [%q];"]
    lines += [text]
    lines += ["ld.param.u64 %q, [p0];", f"mul.wide.u32 %i, %t, {BITS[result] // 8};", "add.s64 %q, %q, %i;"]
    lines += [f"st.global.b{BITS[result]} [%q], %d;", "ret;", "}"]
    return "\n".join(lines)
