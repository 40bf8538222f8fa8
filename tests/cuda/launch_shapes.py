"""Launches of every method over many sizes of layers: nothing is prepared or run, only asked for."""

from __future__ import annotations

import itertools
from collections import defaultdict
from functools import cache

import machine_code as mc
import numpy as np

from binarynet.cuda.blocks import Block, Capability, Launch, Method
from binarynet.cuda.methods import METHODS
from binarynet.encoding import num_words

BATCHES = (1, 2, 3, 16, 64, 300, 4096, 20000)
OUT_CHANNELS = (10, 64, 100, 128, 256, 512, 4096)
DENSE = {"bits": (64, 100, 512, 1152, 4096, 8192, 16384), "u8": (27, 784, 1001, 1004, 3072)}
IMAGES = {"bits": ((32, 64), (32, 128), (16, 256), (8, 512), (9, 100)), "u8": ((32, 3), (28, 1), (32, 4), (32, 16))}
"""Side and channels."""


@cache
def block(kind: str, side: int, channels: int, kernel: int, padding: int, out_channels: int) -> Block:
    weights = np.broadcast_to(np.uint64(0), (out_channels, kernel, kernel, num_words(channels)))
    return Block(kind, side, side, channels, (kernel, kernel), (1, 1), (padding, padding), weights)


def blocks() -> list[Block]:
    found = []
    for kind, out in itertools.product(("bits", "u8"), OUT_CHANNELS):
        found += [block(kind, 1, channels, 1, 0, out) for channels in DENSE[kind]]
        found += [block(kind, side, channels, 3, 1, out) for side, channels in IMAGES[kind]]
    return found


class _Somewhere(defaultdict):
    """Addresses of prepared arrays, whatever their names."""

    def __init__(self):
        super().__init__(lambda: 1 << 42)


@cache
def launches() -> tuple[tuple[Method, Capability, Launch], ...]:
    """What every method asks for on every architecture, each different launch configuration once."""
    found = {}
    for method, one in itertools.product(METHODS.values(), blocks()):
        fitting = [c for c in mc.ARCHITECTURES if not method.why_not(one, c)]
        for batch in BATCHES if fitting else ():
            launch = method.launch(one, batch, 1 << 40, 1 << 41, _Somewhere())
            configuration = (launch.source, launch.defines, launch.kernel, launch.threads, launch.shared_bytes)
            for capability in fitting:
                found.setdefault((method.name, capability, *configuration), (method, capability, launch))
    return tuple(found.values())
