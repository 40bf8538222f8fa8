"""Every method on every case that it can compute, run by the simulated GPU: the reference's integers, every element
written, and nothing else."""

import numpy as np
import pytest
from block_cases import ALL, Case, output_shape
from machine import Machine, SimulationError

from binarynet.cuda.methods import METHODS, baseline, bytes_dp4a, popcount
from binarynet.encoding import to_signs
from binarynet.errors import UsageError

DTYPES = {"i32": np.int32, "bits": np.uint64, "f32": np.uint32}
"""Scores are compared as they are stored, bit by bit."""
WAYS = (((9, 0), "late"), ((8, 0), "early"), ((7, 5), 1))
"""Capabilities and schedules: the first for every case, the others in turns."""
ALIGNMENT = 16
"""Of the addresses that kernels are given."""
CASES = {case.name: case for case in ALL}


def pairs():
    for method in METHODS.values():
        for i, case in enumerate(ALL):
            for capability, schedule in (WAYS[0], WAYS[1 + i % 2]):
                if not method.why_not(case.block(), capability):
                    name = f"{method.name}-{capability[0]}{capability[1]}-{case.name}"
                    marks = [pytest.mark.slow] if case.slow else []
                    yield pytest.param(method, case, capability, schedule, marks=marks, id=name)


def launched(machine: Machine, method, case: Case) -> np.ndarray:
    """What the kernel writes to memory that nothing wrote before. Nothing is more aligned than kernels may expect."""
    block, shape, dtype = case.block(), output_shape(case), np.dtype(DTYPES[case.output])
    prepared = {name: misaligned(machine, array) for name, array in method.prepare(block).items()}
    source = misaligned(machine, case.images())
    memory = machine.allocate(ALIGNMENT + int(np.prod(shape)) * dtype.itemsize)
    machine.run(method.launch(block, case.batch, source, memory + ALIGNMENT, prepared))
    for before in range(0, ALIGNMENT, 4):
        with pytest.raises(SimulationError, match="uninitialized"):
            machine.download(memory + before, 1, np.uint32)
    return machine.download(memory + ALIGNMENT, shape, dtype)


def misaligned(machine: Machine, array: np.ndarray) -> int:
    """Address of an array that begins 16 bytes into its memory, and ends with it."""
    content = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    return machine.upload(np.concatenate((np.full(ALIGNMENT, 0xA5, np.uint8), content))) + ALIGNMENT


def equal(found: np.ndarray, case: Case) -> None:
    expected = case.expected().view(found.dtype)
    different = np.argwhere(found != expected)
    assert not len(different), (
        f"{len(different)} of {expected.size} differ, first at {different[0].tolist()}: "
        f"{found[tuple(different[0])]} instead of {expected[tuple(different[0])]}"
    )


@pytest.mark.parametrize(("method", "case", "capability", "schedule"), list(pairs()))
def test_equals_the_reference(method, case, capability, schedule):
    equal(launched(Machine(capability, schedule), method, case), case)


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_every_method_meets_cases_of_every_output(method):
    outputs = {case.output for case in ALL if not method.why_not(case.block(), (9, 0))}
    assert outputs == {"i32", "bits", "f32"}


def test_every_block_can_be_computed_everywhere():
    for case in ALL:
        for capability in ((7, 5), (8, 0), (9, 0), (12, 0)):
            assert any(not method.why_not(case.block(), capability) for method in METHODS.values())


LARGER = [
    ("popcount", 4, 8, "popcount_tile_64", "bits-300to66-batch70-bits"),
    ("popcount", 5, 8, "popcount_tile_32", "bits-300to66-batch70-bits"),
    ("popcount", 3, 8, "popcount_tile_64", "bits-256to130-batch17-i32"),
    ("popcount", 1, 8, "popcount_tile_64", "bits-3x3x200to70-3x3-stride11-pad00-batch70-f32"),
    ("popcount", 1, 8, "popcount_tile_64", "bits-2x3x70to65-5x5-stride11-pad44-batch1-i32"),
    ("popcount", 5, 8, "popcount_tile_32", "bits-10x3x257to90-5x1-stride11-pad30-batch2-bits"),
    ("popcount", 264, 0, "popcount_tile_16", "bits-63to65-batch1-bits"),
    ("popcount", 264, 99, "popcount_dense_4", "bits-300to66-batch70-bits"),
    ("bytes_dp4a", 1, 8, "dp4a_tile_128", "u8-300to130-batch70-bits"),
    ("bytes_dp4a", 1, 8, "dp4a_tile_128", "u8-2x2x3to130-3x3-stride11-pad22-batch40-bits"),
    ("bytes_dp4a", 4, 8, "dp4a_tile_64", "u8-300to130-batch70-bits"),
    ("bytes_dp4a", 1, 8, "dp4a_tile_128", "u8-7x7x4to65-3x3-stride22-pad11-batch2-i32"),
    ("bytes_dp4a", 1, 0, "dp4a_tile_128", "u8-785to10-batch2-f32"),
    ("bytes_dp4a", 264, 99, "dp4a_dense_4", "u8-64to300-batch17-f32"),
]
"""Method, blocks of threads that count as enough, rows that count as few, kernel that is then chosen, case."""


@pytest.mark.parametrize(("name", "enough", "few", "kernel", "case"), LARGER)
def test_kernels_that_small_cases_would_not_choose(monkeypatch, name, enough, few, kernel, case):
    module, method, case = {"popcount": popcount, "bytes_dp4a": bytes_dp4a}[name], METHODS[name], CASES[case]
    monkeypatch.setattr(module, "ENOUGH_BLOCKS", enough)
    monkeypatch.setattr(module, "_STREAM_ROWS", few)
    prepared = dict.fromkeys(method.prepare(case.block()), 0)
    assert method.launch(case.block(), case.batch, 0, 0, prepared).kernel == kernel
    equal(launched(Machine((9, 0), "late"), method, case), case)


def test_tiles_shrink_where_there_are_few():
    block = CASES["bits-512to256-batch16-bits"].block()
    prepared = dict.fromkeys(METHODS["popcount"].prepare(block), 0)
    chosen = {batch: METHODS["popcount"].launch(block, batch, 0, 0, prepared) for batch in (1, 2, 8, 9, 2112, 4224)}
    assert [launch.kernel.removeprefix("popcount_") for launch in chosen.values()] == [
        *("dense_1", "dense_2", "dense_4"),
        *("tile_16", "tile_32", "tile_64"),
    ]
    assert chosen[2112].grid == (66 * 4, 1, 1)
    assert chosen[8].grid == (8, 2, 1)
    with pytest.raises(UsageError, match="split the batch"):
        METHODS["popcount"].launch(block, 1 << 31, 0, 0, prepared)


def test_float_product():
    rng = np.random.default_rng(0)
    a, b = (to_signs(rng.integers(0, 2, shape).astype(bool), np.float32) for shape in ((21, 50), (50, 37)))
    machine = Machine((8, 0))
    result = machine.allocate(21 * 37 * 4)
    machine.run(baseline.plain_product(21, 37, 50, machine.upload(a), machine.upload(b), result))
    assert np.array_equal(machine.download(result, (21, 37), np.float32), a @ b)
    with pytest.raises(UsageError, match="rows"):
        baseline.plain_product(1 << 20, 37, 50, 0, 0, 0)
