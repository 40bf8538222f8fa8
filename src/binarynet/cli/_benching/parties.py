"""Who takes part in a comparison: our engines, and the peers that this machine has, all of them checked."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from binarynet import fileformat
from binarynet.cli import _peers
from binarynet.cli._benching import memory as memory_of
from binarynet.cli._benching.measuring import Contender, alone
from binarynet.cli._benching.single import require_equal
from binarynet.cli._peers_common import OnGpu
from binarynet.runtime import REFERENCE, Session, engines
from binarynet.runtime.engines import CPU, check_engine

if TYPE_CHECKING:
    from binarynet.cli._benching.gpu import Gpu
    from binarynet.cli._benching.single import Output, SingleLayer
    from binarynet.cli._peers_common import Absence, Peer
    from binarynet.fileformat import PackedNetwork
    from binarynet.graph import Graph


@dataclass(frozen=True)
class Parties:
    """What is compared, with what it is made of, and who is absent."""

    contenders: tuple[Contender, ...]
    libraries: tuple[str, ...]
    absent: tuple[Absence, ...]


def timed_engines(wanted: str | None = None, gpu: Gpu | None = None) -> tuple[str, ...]:
    """``wanted`` alone, else every native engine, best first, and the reference only where there is no other; with a
    ``gpu``, those of the GPU.

    Raises:
        UsageError: no engine is called so.
        BackendUnavailableError: it cannot be used here.
    """
    device = CPU if gpu is None else str(gpu.device)
    if wanted is not None:
        check_engine(wanted, device)
        return (wanted,)
    usable = [engine.name for engine in engines(device) if engine.available]
    return tuple(name for name in usable if name != REFERENCE) or (REFERENCE,)


@contextmanager
def network_contenders(
    packed: PackedNetwork,
    images: npt.NDArray[np.uint8],
    engine_names: Sequence[str],
    num_threads: int,
    expected: npt.NDArray[Any] | None,
    memory: bool = False,
    progress: Callable[[str], None] = lambda _: None,
    gpu: Gpu | None = None,
) -> Iterator[Parties]:
    """Whole networks.

    Args:
        packed: the network.
        images: uint8 ``[n, *input shape]``, what everybody computes (peers in their own form).
        engine_names: ours.
        num_threads: of every party.
        expected: the network's result, which ours must equal bit for bit; None where they are the reference.
        memory: measure the peak memory of a process for each party (seconds for each).
        progress: told what is being done.
        gpu: everybody computes there, from and to its memory.

    Raises:
        VerificationError: one of ours does not compute what it should.
    """
    size = len(fileformat.to_bytes(packed))
    ours = [
        replace(contender, file_bytes=size)
        for name in engine_names
        for contender in _engine(f"binarynet {name}", packed.graph, name, images, num_threads, gpu)
    ]
    if expected is not None:
        for contender in ours:
            require_equal(
                contender.name, np.asarray(contender.run()), expected, f"the exact scores at batch {len(images)}"
            )
    with _peers.network_peers(packed.graph, images, num_threads, _on(gpu)) as (found, absent):
        contenders = [*ours, *map(_peer, found)]
        if memory:
            contenders = _with_memory(contenders, found, packed, images, progress)
        yield _parties(contenders, found, absent)


@contextmanager
def layer_contenders(
    layer: SingleLayer,
    outputs: Sequence[Output],
    engine_names: Sequence[str],
    num_threads: int,
    gpu: Gpu | None = None,
) -> Iterator[Parties]:
    """One layer alone, our engines once for every kind of output.

    Raises:
        VerificationError: one of ours differs from the reference.
    """
    ours = []
    results: list[tuple[str, Output, npt.NDArray[Any]]] = []
    for output in outputs:
        graph = layer.graph(output)
        for name in engine_names:
            shown = f"binarynet {name}" if len(outputs) == 1 else f"binarynet {name}, {output} out"
            for contender in _engine(shown, graph, name, layer.packed_inputs, num_threads, gpu):
                contender = replace(contender, read_bytes=layer.task(output).read_bytes)
                ours.append(contender)
                results.append((contender.name, output, np.asarray(contender.run())))
    layer.check(results)
    del results
    with _peers.layer_peers(layer.shape, layer.batch, num_threads, _on(gpu)) as (found, absent):
        yield _parties([*ours, *map(_peer, found)], found, absent)


def _on(gpu: Gpu | None) -> OnGpu | None:
    return OnGpu(gpu.device.ordinal, gpu.autotune) if gpu is not None else None


def _engine(
    name: str, graph: Graph, engine: str, images: npt.NDArray[Any], num_threads: int, gpu: Gpu | None
) -> Iterator[Contender]:
    """With so many threads; where these are several, also with one, to see what the others bring."""
    if gpu is not None:
        session = Session(graph, engine=engine, device=str(gpu.device))
        run = functools.partial(session.run, gpu.array(images, "images"))
        yield Contender(name, "packed", run, lambda: run, engine, _method(session, len(images)))
        return
    for shown, threads in ((name, num_threads), (alone(name), 1))[: 1 if num_threads == 1 else 2]:
        session = Session(graph, engine=engine, num_threads=threads)
        yield Contender(
            shown,
            "packed",
            functools.partial(session.run, images),
            functools.partial(_again, session, images),
            engine,
            _method(session, len(images)),
            num_threads=threads,
        )


def _again(session: Session, images: npt.NDArray[Any]) -> Callable[[], Any]:
    return functools.partial(copy.copy(session).run, images.copy())


def _method(session: Session, batch: int) -> str:
    """How the kernels compute it, where it is one block and nothing else."""
    if session.engine == REFERENCE:
        return ""
    steps = session.plan(batch).steps
    return steps[0].method if len(steps) == 1 else ""


def _peer(peer: Peer) -> Contender:
    return Contender(
        peer.name,
        peer.kind,
        peer.run,
        functools.partial(_peers.build, peer.folder),
        details=peer.details,
        file_bytes=peer.file_bytes,
        layers=peer.layers,
    )


def _parties(contenders: Sequence[Contender], found: Sequence[Peer], absent: Sequence[Absence]) -> Parties:
    return Parties(tuple(contenders), tuple(dict.fromkeys(peer.library for peer in found)), tuple(absent))


def _with_memory(
    contenders: Sequence[Contender],
    found: Sequence[Peer],
    packed: PackedNetwork,
    images: npt.NDArray[np.uint8],
    progress: Callable[[str], None],
) -> list[Contender]:
    """The same with the memory that a process of their own takes."""
    folders = {peer.name: peer.folder for peer in found}
    measured: list[Contender] = []
    with memory_of.Packed(packed, images) as own:
        for contender in contenders:
            progress(f"batch {len(images)}: memory of {contender.name}")
            engine = contender.engine
            peak = (
                own.peak_bytes(engine, contender.num_threads)
                if engine
                else memory_of.peak_bytes_of_peer(folders[contender.name])
            )
            measured.append(replace(contender, peak_bytes=peak))
    return measured
