"""`binarynet bench figure3`: the paper's Figure 3 (arXiv 1602.02505, section 4.2) for this processor, or its GPU.

Three kernels compute the same integers: the baseline, a plain float32 product, one dot product after the other
(``numpy.einsum`` without BLAS); float32 BLAS (torch's where it is installed, else NumPy's); and the packed engine.
`figure3_gpu` has those of a GPU, and more peers.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from binarynet.analysis import Party, Spread, Timing
from binarynet.cli import _peers
from binarynet.cli._benching.measuring import timed
from binarynet.cli._benching.single import random_layer
from binarynet.cli._peers_common import Absence
from binarynet.encoding import INPUT_MAX, pack_bits, to_signs, unpack_bits
from binarynet.errors import UsageError, VerificationError
from binarynet.graph import Affine, Dense, Flatten, Graph, GraphBuilder, Input, Threshold
from binarynet.runtime import Session

if TYPE_CHECKING:
    from binarynet.cli._benching.gpu import Gpu
    from binarynet.data import Split

Array = npt.NDArray[Any]
Multiply = Callable[[npt.NDArray[np.float32], npt.NDArray[np.float32]], npt.NDArray[np.float32]]
Kernel = Literal["baseline", "blas", "blas, TF32", "bf16", "int8", "xnor", "xnor, packing"]

SLICE_MACS = 2_000_000_000
"""About how many multiply-accumulates of the baseline are timed; times are scaled to all rows."""
CHUNK = 1000
"""Images that float kernels take at once."""


@dataclass(frozen=True)
class Bar:
    """One kernel's time for the whole task.

    Attributes:
        kernel: which one.
        library: who computes.
        seconds: median, fastest and slowest round.
        speedup: how many times faster the packed engine is, taken within each round.
        speedup_packing: the same where the engine packs both operands first; None for the network.
        rows: how many rows were timed, where not all: the time is scaled.
        wrong: images classified wrongly; None for the product.
        peak_share: of a GPU's computed one-bit peak; the packed engine's products only.
    """

    kernel: Kernel
    library: str
    seconds: Spread
    speedup: Spread
    speedup_packing: Spread | None = None
    rows: int | None = None
    wrong: int | None = None
    peak_share: Spread | None = None


@dataclass(frozen=True)
class Figure3Network:
    """A network of dense layers with the images that it is to classify.

    Attributes:
        name: of its file.
        layers: the network.
        split: the images.
    """

    name: str
    layers: FloatLayers
    split: Split


@dataclass(frozen=True)
class Product:
    """A product of square matrices.

    Attributes:
        size: rows, columns and length of the dot products.
        bars: the kernels.
    """

    size: int
    bars: tuple[Bar, ...]

    @property
    def name(self) -> str:
        return f"product {self.size} x {self.size} x {self.size}"


@dataclass(frozen=True)
class Figure3:
    """Products and network.

    Attributes:
        products: one or several.
        network: what was classified; None where no network was given.
        mlp: bars of the network, over all images, from 8-bit images to scores.
        absent: peers that cannot be shown.
    """

    products: tuple[Product, ...]
    network: Figure3Network | None = None
    mlp: tuple[Bar, ...] = ()
    absent: tuple[Absence, ...] = ()


def measure(
    sizes: Sequence[int],
    network: Figure3Network | None,
    engine: str,
    num_threads: int,
    seconds: float,
    progress: Callable[[str], None] = lambda _: None,
) -> Figure3:
    """Products and network; see :func:`measure_product`, :func:`measure_network`."""
    products = [Product(size, measure_product(size, engine, num_threads, seconds, progress)) for size in sizes]
    if network is None:
        return Figure3(tuple(products))
    return Figure3(tuple(products), network, measure_network(network, engine, num_threads, seconds, progress))


def baseline_product(x: npt.NDArray[np.float32], weights: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """``x @ weights.T`` by plain dot products: ``[m, k]``, ``[n, k]`` to ``[m, n]``."""
    result: npt.NDArray[np.float32] = np.einsum("ik,jk->ij", x, weights, optimize=False)
    return result


def blas_product() -> tuple[str, Multiply]:
    """Who has the best BLAS here, and its ``x @ weights.T``."""
    try:
        import torch
    except ImportError:
        return f"numpy {np.__version__}", lambda x, weights: x @ weights.T

    def multiply(x: npt.NDArray[np.float32], weights: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        with torch.inference_mode():
            result: npt.NDArray[np.float32] = (torch.from_numpy(x) @ torch.from_numpy(weights).T).numpy()
        return result

    return f"torch {torch.__version__}", multiply


def measure_product(
    size: int, engine: str, num_threads: int, seconds: float, progress: Callable[[str], None] = lambda _: None
) -> tuple[Bar, ...]:
    """A product of +1 / -1 matrices, ``size`` in each direction, int32 out.

    Raises:
        VerificationError: the kernels do not compute the same integers.
    """
    progress(f"product of {size}: checking")
    layer = random_layer("product", (1, 1, size), size, size)
    x = layer.inputs.reshape(size, size).astype(np.float32)
    weights = layer.shape.weights.reshape(size, size).astype(np.float32)
    rows = max(1, min(size, SLICE_MACS // size**2))
    library, multiply = blas_product()
    session = Session(layer.graph("int32"), engine=engine, num_threads=num_threads)
    runs: dict[Kernel, Callable[[], Array]] = {
        "baseline": lambda: baseline_product(x[:rows], weights),
        "blas": lambda: multiply(x, weights),
        "xnor": lambda: session.run(layer.packed_inputs),
        "xnor, packing": lambda: _from_floats(x, weights, engine, num_threads),
    }
    with _peers.threads(num_threads):
        expected = runs["blas"]()
        for kernel in ("baseline", "xnor", "xnor, packing"):
            found = runs[kernel]()
            if not np.array_equal(found, expected[: len(found)]):
                raise VerificationError(f"{kernel} does not compute the same integers as {library}")
        del expected
        timings = timed_bars(runs, num_threads, seconds, functools.partial(tell, progress, f"product of {size}"))
    libraries: dict[Kernel, str] = {"baseline": f"numpy {np.__version__} einsum", "blas": library}
    parts: dict[Kernel, float] = {"baseline": rows / size}
    return bars_of(timings, libraries, f"binarynet {engine}", parts, {"baseline": rows if rows < size else None})


def _from_floats(x: Array, weights: Array, engine: str, num_threads: int) -> Array:
    """What the paper's kernel does at every call: both operands come as floats, and are packed first."""
    builder = GraphBuilder()
    value = builder.add(Input("input", (x.shape[1],), "bits"))
    value = builder.add(Dense("sums", value, pack_bits(weights >= 0)))
    return Session(builder.finish(value), engine=engine, num_threads=num_threads).run(pack_bits(x >= 0))


def measure_network(
    network: Figure3Network,
    engine: str,
    num_threads: int,
    seconds: float,
    progress: Callable[[str], None] = lambda _: None,
) -> tuple[Bar, ...]:
    """A network of dense layers over all its images.

    Raises:
        VerificationError: the kernels do not give the same scores, to the last bit.
    """
    split, float_layers = network.split, network.layers
    graph = float_layers.graph
    images = split.images.reshape(len(split), *graph.input.shape)
    macs = sum(weights.size for weights in float_layers.weights)
    part = max(1, min(len(images), SLICE_MACS // macs))
    library, multiply = blas_product()
    session = Session(graph, engine=engine, num_threads=num_threads)
    runs: dict[Kernel, Callable[[], Array]] = {
        "baseline": lambda: float_layers.scores(images[:part], baseline_product),
        "blas": lambda: float_layers.scores(images, multiply),
        "xnor": lambda: session.run(images),
    }
    with _peers.threads(num_threads):
        progress("the network by the baseline kernel, all images (this takes its time)")
        expected = float_layers.scores(images, baseline_product)
        wrong: dict[Kernel, int] = {"baseline": num_wrong(expected, split)}
        for kernel in ("blas", "xnor"):
            scores = runs[kernel]()
            if not same_bits(scores, expected):
                raise VerificationError(f"{kernel} does not give the same scores as the baseline kernel")
            wrong[kernel] = num_wrong(scores, split)
        timings = timed_bars(runs, num_threads, seconds, functools.partial(tell, progress, "the network"))
    libraries: dict[Kernel, str] = {"baseline": f"numpy {np.__version__} einsum", "blas": library}
    parts: dict[Kernel, float] = {"baseline": part / len(images)}
    rows: dict[Kernel, int | None] = {"baseline": part if part < len(images) else None}
    return bars_of(timings, libraries, f"binarynet {engine}", parts, rows, wrong)


class FloatLayers:
    """A network of dense layers in float32 with the weights +1 and -1: every sum is an exact integer.

    Raises:
        UsageError: the network has other layers.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.weights: list[npt.NDArray[np.float32]] = []
        for node in graph:
            if isinstance(node, Dense):
                bits = unpack_bits(node.weights, graph.types[node.source].channels)
                self.weights.append(to_signs(bits, np.float32))
            elif not isinstance(node, Input | Flatten | Threshold | Affine):
                raise UsageError(
                    f"figure3 takes networks of dense layers, as the paper's for MNIST; {node.name!r} is a "
                    f"{type(node).__name__.lower()}"
                )

    @property
    def widths(self) -> tuple[int, ...]:
        """Inputs of the first layer, then outputs of each."""
        return (self.weights[0].shape[1], *(len(weights) for weights in self.weights))

    def scores(self, images: npt.NDArray[np.uint8], multiply: Multiply) -> Array:
        """uint8 ``[n, *input shape]`` to float32 ``[n, classes]``."""
        chunks = [self._scores(images[first : first + CHUNK], multiply) for first in range(0, len(images), CHUNK)]
        return np.concatenate(chunks)

    def _scores(self, images: npt.NDArray[np.uint8], multiply: Multiply) -> Array:
        x = 2 * images.reshape(len(images), -1).astype(np.float32) - INPUT_MAX
        weights = iter(self.weights)
        for node in self.graph:
            if isinstance(node, Dense):
                x = multiply(x, next(weights))
            elif isinstance(node, Threshold):
                x = to_signs((x >= node.thresholds.astype(np.float32)) != node.falling, np.float32)
            elif isinstance(node, Affine):
                x = x * node.scale + node.shift
        return x


def same_bits(scores: Array, expected: Array) -> bool:
    """Equal patterns of bits: numbers would also be equal where zeros have different signs."""
    return (scores.shape, scores.dtype, scores.tobytes()) == (expected.shape, expected.dtype, expected.tobytes())


def num_wrong(scores: Array, split: Split) -> int:
    return int(np.count_nonzero(scores.argmax(axis=1) != split.labels))


def timed_bars(
    runs: Mapping[Kernel, Callable[[], Any]],
    num_threads: int,
    seconds: float,
    progress: Callable[[str], None],
    gpu: Gpu | None = None,
) -> dict[Kernel, Timing]:
    """All kernels in turns."""
    parties = [Party(kernel, run) for kernel, run in runs.items()]
    return dict(zip(runs, timed(parties, num_threads, seconds, progress, gpu), strict=True))


def tell(progress: Callable[[str], None], what: str, name: str) -> None:
    progress(f"{what}: {name}")


def bars_of(
    timings: Mapping[Kernel, Timing],
    libraries: Mapping[Kernel, str],
    ours: str,
    parts: Mapping[Kernel, float],
    rows: Mapping[Kernel, int | None],
    wrong: Mapping[Kernel, int] | None = None,
    peak_ns: float | None = None,
) -> tuple[Bar, ...]:
    """``parts``: the share of the work that was timed; ``peak_ns``: what a packed product takes at the peak."""
    bars = []
    packing = timings.get("xnor, packing")
    for kernel, timing in timings.items():
        part = parts.get(kernel, 1.0)
        seconds = Spread.of([ns / part / 1e9 for ns in timing.rounds_ns])
        at_peak = peak_ns is not None and kernel not in libraries
        bars.append(
            Bar(
                kernel,
                libraries.get(kernel, ours),
                seconds,
                _speedup(timing, part, timings["xnor"]),
                _speedup(timing, part, packing) if packing is not None else None,
                rows.get(kernel),
                wrong[kernel] if wrong is not None else None,
                Spread.of([peak_ns / ns for ns in timing.rounds_ns]) if at_peak and peak_ns is not None else None,
            )
        )
    return tuple(bars)


def _speedup(timing: Timing, part: float, ours: Timing) -> Spread:
    """How many times faster ``ours`` is, where ``timing`` has a ``part`` of the work."""
    return timing.compared(ours, lambda ns, our_ns: ns / part / our_ns)
