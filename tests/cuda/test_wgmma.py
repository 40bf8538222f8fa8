"""The wgmma kernels on the simulated GPU: edges and loops of tiles, rings that go round, every plan and output.

test_methods.py has the cases that all methods share; here blocks of threads are fewer than tiles, as on a GPU.
"""

from __future__ import annotations

import machine_code as mc
import numpy as np
import pytest
from block_cases import Case, convolution, dense, output_shape
from machine import Machine

from binarynet.cuda.methods import wgmma
from binarynet.cuda.methods.wgmma import Wgmma

pytest.importorskip("cuda.bindings.nvrtc", reason="kernels are compiled with NVRTC (extra cuda)")
HOPPER = (9, 0)
DTYPES = {"i32": np.int32, "bits": np.uint64, "f32": np.uint32}


def check(case: Case, schedule, multiprocessors: int) -> None:
    machine, block, method = Machine(HOPPER, schedule), case.block(), Wgmma()
    assert method.why_not(block, HOPPER) == ""
    prepared = {name: machine.upload(array) for name, array in method.prepare(block).items()}
    dtype, shape = np.dtype(DTYPES[case.output]), output_shape(case)
    result = machine.allocate(int(np.prod(shape)) * dtype.itemsize)
    launch = method.launch(block, case.batch, machine.upload(case.images()), result, prepared)
    machine.run(launch.fitted(multiprocessors))
    assert np.array_equal(machine.download(result, shape, dtype), case.expected().view(dtype))


@pytest.mark.parametrize(
    ("case", "schedule", "multiprocessors"),
    [
        (dense("bits", 1024, 128, 128, "bits"), "early", 1),
        (dense("bits", 1152, 129, 129, "i32"), "late", 132),
        (dense("bits", 896, 127, 127, "f32"), "late", 132),
        (dense("bits", 128, 1, 1, "bits"), 1, 132),
        (dense("bits", 6144, 65, 63, "bits"), "late", 1),
        (dense("bits", 2176, 200, 300, "bits"), 2, 2),
        (dense("bits", 128, 130, 257, "i32", operands="ones"), "early", 1),
        (dense("bits", 640, 66, 130, "bits", operands="opposite"), "early", 132),
    ],
    ids=lambda value: getattr(value, "name", str(value)),
)
def test_dense(case, schedule, multiprocessors):
    check(case, schedule, multiprocessors)


@pytest.mark.parametrize("output", ["bits", "i32", "f32"])
@pytest.mark.parametrize(
    ("columns", "resident", "stages", "schedule"),
    [(256, True, 3, "late"), (256, False, 4, 4), (128, True, 8, 5), (128, False, 3, "late"), (256, False, 3, "early")],
)
def test_plans_of_dense_layers(monkeypatch, columns, resident, stages, schedule, output):
    """Four stages of K, the last one partial; two tiles each of rows and channels for two blocks of threads."""
    monkeypatch.setattr(wgmma, "_plan", lambda *sizes: wgmma._Plan(columns, resident, stages, 0))
    check(dense("bits", 3456, columns + 45, 190, output), schedule, 2)


@pytest.mark.parametrize("resident", [True, False])
def test_ones_are_counted_when_the_rows_change(monkeypatch, resident):
    """Eighteen tiles of rows and two of channels for four blocks of threads: rows change within a band and between
    bands, or stay."""
    monkeypatch.setattr(wgmma, "_plan", lambda *sizes: wgmma._Plan(128, resident, 3, 0))
    check(dense("bits", 128, 140, 17 * 128 + 5, "bits"), "late", 4)


@pytest.mark.parametrize(
    "case",
    [
        convolution("bits", (4, 5), 64, (4, 5), 70, 3, "bits"),
        convolution("bits", (6, 7), 256, (1, 1), 70, 3, "bits"),
    ],
    ids=["the whole image", "one pixel"],
)
def test_windows_that_are_rows_of_words(case):
    check(case, "late", 132)


@pytest.mark.parametrize(
    ("case", "schedule", "multiprocessors"),
    [
        (convolution("bits", (8, 8), 128, (3, 3), 128, 3, "bits", padding=(1, 1)), "late", 1),
        (convolution("bits", (9, 17), 128, (3, 3), 101, 2, "i32", padding=(1, 1)), "early", 2),
        (convolution("bits", (16, 16), 256, (3, 3), 256, 2, "bits", padding=(1, 1)), 1, 3),
        (convolution("bits", (7, 6), 384, (3, 3), 5, 3, "f32", padding=(1, 1)), "late", 132),
        (convolution("bits", (8, 8), 512, (3, 3), 512, 3, "bits", padding=(1, 1)), "late", 2),
        (convolution("bits", (12, 11), 128, (5, 5), 129, 1, "i32", padding=(2, 2)), 2, 132),
        (convolution("bits", (10, 10), 256, (2, 3), 300, 1, "f32", padding=(0, 2)), 3, 4),
        (convolution("bits", (5, 16), 256, (5, 5), 330, 2, "i32"), 679, 132),
        (convolution("bits", (5, 5), 256, (2, 2), 64, 2, "bits", padding=(1, 1)), "late", 1),
        (convolution("bits", (8, 8), 256, (3, 3), 192, 2, "i32", padding=(1, 1), operands="ones"), 4, 1),
    ],
    ids=lambda value: getattr(value, "name", str(value)),
)
def test_convolution(case, schedule, multiprocessors):
    check(case, schedule, multiprocessors)


@pytest.mark.parametrize("schedule", ["early", "late", 9])
def test_more_patches_than_stages(schedule):
    """Every consumer goes round the ring several times."""
    check(convolution("bits", (17, 24), 128, (3, 3), 64, 4, "bits", padding=(1, 1)), schedule, 1)


@pytest.mark.parametrize("variant", wgmma.VARIANTS, ids=mc.describe)
def test_registers_go_from_the_producer_to_the_consumers(variant):
    """Where the assembler ignores setmaxnreg, consumers have too few registers for their accumulators."""
    (kernel,) = mc.kernels(variant.source, "90a", variant.defines).values()
    assert sorted(kernel.count("USETMAXREG")) == ["USETMAXREG.DEALLOC.CTAPOOL", "USETMAXREG.TRY_ALLOC.CTAPOOL"]
    assert (
        sum(kernel.count("BGMMA").values()) == sum(kernel.count("BGMMA.*AND.POPC").values()) == kernel.one_bit_products
    )
