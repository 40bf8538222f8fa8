"""Which method computes which block: by engine, compute capability and shape.

An engine is an ordered list of methods; a block is computed by the first that can (:meth:`Method.why_not`) and that the
shape suits. The last one of every list suits every shape.
"""

from __future__ import annotations

from collections.abc import Callable

from binarynet.cuda.blocks import Block, Capability, Method
from binarynet.cuda.methods import METHODS
from binarynet.cuda.methods.wgmma import Wgmma
from binarynet.errors import BackendUnavailableError

MMA_ROWS = 9
"""Least output pixels for `mma` and `bytes_mma`, whose tiles have 16 rows and more. Below, at least half of a tile
would be wasted, and reading the weights is all the work: `popcount` and `bytes_dp4a` do just that, without a tile."""
MMA_CHANNELS = 8
"""Least output channels for `mma` and `bytes_mma`: those of one instruction."""

Suits = Callable[[Block, int], bool]
Methods = tuple[tuple[str, Suits], ...]


def _always(block: Block, batch: int) -> bool:
    return True


def _fills_mma(block: Block, batch: int) -> bool:
    return block.rows(batch) >= MMA_ROWS and block.out_channels >= MMA_CHANNELS


_POPCOUNT: Methods = (("popcount", _always),)
_DP4A: Methods = (("bytes_dp4a", _always),)
_MMA: Methods = (("mma", _fills_mma), *_POPCOUNT)
_BYTES_MMA: Methods = (("bytes_mma", _fills_mma), *_DP4A)
_BASELINE: Methods = (("baseline", _always),)

_ENGINES: dict[str, tuple[Capability, Capability | None, Methods, Methods]] = {
    "cuda_wgmma": ((9, 0), (9, 0), (("wgmma", Wgmma().suits), *_MMA), _BYTES_MMA),
    "cuda_mma": ((8, 0), (9, 0), _MMA, _BYTES_MMA),
    "cuda_popcount": ((7, 5), None, _POPCOUNT, _BYTES_MMA),
    "cuda_baseline": ((7, 5), None, _BASELINE, _BASELINE),
}
"""Engine: least and greatest capability, methods for bits, methods for u8. Best first."""

ENGINES = tuple(_ENGINES)


def why_not(engine: str, capability: Capability) -> str:
    """Empty where the engine is one of a GPU with this compute capability."""
    least, greatest, _, _ = _ENGINES[engine]
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
    _, _, bits, u8 = _ENGINES[engine]
    reasons = []
    for name, suits in bits if block.input == "bits" else u8:
        method = METHODS[name]
        reason = method.why_not(block, capability)
        if not reason and suits(block, batch):
            return method
        reasons.append(f"{name}: {reason or 'its tiles would be mostly empty'}")
    raise BackendUnavailableError(f"the engine {engine!r} cannot compute this layer: {'; '.join(reasons)}")


def _dotted(capability: Capability) -> str:
    return f"{capability[0]}.{capability[1]}"
