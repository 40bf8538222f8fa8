"""The engines that can run a graph on this machine, by name.

``reference`` is the NumPy specification; the others are instruction sets of the native core, best first.

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


@dataclass(frozen=True)
class Engine:
    """One engine; ``why_not`` is empty where it can be used here."""

    name: str
    why_not: str

    @property
    def available(self) -> bool:
        return not self.why_not


def engines() -> tuple[Engine, ...]:
    """All engines of this build, best first, the reference last."""
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


def check_engine(name: str) -> None:
    """UsageError for an unknown name, BackendUnavailableError for one that cannot run here."""
    known = {engine.name: engine for engine in engines()}
    if name not in known:
        raise UsageError(f"unknown engine {name!r}; this build has: {', '.join(known)}")
    if not known[name].available:
        raise BackendUnavailableError(f"the engine {name!r} cannot be used here: {known[name].why_not}")


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
