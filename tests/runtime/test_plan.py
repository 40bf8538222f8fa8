"""Plans: what a session says that it does at a batch, and the time of each step."""

import json
import signal
from dataclasses import replace
from time import perf_counter

import numpy as np
import pytest

from binarynet.errors import ShapeError, UsageError
from binarynet.runtime import MethodRange, Plan, Session, Step, engines, method_ranges
from random_graphs import dense_graph, image_graph, random_images

NATIVE = [engine.name for engine in engines() if engine.available and engine.name != "reference"]
each_engine = pytest.mark.parametrize("engine", NATIVE)


@each_engine
def test_every_value_is_computed_once(engine):
    graph = image_graph()
    session = Session(graph, engine=engine, num_threads=2)
    plan = session.plan(7)
    values = [value for step in plan.steps for value in step.values]
    assert len(values) == len(set(values))
    assert set(values) <= set(graph.types)
    assert values[-1] == graph.output
    assert plan.steps[0].values == ("conv1", "pool1", "sign1")
    assert plan.steps[0].name == "conv1"
    assert (plan.engine, plan.why_engine) == (engine, "asked for")
    assert (plan.num_threads, plan.batch, plan.num_chunks, plan.chunk) == (2, 7, 1, 7)
    assert plan.weight_bytes == sum(step.weight_bytes for step in plan.steps) > 0
    assert plan.workspace_bytes >= plan.arena_bytes + plan.scratch_bytes
    assert all(step.method and step.why_threads for step in plan.steps)
    assert all(1 <= step.threads <= step.tasks <= step.units for step in plan.steps)
    assert plan.steps[0].in_bytes == 7 * graph.types["input"].num_elements


@each_engine
def test_taps_are_steps_of_their_own(engine):
    kinds = [step.kind for step in Session(image_graph(), engine=engine, taps=["conv1", "pool1"]).plan().steps]
    assert kinds[:3] == ["block", "max_pool", "threshold"]


@each_engine
def test_large_batches_are_cut_into_chunks(engine):
    plan = Session(dense_graph(), engine=engine, num_threads=1).plan(5000)
    assert plan.num_chunks > 1
    assert (plan.num_chunks - 1) * plan.chunk < 5000 <= plan.num_chunks * plan.chunk
    assert {step.threads for step in plan.steps} == {1}
    assert {step.why_threads for step in plan.steps} == {"the session has one thread"}


def test_why_an_engine(monkeypatch):
    assert Session(dense_graph()).plan().why_engine == "the best that can be used here"
    monkeypatch.setenv("BINARYNET_FORCE_ISA", "portable")
    plan = Session(dense_graph()).plan()
    assert (plan.engine, plan.why_engine) == ("portable", "named by BINARYNET_FORCE_ISA")


def test_a_plan_is_json():
    plan = Session(image_graph()).plan(3)
    again = json.loads(json.dumps(plan.to_dict()))
    steps = tuple(Step(**{**step, "values": tuple(step["values"])}) for step in again.pop("steps"))
    assert Plan(**again, steps=steps) == plan


@pytest.mark.parametrize("batch", [0, -1, 1.5, "2", True, None, 2**70])
def test_batches_of_plans_are_numbers_from_one(batch):
    with pytest.raises(UsageError, match=r"batch must be an integer from 1 to [\d,]+, got "):
        Session(dense_graph()).plan(batch)


@each_engine
@pytest.mark.parametrize("num_threads", [1, 2])
def test_profiles_time_every_step(engine, num_threads):
    graph = image_graph()
    session = Session(graph, engine=engine, num_threads=num_threads)
    images = random_images(np.random.default_rng(0), 9, graph.input.shape)
    times = session.profile(images[::-1], repeats=3)
    assert [time.step for time in times] == list(session.plan(9).steps)
    for time in times:
        assert len(time.nanoseconds) == 3
        assert min(time.nanoseconds) > 0
        assert time.median == sorted(time.nanoseconds)[1]


@each_engine
def test_profiles_go_through_every_chunk(engine):
    graph = dense_graph()
    session = Session(graph, taps=["input"], engine=engine, num_threads=1)
    images = random_images(np.random.default_rng(0), 2500, graph.input.shape)
    assert session.plan(2500).num_chunks == 3
    few, many = session.profile(images[:2], repeats=3), session.profile(images, repeats=3)
    assert all(min(b.nanoseconds) > min(a.nanoseconds) for a, b in zip(few, many, strict=True))


@pytest.mark.parametrize(("batch", "repeats"), [(1_000_000, 1), (1, 1_000_000)])
def test_profiles_can_be_interrupted(batch, repeats):
    session = Session(dense_graph(k=1, hidden=20_000, classes=1), engine="portable", num_threads=1)

    def stop(number, frame):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    start = perf_counter()
    try:
        with pytest.raises(KeyboardInterrupt):
            session.profile(np.zeros((batch, 1), np.uint8), repeats)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert perf_counter() - start < 2


def test_what_cannot_be_profiled():
    graph = dense_graph()
    session = Session(graph)
    images = random_images(np.random.default_rng(0), 2, graph.input.shape)
    with pytest.raises(UsageError, match="repeats must be an integer from 1"):
        session.profile(images, repeats=0)
    with pytest.raises(UsageError, match="batch must be an integer from 1 to"):
        session.profile(images[:0])
    with pytest.raises(ShapeError, match="images: expected"):
        session.profile(images[:, :1])


def test_the_reference_has_no_plan():
    session = Session(dense_graph(), engine="reference")
    for ask in (session.plan, lambda: session.profile(np.zeros((1, 70), np.uint8))):
        with pytest.raises(UsageError, match="the engine 'reference' has no plan"):
            ask()


def test_where_methods_change():
    base = Session(dense_graph(), num_threads=1).plan(1)
    first, second, *_ = base.steps

    def plan_of(batch):
        many = replace(first, method="many" if batch >= 5 else "few")
        return replace(base, batch=batch, num_chunks=1 + (batch > 8), steps=(many, replace(second, method="any")))

    expected = (
        MethodRange(first.name, 1, "few"),
        MethodRange(first.name, 5, "many"),
        MethodRange(second.name, 1, "any"),
    )
    assert method_ranges(plan_of, 8) == method_ranges(plan_of, 100) == expected
    assert method_ranges(plan_of, 4) == (expected[0], expected[2])


@each_engine
def test_methods_of_an_engine(engine):
    session = Session(image_graph(), engine=engine)
    found = method_ranges(session.plan, 40)
    assert [item.step for item in found if item.first_batch == 1] == [step.name for step in session.plan(1).steps]
    for item in found:
        step = next(step for step in session.plan(item.first_batch).steps if step.name == item.step)
        assert step.method == item.method
