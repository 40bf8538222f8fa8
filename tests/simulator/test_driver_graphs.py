"""Graphs of the simulated driver: what is captured, replayed, and refused."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import simulated_gpu as gpu
from driver_calls import GLOBAL, RELAXED, THREAD_LOCAL, check, device, driver, one

__all__ = ["one"]  # a fixture


def captured(one, stream, work, mode=THREAD_LOCAL):
    one.function("add")  # nothing may be loaded meanwhile
    check(driver.cuStreamBeginCapture(stream, mode))
    work()
    graph = check(driver.cuStreamEndCapture(stream))
    executable = check(driver.cuGraphInstantiate(graph, 0))
    check(driver.cuGraphDestroy(graph))
    return executable


def test_graphs_replay_what_was_captured(one):
    stream = one.stream()
    counter = one.array(np.zeros(32, np.int32))

    def work():
        for _ in range(3):
            one.launch("add", counter, counter, np.int32(1), np.int32(32), stream=stream)

    executable = captured(one, stream, work)
    assert (one.read(counter, 32) == 0).all()
    for _ in range(4):
        check(driver.cuGraphLaunch(executable, stream))
    check(driver.cuStreamSynchronize(stream))
    assert (one.read(counter, 32) == 12).all()
    check(driver.cuGraphExecDestroy(executable))
    check(driver.cuGraphLaunch(executable, stream), gpu.INVALID_VALUE)


def test_graphs_with_branches_keep_their_order(one):
    stream, branch = one.stream(), one.stream()
    memory = [one.array(np.full(32, value, np.int32)) for value in range(4)]
    fork, join = (check(driver.cuEventCreate(driver.CUevent_flags.CU_EVENT_DISABLE_TIMING)) for _ in range(2))

    def add(result, source, value, on):
        one.launch("add", memory[result], memory[source], np.int32(value), np.int32(32), stream=on)

    def work():
        add(0, 0, 1, stream)
        check(driver.cuEventRecord(fork, stream))
        check(driver.cuStreamWaitEvent(branch, fork, 0))
        add(1, 0, 10, branch)
        add(2, 0, 100, stream)
        check(driver.cuEventRecord(join, branch))
        check(driver.cuStreamWaitEvent(stream, join, 0))
        add(3, 1, 1000, stream)

    executable = captured(one, stream, work)
    check(driver.cuGraphLaunch(executable, stream))
    check(driver.cuStreamSynchronize(stream))
    assert [one.read(each, 32)[0] for each in memory] == [1, 11, 101, 1011]
    check(driver.cuEventQuery(fork), 907)
    check(driver.cuStreamBeginCapture(stream, RELAXED))
    check(driver.cuEventRecord(fork, stream))
    check(driver.cuStreamWaitEvent(branch, fork, 0))
    add(1, 0, 10, branch)
    check(driver.cuStreamEndCapture(stream), 904)
    assert check(driver.cuStreamIsCapturing(branch)) == 0


def test_what_invalidates_a_capture():
    with device() as one:
        stream, memory = one.stream(), one.array(np.zeros(4, np.int32))
        event = check(driver.cuEventCreate(0))
        check(driver.cuEventRecord(event, 0))
        breaks = [
            (lambda: driver.cuStreamSynchronize(stream), 900, RELAXED),
            (lambda: driver.cuStreamWaitEvent(stream, event, 0), 905, RELAXED),
            (lambda: driver.cuMemAlloc(16), 900, THREAD_LOCAL),
            (lambda: driver.cuMemFree(memory), 900, GLOBAL),
            (lambda: driver.cuCtxSynchronize(), 900, THREAD_LOCAL),
        ]
        for call, status, mode in breaks:
            check(driver.cuStreamBeginCapture(stream, mode))
            check(call(), status)
            assert check(driver.cuStreamIsCapturing(stream)) == 2
            check(driver.cuMemsetD8Async(memory, 0, 16, stream), 901)
            check(driver.cuStreamEndCapture(stream), 901)
        check(driver.cuStreamEndCapture(stream), 401)
        check(driver.cuStreamBeginCapture(0, RELAXED), 900)
        blocking = one.stream(0)
        check(driver.cuStreamBeginCapture(blocking, RELAXED))
        check(driver.cuMemsetD8Async(memory, 0, 16, 0), 906)
        check(driver.cuStreamEndCapture(blocking), 901)
        check(driver.cuStreamBeginCapture(stream, RELAXED))
        check(driver.cuMemFree(check(driver.cuMemAlloc(16))))  # which this mode allows
        check(driver.cuGraphDestroy(check(driver.cuStreamEndCapture(stream))))


@pytest.mark.parametrize(("mode", "expected"), [(GLOBAL, 900), (THREAD_LOCAL, 0), (RELAXED, 0)])
def test_captures_and_other_threads(mode, expected):
    with device() as one:
        stream = one.stream()
        check(driver.cuStreamBeginCapture(stream, mode))
        answers = []

        def elsewhere():
            check(driver.cuCtxPushCurrent(one.context))
            answers.append(int(driver.cuMemAlloc(16)[0]))
            answers.append(int(driver.cuStreamEndCapture(stream)[0]) if mode != RELAXED else 908)

        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        assert answers == [expected, 908]
        check(driver.cuStreamEndCapture(stream), 901 if expected else 0)
