"""Which method computes which block: by engine, compute capability and shape.

An engine is an ordered list of methods; a block is computed by the first that can (:meth:`Method.why_not`) and that the
shape suits. The last one of every list suits every shape.
"""

from __future__ import annotations

from collections.abc import Callable

from binarynet.cuda.blocks import Block, Capability, Method
from binarynet.cuda.methods import METHODS
from binarynet.errors import BackendUnavailableError

Suits = Callable[[Block, int], bool]


def _always(block: Block, batch: int) -> bool:
    return True


_POPCOUNT: tuple[tuple[str, Suits], ...] = (("popcount", _always),)
_LISTS: dict[
    str, tuple[Capability, Capability | None, tuple[tuple[str, Suits], ...], tuple[tuple[str, Suits], ...]]
] = {
    "cuda_popcount": ((7, 5), None, _POPCOUNT, (("bytes_dp4a", _always),)),
    "cuda_baseline": ((7, 5), None, (("baseline", _always),), (("baseline", _always),)),
}
"""Engine: least and greatest capability, methods for bits, methods for u8. Best first."""

ENGINES = tuple(_LISTS)


def why_not(engine: str, capability: Capability) -> str:
    """Empty where the engine is one of a GPU with this compute capability."""
    least, greatest, _, _ = _LISTS[engine]
    found = f"compute capability {_dotted(capability)}"
    if capability < least:
        return f"{found}; needed is {_dotted(least)}{'' if greatest == least else ' or more'}"
    if greatest is not None and capability > greatest:
        return f"{found}: one-bit matrix instructions are in hardware up to {_dotted(greatest)} only"
    return ""


def best(capability: Capability) -> str:
    """The engine that a GPU gets where nobody asks for one."""
    return next(engine for engine in ENGINES if not why_not(engine, capability))


def choose(engine: str, block: Block, batch: int, capability: Capability) -> Method:
    """The method for a block and a batch of at least one image.

    Raises:
        BackendUnavailableError: none of the engine's methods can compute the block.
    """
    _, _, bits, u8 = _LISTS[engine]
    reasons = []
    for name, suits in bits if block.input == "bits" else u8:
        method = METHODS[name]
        reason = method.why_not(block, capability)
        if not reason and suits(block, batch):
            return method
        reasons.append(f"{name}: {reason}")
    raise BackendUnavailableError(f"the engine {engine!r} cannot compute this layer: {'; '.join(reasons)}")


def _dotted(capability: Capability) -> str:
    return f"{capability[0]}.{capability[1]}"
