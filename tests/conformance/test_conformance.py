"""Every case through torch, the reference and every engine: all sums, bits and scores equal, bit for bit."""

import functools

import numpy as np
import pytest
import torch
from conformance_cases import CASES
from conformance_oracle import assert_equal, evaluate_slowly

from binarynet.graph import evaluate
from binarynet.lowering import torch_source
from binarynet.runtime import REFERENCE, Session, engines

ENGINES = [
    pytest.param(engine.name, marks=[] if engine.available else pytest.mark.skip(reason=engine.why_not), id=engine.name)
    for engine in engines()
    if engine.name != REFERENCE
]
MARKED = [pytest.param(case, id=case.name, marks=pytest.mark.slow if case.slow else []) for case in CASES]


@functools.lru_cache(maxsize=4)
def expected_values(case):
    """The oracle's values, once per case and process."""
    return evaluate_slowly(case.graph, case.inputs())


@pytest.mark.parametrize("case", MARKED)
def test_the_reference_and_torch_equal_the_oracle(case):
    graph, images, expected = case.graph, case.inputs(), expected_values(case)
    reference = evaluate(graph, images, list(graph.types))
    for name in graph.types:
        assert_equal(graph, name, reference[name], expected[name], REFERENCE)
    if case.network is None:
        return
    recorded = torch_source(case.lowered)(images, list(graph.types))
    assert graph.output in recorded
    for name, value in recorded.items():
        assert_equal(graph, name, value, expected[name], "torch")
    # and the module itself, without any trace between
    tensor = torch.from_numpy(images)
    with torch.no_grad():
        direct = case.network(tensor.permute(0, 3, 1, 2) if tensor.ndim == 4 else tensor).numpy()
    if direct.ndim == 4:
        direct = direct.transpose(0, 2, 3, 1)
    assert np.array_equal(direct, expected[graph.output])


@pytest.mark.parametrize("case", MARKED)
@pytest.mark.parametrize("engine", ENGINES)
def test_an_engine_equals_the_oracle(engine, case):
    graph, images, expected = case.graph, case.inputs(), expected_values(case)
    bits = [name for name, value in graph.types.items() if value.kind == "bits"]
    # fused as for prediction; fused, with every layer's bits; unfused, with every value
    for taps in ([], bits, list(graph.types)):
        for num_threads in (1, 2):
            session = Session(graph, taps=taps, engine=engine, num_threads=num_threads)
            assert (session.engine, session.num_threads) == (engine, num_threads)
            got = session.run_tapped(images)
            assert set(got) == {graph.output, *taps}
            for name, value in got.items():
                assert_equal(graph, name, value, expected[name], f"{engine}, {num_threads} threads, {len(taps)} taps")


def test_names_of_cases_are_distinct():
    assert len({case.name for case in CASES}) == len(CASES)
