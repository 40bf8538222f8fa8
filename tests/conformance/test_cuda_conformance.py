"""Cases through every engine of a GPU: equal to the oracle, bit for bit.

Simulated GPUs take a telling part of the cases, a real one all of them. Every session runs three times, with other
images in the same memory, so that kernels are started, recorded as a graph, and replayed.
"""

import functools

import numpy as np
import pytest
from conformance_cases import CASES
from conformance_oracle import assert_equal, evaluate_slowly
from simulated_gpu import CAPABILITIES
from simulated_sessions import GpuArray, simulated_product

from binarynet.cuda import choice
from binarynet.runtime import Session, engines

BY_NAME = {case.name: case for case in CASES}
TELLING = [
    BY_NAME[name]
    for name in (
        "extreme thresholds",
        "signed zeros",
        "every tie 65",
        "pooled twice 65",
        "flattened bits 65",
        "the input is the result",
        "mlp batch 0",
        "mlp batch 64",
        "conv batch 7",
        "correlated conv 127",
        "conv (3, 3) stride (2, 2) padding (2, 2) 129 to 10",
        "first conv (3, 3) stride (2, 2) 65 to 129",
        "pool 3x3 stride 2 padding 1 of sums 65 to 64",
        "pool 2x2 stride 1 of bits 128 to 129",
        "one dense layer 256 to 65",
        "pooled bits input 65",
        *(f"random graph {i}" for i in range(0, 60, 12)),
        *(f"random bits graph {i}" for i in range(0, 20, 7)),
    )
]
FORCED = [
    BY_NAME[name]
    for name in (
        "conv 3x3 128 to 100",
        "pool 2x2 of sums 128 to 129",
        "pool 2x3 stride 3x1 padding 1x0 of bits 128 to 129",
        "one dense layer 256 to 65",
        "one dense layer 1024 to 256",
        "first conv 3x3 stride 1 3 to 112",
        "mlp batch 2",
    )
]
"""For methods that prefer larger layers: here they take what they can."""
SIMULATED = [
    (f"cuda:{ordinal}", engine)
    for ordinal, capability in enumerate(CAPABILITIES)
    for engine in choice.ENGINES
    if not choice.why_not(engine, capability)
]
reached: set[str] = set()


@functools.lru_cache(maxsize=4)
def expected_values(case):
    return evaluate_slowly(case.graph, case.inputs())


def run_case(case, device, engine):
    """Fused as for prediction, with every layer's bits, with every value; arrays of the host and of the GPU."""
    graph, images, expected = case.graph, case.inputs(), expected_values(case)
    bits = tuple(name for name, value in graph.types.items() if value.kind == "bits")
    ordinal = int(device.partition(":")[2] or 0)
    backwards = slice(None, None, -1)
    for taps in ((), bits, tuple(graph.types)):
        session = Session(graph, taps=taps, engine=engine, device=device)
        assert session.engine == engine
        there = [GpuArray(images, ordinal, stream=1), GpuArray(images[backwards], ordinal, stream=1)]
        for i, order in enumerate((slice(None), backwards, slice(None))):
            for source, given in (("host", images[order]), ("GPU", there[i % 2])):
                got = session.run_tapped(given)
                assert set(got) == {graph.output, *taps}
                for name, value in got.items():
                    who = f"{engine} on {device}, {len(taps)} taps, run {i}, images of the {source}"
                    assert_equal(graph, name, np.asarray(value), expected[name][order], who)
        for array in there:
            array.free()
        if len(images):
            reached.update(step.method for step in session.plan(len(images)).steps)


@pytest.fixture(scope="module", params=["late", 1])
def simulated(request):
    with simulated_product(schedule=request.param):
        yield


@pytest.mark.parametrize(("device", "engine"), SIMULATED)
@pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in TELLING])
def test_an_engine_of_a_simulated_gpu_equals_the_oracle(simulated, device, engine, case):
    run_case(case, device, engine)


@pytest.mark.parametrize(("device", "engine"), [pair for pair in SIMULATED if pair[1] in ("cuda_wgmma", "cuda_mma")])
@pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in FORCED])
def test_methods_for_large_layers_compute_small_ones(simulated, monkeypatch, device, engine, case):
    least, greatest, *methods = choice._ENGINES[engine]
    anything = tuple(tuple((name, lambda block, batch: True) for name, _ in names) for names in methods)
    monkeypatch.setitem(choice._ENGINES, engine, (least, greatest, *anything))
    before = set(reached)
    reached.clear()
    run_case(case, device, engine)
    blocks = reached & {"wgmma", "mma", "bytes_mma"}
    reached.update(before)
    assert blocks, "no method for large layers was used"
    if case.graph.input.kind == "bits" and engine == "cuda_wgmma":
        assert blocks == {"wgmma"}


@pytest.mark.gpu
@pytest.mark.parametrize("case", [pytest.param(c, id=c.name, marks=pytest.mark.slow if c.slow else []) for c in CASES])
def test_the_engines_of_a_gpu_equal_the_oracle(case):
    usable = [engine.name for engine in engines("cuda") if engine.available]
    assert usable, engines("cuda")[0].why_not
    for engine in usable:
        run_case(case, "cuda", engine)
