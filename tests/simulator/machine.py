"""A simulated NVIDIA GPU for tests: what NVRTC makes of a kernel runs thread by thread, with checks (README.md)."""

from __future__ import annotations

import ctypes
import hashlib
import os
import shlex
import weakref
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from native_build import REPOSITORY, compiler, locked, run

from binarynet.cuda.blocks import Argument, Launch, TensorMap
from binarynet.cuda.compiler import compile_source

HERE = Path(__file__).parent
INTERFACES = ("c_api.cc", "tensor_ops_c.cc")
"""Sources for ctypes: not part of what other libraries are built on."""
FLAGS = ("-std=c++17", "-Wall", "-Wextra", "-Werror", "-fPIC", "-fvisibility=hidden", "-fno-strict-aliasing")
EXACT = ("-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math")
"""Floats as the GPU rounds them: no fused operations where PTX has none."""
ARCHITECTURES = {(7, 5): "75", (9, 0): "90a", (10, 0): "100a"}
KINDS = (
    "invalid PTX", "not found", "invalid value", "illegal address", "misaligned address", "illegal instruction",
    "uninitialized", "race", "synchronization", "deadlock", "budget", "trap", "out of memory",
)  # fmt: skip
"""Of errors, in the order of ErrorKind in simulator.h."""
Array = npt.NDArray[Any]


class SimulationError(Exception):
    """What would be undefined, or an error, on a GPU. ``kind``: one of :data:`KINDS`."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(f"{kind}: {text}")
        self.kind = kind


HOT = ("block", "memory", "ops_", "shared", "tensor_ops")
"""What the names of sources begin with that run for every instruction."""


@cache
def _fastest() -> tuple[str, ...]:
    """-O3 for this machine where the compiler knows how; -O2 builds too."""
    tried = run([*shlex.split(compiler()), "-O3", "-march=native", "-E", "-x", "c++", "/dev/null"])
    return ("-O3", "-march=native") if tried.returncode == 0 else ("-O2",)


def _optimization(source: Path) -> tuple[str, ...]:
    return _fastest() if source.name.startswith(HOT) else ("-O1",)


def _object(source: Path, headers: bytes, flags: tuple[str, ...]) -> Path:
    """Compiled once per state of the source, the headers and the flags."""
    command = [*shlex.split(compiler()), *flags, f"-I{HERE}"]
    digest = hashlib.sha256(headers + source.read_bytes() + " ".join(command).encode() + _version()).hexdigest()[:16]
    path = REPOSITORY / "build" / "simulator" / f"{source.stem}-{digest}.o"
    with locked(path.with_suffix(".lock")):
        if not path.exists():
            made = path.with_suffix(".new")
            built = run([*command, "-c", source, "-o", made])
            assert built.returncode == 0, built.stderr
            made.rename(path)
    return path


@cache
def _version() -> bytes:
    return run([*shlex.split(compiler()), "--version"]).stdout.encode()


def shared_library(name: str, sources: Sequence[Path] = (), flags: Sequence[str] = ()) -> Path:
    """The simulator with more sources, as a shared library; built once per state of all of them.

    Args:
        name: of the file.
        sources: C++ files; their folders' headers count as theirs.
        flags: for compiling these sources and for linking.
    """
    (REPOSITORY / "build" / "simulator").mkdir(parents=True, exist_ok=True)
    common = (*FLAGS, *EXACT)
    headers = b"".join(path.read_bytes() for path in sorted(HERE.glob("*.h")))
    folders = sorted({source.parent for source in sources} - {HERE})
    more = headers + b"".join(path.read_bytes() for folder in folders for path in sorted(folder.glob("*.h")))
    core = [source for source in sorted(HERE.glob("*.cc")) if source.name not in INTERFACES]
    jobs = [(source, headers, (*common, *_optimization(source))) for source in core]
    jobs += [(source, more, (*common, "-O1", *flags)) for source in sources]
    with ThreadPoolExecutor(min(2, os.cpu_count() or 1)) as pool:
        objects = list(pool.map(lambda job: _object(*job), jobs))
    link = [*shlex.split(compiler()), "-shared", *flags, *objects]
    digest = hashlib.sha256(" ".join(str(part) for part in link).encode()).hexdigest()[:16]
    path = REPOSITORY / "build" / "simulator" / f"{name}-{digest}.so"
    with locked(path.with_suffix(".lock")):
        if not path.exists():
            made = path.with_suffix(".new")
            built = run([*link, "-o", made])
            assert built.returncode == 0, built.stderr
            made.rename(path)
    return path


@cache
def _library() -> ctypes.CDLL:
    library = ctypes.CDLL(str(shared_library("machine", [HERE / "c_api.cc"])))
    library.sim_message.restype = ctypes.c_char_p
    library.sim_create.restype = ctypes.c_void_p
    return library


@cache
def _compiled(source: str, architecture: str, defines: tuple[tuple[str, int], ...]) -> bytes:
    return compile_source(source, architecture, defines, code="ptx")


class Machine:
    """One GPU with its memory.

    Args:
        capability: compute capability; decides for which architecture kernels are compiled.
        schedule: when asynchronous copies and wgmma take effect. "early": at issue; "late": when something waits
            for them; a seed: in between, with warps and blocks in an order that the seed gives.
        memory_bytes: of the device.
        budget: instructions of lanes that a launch may take.
    """

    def __init__(
        self,
        capability: tuple[int, int] = (9, 0),
        schedule: Literal["early", "late"] | int = "early",
        memory_bytes: int = 4 << 30,
        budget: int = 1 << 33,
    ) -> None:
        library = _library()
        self.capability = capability
        order = {"early": 0, "late": 1}.get(schedule, 2) if isinstance(schedule, str) else 2
        seed = schedule if isinstance(schedule, int) else 0
        self._machine = ctypes.c_void_p(
            library.sim_create(
                *capability, order, ctypes.c_uint64(seed), ctypes.c_uint64(memory_bytes), ctypes.c_uint64(budget)
            )
        )
        weakref.finalize(self, library.sim_destroy, self._machine)
        self._modules: dict[bytes, int] = {}
        self.counts = (0, 0)
        """Instructions of warps and of lanes in the last launch."""

    @property
    def architecture(self) -> str:
        """What kernels are compiled for: "90a" for capability 9.0."""
        return ARCHITECTURES.get(self.capability, f"{self.capability[0]}{self.capability[1]}")

    def _call(self, name: str, *arguments: Any) -> None:
        status = getattr(_library(), f"sim_{name}")(self._machine, *arguments)
        if status:
            raise SimulationError(KINDS[status - 1], _library().sim_message().decode())

    def allocate(self, nbytes: int) -> int:
        """Uninitialized memory; its address."""
        address = ctypes.c_uint64()
        self._call("allocate", ctypes.c_uint64(nbytes), ctypes.byref(address))
        return address.value

    def zeros(self, nbytes: int) -> int:
        """Memory of zeros; its address."""
        address = self.allocate(nbytes)
        self._call("memset", ctypes.c_uint64(address), 0, ctypes.c_uint64(nbytes))
        return address

    def upload(self, array: Array) -> int:
        """A copy of an array on the device; its address."""
        array = np.ascontiguousarray(array)
        address = self.allocate(max(array.nbytes, 1))
        self._call("write", ctypes.c_uint64(address), ctypes.c_void_p(array.ctypes.data), ctypes.c_uint64(array.nbytes))
        return address

    def download(self, address: int, shape: int | Sequence[int], dtype: Any, uninitialized: bool = False) -> Array:
        """A copy of an array of the device. SimulationError where nothing has written it, unless ``uninitialized``."""
        result = np.empty(shape, dtype=dtype)
        self._call(
            "read",
            ctypes.c_uint64(address),
            ctypes.c_void_p(result.ctypes.data),
            ctypes.c_uint64(result.nbytes),
            int(uninitialized),
        )
        return result

    def free(self, address: int) -> None:
        self._call("free", ctypes.c_uint64(address))

    def run(self, launch: Launch) -> None:
        """Compile a launch's source to PTX for this capability, and run it to its end."""
        ptx = _compiled(launch.source, self.architecture, launch.defines)
        self.run_ptx(ptx, launch.kernel, launch.grid, launch.threads, launch.shared_bytes, launch.arguments)

    def run_ptx(
        self,
        ptx: bytes | str,
        kernel: str,
        grid: Sequence[int],
        threads: int | Sequence[int],
        shared_bytes: int = 0,
        arguments: Sequence[Argument] = (),
    ) -> None:
        """Run a kernel of a PTX text to its end.

        Args:
            ptx: the text.
            kernel: its entry.
            grid: blocks in x, y, z.
            threads: of a block; in x, or in x, y, z.
            shared_bytes: of dynamic shared memory.
            arguments: as in :class:`binarynet.cuda.blocks.Launch`; bytes too, for structures.
        """
        module = self._load(ptx.encode() if isinstance(ptx, str) else ptx)
        parameters = self._parameters(module, kernel, arguments)
        block = (threads, 1, 1) if isinstance(threads, int) else tuple(threads)
        counts = (ctypes.c_uint64 * 2)()
        self._call(
            "launch",
            module,
            kernel.encode(),
            (ctypes.c_uint32 * 3)(*grid),
            (ctypes.c_uint32 * 3)(*block),
            ctypes.c_uint32(shared_bytes),
            parameters,
            ctypes.c_uint64(len(parameters)),
            counts,
        )
        self.counts = (counts[0], counts[1])

    def _load(self, ptx: bytes) -> int:
        if ptx not in self._modules:
            module = ctypes.c_int()
            self._call("load", ptx.rstrip(b"\0"), ctypes.byref(module))
            self._modules[ptx] = module.value
        return self._modules[ptx]

    def _parameters(self, module: int, kernel: str, arguments: Sequence[Argument]) -> bytes:
        room = 256
        offsets, sizes = (ctypes.c_uint32 * room)(), (ctypes.c_uint32 * room)()
        count, total = ctypes.c_int(), ctypes.c_uint32()
        self._call("kernel", module, kernel.encode(), room, offsets, sizes, ctypes.byref(count), ctypes.byref(total))
        if count.value != len(arguments):
            raise SimulationError(
                "invalid value", f"kernel {kernel} has {count.value} parameters, not {len(arguments)}"
            )
        block = bytearray(total.value)
        for index, argument in enumerate(arguments):
            values = encoded_tensor_map(argument) if isinstance(argument, TensorMap) else bytes(_bytes_of(argument))
            if len(values) != sizes[index]:
                raise SimulationError(
                    "invalid value",
                    f"argument {index} of kernel {kernel} has {len(values)} bytes, its parameter {sizes[index]}",
                )
            block[offsets[index] : offsets[index] + sizes[index]] = values
        return bytes(block)


def _bytes_of(argument: np.generic | bytes) -> bytes:
    if not isinstance(argument, np.generic | bytes):
        raise TypeError(f"kernel arguments are NumPy scalars or tensor maps, not {type(argument).__name__}")
    return argument if isinstance(argument, bytes) else argument.tobytes()


def encoded_tensor_map(map: TensorMap) -> bytes:
    """The 128 bytes that stand for a tensor map in the simulator. SimulationError where a driver would refuse it."""
    rank = len(map.sizes)
    result = ctypes.create_string_buffer(128)
    status = _library().sim_tensor_map(
        ctypes.c_uint64(map.address),
        map.element_bytes,
        rank,
        (ctypes.c_uint64 * 5)(*map.sizes),
        (ctypes.c_uint64 * 5)(map.element_bytes, *map.strides),
        (ctypes.c_uint32 * 5)(*map.box),
        map.swizzle,
        result,
    )
    if status:
        raise SimulationError(KINDS[status - 1], _library().sim_message().decode())
    return result.raw
