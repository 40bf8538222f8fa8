"""Sessions under strain: threads, several GPUs, streams of others, things that end early. On simulated GPUs."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import simulated_gpu as gpu
from simulated_sessions import GpuArray, simulated_product

from binarynet.cuda import modules, streams
from binarynet.errors import DeviceError, UsageError
from binarynet.graph import evaluate
from binarynet.runtime import Session
from random_graphs import dense_graph, image_graph, random_images

TESTS = Path(__file__).parents[1]
GRAPHS = (image_graph(seed=100), dense_graph())
"""Whose results are different for any two images."""
BATCHES = (1, 2, 3, 5, 8)
SCHEDULES = ("early", "late", 1)
LASTING = ("contexts", "modules")


def case(index, seed=0):
    """A graph, images and what they give."""
    graph = GRAPHS[index % len(GRAPHS)]
    images = random_images(np.random.default_rng([index, seed]), BATCHES[index % len(BATCHES)], graph.input.shape)
    return graph, images, evaluate(graph, images)[graph.output].tobytes()


def in_threads(count, work):
    """Run work(0), work(1), ... at the same time; the first exception is raised here."""
    failures = []
    barrier = threading.Barrier(count)

    def guarded(index):
        try:
            barrier.wait()
            work(index)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(index,)) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def left(control):
    gc.collect()
    return {name: count for name, count in control.alive().items() if name not in LASTING}


class Queue:
    """A stream of somebody else, on a device."""

    def __init__(self, ordinal=0, flags=1):
        from cuda.bindings import driver as d

        d.cuInit(0)
        self.driver, self.context = d, d.cuDevicePrimaryCtxRetain(ordinal)[1]
        status, self.stream = self.call("cuStreamCreate", flags)
        assert int(status) == 0
        self.handle = int(self.stream)

    def call(self, name, *arguments):
        self.driver.cuCtxPushCurrent(self.context)
        answer = getattr(self.driver, name)(*arguments)
        self.driver.cuCtxPopCurrent()
        return answer

    def copy(self, target, source, nbytes):
        assert int(self.call("cuMemcpyDtoDAsync", target, source, nbytes, self.stream)[0]) == 0

    def fill(self, array, value, stream):
        assert int(self.call("cuMemsetD8Async", array.address, value, array.nbytes, stream)[0]) == 0

    def wait(self):
        return int(self.call("cuStreamSynchronize", self.stream)[0])


# --- threads ---


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_threads_share_sessions(schedule):
    with simulated_product(schedule=schedule) as control:
        sessions = [Session(graph, device="cuda") for graph in GRAPHS]

        def work(index):
            for seed in range(4):
                _, images, expected = case(index, seed)
                assert sessions[index % 2].run(images).tobytes() == expected

        in_threads(8, work)
        sessions.clear()
        assert left(control) == {}
        assert control.messages() == ""


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_threads_on_all_gpus_with_streams_of_their_own(schedule):
    with simulated_product(schedule=schedule) as control:
        sessions = {(g, o): Session(GRAPHS[g], device=f"cuda:{o}") for g in range(2) for o in range(3)}

        def work(index):
            session, queue = sessions[index % 2, index % 3], Queue(index % 3)
            kept = []
            for seed in range(4):
                _, images, expected = case(index, seed)
                array = GpuArray(images, index % 3, queue.handle)
                kept.append((session.run(array), expected, array))
            for result, expected, _ in kept:
                assert result.numpy().tobytes() == expected

        in_threads(6, work)
        assert control.messages() == ""


def test_sessions_come_and_go_while_others_run():
    with simulated_product(schedule=2) as control:
        steady = [Session(GRAPHS[0], device="cuda")]

        def work(index):
            for seed in range(5):
                graph, images, expected = case(index, seed)
                if index == 0:
                    assert steady[0].run(images).tobytes() == expected
                else:
                    assert Session(graph, device=f"cuda:{index % 2}").run(images).tobytes() == expected
                    gc.collect()

        in_threads(6, work)
        steady.clear()
        assert left(control) == {}
        assert control.messages() == ""


# --- who keeps what ---


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_results_outlive_their_session_and_their_images(schedule):
    with simulated_product(schedule=schedule) as control:
        graph, images, expected = case(0)
        queue = Queue()

        class Owner(GpuArray):
            """As of a caching allocator: memory without an owner is written again, in the order of its stream."""

            def __del__(self):
                own = self.__cuda_array_interface__["stream"]
                elsewhere.fill(self, 0x55, own or elsewhere.stream)
                if own is None:
                    assert elsewhere.wait() == 0
                lost.append(self.address)

        results, lost, elsewhere = [], [], Queue()
        for stream in (None, queue.handle, 1):
            session = Session(graph, device="cuda")
            results += [session.run(Owner(images, stream=stream)) for _ in range(3)]
            del session
            gc.collect()
        assert [result.numpy().tobytes() for result in results] == [expected] * len(results)
        assert control.messages() == ""
        gc.collect()
        assert len(lost) == len(results)
        for address in lost:
            elsewhere.call("cuMemFree", address)
        results.clear()
        for each in (queue, elsewhere):
            each.call("cuStreamDestroy", each.stream)
        assert left(control) == {}


@pytest.mark.parametrize("schedule", [*SCHEDULES, 2, 3, 4])
def test_more_streams_than_a_session_keeps_memory_for(schedule):
    """Work on one stream waits for that on another which has the same memory."""
    with simulated_product(schedule=schedule) as control:
        session = Session(GRAPHS[0], device="cuda")
        cases = [case(2 * seed, seed) for seed in range(8)]
        arrays = [GpuArray(images, stream=Queue().handle) for _, images, _ in cases]
        for _ in range(2):
            results = [session.run(array) for array in arrays]
            for result, (_, _, expected) in reversed(list(zip(results, cases, strict=True))):
                assert result.numpy().tobytes() == expected
        assert control.messages() == ""


@pytest.mark.parametrize("flags", [0, 1])
def test_work_waits_for_the_images_and_others_wait_for_the_result(flags):
    """Late: whatever nobody waits for has not happened."""
    with simulated_product(schedule="late") as control:
        graph, images, expected = case(0)
        session, queue = Session(graph, device="cuda"), Queue(flags=flags)
        pristine, wrong = GpuArray(images), np.zeros_like(images)
        for _ in range(3):
            array = GpuArray(wrong, stream=queue.handle)
            queue.copy(array.address, pristine.address, images.nbytes)
            result = session.run(array)
            following = GpuArray(np.zeros((len(images), 4), np.float32))
            queue.copy(following.address, result.address, result.nbytes)  # the same stream: in order
            assert queue.wait() == 0
            assert following.numpy().tobytes() == expected
            out = GpuArray(np.zeros((len(images), 4), np.float32), stream=queue.handle)
            assert session.run(array, out=out) is out
            assert queue.wait() == 0
            assert out.numpy().tobytes() == expected
        assert control.messages() == ""


def test_images_may_be_overwritten_in_the_order_of_their_stream():
    with simulated_product(schedule="late") as control:
        session, queue = Session(GRAPHS[0], device="cuda"), Queue()
        batches = [case(0, seed) for seed in range(4)]
        sources = [GpuArray(images) for _, images, _ in batches]
        array = GpuArray(batches[0][1], stream=queue.handle)
        results = []
        for source in sources:
            queue.copy(array.address, source.address, array.nbytes)
            results.append(session.run(array))
        for result, (_, _, expected) in zip(results, batches, strict=True):
            assert result.numpy().tobytes() == expected
        assert control.messages() == ""


def test_a_recording_of_somebody_else_is_refused_and_stays_whole():
    with simulated_product():
        graph, images, expected = case(0)
        session, queue = Session(graph, device="cuda"), Queue()
        array = GpuArray(images, stream=queue.handle)
        assert session.run(array).numpy().tobytes() == expected
        relaxed = queue.driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_RELAXED
        assert int(queue.call("cuStreamBeginCapture", queue.stream, relaxed)[0]) == 0
        with pytest.raises(UsageError, match="recorded"):
            session.run(array)
        assert session.run(images).tobytes() == expected  # on streams of its own
        status, graph = queue.call("cuStreamEndCapture", queue.stream)
        assert int(status) == 0
        queue.call("cuGraphDestroy", graph)
        assert session.run(array).numpy().tobytes() == expected


def test_a_profile_waits_for_the_run_before():
    with simulated_product(schedule="late") as control:
        graph, images, expected = case(4)
        session = Session(graph, device="cuda")
        results = [session.run(GpuArray(images, stream=Queue().handle)) for _ in range(6)]
        control.forget_reports()
        session.profile(images[::-1].copy(), repeats=2)
        calls = [line.split()[0] for line in control.log()]
        assert calls.index("cuEventSynchronize") < calls.index("cuMemcpyHtoD")
        assert [result.numpy().tobytes() for result in results] == [expected] * len(results)


# --- what ends early ---


class Interruption(BaseException):
    pass


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(
    ("owner", "name"),
    [(modules.PreparedLaunch, "start"), (streams.Event, "record"), (streams.Event, "wait"), (streams.Graph, "start")],
)
@pytest.mark.parametrize("from_gpu", [False, True])
def test_an_exception_at_any_place(owner, name, schedule, from_gpu):
    """While kernels are started, a graph is recorded or the GPU is waited for."""
    with simulated_product(schedule=schedule) as control:
        graph, images, expected = case(0)
        session = Session(graph, device="cuda")
        original, places = getattr(owner, name), 0
        given = GpuArray(images) if from_gpu else images
        for place in range(40):
            calls = iter(range(1000))

            def interrupted(self, *arguments, place=place, calls=calls):
                if next(calls) == place:
                    raise Interruption
                return original(self, *arguments)

            session = Session(graph, device="cuda")
            with mock.patch.object(owner, name, interrupted):
                try:
                    for _ in range(3):
                        assert np.asarray(session.run(given)).tobytes() == expected
                except Interruption:
                    places += 1
                else:
                    break
            assert control.count("alive_captures") == 0
            assert np.asarray(session.run(given)).tobytes() == expected
            assert np.asarray(session.run(given)).tobytes() == expected
        else:
            pytest.fail("no end of places")
        assert places > 0
        assert control.messages() == ""


def test_a_capture_that_somebody_breaks():
    """A launch that fails while a graph is recorded: that run ends with an error, the next ones are right."""
    with simulated_product() as control:
        graph, images, expected = case(0)
        for after in range(8):
            session = Session(graph, device="cuda")
            assert session.run(images).tobytes() == expected
            control.fault("cuLaunchKernel", 900, after=after)
            try:
                assert session.run(images).tobytes() == expected
            except DeviceError:
                assert control.forget_faults() == 0
            control.forget_faults()
            assert control.count("alive_captures") == 0
            assert session.run(images).tobytes() == expected
            assert session.run(images).tobytes() == expected


def child(program, **environment):
    """A Python process of its own with the simulation: its exit code and what it wrote."""
    setup = (
        "import sys\n"
        f"sys.path[:0] = {[str(TESTS / part) for part in ('.', 'simulator', 'native', 'cuda')]!r}\n"
        "import os, threading, numpy as np\n"
        "from simulated_sessions import GpuArray, simulated_product\n"
        "from random_graphs import image_graph, random_images\n"
        "from binarynet.graph import evaluate\n"
        "from binarynet.runtime import Session\n"
        "g = image_graph(seed=100); x = random_images(np.random.default_rng(0), 5, g.input.shape)\n"
        "y = evaluate(g, x)[g.output].tobytes()\n"
        "gpus = simulated_product(schedule='late'); control = gpus.__enter__()\n"
    )
    gpu.control()  # built here, or the test is skipped
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-c", setup + program],
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
        env={**os.environ, **environment},
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("end", ["", "sys.exit(3)", "raise SystemExit(3)", "os._exit(3)"])
def test_a_process_ends_with_everything_alive(end):
    program = (
        "s = Session(g, device='cuda'); t = Session(g, device='cuda:1')\n"
        "assert s.run(x).tobytes() == y; a = GpuArray(x, 1); r = [t.run(a) for _ in range(3)]\n"
        "s.run(x); keep = {'s': s, 'r': r}; keep['self'] = keep\n" + end
    )
    assert child(program) == (3 if end else 0, "", "")


def test_a_process_ends_while_threads_run_sessions():
    program = (
        "s = Session(g, device='cuda'); s.run(x); go = threading.Event()\n"
        "def work():\n"
        "    while True:\n"
        "        assert s.run(x).tobytes() == y; go.set()\n"
        "for _ in range(3): threading.Thread(target=work, daemon=True).start()\n"
        "go.wait()\n"
    )
    code, _, errors = child(program)
    assert code in (0, -signal.SIGABRT) if sys.version_info < (3, 12) else code == 0, errors
    assert "DeviceError" not in errors


def test_a_forked_process_uses_the_cpu_and_says_why_not_the_gpu():
    program = (
        "s = Session(g, device='cuda'); assert s.run(x).tobytes() == y; a = GpuArray(x); r = s.run(a)\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    import gc\n"
        "    from binarynet.errors import BackendUnavailableError, DeviceError\n"
        "    code = 0\n"
        "    try: s.run(x); code |= 1\n"
        "    except DeviceError: pass\n"
        "    try: r.numpy(); code |= 2\n"
        "    except DeviceError: pass\n"
        "    try: Session(g, device='cuda'); code |= 4\n"
        "    except BackendUnavailableError as error: code |= 0 if 'fork' in str(error) else 8\n"
        "    if Session(g).run(x).tobytes() != y: code |= 16\n"
        "    s = r = a = None; gc.collect()\n"
        "    sys.stderr.flush(); os._exit(code)\n"
        "code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])\n"
        "assert s.run(x).tobytes() == y and r.numpy().tobytes() == y\n"
        "sys.exit(code)\n"
    )
    assert child(program) == (0, "", "")


def test_a_process_that_was_forked_before_may_use_the_gpu():
    program = (
        "child = os.fork()\n"
        "assert Session(g, device='cuda').run(x).tobytes() == y\n"
        "if child: sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    assert child(program) == (0, "", "")
