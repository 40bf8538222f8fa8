"""Random valid graphs and images for the tests of several rooms, all from one NumPy generator."""

from dataclasses import replace

import numpy as np

from binarynet.encoding import pack_bits
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

CHANNELS = (1, 2, 3, 7, 8, 31, 32, 33, 63, 64, 65, 100, 127, 128, 129)
INT32_MIN, INT32_MAX = -(2**31), 2**31 - 1


def random_words(rng, shape, channels):
    """Packed random bits, uint64 ``[*shape, words(channels)]``, padding bits 0."""
    return pack_bits(rng.integers(0, 2, (*shape, channels)).astype(bool))


def random_images(rng, batch, shape):
    """uint8 ``[batch, *shape]``: noise; from batch 3 on, one black and one white image among it."""
    images = rng.integers(0, 256, (batch, *shape), dtype=np.uint8)
    if batch >= 3:
        images[0], images[1] = 0, 255
    return images


def random_inputs(rng, batch, graph):
    """What the graph's input takes: :func:`random_images`, or packed random bits."""
    if graph.input.kind == "bits":
        return random_words(rng, (batch, *graph.input.shape[:-1]), graph.input.shape[-1])
    return random_images(rng, batch, graph.input.shape)


def random_threshold(rng, name, source, channels, bound):
    """Thresholds around the sums that occur, some at the ends of their range, some out of reach; random direction."""
    thresholds = np.rint(rng.normal(0, max(1.0, bound**0.5), channels)).astype(np.int64)
    extremes = np.array([-bound, bound, bound + 1, -bound - 1, 0, 1, INT32_MIN, INT32_MAX])
    rare = rng.random(channels) < 0.2
    thresholds[rare] = rng.choice(extremes, int(rare.sum()))
    return Threshold(name, source, thresholds.astype(np.int32), rng.integers(0, 2, channels).astype(bool))


def random_affine(rng, name, source, channels):
    """Scales of both signs, zeros of both signs among them."""
    scale = rng.normal(0, 0.1, channels).astype(np.float32)
    shift = rng.normal(0, 1, channels).astype(np.float32)
    scale[rng.random(channels) < 0.1] = rng.choice(np.array([0.0, -0.0], np.float32))
    shift[rng.random(channels) < 0.1] = rng.choice(np.array([0.0, -0.0], np.float32))
    return Affine(name, source, scale, shift)


def random_window(rng, size, largest=5):
    """A window that fits into an image of the given rows and columns, padding included."""
    kernel = tuple(int(rng.integers(1, largest + 1)) for _ in range(2))
    padding = tuple(int(rng.integers(0, k)) for k in kernel)
    kernel = tuple(min(k, s + 2 * p) for k, s, p in zip(kernel, size, padding, strict=True))
    padding = tuple(min(p, k - 1) for p, k in zip(padding, kernel, strict=True))
    kernel = tuple(min(k, s + 2 * p) for k, s, p in zip(kernel, size, padding, strict=True))
    stride = tuple(int(rng.integers(1, 4)) for _ in range(2))
    return Window(kernel, stride, padding)


def random_pool(rng, name, source, size):
    kernel = tuple(int(rng.integers(1, min(3, s) + 1)) for s in size)
    padding = tuple(int(rng.integers(0, k // 2 + 1)) for k in kernel)
    stride = tuple(int(rng.integers(1, 4)) for _ in range(2))
    return MaxPool(name, source, Window(kernel, stride, padding))


def random_graph(rng, max_layers=4, kind="u8") -> Graph:
    """A chain: convolutions with poolings before or after the sign, a flatten, dense layers; any end."""
    builder = GraphBuilder()
    image = bool(rng.integers(0, 4))
    shape = tuple(int(rng.integers(1, 9)) for _ in range(2)) if image else ()
    channels = CHANNELS[:8] if kind == "u8" else CHANNELS
    last = builder.add(Input("input", (*shape, int(rng.choice(channels))), kind))
    layers = int(rng.integers(1, max_layers + 1))
    for i in range(layers):
        value = builder.types[last]
        if len(value.shape) == 3 and rng.random() < 0.3:
            last = builder.add(Flatten(f"flatten{i}", last))
            value = builder.types[last]
        out = int(rng.choice(CHANNELS))
        if len(value.shape) == 3:
            window = random_window(rng, value.shape[:2])
            weights = random_words(rng, (out, *window.kernel), value.channels)
            last = builder.add(Convolution(f"conv{i}", last, window, weights))
            if rng.random() < 0.4:
                last = builder.add(random_pool(rng, f"pool{i}", last, builder.types[last].shape[:2]))
        else:
            last = builder.add(Dense(f"dense{i}", last, random_words(rng, (out,), value.channels)))
        ending = i == layers - 1
        if ending and rng.random() < 0.2:
            break  # sums as the result
        if ending and rng.random() < 0.7:
            last = builder.add(random_affine(rng, "scores", last, out))
            break
        last = builder.add(random_threshold(rng, f"sign{i}", last, out, builder.bounds[last]))
        if len(builder.types[last].shape) == 3 and rng.random() < 0.4:
            last = builder.add(random_pool(rng, f"bitpool{i}", last, builder.types[last].shape[:2]))
    return builder.finish(last)


def dense_graph(k=70, hidden=33, classes=10, seed=0) -> Graph:
    """A fixed small network of features: dense, threshold, dense, affine."""
    rng = np.random.default_rng(seed)
    builder = GraphBuilder()
    builder.add(Input("input", (k,)))
    builder.add(Dense("dense1", "input", random_words(rng, (hidden,), k)))
    builder.add(random_threshold(rng, "sign1", "dense1", hidden, 255 * k))
    builder.add(Dense("dense2", "sign1", random_words(rng, (classes,), hidden)))
    builder.add(random_affine(rng, "scores", "dense2", classes))
    return builder.finish("scores")


def image_graph(seed=0) -> Graph:
    """A fixed small network of images 6 x 5 x 3: every operation occurs."""
    rng = np.random.default_rng(seed)
    builder = GraphBuilder()
    builder.add(Input("input", (6, 5, 3)))
    builder.add(Convolution("conv1", "input", Window((3, 3), (1, 1), (1, 1)), random_words(rng, (9, 3, 3), 3)))
    builder.add(MaxPool("pool1", "conv1", Window((2, 2), (2, 2))))
    builder.add(random_threshold(rng, "sign1", "pool1", 9, 255 * 27))
    builder.add(Convolution("conv2", "sign1", Window((2, 2)), random_words(rng, (5, 2, 2), 9)))
    builder.add(random_threshold(rng, "sign2", "conv2", 5, 36))
    builder.add(Flatten("flatten", "sign2"))
    builder.add(Dense("dense", "flatten", random_words(rng, (4,), 10)))
    builder.add(random_affine(rng, "scores", "dense", 4))
    return builder.finish("scores")


def changed(graph: Graph, name: str, **fields) -> Graph:
    """The same graph with some fields of one node replaced."""
    return Graph(tuple(replace(node, **fields) if node.name == name else node for node in graph), graph.output)
