"""Sessions on a GPU, arrays of the host: results, chunks, graphs, threads, plans, and who may ask for what."""

import copy
import pickle
import threading

import numpy as np
import pytest
from conformance_oracle import assert_equal, evaluate_slowly
from simulated_sessions import simulated_product

from binarynet.errors import BackendUnavailableError, ShapeError, UsageError
from binarynet.graph import Graph, evaluate
from binarynet.runtime import REFERENCE, Session, engines, verify
from binarynet.runtime import cuda_session as room
from random_graphs import image_graph, random_images


@pytest.fixture(params=["early", "late", 7])
def gpus(request):
    with simulated_product(schedule=request.param) as control:
        yield control


@pytest.fixture
def gpu():
    with simulated_product(schedule="late") as control:
        yield control


@pytest.fixture(scope="module")
def graph() -> Graph:
    return image_graph()


def images_of(graph, batch, seed=0):
    return random_images(np.random.default_rng(seed), batch, graph.input.shape)


def usable(device="cuda"):
    return [engine.name for engine in engines(device) if engine.available]


def require_equal(graph, got, images):
    expected = evaluate_slowly(graph, images)
    for name, value in got.items():
        assert_equal(graph, name, value, expected[name], "GPU")


@pytest.mark.parametrize("taps", ["none", "bits", "all"])
def test_every_engine_computes_the_same_again_and_again(gpus, graph, taps):
    """The first run starts kernels, the second records a graph, the others replay it with other images."""
    names = {"none": (), "bits": [n for n, v in graph.types.items() if v.kind == "bits"], "all": tuple(graph.types)}
    for engine in usable():
        session = Session(graph, engine=engine, taps=names[taps])
        for seed in range(4):
            images = images_of(graph, 3, seed)
            require_equal(graph, session.run_tapped(images), images)
    assert gpus.count("graph_launches") >= 3 * len(usable())


def test_batches_of_any_size(gpus, graph):
    session = Session(graph, device="cuda")
    for batch in (0, 1, 5, 2, 33, 1, 0, 5):
        images = images_of(graph, batch, batch)
        scores = session.run(images)
        assert (scores.dtype, scores.shape) == (np.float32, (batch, 4))
        assert scores.tobytes() == evaluate(graph, images)["scores"].tobytes()


def test_chunks_are_bounded_and_the_result_is_the_same(gpus, graph, monkeypatch):
    monkeypatch.setattr(room, "_MOST_CHUNK", 4)
    session = Session(graph, device="cuda", taps=["sign1"])
    assert session.plan(11).num_chunks == 3
    for seed in range(3):
        images = images_of(graph, 11, seed)
        require_equal(graph, session.run_tapped(images), images)


def test_a_chunk_takes_at_most_a_quarter_of_the_free_memory(graph):
    with simulated_product(memory_bytes=1 << 20) as control:
        session = Session(graph, device="cuda")
        plan = session.plan(1 << 16)
        assert 1 < plan.chunk < 1 << 12
        assert plan.arena_bytes <= (1 << 20) // 4
        images = images_of(graph, 50)
        require_equal(graph, {"scores": session.run(images)}, images)
        assert control.alive()["bytes"] <= 1 << 20


def test_out_is_filled_and_returned(gpu, graph):
    session = Session(graph, device="cuda")
    images = images_of(graph, 5)
    out = np.empty((5, 4), np.float32)
    assert session.run(images, out) is out
    require_equal(graph, {"scores": out}, images)
    refused = {
        "float32 [5, 4], got float64 [5, 4]": np.empty((5, 4)),
        "float32 [5, 4], got float32 [4, 4]": np.empty((4, 4), np.float32),
        "C-contiguous, aligned and may be written": np.empty((4, 5), np.float32).T,
        "a NumPy array without a mask, got list": [0.0],
    }
    for text, wrong in refused.items():
        with pytest.raises(UsageError) as error:
            session.run(images, wrong)
        assert text in str(error.value)


def test_images_that_are_no_batch_are_refused_as_on_the_cpu(gpu, graph):
    session = Session(graph, device="cuda")
    for wrong in (np.zeros((2, 6, 5, 3)), np.zeros((2, 6, 5), np.uint8), np.ma.zeros((2, 6, 5, 3), np.uint8)):
        with pytest.raises(ShapeError) as on_gpu:
            session.run(wrong)
        with pytest.raises(ShapeError) as on_cpu:
            Session(graph, engine="portable").run(wrong)
        assert str(on_gpu.value) == str(on_cpu.value)


def test_images_that_are_views_are_copied_right(gpu, graph):
    session = Session(graph, device="cuda")
    images = images_of(graph, 8)
    for view in (images[::2], images[::-1], np.asfortranarray(images)):
        require_equal(graph, {"scores": session.run(view)}, np.ascontiguousarray(view))


def test_threads_run_at_the_same_time(gpus, graph):
    session = Session(graph, device="cuda", taps=["conv2"])
    wrong = []

    def work(seed):
        try:
            for i in range(3):
                images = images_of(graph, 1 + seed % 3, 100 * seed + i)
                got, expected = session.run_tapped(images), evaluate(graph, images, ["scores", "conv2"])
                if any(got[name].tobytes() != expected[name].tobytes() for name in expected):
                    wrong.append((seed, i))
        except BaseException as error:
            wrong.append((seed, error))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_nothing_stays_behind(graph):
    with simulated_product() as control:
        session = Session(graph, device="cuda")
        session.run(images_of(graph, 3))
        before = control.alive()["allocations"]
        for _ in range(5):
            session.run(images_of(graph, 3))
        assert control.alive()["allocations"] == before
        del session
        alive = control.alive()
        for kind in ("allocations", "host", "streams", "events", "graphs"):
            assert alive.get(kind, 0) == 0, alive


def test_graphs_and_workspaces_are_bounded(gpu, graph):
    session = Session(graph, device="cuda")
    for _ in range(2):
        for batch in range(1, 25):
            session.run(images_of(graph, batch))
    assert gpu.alive()["graphs"] <= 5 * 16


def test_plan_and_profile(gpu, graph):
    for taps in ((), tuple(graph.types)):
        session = Session(graph, device="cuda", taps=taps)
        plan = session.plan(3)
        assert (plan.device, plan.engine, plan.batch, plan.num_chunks) == ("cuda:0", session.engine, 3, 1)
        assert {name for step in plan.steps for name in step.values} == set(graph.types) - {"input"}
        for step in plan.steps:
            assert step.grid.count(" x ") == 2
            assert 32 <= step.threads <= 1024
            assert step.kernel.endswith(".cu)")
        assert plan.weight_bytes == sum(step.weight_bytes for step in plan.steps) > 0
        times = session.profile(images_of(graph, 3), repeats=2)
        assert [time.step.name for time in times] == [step.name for step in plan.steps]
        assert all(len(time.nanoseconds) == 2 and min(time.nanoseconds) >= 0 for time in times)
    with pytest.raises(UsageError, match="batch must be an integer from 1"):
        session.plan(0)


def test_pooling_moves_behind_its_threshold(gpu, graph):
    steps = Session(graph, device="cuda").plan(1).steps
    assert [(step.kind, step.values) for step in steps[:3]] == [
        ("block", ("conv1", "sign1")),
        ("max_pool", ("pool1",)),
        ("block", ("conv2", "sign2")),
    ]
    assert steps[1].out_bytes < steps[0].out_bytes
    assert steps[-1].values == ("dense", "scores")


def test_copies_and_pickles_run_on_the_same_gpu(gpu, graph):
    session = Session(graph, device="cuda:1", taps=["sign2"])
    assert session.device == "cuda:1"
    images = images_of(graph, 2)
    for again in (copy.copy(session), pickle.loads(pickle.dumps(session))):
        assert (again.device, again.engine, again.taps) == ("cuda:1", session.engine, ("sign2",))
        require_equal(graph, again.run_tapped(images), images)


def test_every_gpu_computes_with_its_own_engines(gpu, graph):
    images = images_of(graph, 3)
    for device in ("cuda", "cuda:0", "cuda:1", "cuda:2"):
        for engine in usable(device):
            session = Session(graph, device=device, engine=engine)
            assert session.device == ("cuda:0" if device == "cuda" else device)
            require_equal(graph, {"scores": session.run(images)}, images)
        assert Session(graph, device=device).engine == usable(device)[0]


def test_verify_has_the_engines_of_the_first_gpu(gpu, graph):
    images = images_of(graph, 5)
    cpu = [engine.name for engine in engines() if engine.available and engine.name != REFERENCE]
    result = verify(graph, images, sums=True)
    assert result.engines == (*cpu, *usable())
    assert result.exact
    assert verify(graph, images, device="cuda:2").engines == tuple(usable("cuda:2"))
    assert verify(graph, images, device="cpu").engines == tuple(cpu)
    with pytest.raises(BackendUnavailableError, match="the device 'cuda:9' cannot be used here: there is no GPU"):
        verify(graph, images, device="cuda:9")


CONTRADICTIONS = [
    (
        {"device": "cpu", "engine": "cuda_popcount"},
        "engine 'cuda_popcount' runs on a GPU, the device asked for is the CPU",
    ),
    ({"device": "cuda", "engine": "portable"}, "engine 'portable' runs on the CPU, the device asked for is cuda"),
    ({"device": "cuda", "engine": "reference"}, "engine 'reference' runs on the CPU"),
    ({"device": "cuda", "num_threads": 2}, "a number of threads is for the CPU, this session runs on cuda:0"),
    ({"engine": "cuda_popcount", "num_threads": 2}, "a number of threads is for the CPU"),
    ({"device": "gpu"}, 'unknown device \'gpu\'; expected "cpu", "cuda" or "cuda:N"'),
    ({"device": "cuda:x"}, "unknown device 'cuda:x'"),
    ({"device": ""}, "unknown device ''"),
    (
        {"device": "cuda", "engine": "cuda_nonsense"},
        "unknown engine 'cuda_nonsense'; this build has: .*; on a GPU: cuda_",
    ),
    ({"engine": "cuda_nonsense"}, "unknown engine 'cuda_nonsense'"),
    ({"device": "cuda", "engine": "nonsense"}, "unknown engine 'nonsense'"),
]


@pytest.mark.parametrize(("arguments", "text"), CONTRADICTIONS)
def test_contradictory_arguments(gpu, graph, arguments, text):
    with pytest.raises(UsageError, match=text):
        Session(graph, **arguments)


@pytest.mark.parametrize("arguments", [{"device": "cuda:3"}, {"device": "cuda:3", "engine": "cuda_popcount"}])
def test_a_gpu_that_is_not_there(gpu, graph, arguments):
    with pytest.raises(BackendUnavailableError, match="there is no GPU of this number; there are: cuda:0 "):
        Session(graph, **arguments)


@pytest.mark.parametrize("arguments", [{"device": "cuda"}, {"engine": "cuda_popcount"}, {"device": "cuda:1"}])
def test_without_a_gpu(graph, arguments):
    with simulated_product(devices=0):
        with pytest.raises(BackendUnavailableError, match="cannot be used here: the driver finds no GPU"):
            Session(graph, **arguments)
        assert all(engine.why_not.startswith("the driver finds no GPU; nvidia-smi says") for engine in engines("cuda"))
        assert verify(graph, images_of(graph, 1)).exact  # with those of the CPU


def test_the_environment_variable_is_for_the_cpu(gpu, graph, monkeypatch):
    monkeypatch.setenv("BINARYNET_FORCE_ISA", "portable")
    assert Session(graph, device="cuda").engine == usable()[0]
    monkeypatch.setenv("BINARYNET_FORCE_ISA", "nonsense")
    with pytest.raises(UsageError, match="BINARYNET_FORCE_ISA: unknown instruction set"):
        Session(graph, device="cuda")
