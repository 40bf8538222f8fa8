"""Proof of exactness: the same images through several engines, every layer compared bit by bit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from binarynet.encoding import unpack_bits
from binarynet.errors import BackendUnavailableError, UsageError, VerificationError
from binarynet.graph import Flatten, Graph, check_images, evaluate
from binarynet.runtime.engines import CPU, CUDA, REFERENCE, device_of, engines, forced_instruction_set
from binarynet.runtime.session import Session

Array = npt.NDArray[Any]
Source = Callable[[Array, Sequence[str]], Mapping[str, Array]]
"""Images and names of values to those values, laid out as in :mod:`binarynet.graph.ir`."""

_CHUNK = 256


@dataclass(frozen=True)
class Difference:
    """The first place where an engine differs: image, position in the value (channel last), and both numbers."""

    image: int
    position: tuple[int, ...]
    expected: float
    got: float

    def __str__(self) -> str:
        *pixel, channel = self.position
        place = f"channel {channel}" + (f" at pixel {tuple(pixel)}" if pixel else "")
        return f"image {self.image}, {place}: expected {self.expected:g}, got {self.got:g}"


@dataclass
class ValueCheck:
    """Comparison of one value of the graph over all images."""

    name: str
    kind: str
    compared: int = 0
    differences: dict[str, int] = field(default_factory=dict)
    first: dict[str, Difference] = field(default_factory=dict)

    @property
    def equal(self) -> bool:
        return not any(self.differences.values())


@dataclass
class Verification:
    """Result of :func:`verify`: one check per value, in the order of the network."""

    baseline: str
    engines: tuple[str, ...]
    num_images: int
    checks: list[ValueCheck]

    @property
    def exact(self) -> bool:
        return all(check.equal for check in self.checks)

    def require_exact(self) -> None:
        """VerificationError that names the first layer and channel that differ, unless all are equal."""
        for check in self.checks:
            for engine, count in check.differences.items():
                if count:
                    raise VerificationError(
                        f"{engine} differs from {self.baseline} in {check.name!r}: {count} of {check.compared} "
                        f"{check.kind} values; first at {check.first[engine]}"
                    )


def verify(
    graph: Graph,
    images: Array,
    *,
    extra: Mapping[str, Source] | None = None,
    engine_names: Sequence[str] | None = None,
    num_threads: int | None = None,
    device: str | None = None,
    sums: bool = False,
    reference: bool = True,
    progress: Callable[[int], None] | None = None,
) -> Verification:
    """Run images through every engine and compare every layer's bits and the result.

    Where the baseline does not have a value (torch may pool before the sign where the graph pools bits), the
    reference's stands in for it; where another of the ``extra`` sources does not, that value is not compared. Every
    source must have the network's result.

    Args:
        graph: the network.
        images: uint8 ``[n, *input shape]``.
        extra: more sources by name, the trained torch network for instance; the first one is then the baseline that
            all others must equal. Without it the baseline is the NumPy reference.
        engine_names: engines to compare; default: all that can run on the device.
        num_threads: threads of the native engines.
        device: "cpu", "cuda" or "cuda:1"; default: the CPU and, where there is one, the first GPU.
        sums: compare the integer sums of every layer, too (native engines then run unfused).
        reference: whether the NumPy reference takes part. It is slow: a thousandth of the speed of the other engines
            where there are convolutions. Without it, the first engine stands in for values that the baseline lacks.
        progress: called with the number of images done.

    Raises:
        UsageError: no images, fewer than two sources to compare, a source without the network's result, or an unknown
            name in BINARYNET_FORCE_ISA (which does not change what is compared).
        ShapeError: wrong dtype or shape of the images.
        BackendUnavailableError: an engine that cannot run here, or a device that cannot be used.
        DeviceError: a GPU failed.
    """
    forced_instruction_set()
    check_images(graph, images)
    if len(images) == 0:
        raise UsageError("verify needs at least one image")
    kinds = ("bits", "i32", "f32") if sums else ("bits", "f32")
    names = [node.name for node in graph if graph.types[node.name].kind in kinds and not isinstance(node, Flatten)]
    if graph.output not in names:
        names.append(graph.output)
    sources: dict[str, Source] = dict(extra or {})
    if reference:
        sources[REFERENCE] = lambda chunk, values: evaluate(graph, chunk, values)
    for name in engine_names if engine_names is not None else _usable(device):
        if name != REFERENCE:
            sources[name] = _engine_source(graph, name, names, num_threads, device)
    baseline, *others = sources
    if not others:
        raise UsageError(f"there is nothing to compare with {baseline!r}: no other engine can run here")
    stand_in = sources.get(REFERENCE, sources[others[0]])
    checks = [ValueCheck(name, graph.types[name].kind, differences=dict.fromkeys(others, 0)) for name in names]
    for start in range(0, len(images), _CHUNK):
        chunk = images[start : start + _CHUNK]
        expected = dict(_values_of(baseline, sources[baseline], graph, chunk, names))
        missing = [name for name in names if name not in expected]
        expected |= stand_in(chunk, missing) if missing else {}
        for check in checks:
            check.compared += len(chunk) * graph.types[check.name].num_elements
        for other in others:
            got = _values_of(other, sources[other], graph, chunk, names)
            for check in checks:
                if check.name in got:
                    _compare(check, other, expected[check.name], got[check.name], graph, start)
        if progress is not None:
            progress(start + len(chunk))
    return Verification(baseline, tuple(others), len(images), checks)


def _values_of(name: str, source: Source, graph: Graph, chunk: Array, names: Sequence[str]) -> Mapping[str, Array]:
    values = source(chunk, names)
    if graph.output not in values:
        raise UsageError(f"the source {name!r} does not give the network's result {graph.output!r}")
    return values


def _usable(device: str | None) -> list[str]:
    """Engines that can run on a device, or on all that are looked at where none is named."""
    if device is None:
        return [engine.name for where in (CPU, CUDA) for engine in engines(where) if engine.available]
    found = engines(device)
    usable = [engine.name for engine in found if engine.available]
    if not usable:
        raise BackendUnavailableError(f"the device {device!r} cannot be used here: {found[0].why_not}")
    return usable


def _engine_source(
    graph: Graph, engine: str, names: Sequence[str], num_threads: int | None, device: str | None
) -> Source:
    """Layers from a tapped session; the result from a plain one, which is what prediction runs."""
    on_gpu = device_of(engine) == CUDA
    where = {"device": device or CUDA} if on_gpu else {"num_threads": num_threads}
    plain = Session(graph, engine=engine, **where)
    tapped = Session(graph, engine=engine, taps=names, **where)

    def source(chunk: Array, values: Sequence[str]) -> Mapping[str, Array]:
        return tapped.run_tapped(chunk) | {graph.output: plain.run(chunk)}

    return source


def _compare(check: ValueCheck, engine: str, expected: Array, got: Array, graph: Graph, start: int) -> None:
    if expected.shape != got.shape or expected.dtype != got.dtype:
        raise VerificationError(
            f"{engine}: {check.name!r} is {got.dtype} {list(got.shape)}, "
            f"expected {expected.dtype} {list(expected.shape)}"
        )
    if expected.tobytes() == got.tobytes():
        return
    if check.kind == "bits":
        channels = graph.types[check.name].channels
        opened, opened_got = unpack_bits(expected, channels), unpack_bits(got, channels)
        different = opened != opened_got
        if not different.any():
            raise VerificationError(f"{engine}: padding bits of {check.name!r} are not 0")
        expected, got = opened * 2.0 - 1.0, opened_got * 2.0 - 1.0
    elif check.kind == "f32":  # by bit pattern: -0.0 is not 0.0
        different = expected.view(np.uint32) != got.view(np.uint32)
    else:
        different = expected != got
    check.differences[engine] += int(np.count_nonzero(different))
    if engine not in check.first:
        image, *position = (int(i) for i in np.argwhere(different)[0])
        place = (image, *position)
        check.first[engine] = Difference(start + image, tuple(position), float(expected[place]), float(got[place]))
