"""What every module of peers shares: a peer, an absent one, and what a library has to give."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Kind = Literal["float32", "tf32", "bf16", "int8", "binary"]


@dataclass(frozen=True)
class Absence:
    """A peer that cannot be shown, and why (with what to install, where that helps)."""

    name: str
    why: str


@dataclass(frozen=True)
class OnGpu:
    """Peers on a GPU instead of on the processor.

    Attributes:
        ordinal: its number in this process.
        autotune: those that take minutes to compile, too.
    """

    ordinal: int
    autotune: bool = False


@dataclass(frozen=True)
class Loaded:
    """A network of a library, loaded from its files.

    Attributes:
        run: one call on the prepared input; returns what the library returns.
        values: what ``run`` returned, as floating-point numbers ``[n, c, h, w]`` or ``[n, k]``; int8 dequantized.
        details: the kernels that the library says it uses, where it does.
        layers: how many layers of the same shape one call computes.
    """

    run: Callable[[], Any]
    values: Callable[[Any], Array]
    details: str = ""
    layers: int = 1


@dataclass(frozen=True)
class Peer:
    """A peer that is ready to run.

    Attributes:
        name: library and arithmetic.
        library: library with its version.
        kind: what it computes in: ``float32``, ``tf32`` (float32 with operands rounded to TF32), ``bf16`` and ``int8``
            are ordinary networks of the same shapes, ``binary`` is the very same network.
        run: the call to be timed, its input ready made in the library's own form.
        file_bytes: size of its model's files on disk, per layer where ``layers`` are several.
        details: the kernels that the library says it uses; empty where it does not say.
        folder: where its files are, as long as the peers are open: :func:`binarynet.cli._peers.build` loads them, in
            another process for instance, whose memory then holds nothing else.
        layers: how many layers of the same shape one ``run`` computes; divide the time by it.
    """

    name: str
    library: str
    kind: Kind
    run: Callable[[], Any]
    file_bytes: int
    details: str
    folder: Path
    layers: int = 1


@dataclass(frozen=True)
class LayerShape:
    """One binary layer; a dense one is an image of one pixel with a window of 1 x 1.

    Attributes:
        in_h, in_w, in_c: the input's rows, columns, channels.
        kernel, stride, padding: rows first; padding is symmetric, and its taps add nothing.
        first: the input is 8-bit u, standing for 2u - 255; otherwise +1 / -1.
        weights: +1 / -1, int8 ``[out, kernel_h, kernel_w, in_c]``.
        thresholds: int32 ``[out]``.
        falling: bool ``[out]``; the layer's bits are ``(sum >= thresholds) != falling``.
    """

    in_h: int
    in_w: int
    in_c: int
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    first: bool
    weights: npt.NDArray[np.int8]
    thresholds: npt.NDArray[np.int32]
    falling: npt.NDArray[np.bool_]

    @property
    def out_c(self) -> int:
        return len(self.weights)

    @property
    def is_dense(self) -> bool:
        return (self.in_h, self.in_w, *self.kernel, *self.padding) == (1, 1, 1, 1, 0, 0)

    @property
    def num_taps(self) -> int:
        return self.kernel[0] * self.kernel[1] * self.in_c
