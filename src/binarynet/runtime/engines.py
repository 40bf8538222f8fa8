"""The engines that can run a graph on this machine, by name.

``reference`` is the NumPy specification; the others are instruction sets of the native core, best first.
"""

from __future__ import annotations

from dataclasses import dataclass

from binarynet.errors import BackendUnavailableError, UsageError

REFERENCE = "reference"


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
        native = [Engine("native", f"the native extension cannot be loaded: {error}")]
    else:
        native = [Engine(name, why_not) for name, why_not in _native.instruction_sets()]
    return (*native, Engine(REFERENCE, ""))


def check_engine(name: str) -> None:
    """UsageError for an unknown name, BackendUnavailableError for one that cannot run here."""
    known = {engine.name: engine for engine in engines()}
    if name not in known:
        raise UsageError(f"unknown engine {name!r}; this build has: {', '.join(known)}")
    if not known[name].available:
        raise BackendUnavailableError(f"the engine {name!r} cannot be used here: {known[name].why_not}")
