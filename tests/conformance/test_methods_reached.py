"""The quick cases reach every method that an engine of this machine chooses: none drops out of the suite unnoticed."""

import itertools

from conformance_cases import CASES

from binarynet.analysis import random_convnet
from binarynet.runtime import REFERENCE, Session, engines
from random_graphs import dense_graph

ENGINES = [engine.name for engine in engines() if engine.available and engine.name != REFERENCE]
QUICK = [case for case in CASES if not case.slow]
BATCHES = (1, 2, 7, 23, 24, 33, 100, 130, 300, 1000)
CHANNELS = (10, 64, 130, 512, 1024)


def methods(session, batch):
    """Pairs of a layer's kind and a method."""
    steps = [step for step in session.plan(batch).steps if step.kind == "block"]
    return {(type(session.graph.node(step.name)).__name__, step.method) for step in steps}


def shapes():
    """First layers, convolutions and dense layers, narrow and wide, with few and many taps."""
    for channels, colours in itertools.product(CHANNELS, (1, 3)):
        yield random_convnet((4, 4, colours), [[channels, channels]], [channels, channels])
    for channels, features in itertools.product(CHANNELS, (15, 200)):
        yield dense_graph(features, channels, 10)


def reached():
    """By engine: what the quick cases run, fused as for prediction."""
    found = {engine: set() for engine in ENGINES}
    for case in QUICK:
        graph, batch = case.graph, len(case.inputs())
        for engine in ENGINES if batch else ():
            found[engine] |= methods(Session(graph, engine=engine, num_threads=1), batch)
    return found


def chosen(engine):
    """What an engine chooses for the shapes, at some batches."""
    sessions = [Session(graph, engine=engine, num_threads=1) for graph in shapes()]
    return {pair for session in sessions for batch in BATCHES for pair in methods(session, batch)}


def test_the_cases_reach_every_method_of_every_engine():
    found = reached()
    for engine in ENGINES:
        wanted = chosen(engine)
        assert {layer for layer, _ in wanted} == {"Convolution", "Dense"}
        assert len({method for _, method in wanted}) >= 2, "a first layer and one of bits differ at least"
        missing = wanted - found[engine]
        assert not missing, f"{engine}: no quick case of conformance_cases.py runs {sorted(missing)}"
