"""Weights that lie on the device: laid out there, they are what every method makes of them on the host."""

from __future__ import annotations

from dataclasses import replace

import block_cases
import numpy as np
import pytest
from machine import Machine, SimulationError

from binarynet.cuda import operands
from binarynet.cuda.blocks import Block
from binarynet.cuda.methods import METHODS
from binarynet.errors import UsageError

HOPPER = (9, 0)
CASES = [case for case in block_cases.ALL if case.input == "bits" and not case.slow]
EXTRA = [
    block_cases.convolution("bits", (9, 10), 128, (3, 3), 70, 2, "i32", padding=(1, 1)),
    block_cases.convolution("bits", (6, 5), 384, (2, 2), 130, 1, "i32", padding=(0, 1)),
    block_cases.dense("bits", 2048, 130, 140, "i32"),
]


def pairs():
    """Every method with every block that it takes, as sums."""
    for case in (*CASES, *EXTRA):
        for name, method in METHODS.items():
            if not method.why_not(sums_of(case), HOPPER):
                yield pytest.param(name, case, id=f"{name}-{case.name}")


def sums_of(case):
    nothing = {"thresholds": None, "falling": None, "scale": None, "shift": None}
    return replace(case.block(), output="i32", **nothing)


class OnMachine:
    """A layout and its operands in a machine's memory."""

    def __init__(self, layout, block, images, capability=HOPPER, schedule="early"):
        self.machine = machine = Machine(capability, schedule)
        self.layout = layout
        self.constants = {name: machine.upload(array) for name, array in layout.constants.items()}
        self.scratch = machine.allocate(max(layout.scratch_bytes, 1))
        self.weights, self.source = machine.upload(block.weights), machine.upload(images)
        self.rows = block.rows(len(images))
        self.out_channels = block.out_channels
        self.result = machine.allocate(4 * self.rows * block.out_channels)
        self.launches = layout.launches(
            len(images), self.source, self.weights, self.result, self.constants, self.scratch
        )

    def run(self):
        for launch in self.launches:
            self.machine.run(launch)
        return self.machine.download(self.result, (self.rows, self.out_channels), np.int32)

    def made(self, name, like):
        """An array that the launches made."""
        places = list(self.layout.made)
        before = sum(-(-self.layout.made[each] // 256) * 256 for each in places[: places.index(name)])
        return self.machine.download(self.scratch + before, like.shape, like.dtype)


@pytest.mark.parametrize(("name", "case"), list(pairs()))
def test_what_the_device_makes_is_what_the_host_prepares(name, case):
    method, block = METHODS[name], sums_of(case)
    layout = operands.layout(method, replace(block, weights=np.zeros_like(block.weights)))
    device = OnMachine(layout, block, case.images())
    for launch in device.launches[:-1]:
        device.machine.run(launch)
    prepared = method.prepare(block)
    assert prepared.keys() == (layout.constants.keys() - {"index", "parts"}) | layout.made.keys() | {"weights"}
    for key, array in prepared.items():
        if key in layout.made:
            assert np.array_equal(device.made(key, array), array), key
        elif key == "weights":
            assert array.tobytes() == block.weights.tobytes()
        else:
            assert np.array_equal(layout.constants[key], array), key


@pytest.mark.parametrize(("name", "case"), list(pairs()))
def test_products_of_two_operands_of_the_device(name, case):
    block = sums_of(case)
    layout = operands.layout(METHODS[name], block)
    found = OnMachine(layout, block, case.images(), schedule=3).run()
    expected = replace(case, output="i32").expected()  # the same operands: they are drawn from the name
    assert np.array_equal(found, expected.reshape(found.shape))


def test_nothing_of_the_weights_is_kept():
    block = sums_of(CASES[0])
    ones = operands.layout(METHODS["popcount"], replace(block, weights=~block.weights))
    zeros = operands.layout(METHODS["popcount"], replace(block, weights=np.zeros_like(block.weights)))
    assert not ones.block.weights.any()
    for name, array in ones.constants.items():
        assert np.array_equal(array, zeros.constants[name])


def test_too_many_weights_are_refused():
    many = np.broadcast_to(np.uint64(0), (1 << 20, 1, 1, 1 << 11))
    block = Block("bits", 1, 1, 1 << 17, (1, 1), (1, 1), (0, 0), many)
    with pytest.raises(UsageError, match=r"weights \[1048576, 1, 1, 2048\] of 64-bit words: at most 2147483647"):
        operands.layout(METHODS["popcount"], block)


def test_a_result_without_room_is_noticed():
    """The simulator would see it: nothing is written beyond the result."""
    case = EXTRA[0]
    block = sums_of(case)
    device = OnMachine(operands.layout(METHODS["popcount"], block), block, case.images())
    short = device.machine.allocate(4 * device.rows * device.out_channels - 4)
    *before, product = device.layout.launches(
        len(case.images()), device.source, device.weights, short, device.constants, device.scratch
    )
    for launch in before:
        device.machine.run(launch)
    with pytest.raises(SimulationError, match="illegal address"):
        device.machine.run(product)
