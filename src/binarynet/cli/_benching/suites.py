"""`binarynet bench gemm` and `bench layers`: one layer after the other, each alone."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from binarynet.analysis import random_convnet, random_mlp
from binarynet.cli._benching.measuring import Comparison, compare
from binarynet.cli._benching.parties import layer_contenders
from binarynet.cli._benching.single import Output, SingleLayer, in_words, layers_of, random_layer
from binarynet.cli._peers_common import Absence
from binarynet.errors import UsageError
from binarynet.graph import Graph

if TYPE_CHECKING:
    from binarynet.cli._benching.gpu import Gpu

MAX_SIZE = 1 << 15
GEMM_SIZES = (512, 1024, 4096)


@dataclass(frozen=True)
class SuiteResult:
    """All tables of a suite, with who took part and who could not."""

    tables: tuple[Comparison, ...]
    libraries: tuple[str, ...]
    absent: tuple[Absence, ...]


def parse_sizes(text: str) -> list[tuple[int, int, int]]:
    """``"512,1024"`` to cubes (M, N, K).

    Raises:
        UsageError: something else than numbers from 1 to MAX_SIZE.
    """
    return [(size, size, size) for size in _numbers(text, ",", "--sizes must be numbers", "512,1024,4096")]


def parse_shapes(text: str) -> list[tuple[int, int, int]]:
    """``"256x4096x784,1x10x4096"`` to (M, N, K): rows, output channels, length of a dot product.

    Raises:
        UsageError: something else.
    """
    found = []
    for part in text.split(","):
        sizes = _numbers(part, "x", "--shapes must be MxNxK", "256x4096x784,1x10x4096")
        if len(sizes) != 3:
            raise UsageError(f"--shapes must be MxNxK with commas between, as in 256x4096x784,1x10x4096; got {text!r}")
        found.append((sizes[0], sizes[1], sizes[2]))
    return found


def _numbers(text: str, separator: str, what: str, example: str) -> list[int]:
    parts = text.split(separator)
    if not all(re.fullmatch(r"[0-9]{1,9}", part.strip()) and 1 <= int(part) <= MAX_SIZE for part in parts):
        raise UsageError(f"{what} from 1 to {MAX_SIZE}, as in {example}; got {text!r}")
    return [int(part) for part in parts]


def gemm_layers(shapes: Sequence[tuple[int, int, int]]) -> Iterator[SingleLayer]:
    """Products of random +1 / -1 matrices [M, K] and [N, K] as dense layers."""
    for rows, columns, length in dict.fromkeys(shapes):
        yield random_layer(f"{rows} x {columns} x {length}", (1, 1, length), columns, rows)


def network_layers(graph: Graph, batch: int, network: str = "") -> Iterator[SingleLayer]:
    """A network's layers, their shapes in their names."""
    for layer in layers_of(graph, batch):
        name = f"{network} {layer.name}".strip()
        yield replace(layer, name=f"{name}: {in_words(layer.shape)}")


def paper_layers(batch: int) -> Iterator[SingleLayer]:
    """Each different shape of the paper's CIFAR-10 and MNIST networks.

    Among them are three 3x3 convolutions of equal work and different form: 128 channels at 32x32, 256 at 16x16, 512 at
    8x8, with zero padding.
    """
    seen = set()
    for layer in (*network_layers(random_convnet(), batch, "ConvNet"), *network_layers(random_mlp(), batch, "MLP")):
        key = (in_words(layer.shape), layer.shape.padding, layer.shape.first)
        if key not in seen:
            seen.add(key)
            yield layer


def selected(layers: Sequence[SingleLayer], only: str | None) -> list[SingleLayer]:
    """Layers whose name or shape contains one of the comma-separated words.

    Raises:
        UsageError: none does, or a word is empty.
    """
    if only is None:
        return list(layers)
    words = [word.strip().lower() for word in only.split(",")]
    if not all(words):
        raise UsageError(f"--only must be words with commas between, as in conv,4096; got {only!r}")
    found = [layer for layer in layers if any(word in layer.name.lower() for word in words)]
    if not found:
        raise UsageError(f"--only {only}: no such layer; there are: {'; '.join(layer.name for layer in layers)}")
    return found


def measure_gemm(
    layers: Sequence[SingleLayer],
    engine_names: Sequence[str],
    num_threads: int,
    seconds: float,
    progress: Callable[[str], None] = lambda _: None,
    done: Callable[[Comparison], None] = lambda _: None,
    gpu: Gpu | None = None,
) -> SuiteResult:
    """Bits in, bits or int32 out."""
    outputs: tuple[Output, ...] = ("bits", "int32")
    return _measure(layers, lambda _: outputs, (False,), engine_names, num_threads, seconds, progress, done, gpu)


def measure_layers(
    layers: Sequence[SingleLayer],
    engine_names: Sequence[str],
    num_threads: int,
    seconds: float,
    progress: Callable[[str], None] = lambda _: None,
    done: Callable[[Comparison], None] = lambda _: None,
    gpu: Gpu | None = None,
) -> SuiteResult:
    """What comes out where the layer stands (bits, or the last layer's sums), with warm weights, and on the processor
    with cold ones, too."""
    return _measure(
        layers,
        lambda layer: ("bits",) if layer.signed else ("int32",),
        (False, True) if gpu is None else (False,),
        engine_names,
        num_threads,
        seconds,
        progress,
        done,
        gpu,
    )


def _measure(
    layers: Sequence[SingleLayer],
    outputs_of: Callable[[SingleLayer], tuple[Output, ...]],
    colds: Sequence[bool],
    engine_names: Sequence[str],
    num_threads: int,
    seconds: float,
    progress: Callable[[str], None],
    done: Callable[[Comparison], None],
    gpu: Gpu | None,
) -> SuiteResult:
    tables: list[Comparison] = []
    libraries: dict[str, None] = {}
    absent: dict[Absence, None] = {}
    for layer in layers:
        progress(f"{layer.name}: building and checking")
        outputs = outputs_of(layer)
        with layer_contenders(layer, outputs, engine_names, num_threads, gpu) as parties:
            for cold in colds:
                task = layer.task(outputs[0], cold)
                tables.append(compare(task, parties.contenders, num_threads, seconds, progress, gpu))
                done(tables[-1])
        libraries |= dict.fromkeys(parties.libraries)
        absent |= dict.fromkeys(parties.absent)
    return SuiteResult(tuple(tables), tuple(libraries), tuple(absent))
