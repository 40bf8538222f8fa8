"""Steps of a GPU, computed with NumPy in one piece of memory: what is fused, where values lie, how long they live."""

import numpy as np
import pytest
from conformance_cases import CASES
from conformance_oracle import assert_equal, evaluate_slowly

from binarynet.encoding import pack_bits, to_signs, unpack_bits
from binarynet.graph import Affine, Flatten, MaxPool, Threshold, Window
from binarynet.graph.reference import _compute, _convolve
from binarynet.runtime.cuda_steps import ALIGNMENT, DTYPES, array_shape, bytes_per_image, make_layout

QUICK = [pytest.param(case, id=case.name) for case in CASES if not case.slow]


def opened(array, kind):
    """Bits as bool, everything else as it is."""
    return unpack_bits(array, kind.channels) if kind.kind == "bits" else array


def closed(array, kind):
    return pack_bits(array) if kind.kind == "bits" else np.ascontiguousarray(array)


def block_result(block, x):
    """A block as its description says, from the words of the graph room."""
    image = x.reshape(len(x), block.height, block.width, block.channels)
    weights = to_signs(unpack_bits(block.weights, block.channels), np.float32)
    operand = 2 * image.astype(np.float32) - 255 if block.input == "u8" else to_signs(image, np.float32)
    sums = _convolve(operand, weights, Window(block.kernel, block.stride, block.padding))
    if block.output == "bits":
        return (sums >= block.thresholds) != block.falling
    if block.output == "f32":
        return sums.astype(np.float32) * block.scale + block.shift
    return sums


def step_result(step, x):
    if step.block is not None:
        return block_result(step.block, x)
    if isinstance(step.node, MaxPool) and step.falling is not None:
        flipped = _compute(step.node, x ^ step.falling, step.source_type)
        return flipped ^ step.falling
    assert isinstance(step.node, MaxPool | Threshold | Affine | Flatten)
    return _compute(step.node, x, step.source_type)


def run(layout, images):
    """All steps in order, values in the memory that the placement gives them; fresh memory is full of rubbish."""
    n = len(images)
    placement = layout.placement(n)
    arena = np.full(placement.arena_bytes, 0xA5, np.uint8)
    results = [
        np.full((n, *array_shape(kind)), 0xA5, DTYPES[kind.kind])
        if kind.kind != "f32"
        else np.full((n, *kind.shape), np.nan, np.float32)
        for kind in layout.output_types
    ]

    def memory(storage, kind):
        place = placement.places[storage]
        if place.kind == "input":
            return images.reshape(n, *array_shape(kind))
        if place.kind == "output":
            return results[place.at].reshape(n, *array_shape(kind))
        assert place.at % ALIGNMENT == 0
        nbytes = n * bytes_per_image(kind)
        piece = arena[place.at : place.at + nbytes]
        assert len(piece) == nbytes
        return piece.view(DTYPES[kind.kind]).reshape(n, *array_shape(kind))

    for step in layout.steps:
        x = opened(memory(step.source, step.source_type).copy(), step.source_type)
        value = closed(step_result(step, x), step.result_type).reshape(n, *array_shape(step.result_type))
        memory(step.result, step.result_type)[...] = value
    for storage, index in layout.copies:
        results[index][...] = memory(storage, layout.output_types[index])
    return dict(zip(layout.outputs, results, strict=True))


@pytest.mark.parametrize("case", QUICK)
def test_steps_compute_the_values(case):
    graph, images = case.graph, case.inputs()
    if len(images) == 0:
        return
    expected = evaluate_slowly(graph, images)
    bits = [name for name, value in graph.types.items() if value.kind == "bits"]
    for taps in ([], bits, list(graph.types)):
        layout = make_layout(graph, tuple(dict.fromkeys((graph.output, *taps))))
        got = run(layout, images)
        assert set(got) == {graph.output, *taps}
        for name, value in got.items():
            assert_equal(graph, name, value, expected[name], f"{len(taps)} taps")
