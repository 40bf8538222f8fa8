"""The cases: what every engine must compute exactly. A case is one object; tests run each through every engine."""

import functools
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from conformance_networks import (
    conv_net,
    correlated_conv,
    correlated_dense,
    dense_net,
    extreme_first,
    ramp_images,
    randomize,
    ties_net,
)
from torch import nn

from binarynet.graph import (
    Affine,
    Convolution,
    Dense,
    Flatten,
    Graph,
    GraphBuilder,
    Input,
    MaxPool,
    Threshold,
    Window,
)
from binarynet.layers import BinaryConv2d, BinaryLinear, Sign
from binarynet.lowering import lower
from binarynet.models import build
from random_graphs import INT32_MAX, INT32_MIN, random_graph, random_inputs, random_threshold, random_words


@dataclass(frozen=True)
class Case:
    """A network and what is fed to it.

    Attributes:
        name: says what is special about it; the seed of weights and images is derived from it.
        make: seed to a torch module, or to a Graph where torch has no such network.
        shape: of one image (rows, columns, channels) or (features,); None: the graph knows.
        images: seed to inputs, where noise is not what is wanted.
    """

    name: str
    make: Callable[[int], nn.Module | Graph]
    shape: tuple[int, ...] | None = None
    batch: int = 3
    images: Callable[[int], np.ndarray] | None = None
    slow: bool = False

    @property
    def seed(self) -> int:
        return zlib.crc32(self.name.encode())

    @property
    def network(self):
        """The torch module in eval mode, or None."""
        made = _make(self)
        return made if isinstance(made, nn.Module) else None

    @property
    def lowered(self):
        return _lowered(self)

    @property
    def graph(self) -> Graph:
        return self.lowered.graph if self.network is not None else _make(self)

    def inputs(self) -> np.ndarray:
        if self.images is not None:
            return self.images(self.seed)
        return random_inputs(np.random.default_rng(self.seed), self.batch, self.graph)


@functools.lru_cache(maxsize=4)
def _make(case):
    torch.manual_seed(case.seed)
    made = case.make(case.seed)
    return made.eval() if isinstance(made, nn.Module) else made


@functools.lru_cache(maxsize=4)
def _lowered(case):
    return lower(case.network, case.shape)


CHANNELS = (1, 3, 31, 33, 63, 64, 65, 127, 128, 129, 256)
OUTS = (1, 10, 33, 64, 100, 128, 129, 300)
KERNELS = ((1, 1), (3, 3), (5, 5), (3, 1), (2, 2))
STRIDES = ((1, 1), (2, 2), (3, 3), (1, 2), (3, 1))


def _dense():
    for i, k in enumerate(CHANNELS):
        for out in (OUTS[i % 8], OUTS[(i + 3) % 8], OUTS[(i + 5) % 8]):
            yield Case(f"dense {k} to {out}", lambda seed, k=k, o=out: dense_net(4, (k, o), seed), (4,))
        yield Case(f"first dense {k}", lambda seed, k=k: dense_net(k, (OUTS[k % 8], 7), seed), (k,), batch=5)
    for batch in (0, 1, 2, 7, 64):
        yield Case(f"mlp batch {batch}", lambda seed: dense_net(50, (65, 129, 10), seed), (50,), batch=batch)
    yield Case("wide mlp", lambda seed: dense_net(784, (1024, 1024, 10), seed), (784,), batch=9)


def _convolutions():
    i = 0
    for kernel in KERNELS:
        for stride in STRIDES[:4]:
            for padding in {(0, 0), (kernel[0] // 2, kernel[1] // 2), (kernel[0] - 1, kernel[1] - 1)}:
                i += 1
                c, out = CHANNELS[i % 11], OUTS[i % 8]
                yield Case(
                    f"conv {kernel} stride {stride} padding {padding} {c} to {out}",
                    lambda seed, c=c, o=out, k=kernel, s=stride, p=padding: conv_net(
                        (6, 7), c, o, k, seed, stride=s, padding=p
                    ),
                    (6, 7, 2),
                )
    for i, c in enumerate(CHANNELS):
        for j, out in enumerate((OUTS[i % 8], OUTS[(i + 4) % 8])):
            yield Case(
                f"conv 3x3 {c} to {out}", lambda seed, c=c, o=out: conv_net((5, 4), c, o, 3, seed, padding=1), (5, 4, 2)
            )
            kernel, stride = KERNELS[(i + j) % 5], STRIDES[(i + 2 * j) % 5]
            padding = tuple(k // 2 for k in kernel)
            yield Case(
                f"first conv {kernel} stride {stride} {c} to {out}",
                lambda seed, c=c, o=out, k=kernel, s=stride, p=padding: conv_net(
                    (5, 6), c, o, k, seed, stride=s, padding=p, first=True
                ),
                (5, 6, c),
            )
    for batch in (0, 1, 2, 7, 64):
        make = functools.partial(conv_net, (6, 6), 33, 65, 3, padding=1, pool=nn.MaxPool2d(2))
        yield Case(f"conv batch {batch}", lambda seed, make=make: make(seed=seed), (6, 6, 2), batch=batch)
    for size in ((1, 1), (1, 9), (9, 1), (2, 1)):
        for c in (3, 64, 65):
            yield Case(
                f"tiny image {size} {c}", lambda seed, s=size, c=c: conv_net(s, c, 5, 3, seed, padding=1), (*size, 2)
            )
        yield Case(
            f"tiny first {size}", lambda seed, s=size: conv_net(s, 3, 70, 3, seed, padding=1, first=True), (*size, 3)
        )


def _pools():
    windows = {
        "2x2": nn.MaxPool2d(2),
        "3x3 stride 2 padding 1": nn.MaxPool2d(3, 2, 1),
        "2x2 stride 1": nn.MaxPool2d(2, 1),
        "2x3 stride 3x1 padding 1x0": nn.MaxPool2d((2, 3), (3, 1), (1, 0)),
        "whole image": nn.MaxPool2d((7, 6)),
    }
    for text, pool in windows.items():
        for at in ("sums", "norm", "bits"):
            for c, out in ((3, 33), (65, 64), (128, 129)):
                yield Case(
                    f"pool {text} of {at} {c} to {out}",
                    lambda seed, c=c, o=out, pool=pool, at=at: conv_net(
                        (7, 6), c, o, 3, seed, padding=1, pool=pool, pool_at=at
                    ),
                    (7, 6, 2),
                )
        yield Case(
            f"first conv pool {text}",
            lambda seed, pool=pool: conv_net((7, 6), 3, 40, 3, seed, padding=1, pool=pool, first=True),
            (7, 6, 3),
        )


def _adversarial():
    for k in (1, 2, 5, 31, 64, 65, 130):
        yield Case(f"every tie {k}", lambda _, k=k: ties_net(k), (k,), images=lambda _, k=k: ramp_images(k))
    for k in (2, 63, 64, 65, 1025, 4096, 40_000, 70_000):
        yield Case(f"correlated dense {k}", lambda seed, k=k: correlated_dense(k, seed), (1,), batch=2)
    for c in (2, 31, 64, 127, 256, 8192):
        yield Case(f"correlated conv {c}", lambda seed, c=c: correlated_conv(c, seed), (4, 3, 1), batch=2)
    for k in (1, 31, 64, 257, 784, 65_793):
        yield Case(f"first layer extremes {k}", lambda seed, k=k: extreme_first(k, seed), (k,))
    yield Case("sign of the sums", lambda seed: nn.Sequential(
        BinaryConv2d(3, 9, 3, padding=1, first=True), Sign(), BinaryConv2d(9, 5, 2), nn.MaxPool2d(2), Sign(),
        nn.Flatten(), BinaryLinear(20, 4)), (5, 5, 3))  # fmt: skip


def _one_op(shape, *nodes, kind="u8"):
    builder = GraphBuilder()
    last = builder.add(Input("input", shape, kind))
    for node in nodes:
        last = builder.add(node)
    return builder.finish(last)


def _extreme_thresholds(seed):
    """Every special threshold, rising and falling, on a first layer whose sums are -255, -253 ... 255."""
    special = [INT32_MIN, INT32_MIN + 1, -256, -255, -254, -1, 0, 1, 254, 255, 256, INT32_MAX - 1, INT32_MAX]
    thresholds = np.array(special * 4, np.int32)
    falling = np.repeat([False, True, False, True], len(special))
    weights = np.repeat(np.array([1, 0], np.uint64), 2 * len(special))[:, np.newaxis]
    return _one_op((1,), Dense("dense", "input", weights), Threshold("sign", "dense", thresholds, falling))


def _signed_zeros(seed):
    """Scores that are 0.0 or -0.0: every combination of signs of scale, shift and sum, and subnormal products."""
    rng = np.random.default_rng(seed)
    values = np.array([0.0, -0.0, 1.0, -1.0, 1e-45, -1e-45, 1e-38, 3e30, -3e30], np.float32)
    scale, shift = (grid.reshape(-1) for grid in np.meshgrid(values, values))
    first = Dense("dense1", "input", random_words(rng, (2,), 3))
    bits = Threshold("sign", "dense1", np.zeros(2, np.int32), np.array([False, True]))
    return _one_op(
        (3,),
        first,
        bits,
        Dense("dense2", "sign", random_words(rng, (81,), 2)),
        Affine("scores", "dense2", scale, shift),
    )


def _structures():
    yield Case("extreme thresholds", _extreme_thresholds, images=lambda _: np.arange(256, dtype=np.uint8)[:, None])
    yield Case("signed zeros", _signed_zeros, batch=64)
    yield Case("the input is the result", lambda _: _one_op((4, 3, 2)))
    yield Case("a flattened input", lambda _: _one_op((4, 3, 2), Flatten("flat", "input")))
    for c in (1, 31, 64, 65):
        weights = functools.partial(random_words, shape=(c, 1, 1), channels=2)
        yield Case(
            f"flattened bits {c}",
            lambda seed, w=weights, c=c: _one_op(
                (3, 2, 2),
                Convolution("conv", "input", Window((1, 1)), w(np.random.default_rng(seed))),
                Threshold("sign", "conv", np.zeros(c, np.int32), np.zeros(c, bool)),
                Flatten("flat", "sign"),
            ),
        )
        yield Case(
            f"pooled twice {c}",
            lambda seed, w=weights, c=c: _one_op(
                (7, 8, 2),
                Convolution("conv", "input", Window((1, 1)), w(np.random.default_rng(seed))),
                MaxPool("pool1", "conv", Window((2, 2), (1, 2), (1, 1))),
                MaxPool("pool2", "pool1", Window((2, 1), (1, 1), (1, 0))),
                Threshold("sign", "pool2", np.full(c, -100, np.int32), np.arange(c) % 2 == 1),
                MaxPool("pool3", "sign", Window((2, 2), (2, 2))),
                MaxPool("pool4", "pool3", Window((2, 2), (1, 1), (1, 1))),
            ),
        )
    for i in range(60):
        yield Case(f"random graph {i}", lambda seed: random_graph(np.random.default_rng(seed)))


def _bits_inputs():
    """Packed bits as the input of the graph: one layer alone, as it is timed; pooled, flattened, returned."""
    for c in (1, 63, 64, 65, 130):
        yield Case(f"bits as the result {c}", lambda _, c=c: _one_op((2, 3, c), kind="bits"))
        yield Case(
            f"flattened bits input {c}", lambda _, c=c: _one_op((2, 3, c), Flatten("flat", "input"), kind="bits")
        )
        pool = MaxPool("pool", "input", Window((2, 2), (1, 2), (1, 0)))
        yield Case(f"pooled bits input {c}", lambda _, c=c, pool=pool: _one_op((3, 4, c), pool, kind="bits"))
    for k, out, batch in ((1, 1, 2), (64, 64, 1), (100, 130, 5), (256, 65, 70), (1024, 256, 17)):
        yield Case(f"one dense layer {k} to {out}", lambda seed, k=k, o=out: _one_layer((k,), o, seed), batch=batch)
    for size, c, out in (((1, 1), 64, 3), ((5, 4), 31, 65), ((8, 8), 128, 128), ((4, 9), 200, 70)):
        yield Case(
            f"one convolution {size} {c} to {out}",
            lambda seed, s=size, c=c, o=out: _one_layer((*s, c), o, seed),
            batch=2,
        )
    for i in range(20):
        yield Case(f"random bits graph {i}", lambda seed: random_graph(np.random.default_rng(seed), kind="bits"))


def _wide():
    """Layers that are wide enough, or have rows enough, for the methods that kernels keep for large ones."""
    for k, out, batch in (
        (70, 448, 24),
        (70, 512, 23),
        (300, 520, 24),
        (300, 512, 33),
        (300, 960, 24),
        (70, 1030, 33),
        (130, 512, 130),
        (300, 130, 101),
        (300, 130, 270),
        (1000, 130, 150),
    ):
        yield Case(
            f"{batch} rows, one dense layer {k} to {out}",
            lambda seed, k=k, o=out: _one_layer((k,), o, seed),
            batch=batch,
        )
    for k, sizes, batch in ((20, (70, 512, 10), 33), (9, (300, 130, 10), 210), (30, (65, 1000, 3), 25)):
        yield Case(f"{batch} rows, dense {sizes}", lambda seed, k=k, s=sizes: dense_net(k, s, seed), (k,), batch=batch)
    for size, c, out, batch in (((5, 6), 70, 512, 2), ((4, 4), 130, 460, 3), ((6, 7), 100, 130, 4)):
        pool = MaxPool("pool", "sums", Window((2, 2), (2, 2)))
        yield Case(
            f"{batch} images, one pooled convolution {size} {c} to {out}",
            lambda seed, s=size, c=c, o=out, pool=pool: _one_layer((*s, c), o, seed, pool),
            batch=batch,
        )
    for k, out in ((15, 130), (16, 100), (16, 112), (33, 300), (16, 111)):
        for batch in (2, 35):
            yield Case(
                f"{batch} rows, first dense {k} to {out}",
                lambda seed, k=k, o=out: dense_net(k, (o, 3), seed),
                (k,),
                batch=batch,
            )
    for c, out, stride in ((3, 112, 1), (3, 100, 1), (2, 130, 2), (3, 130, 3), (1, 130, 1)):
        yield Case(
            f"first conv 3x3 stride {stride} {c} to {out}",
            lambda seed, c=c, o=out, s=stride: conv_net((7, 6), c, o, 3, seed, stride=s, padding=1, first=True),
            (7, 6, c),
        )


def _one_layer(shape, out, seed, pool=None):
    """Bits in, bits out: a dense layer, or a 3x3 convolution with zero padding, whose sums may be pooled."""
    rng = np.random.default_rng(seed)
    if len(shape) == 1:
        sums, bound = Dense("sums", "input", random_words(rng, (out,), shape[-1])), shape[-1]
    else:
        window = Window((3, 3), (1, 1), (1, 1))
        sums = Convolution("sums", "input", window, random_words(rng, (out, 3, 3), shape[-1]))
        bound = 9 * shape[-1]
    between = [] if pool is None else [pool]
    threshold = random_threshold(rng, "sign", [sums, *between][-1].name, out, bound)
    return _one_op(shape, sums, *between, threshold, kind="bits")


def _whole():
    yield Case(
        "CIFAR-10 ConvNet",
        lambda seed: randomize(build("convnet", input_shape=(32, 32, 3), classes=10), seed),
        (32, 32, 3),
        batch=2,
        slow=True,
    )


CASES = [*_dense(), *_convolutions(), *_pools(), *_adversarial(), *_structures(), *_bits_inputs(), *_wide(), *_whole()]
