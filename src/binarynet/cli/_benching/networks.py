"""`binarynet bench model`: whole networks, from bytes to scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from binarynet import fileformat
from binarynet.analysis import layers, random_convnet, random_mlp
from binarynet.analysis.layers import value_bytes
from binarynet.cli._benching.measuring import Comparison, Task, compare
from binarynet.cli._benching.parties import network_contenders
from binarynet.cli._peers_common import Absence
from binarynet.encoding import num_words
from binarynet.fileformat import PackedNetwork
from binarynet.graph import evaluate
from binarynet.runtime import REFERENCE, Session, verify
from binarynet.runtime.engines import CPU, PORTABLE
from binarynet.zoo import resolve

if TYPE_CHECKING:
    from binarynet.cli._benching.gpu import Gpu
    from binarynet.graph import Graph

NUM_CHECKED = 4
"""Images on which engines are compared with the reference, layer by layer, before anything is timed. Larger batches are
compared with what the portable engine makes of as many images at a time: kernels choose their method by the number."""
COLD_BATCH = 1
"""Batch size that is timed with cold weights, too: one image now and then, other work between."""


@dataclass(frozen=True)
class Network:
    """Something to measure; ``batches`` are those it is measured at by default."""

    name: str
    packed: PackedNetwork
    packed_bytes: int
    batches: tuple[int, ...]

    @property
    def graph(self) -> Graph:
        return self.packed.graph

    @property
    def num_weights(self) -> int:
        return sum(layer.weights for layer in layers(self.graph))

    @property
    def float32_bytes(self) -> int:
        """Weights and biases of the same layers in float32."""
        return sum(layer.float32_bytes for layer in layers(self.graph))


@dataclass(frozen=True)
class NetworkResult:
    """One network's results, with the engines that were found to be equal to the reference.

    ``compared_with``: what their results on the timed images were held against; "" where there is no other engine.
    """

    network: Network
    checked: tuple[str, ...]
    compared_with: str
    batches: tuple[Comparison, ...]
    libraries: tuple[str, ...]
    absent: tuple[Absence, ...]


def paper_networks() -> list[Network]:
    """The paper's MNIST and CIFAR-10 networks, with random weights."""
    return [
        _random("MLP 784-4096-4096-4096-10: the paper's for MNIST, random weights", random_mlp(), (1, 256)),
        _random(
            "ConvNet 2x128-2x256-2x512-2x1024-10: the paper's for CIFAR-10, random weights", random_convnet(), (1, 64)
        ),
    ]


def _random(name: str, graph: Graph, batches: tuple[int, ...]) -> Network:
    packed = PackedNetwork(graph)
    return Network(name, packed, len(fileformat.to_bytes(packed)), batches)


def network_of_file(path: Path) -> Network:
    """A packed network: images at batch 1 and 64, feature vectors and networks without convolutions at 1 and 256.

    Raises:
        FileFormatError: not a valid .bnn file.
    """
    packed = fileformat.read(path)
    has_convolutions = any(layer.kind == "convolution" for layer in layers(packed.graph))
    return Network(str(path), packed, resolve(path).stat().st_size, (1, 64) if has_convolutions else (1, 256))


def measure(
    network: Network,
    batches: Sequence[int],
    engine_names: Sequence[str],
    num_threads: int,
    seconds: float,
    memory: bool,
    progress: Callable[[str], None] = lambda _: None,
    gpu: Gpu | None = None,
) -> NetworkResult:
    """Check the network's engines against the reference, then time all parties at each batch size.

    Args:
        network: what to time.
        batches: images per call.
        engine_names: ours.
        num_threads: of every party.
        seconds: about how long each table may take.
        memory: measure the peak memory of a process for every party, too.
        progress: told what is being done.
        gpu: everybody computes there, from images in its memory to scores there.

    Raises:
        VerificationError: an engine differs from the reference, or on the timed images from what they should give.
    """
    progress("checking the engines against the NumPy reference")
    graph = network.graph
    checked: tuple[str, ...] = ()
    if any(name != REFERENCE for name in engine_names):
        verification = verify(
            graph,
            random_images(graph, NUM_CHECKED),
            engine_names=engine_names if gpu is not None else tuple(dict.fromkeys((*engine_names, PORTABLE))),
            num_threads=num_threads,
            device=CPU if gpu is None else str(gpu.device),
        )
        verification.require_exact()
        checked = tuple(name for name in engine_names if name != REFERENCE)
    results: list[Comparison] = []
    libraries: dict[str, None] = {}
    absent: dict[Absence, None] = {}
    for batch in batches:
        images = random_images(graph, batch)
        progress(f"batch {batch}: checking the engines, building and checking the peers")
        expected = _expected(graph, images, num_threads) if checked else None
        with network_contenders(
            network.packed, images, engine_names, num_threads, expected, memory, progress, gpu
        ) as parties:
            for cold in (False, True) if batch == COLD_BATCH and gpu is None else (False,):
                results.append(
                    compare(task(graph, batch, cold), parties.contenders, num_threads, seconds, progress, gpu)
                )
        libraries |= dict.fromkeys(parties.libraries)
        absent |= dict.fromkeys(parties.absent)
    compared_with = _compared_with(batches) if checked else ""
    return NetworkResult(network, checked, compared_with, tuple(results), tuple(libraries), tuple(absent))


def _expected(graph: Graph, images: npt.NDArray[np.uint8], num_threads: int) -> npt.NDArray[Any]:
    """The network's result on a batch: see NUM_CHECKED."""
    count = len(images)
    if count <= NUM_CHECKED:
        return evaluate(graph, images)[graph.output]
    portable = Session(graph, engine=PORTABLE, num_threads=num_threads)
    whole = (count - 1) // NUM_CHECKED * NUM_CHECKED
    parts = [portable.run(images[first : first + NUM_CHECKED]) for first in range(0, whole, NUM_CHECKED)]
    # The last ones are always as many, too.
    return np.concatenate([*parts, portable.run(images[-NUM_CHECKED:])[whole - count :]])


def _compared_with(batches: Sequence[int]) -> str:
    few = ", ".join(str(batch) for batch in batches if batch <= NUM_CHECKED)
    many = ", ".join(str(batch) for batch in batches if batch > NUM_CHECKED)
    found = [f"the NumPy reference (batch {few})"] if few else []
    found += [f"the portable engine with {NUM_CHECKED} images at a time (batch {many})"] if many else []
    return ", ".join(found)


def task(graph: Graph, batch: int, cold: bool = False) -> Task:
    """A call of a whole network."""
    found = layers(graph)
    weights = sum(8 * layer.channels * num_words(layer.weights // layer.channels) for layer in found)
    moved = batch * (value_bytes(graph.types[graph.input.name]) + value_bytes(graph.output_type))
    return Task(f"batch {batch}", batch, batch * sum(layer.macs for layer in found), weights + moved, cold=cold)


def random_images(graph: Graph, count: int) -> npt.NDArray[np.uint8]:
    """uint8 ``[count, *input shape]``, always the same."""
    return np.random.default_rng(count).integers(0, 256, (count, *graph.input.shape), dtype=np.uint8)
