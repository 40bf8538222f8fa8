"""Figure 3 on a GPU: the plain float32 kernel, cuBLAS by way of torch in four precisions, and the packed engine.

Operands lie in the GPU's memory, and results stay there. Without torch for CUDA, our own kernels are measured alone.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from binarynet.cli import _peers, _peers_torch_cuda
from binarynet.cli._benching.figure3 import (
    Bar,
    Figure3,
    Figure3Network,
    FloatLayers,
    Kernel,
    Product,
    bars_of,
    blas_product,
    num_wrong,
    same_bits,
    tell,
    timed_bars,
)
from binarynet.cli._benching.single import random_layer
from binarynet.cli._peers_common import Absence
from binarynet.cuda import choice, operations
from binarynet.cuda.blocks import Block, Launch
from binarynet.cuda.device_operands import DeviceLayout
from binarynet.cuda.methods.baseline import plain_product
from binarynet.cuda.operands import layout
from binarynet.cuda.streams import DEFAULT_STREAM
from binarynet.encoding import INPUT_MAX, num_words, pack_bits
from binarynet.errors import BackendUnavailableError, VerificationError
from binarynet.graph import Affine, Dense, Threshold
from binarynet.runtime import Session

if TYPE_CHECKING:
    import torch

    from binarynet.cli._benching.gpu import Gpu

Floats = npt.NDArray[np.float32]
Run = Callable[[], Any]

SIZES = (1024, 4096, 8192, 16384)
SLICE_MACS = 600_000_000_000
"""About how many multiply-accumulates of the plain kernel are timed at most; times are scaled to all rows."""
PLAIN = "binarynet, plain kernel"
TORCHS: dict[Kernel, str] = {"blas": "float32", "blas, TF32": "float32, TF32", "bf16": "bf16", "int8": "int8"}
"""Products by torch, and what they are called where they are absent."""


def measure(
    gpu: Gpu,
    sizes: Sequence[int],
    network: Figure3Network | None,
    engine: str,
    seconds: float,
    progress: Callable[[str], None] = lambda _: None,
) -> Figure3:
    """Products and network.

    Raises:
        VerificationError: the kernels do not compute the same integers, or scores.
    """
    absent: dict[Absence, None] = {}
    with _peers_torch_cuda.on_device(gpu.device.ordinal):
        library = _torchs_library(absent)
        products = [Product(size, _product(gpu, size, engine, library, seconds, progress, absent)) for size in sizes]
        bars = () if network is None else _network(gpu, network, engine, library, seconds, progress)
    return Figure3(tuple(products), network, bars, tuple(absent))


def _torchs_library(absent: dict[Absence, None]) -> str:
    """Its name and version; "" where it has no GPU here."""
    try:
        return _peers_torch_cuda.version()
    except ImportError as error:
        absent[Absence("torch", f"not installed ({error.name or error}): {_peers.REMEDY}")] = None
    except BackendUnavailableError as error:
        absent[Absence("torch", str(error))] = None
    return ""


def _product(
    gpu: Gpu,
    size: int,
    engine: str,
    library: str,
    seconds: float,
    progress: Callable[[str], None],
    absent: dict[Absence, None],
) -> tuple[Bar, ...]:
    progress(f"product of {size}: checking")
    layer = random_layer("product", (1, 1, size), size, size)
    x = layer.inputs.reshape(size, size).astype(np.float32)
    weights = layer.shape.weights.reshape(size, size).astype(np.float32)
    ours = OurProducts(gpu, engine, x, weights)
    runs: dict[Kernel, Run] = {"baseline": ours.baseline}
    if library:
        runs |= _torchs_products(ours, absent)
    runs |= {"xnor": ours.xnor, "xnor, packing": ours.xnor_packing}
    expected = blas_product()[1](x, weights)
    del x, weights
    for kernel, run in runs.items():
        result = np.asarray(ours.result(kernel, run()))
        _check_product(kernel, result, expected[: len(result)])
    del expected
    timings = timed_bars(runs, 1, seconds, functools.partial(tell, progress, f"product of {size}"), gpu)
    libraries: dict[Kernel, str] = dict.fromkeys(TORCHS, library)
    libraries["baseline"] = PLAIN
    peak = gpu.peak_macs_per_ns
    return bars_of(
        timings,
        libraries,
        f"binarynet {engine}: {ours.method}",
        {"baseline": ours.rows / size},
        {"baseline": ours.rows if ours.rows < size else None},
        peak_ns=size**3 / peak if peak is not None else None,
    )


def _check_product(kernel: Kernel, result: npt.NDArray[Any], expected: Floats) -> None:
    """bfloat16 stores sums in eight bits; everybody else's must be the integers."""
    limit = _peers.BF16_STEP * float(np.abs(expected).max()) if kernel == "bf16" else 0.0
    if result.shape != expected.shape or not (np.abs(result - expected) <= limit).all():
        raise VerificationError(f"{kernel} does not compute the same integers as an exact product")


class OurProducts:
    """Our kernels for one product of +-1 matrices, ``x @ weights.T``, everything in the GPU's memory.

    Args:
        gpu: where.
        engine: whose methods multiply bits.
        x: float32 ``[m, k]``.
        weights: float32 ``[n, k]``.

    Attributes:
        method: what the engine chose.
        rows: how many rows of ``x`` the plain kernel multiplies.
    """

    def __init__(self, gpu: Gpu, engine: str, x: Floats, weights: Floats) -> None:
        (m, k), (n, _) = x.shape, weights.shape
        self._device = device = gpu.device
        self.rows = max(1, min(m, SLICE_MACS // (n * k)))
        self.x, self.weights = gpu.array(x, "the product's operand"), gpu.array(weights, "the product's operand")
        self._columns = gpu.array(np.ascontiguousarray(weights.T), "the product's operand")
        self._sums = gpu.array(np.zeros((m, n), np.int32), "the product's result")
        self._floats = gpu.array(np.zeros((self.rows, n), np.float32), "the product's result")
        self._bits = gpu.array(pack_bits(x >= 0), "the product's operand")
        self._packed = [gpu.array(np.zeros((rows, num_words(k)), np.uint64), "packed operands") for rows in (m, n)]
        words = pack_bits(weights >= 0).reshape(n, 1, 1, -1)
        block = Block("bits", 1, 1, k, (1, 1), (1, 1), (0, 0), words)
        method = choice.choose(engine, block, m, device.capability)
        self.method = method.name
        self._prepared = {key: gpu.array(array, "weights") for key, array in method.prepare(block).items()}
        self._layout = DeviceLayout(device, layout(method, block))
        self._scratch = device.allocate(self._layout.layout.scratch_bytes, "weights")
        sums, places = self._sums.address, {key: array.address for key, array in self._prepared.items()}
        columns, floats = self._columns.address, self._floats.address
        self.baseline = self._started([plain_product(self.rows, n, k, self.x.address, columns, floats)])
        self.xnor = self._started([method.launch(block, m, self._bits.address, sums, places)])
        packed = [array.address for array in self._packed]
        self.xnor_packing = self._started(
            [
                operations.pack(m, k, "float32", self.x.address, packed[0]),
                operations.pack(n, k, "float32", self.weights.address, packed[1]),
                *self._layout.launches(m, packed[0], packed[1], sums, self._scratch.address),
            ]
        )

    def result(self, kernel: Kernel, returned: Any) -> Any:
        """Of the last run: an array of the host."""
        if kernel in TORCHS:
            return returned.float().cpu().numpy()
        return np.asarray(self._floats if kernel == "baseline" else self._sums)

    def _started(self, launches: Sequence[Launch]) -> Run:
        """A call that starts them; kernels are compiled now."""
        device, prepared = self._device, [self._device.prepare(launch) for launch in launches]

        def run() -> None:
            with device:
                for launch in prepared:
                    launch.start(DEFAULT_STREAM)

        return run


def _torchs_products(ours: OurProducts, absent: dict[Absence, None]) -> dict[Kernel, Run]:
    """The same product by torch, whose kernels are cuBLAS's; those that refuse it are absent."""
    import torch

    x, weights = torch.utils.dlpack.from_dlpack(ours.x), torch.utils.dlpack.from_dlpack(ours.weights)

    def product(dtype: torch.dtype, multiply: Callable[[Any, Any], Any], tf32: bool = False) -> Run:
        a, b = x.to(dtype), weights.to(dtype).t()

        def run() -> Any:
            _peers_torch_cuda.allow_tf32(tf32)
            with torch.inference_mode():
                return multiply(a, b)

        return run

    made: dict[Kernel, Run] = {
        "blas": product(torch.float32, torch.mm),
        "blas, TF32": product(torch.float32, torch.mm, tf32=True),
        "bf16": product(torch.bfloat16, torch.mm),
        "int8": product(torch.int8, torch._int_mm),
    }
    found: dict[Kernel, Run] = {}
    for kernel, run in made.items():
        try:
            run()
        except RuntimeError as error:
            absent[_peers.failed(f"torch {TORCHS[kernel]}", error)] = None
        else:
            found[kernel] = run
    return found


def _network(
    gpu: Gpu, network: Figure3Network, engine: str, library: str, seconds: float, progress: Callable[[str], None]
) -> tuple[Bar, ...]:
    """All images at once, from bytes in the GPU's memory to scores there."""
    split, layers = network.split, network.layers
    images = split.images.reshape(len(split), *layers.graph.input.shape)
    session = Session(layers.graph, engine=engine, device=str(gpu.device))
    given = gpu.array(images, "images")
    runs: dict[Kernel, Run] = _torchs_networks(gpu, layers, given) if library else {}
    runs["xnor"] = lambda: session.run(given)
    progress("the network: checking")
    expected = layers.scores(images, blas_product()[1])
    wrong: dict[Kernel, int] = {}
    for kernel, run in runs.items():
        found = run()
        scores = np.asarray(found.cpu() if kernel != "xnor" else found)
        if not same_bits(scores, expected):
            raise VerificationError(
                f"{kernel} does not give the same scores as the network in float32 on the processor"
            )
        wrong[kernel] = num_wrong(scores, split)
    timings = timed_bars(runs, 1, seconds, functools.partial(tell, progress, "the network"), gpu)
    libraries: dict[Kernel, str] = dict.fromkeys(TORCHS, library)
    libraries["baseline"] = f"{PLAIN}, and {library}"
    return bars_of(timings, libraries, f"binarynet {engine}", {}, {}, wrong)


def _torchs_networks(gpu: Gpu, layers: FloatLayers, given: Any) -> dict[Kernel, Run]:
    """The network in floats by torch, whose products are the plain kernel's, or cuBLAS's where they are exact."""
    import torch

    images = torch.utils.dlpack.from_dlpack(given)
    device = gpu.device

    def plain(x: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
        result = torch.empty(len(x), columns.shape[1], device=x.device)
        sizes = (len(x), columns.shape[1], len(columns))
        launch = plain_product(*sizes, x.data_ptr(), columns.data_ptr(), result.data_ptr())
        device.launch(launch, torch.cuda.current_stream(x.device).cuda_stream)
        return result

    def wide(x: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
        return torch.mm(x.to(torch.bfloat16), columns, out_dtype=torch.float32)

    made: dict[Kernel, Run] = {
        "baseline": torchs_network(layers, images, plain, torch.float32, by_column=True),
        "blas": torchs_network(layers, images, torch.mm, torch.float32),
        "blas, TF32": torchs_network(layers, images, torch.mm, torch.float32, tf32=True),
    }
    if hasattr(torch.ops.aten.mm, "dtype"):  # torch 2.8: before, results would be rounded to bfloat16
        made["bf16"] = torchs_network(layers, images, wide, torch.bfloat16)
    return made


def torchs_network(
    layers: FloatLayers,
    images: torch.Tensor,
    multiply: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    dtype: torch.dtype,
    *,
    tf32: bool = False,
    by_column: bool = False,
) -> Run:
    """The network's scores, float32 ``[n, classes]``.

    Args:
        layers: the network.
        images: uint8 ``[n, ...]``.
        multiply: float32 activations ``[n, in]`` times weights ``[in, out]`` to float32 ``[n, out]``.
        dtype: of the weights.
        tf32: let torch round operands to TF32.
        by_column: weights ``[in, out]`` are contiguous; else ``[out, in]``, of which they are a view.
    """
    import torch

    place = images.device
    weights = [torch.from_numpy(each).to(place, dtype).t() for each in layers.weights]
    weights = [each.contiguous() if by_column else each for each in weights]
    constants = {
        node.name: tuple(torch.from_numpy(np.array(each)).to(place) for each in pair)
        for node in layers.graph
        for pair in _constants(node)
    }

    def run() -> torch.Tensor:
        _peers_torch_cuda.allow_tf32(tf32)
        own = iter(weights)
        with torch.inference_mode():
            x = 2 * images.flatten(1).float() - INPUT_MAX
            for node in layers.graph:
                if isinstance(node, Dense):
                    x = multiply(x, next(own))
                elif isinstance(node, Threshold):
                    thresholds, falling = constants[node.name]
                    x = torch.where((x >= thresholds) != falling, 1.0, -1.0)
                elif isinstance(node, Affine):
                    scale, shift = constants[node.name]
                    x = x * scale + shift
            return x

    return run


def _constants(node: Any) -> list[tuple[Any, Any]]:
    if isinstance(node, Threshold):
        return [(node.thresholds.astype(np.float32), node.falling)]
    return [(node.scale, node.shift)] if isinstance(node, Affine) else []
