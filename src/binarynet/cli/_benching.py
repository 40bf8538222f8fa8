"""The measuring behind `binarynet bench`: networks, parties, checks, times."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from binarynet import fileformat
from binarynet.analysis import Party, Spread, Timing, fair_clock, layers, random_convnet, random_mlp, time_interleaved
from binarynet.cli import _peers
from binarynet.cli._peers_common import Absence, Peer
from binarynet.fileformat import PackedNetwork
from binarynet.runtime import REFERENCE, Session, engines, verify

if TYPE_CHECKING:
    from pathlib import Path

    from binarynet.graph import Graph

NUM_CHECKED = 4
"""Images on which engines are compared with the reference before anything is timed."""
COLD_BYTES = 128 << 20
"""Memory that is written through to empty the caches."""
COLD_BATCH = 1
"""Batch size that is timed with emptied caches, too: one image now and then, other work between."""


@dataclass(frozen=True)
class Network:
    """Something to measure; ``batches`` are those it is measured at by default."""

    name: str
    graph: Graph
    packed_bytes: int
    batches: tuple[int, ...]

    @property
    def num_weights(self) -> int:
        return sum(layer.weights for layer in layers(self.graph))

    @property
    def float32_bytes(self) -> int:
        """Weights and biases of the same layers in float32."""
        return sum(layer.float32_bytes for layer in layers(self.graph))


@dataclass(frozen=True)
class Row:
    """One party's result; ``speedup`` is over the batch's baseline, None where there is none."""

    name: str
    ours: bool
    timing: Timing
    speedup: Spread | None


@dataclass(frozen=True)
class BatchResult:
    """All parties at one batch size; ``baseline`` is the name of the row that speed-ups refer to.

    ``cold``: the caches were emptied before each call.
    """

    batch: int
    cold: bool
    rows: tuple[Row, ...]
    baseline: str | None

    @property
    def num_rounds(self) -> int:
        return len(self.rows[0].timing.rounds_ns)

    @property
    def best(self) -> Row:
        """Our fastest row."""
        return min((row for row in self.rows if row.ours), key=lambda row: row.timing.time_ns.median)


@dataclass(frozen=True)
class NetworkResult:
    """One network's results, with the engines that were found to be equal to the reference."""

    network: Network
    checked: tuple[str, ...]
    batches: tuple[BatchResult, ...]
    libraries: tuple[str, ...]
    absent: tuple[Absence, ...]


def paper_networks() -> list[Network]:
    """The paper's MNIST and CIFAR-10 networks, with random weights."""
    mlp, convnet = random_mlp(), random_convnet()
    return [
        Network("MLP 784-4096-4096-4096-10: the paper's for MNIST, random weights", mlp, _packed_bytes(mlp), (1, 256)),
        Network(
            "ConvNet 2x128-2x256-2x512-2x1024-10: the paper's for CIFAR-10, random weights",
            convnet,
            _packed_bytes(convnet),
            (1,),
        ),
    ]


def network_of_file(path: Path) -> Network:
    """A packed network.

    Raises:
        FileFormatError: not a valid .bnn file.
    """
    network = fileformat.read(path)
    return Network(str(path), network.graph, path.stat().st_size, (1, 256))


def _packed_bytes(graph: Graph) -> int:
    return len(fileformat.to_bytes(PackedNetwork(graph)))


def measure(
    network: Network,
    batches: Sequence[int],
    num_threads: int,
    seconds: float,
    progress: Callable[[str], None] = lambda _: None,
) -> NetworkResult:
    """Check the network's engines against the reference, then time all parties at each batch size.

    Raises:
        VerificationError: an engine differs from the reference; a peer does not compute what it should.
    """
    usable = [engine.name for engine in engines() if engine.available]
    progress("checking the engines against the NumPy reference")
    graph = network.graph
    checked = verify(graph, random_images(graph, NUM_CHECKED), engine_names=usable, num_threads=num_threads)
    checked.require_exact()
    results = []
    for batch in batches:
        images = random_images(graph, batch)
        progress("building and checking the other networks")
        with _peers.network_peers(graph, images, num_threads) as (found, absent):
            ours = [Party(f"binarynet {name}", run) for name, run in _our_calls(graph, images, usable, num_threads)]
            parties = [*ours, *(Party(peer.name, peer.run) for peer in found)]
            for cold in (False, True) if batch == COLD_BATCH else (False,):
                before = _CacheEmptier() if cold else None
                timings = time_interleaved(
                    [replace(party, before=before) for party in parties],
                    seconds,
                    clock=fair_clock(num_threads)[0],
                    progress=functools.partial(_tell, progress, f"batch {batch}{', cold caches' if cold else ''}"),
                )
                results.append(_result(batch, cold, timings, len(ours), found))
    libraries = tuple(dict.fromkeys(peer.library for peer in found))
    return NetworkResult(network, checked.engines, tuple(results), libraries, tuple(absent))


def _tell(progress: Callable[[str], None], what: str, name: str) -> None:
    progress(f"{what}: {name}")


def random_images(graph: Graph, count: int) -> npt.NDArray[np.uint8]:
    """uint8 ``[count, *input shape]``, always the same."""
    return np.random.default_rng(count).integers(0, 256, (count, *graph.input.shape), dtype=np.uint8)


def _our_calls(
    graph: Graph, images: npt.NDArray[np.uint8], usable: Sequence[str], num_threads: int
) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Every native engine, best first; the reference only where there is no other."""
    for name in [name for name in usable if name != REFERENCE] or [REFERENCE]:
        yield name, _runner(Session(graph, engine=name, num_threads=num_threads), images)


def _runner(session: Session, images: npt.NDArray[np.uint8]) -> Callable[[], Any]:
    return lambda: session.run(images)


class _CacheEmptier:
    def __init__(self) -> None:
        self.memory = np.zeros(COLD_BYTES, dtype=np.uint8)

    def __call__(self) -> None:
        self.memory += 1


def _result(batch: int, cold: bool, timings: list[Timing], num_ours: int, found: list[Peer]) -> BatchResult:
    """Rows with speed-ups over the fastest torch float32 network, or the fastest float32 peer without torch."""
    floats = [timing for timing, peer in zip(timings[num_ours:], found, strict=True) if peer.kind == "float32"]
    candidates = [timing for timing in floats if timing.name.startswith("torch")] or floats
    baseline = min(candidates, key=lambda timing: timing.time_ns.median, default=None)
    rows = tuple(
        Row(timing.name, i < num_ours, timing, timing.speedup_over(baseline) if baseline is not None else None)
        for i, timing in enumerate(timings)
    )
    return BatchResult(batch, cold, rows, baseline.name if baseline is not None else None)


@contextmanager
def shown(console: Any, enabled: bool) -> Iterator[Callable[[str], None]]:
    """A line on the terminal that says what is being done now."""
    if not enabled:
        yield lambda _: None
        return
    with console.status("") as status:
        yield lambda text: status.update(text)
