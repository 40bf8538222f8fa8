"""What NVRTC makes of the kernels: disassembled, with registers, stack and how many blocks fit on a multiprocessor."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import re
import shutil
import subprocess
import tempfile
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from binarynet import cuda
from binarynet.cuda import compiler
from binarynet.cuda.blocks import Capability, Variant

ARCHITECTURES: dict[Capability, str] = {(7, 5): "75", (8, 0): "80", (8, 9): "89", (9, 0): "90a", (12, 0): "120"}
"""What is compiled, where a variant is meant for it. The last stands for everything newer than Hopper."""


@dataclass(frozen=True)
class Multiprocessor:
    """CUDA programming guide, "Compute capabilities": per multiprocessor, and per block."""

    threads: int
    blocks: int
    shared_bytes: int
    block_shared_bytes: int
    registers: int = 1 << 16
    reserved_shared_bytes: int = 1024  # of every block; none before 8.0


MULTIPROCESSORS: dict[Capability, Multiprocessor] = {
    (7, 5): Multiprocessor(1024, 16, 64 << 10, 64 << 10, reserved_shared_bytes=0),
    (8, 0): Multiprocessor(2048, 32, 164 << 10, 163 << 10),
    (8, 9): Multiprocessor(1536, 24, 100 << 10, 99 << 10),
    (9, 0): Multiprocessor(2048, 32, 228 << 10, 227 << 10),
    (12, 0): Multiprocessor(1536, 24, 100 << 10, 99 << 10),
}


@dataclass(frozen=True)
class Kernel:
    """One kernel of one cubin.

    Attributes:
        opcodes: with their modifiers, in order, NOPs left out.
        functions: names of the assembler's own functions that it calls.
        registers: per thread.
        stack_bytes: frame of a thread in local memory.
        shared_bytes: static shared memory of a block.
        max_threads, min_blocks: what its launch bounds promise; 1024 and 1 where it has none.
        one_bit_products, product_waits: instructions of PTX that multiply bits, and that wait for wgmma.
    """

    name: str
    opcodes: tuple[str, ...]
    functions: tuple[str, ...]
    registers: int
    stack_bytes: int
    shared_bytes: int
    max_threads: int
    min_blocks: int
    one_bit_products: int
    product_waits: int

    def count(self, pattern: str) -> Counter[str]:
        return Counter(opcode for opcode in self.opcodes if re.match(pattern, opcode))

    def blocks(self, capability: Capability, threads: int, dynamic_shared_bytes: int = 0) -> int:
        """How many blocks a multiprocessor holds at a time; 0: it cannot be launched."""
        one = MULTIPROCESSORS[capability]
        warps = -(-threads // 32)
        shared = self.shared_bytes + dynamic_shared_bytes
        if shared > one.block_shared_bytes or threads > self.max_threads:
            return 0
        registers_per_warp = -(-self.registers * 32 // 256) * 256
        # Registers are shared out by the four parts of a multiprocessor.
        warps_by_registers = one.registers // 4 // registers_per_warp * 4
        by_shared = one.shared_bytes // max(shared + one.reserved_shared_bytes, 1)
        return min(one.threads // (warps * 32), one.blocks, warps_by_registers // warps, by_shared)


def tool() -> str:
    """nvdisasm: of the wheel nvidia-cuda-nvdisasm, or on PATH."""
    package = importlib.util.find_spec("nvidia")
    places = list(package.submodule_search_locations or ()) if package else []
    for found in (file for place in places for file in Path(place).glob("*/bin/nvdisasm")):
        return str(found)
    on_path = shutil.which("nvdisasm")
    if on_path is None:
        pytest.skip("machine code is read with nvdisasm, which is not installed: pip install nvidia-cuda-nvdisasm")
    return on_path


def modules():
    """All modules that make launches."""
    found = [module.name for module in pkgutil.walk_packages(cuda.__path__, "binarynet.cuda.")]
    return [module for module in map(importlib.import_module, found) if hasattr(module, "VARIANTS")]


def variants() -> list[Variant]:
    """All that can be compiled, each once."""
    return list(dict.fromkeys(variant for module in modules() for variant in module.VARIANTS))


def meant_for(variant: Variant) -> list[Capability]:
    return [c for c in ARCHITECTURES if variant.first <= c and (variant.last is None or c <= variant.last)]


def describe(variant: Variant) -> str:
    return "-".join((variant.source, *(f"{name}={value}" for name, value in variant.defines)))


def most(variant: Variant) -> Capability:
    """The architecture on which a variant has most to show: Hopper where possible."""
    meant = meant_for(variant)
    return (9, 0) if (9, 0) in meant else meant[-1]


@cache
def kernels(source: str, architecture: str, defines: tuple[tuple[str, int], ...] = ()) -> dict[str, Kernel]:
    """Compile a file of the package and read what came out."""
    asked = (source, architecture, defines)
    return read(compiler.compile_source(*asked), compiler.compile_source(*asked, "ptx").decode())


def read(cubin: bytes, ptx: str) -> dict[str, Kernel]:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        done = subprocess.run([tool(), file.name], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    text = done.stdout
    code = _texts(text)
    found = {}
    for name, *promises in _entries(ptx):
        found[name] = Kernel(
            name,
            tuple(o for o in re.findall(_INSTRUCTION, code[name]) if o != "NOP"),
            tuple(sorted(set(re.findall(r"\$__internal_\d+_\$(\w+)", code[name])))),
            _attribute(text, "REGCOUNT", name),
            max(_attribute(text, kind, name) for kind in ("FRAME_SIZE", "MIN_STACK_SIZE")),
            _shared_bytes(text, name),
            *promises,
        )
    assert found.keys() == code.keys()
    return found


_INSTRUCTION = re.compile(r"/\*[0-9a-f]{4,}\*/\s+(?:\{\s*)?(?:@!?U?P[T\d]+\s+)?([A-Z][A-Za-z0-9_.]+)")


def _texts(text: str) -> dict[str, str]:
    """Code of every kernel, functions that it calls included (they lie in its section)."""
    parts = re.split(r"^\s*\.section\s+", text, flags=re.MULTILINE)
    return {m[1]: part for part in parts if (m := re.match(r"\.text\.([\w$]+),", part))}


def _attribute(text: str, kind: str, name: str) -> int:
    pattern = rf"EIATTR_{kind}\n(?:(?!EIATTR).)*?index@\({re.escape(name)}\)\s*/\*\w+\*/\s+\.word\s+0x([0-9a-f]+)"
    match = re.search(pattern, text, flags=re.DOTALL)
    assert match, f"no {kind} of {name}"
    return int(match[1], 16)


def _shared_bytes(text: str, name: str) -> int:
    """Size of .nv.shared.NAME; from 9.0 on the first 1024 bytes are those that the system keeps for itself."""
    total = 0
    for part in re.split(r"^\s*\.section\s+", text, flags=re.MULTILINE):
        if re.match(rf"\.nv\.shared\.{re.escape(name)},", part):
            total += sum(int(n) for n in re.findall(r"\.zero\s+(\d+)", part))
    target = re.search(r"\.target\s+sm_(\d+)", text)
    assert target
    return max(total - (1024 if int(target[1]) >= 90 else 0), 0)


def _entries(ptx: str):
    """Of every kernel the name, threads and blocks that the launch bounds promise, one-bit products, and waits."""
    for part in re.split(r"(?=\.visible \.entry\s)", ptx)[1:]:
        head, _, body = part.partition("{")
        threads = re.search(r"\.(?:maxntid|reqntid)\s+(\d+)(?:\s*,\s*(\d+))?(?:\s*,\s*(\d+))?", head)
        blocks = re.search(r"\.minnctapersm\s+(\d+)", head)
        count = 1024
        if threads:
            count = int(threads[1]) * int(threads[2] or 1) * int(threads[3] or 1)
        name = re.match(r"\.visible \.entry\s+([\w$]+)", head)
        assert name
        products, waits = (len(re.findall(pattern, body)) for pattern in (r"mma\S*\.b1\.b1", r"wgmma\.wait_group"))
        yield name[1], count, int(blocks[1]) if blocks else 1, products, waits


def emulation(kernel: Kernel) -> str:
    """What in a kernel of one-bit products is no product of one-bit tensor cores, but imitates one; empty: nothing.

    Where an architecture lacks an instruction, the assembler puts in a function that computes the same from others.
    """
    found = [f"{n} {o}" for o, n in kernel.count(r"IMMA|MOVM|BMMA\..*XOR").items()]
    found += [name for name in kernel.functions if "mma" in name]
    if not kernel.count(r"B(G)?MMA\..*AND\.POPC"):
        found.append("no one-bit product")
    return ", ".join(found)


def spills(kernel: Kernel) -> str:
    """Use of local memory; empty: none."""
    found = [f"{n} {o}" for o, n in kernel.count(r"(LDL|STL)").items()]
    if kernel.stack_bytes:
        found.append(f"a stack of {kernel.stack_bytes} bytes")
    return ", ".join(found)


def serialized(kernel: Kernel) -> bool:
    """Whether the assembler added waits after wgmma: it does so to every one of a kernel in which it sees accumulators
    used while products are under way."""
    return sum(kernel.count(r"WARPGROUP\.DEPBAR").values()) > kernel.product_waits
