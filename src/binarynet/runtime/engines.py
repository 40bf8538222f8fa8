"""The engines that can run a graph on this machine, by name.

On the CPU, ``reference`` is the NumPy specification; the others are instruction sets of the native core, best first.
On a GPU there are those of :mod:`binarynet.cuda.choice`, whose names begin with ``cuda_``; nobody gets one who does not
ask for it or for its device.

The environment variable BINARYNET_FORCE_ISA names the instruction set that is used where nobody asks for an engine.
``reference`` is none. A name that is unknown or cannot be used here is an error wherever a session is made or the
engines are shown, also where an engine is asked for; a good name gives way to the engine that is asked for.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from binarynet.errors import BackendUnavailableError, UsageError

REFERENCE = "reference"
FORCE_VARIABLE = "BINARYNET_FORCE_ISA"
_NATIVE = "native"
"""Stands for all instruction sets where the extension that knows them cannot be loaded."""
PORTABLE = "portable"
CPU, CUDA = "cpu", "cuda"
_CUDA_PREFIX = "cuda_"


@dataclass(frozen=True)
class Engine:
    """One engine; ``why_not`` is empty where it can be used here."""

    name: str
    why_not: str

    @property
    def available(self) -> bool:
        return not self.why_not


def engines(device: str = CPU) -> tuple[Engine, ...]:
    """All engines of this build for a device, best first.

    Args:
        device: "cpu", whose last engine is the reference; "cuda", the first GPU, or "cuda:1".

    Raises:
        UsageError: no device is called so. (A GPU that is not there is no error: every engine says so.)
    """
    return _native_engines() if device == CPU else _cuda_engines(device)


def _cuda_engines(device: str) -> tuple[Engine, ...]:
    from binarynet.cuda import choice
    from binarynet.cuda.device import find

    found, reason = find(device)
    return tuple(
        Engine(name, reason if found is None else choice.why_not(name, found.capability)) for name in choice.ENGINES
    )


def _native_engines() -> tuple[Engine, ...]:
    try:
        from binarynet import _native
    except ImportError as error:
        native = [Engine(_NATIVE, f"the native extension cannot be loaded: {error}")]
    else:
        native = [Engine(name, why_not) for name, why_not in _native.instruction_sets()]
    return (*native, Engine(REFERENCE, ""))


def training_kernels() -> Engine:
    """Whose kernels compute the products of training on the CPU (:mod:`binarynet.ops.products`); torch does where
    ``why_not`` says something.

    Raises:
        UsageError, BackendUnavailableError: see :func:`forced_instruction_set`.
    """
    forced_instruction_set()
    try:
        from binarynet import _native
    except ImportError as error:
        return Engine(_NATIVE, f"the native extension cannot be loaded: {error}")
    name = _native.training.instruction_set()
    slow = name == PORTABLE
    return Engine(name, "no instruction set with fast training kernels is in use" if slow else "")


def check_engine(name: str, device: str | None = None) -> None:
    """UsageError for an unknown name, BackendUnavailableError for one that cannot run here.

    Args:
        name: of an engine.
        device: of which device it should be; default: of the CPU or of the first GPU, as its name says.
    """
    wanted = device_of(name) if device is None else device
    known = {engine.name: engine for engine in (engines() if wanted == CPU else engines(wanted))}
    if name not in known:
        from binarynet.cuda.choice import ENGINES

        others = {engine.name: engine for engine in engines()} if wanted != CPU else known
        raise UsageError(
            f"unknown engine {name!r}; this build has: {', '.join(others)}; on a GPU: {', '.join(ENGINES)}"
        )
    if not known[name].available:
        raise BackendUnavailableError(f"the engine {name!r} cannot be used here: {known[name].why_not}")


def device_of(engine: str) -> str:
    """The device that an engine's name implies: "cpu", or "cuda", the first GPU."""
    return CUDA if engine.startswith(_CUDA_PREFIX) else CPU


def resolve_device(device: str | None, engine: str | None) -> str:
    """The device that is meant: "cpu" or "cuda:0".

    Raises:
        UsageError: no device is called so, or the engine is one of another device.
    """
    if device is None or device == CPU:
        implied = CPU if engine is None else device_of(engine)
        if device == CPU and implied != CPU:
            raise UsageError(
                f"the engine {engine!r} runs on a GPU, the device asked for is the CPU; leave one of them out"
            )
        return CPU if implied == CPU else f"{CUDA}:0"
    from binarynet.cuda.device import ordinal

    number = ordinal(device)
    if engine is not None and device_of(engine) == CPU:
        check_engine(engine)
        raise UsageError(
            f"the engine {engine!r} runs on the CPU, the device asked for is {device}; leave one of them out"
        )
    return f"{CUDA}:{number}"


def forced_instruction_set() -> str | None:
    """The instruction set that BINARYNET_FORCE_ISA names; None where it is not set, or empty.

    Raises:
        UsageError: no instruction set of this build is called so.
        BackendUnavailableError: the instruction set cannot be used here.
    """
    name = os.environ.get(FORCE_VARIABLE)
    if not name:
        return None
    known = {engine.name: engine for engine in engines() if engine.name != REFERENCE}
    engine = known.get(name, known.get(_NATIVE))
    if engine is None:
        hint = "; the reference is asked for with --engine or engine=" if name == REFERENCE else ""
        raise UsageError(
            f"{FORCE_VARIABLE}: unknown instruction set {name!r}; this build has: {', '.join(known)}{hint}"
        )
    if not engine.available:
        raise BackendUnavailableError(
            f"{FORCE_VARIABLE}: the instruction set {name!r} cannot be used here: {engine.why_not}"
        )
    return name
