"""Sessions on a GPU, arrays of the GPU: no copies, no waiting, everybody's stream in order."""

import gc
import weakref

import numpy as np
import pytest
from simulated_sessions import GpuArray, simulated_product

from binarynet.cuda.arrays import DeviceArray
from binarynet.cuda.device import device
from binarynet.cuda.streams import DEFAULT_STREAM, Stream
from binarynet.encoding import pack_bits
from binarynet.errors import ShapeError, UsageError
from binarynet.fileformat import PackedNetwork
from binarynet.graph import Dense, GraphBuilder, Input, evaluate
from binarynet.runtime import Model, Session
from binarynet.runtime import cuda_session as room
from binarynet.runtime import cuda_workspace as workspace_room
from random_graphs import image_graph, random_images, random_words

WAITS = ("Synchronize", "cuMemcpyDtoH", "cuMemcpyHtoD", "cuMemAlloc", "cuMemFree", "cuEventQuery")
GRAPH = image_graph(seed=100)  # whose results are different for any two images


@pytest.fixture(scope="module", params=["early", "late", 3])
def gpu(request):
    with simulated_product(schedule=request.param) as control:
        yield control


def images_of(batch, seed=0):
    return random_images(np.random.default_rng(seed), batch, GRAPH.input.shape)


def expected_of(images, *names):
    return evaluate(GRAPH, images, names or None)


@pytest.mark.parametrize("own_stream", [True, False])
def test_results_are_on_the_callers_stream(gpu, own_stream):
    stream = Stream(device(0)) if own_stream else None
    handle = stream.handle if stream else DEFAULT_STREAM
    session = Session(GRAPH, device="cuda", taps=["conv1", "sign2"])
    for seed in range(4):
        for batch in (3, 1, 0):
            images = images_of(batch, seed)
            got = session.run_tapped(GpuArray(images, stream=handle))
            expected = expected_of(images, "scores", "conv1", "sign2")
            assert list(got) == ["scores", "conv1", "sign2"]
            for name, array in got.items():
                assert isinstance(array, DeviceArray)
                assert (array.shape, array.dtype) == (expected[name].shape, expected[name].dtype)
                assert array.__cuda_array_interface__["stream"] == handle
                assert array.numpy().tobytes() == expected[name].tobytes()


def test_the_host_does_not_wait(gpu):
    """Once memory, launches and graphs are there, a run starts what it has to and returns."""
    session = Session(GRAPH, device="cuda")
    stream = Stream(device(0))
    images = GpuArray(images_of(4), stream=stream.handle)
    result = None
    for _ in range(4):
        result = session.run(images)
    gpu.forget_reports()
    again = session.run(images)  # while the other result is still held
    del result
    result = session.run(images)
    log = gpu.log()
    assert sum("cuGraphLaunch" in line for line in log) >= 1
    assert not [line for line in log if any(name in line for name in WAITS[:4])], log
    assert again.numpy().tobytes() == result.numpy().tobytes() == expected_of(images.numpy())["scores"].tobytes()


def test_results_that_are_held_are_not_overwritten(gpu):
    session = Session(GRAPH, device="cuda")
    held = []
    for seed in range(8):
        images = images_of(2, seed)
        held.append((session.run(GpuArray(images, stream=1)), expected_of(images)["scores"]))
    for result, expected in held:
        assert result.numpy().tobytes() == expected.tobytes()


def test_a_result_is_an_input(gpu):
    """Two halves of a network, the second one after the first on its stream."""
    bits = random_words(np.random.default_rng(1), (40,), 70)
    first = GraphBuilder()
    first.add(Input("input", (70,), "bits"))
    sums = first.add(Dense("sums", "input", bits))
    session = Session(first.finish(sums), device="cuda")
    one = GraphBuilder()
    one.add(Input("input", (70,), "bits"))
    passing = Session(one.finish("input"), device="cuda")
    words = pack_bits(np.random.default_rng(2).integers(0, 2, (5, 70)).astype(bool))
    stream = Stream(device(0))
    through = passing.run(GpuArray(words, stream=stream.handle))
    assert through.numpy().tobytes() == words.tobytes()
    result = session.run(through)
    assert result.numpy().tobytes() == evaluate(session.graph, words)["sums"].tobytes()


def test_out_is_filled_on_the_stream(gpu):
    session = Session(GRAPH, device="cuda")
    for seed in range(3):
        images = images_of(5, seed)
        for stream, other in ((1, 1), (2, 1), (1, 2), (1, None)):
            out = GpuArray(np.full((5, 4), np.nan, np.float32), stream=other)
            assert session.run(GpuArray(images, stream=stream), out) is out
            with device(0) as d:
                d._driver.cuStreamSynchronize(other or 1)
            assert out.numpy().tobytes() == expected_of(images)["scores"].tobytes()


def test_out_that_is_refused(gpu):
    session = Session(GRAPH, device="cuda")
    images = GpuArray(images_of(5), stream=1)
    right = np.zeros((5, 4), np.float32)
    refused = [
        (GpuArray(np.zeros((5, 4))), "out: expected an array float32 [5, 4], got float64 [5, 4]"),
        (GpuArray(right[:4]), "out: expected an array float32 [5, 4], got float32 [4, 4]"),
        (GpuArray(right, data=(GpuArray(right).address, True)), "out: expected an array that may be written"),
        (GpuArray(right, ordinal=1), "out: expected memory of cuda:0, it lies on cuda:1"),
        (GpuArray(right, data=(images.address + 16, False)), "out: expected memory of its own, it overlaps the images"),
        (right, "out: expected memory of cuda:0, where the images lie, got a NumPy array; leave it out"),
    ]
    for out, text in refused:
        with pytest.raises((UsageError, ShapeError)) as error:
            session.run(images, out)
        assert text in str(error.value)
    with pytest.raises(UsageError, match="out: expected a NumPy array without a mask, got GpuArray"):
        session.run(images_of(5), GpuArray(right))


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (np.zeros((2, 6, 5, 3), np.float32), "images: expected uint8 values 0..255, got float32"),
        (np.zeros((2, 6, 5), np.uint8), "images: expected uint8 [n, 6, 5, 3], got [2, 6, 5]"),
        (np.zeros(1, np.uint8), "images: expected uint8 [n, 6, 5, 3], got [1]"),
    ],
)
def test_images_that_are_no_batch(gpu, wrong, text):
    with pytest.raises(ShapeError) as error:
        Session(GRAPH, device="cuda").run(GpuArray(wrong))
    assert str(error.value).startswith(text)


def test_images_of_another_gpu(gpu):
    with pytest.raises(UsageError, match=r'images: expected memory of cuda:0, .* \(device="cuda:1"\)'):
        Session(GRAPH, device="cuda").run(GpuArray(images_of(1), ordinal=1))
    images = images_of(2)
    scores = Session(GRAPH, device="cuda:1").run(GpuArray(images, ordinal=1, stream=1))
    assert scores.device == "cuda:1"
    assert scores.numpy().tobytes() == expected_of(images)["scores"].tobytes()


def test_addresses_that_kernels_cannot_read_are_staged(gpu):
    """A slice of somebody's array begins anywhere."""
    images, out = images_of(5), np.full((5, 4), np.nan, np.float32)
    whole, target = GpuArray(images, stream=1), GpuArray(np.concatenate((out, out)), stream=1)
    session = Session(GRAPH, device="cuda")
    one = images[0].nbytes
    for _ in range(3):
        for skipped in range(4):
            rows = 5 - skipped
            part = GpuArray(images, stream=1, data=(whole.address + skipped * one, False), shape=images[skipped:].shape)
            place = GpuArray(out, stream=1, data=(target.address + 4 * (1 + skipped), False), shape=(rows, 4))
            session.run(part, place)
            with device(0) as d:
                d._driver.cuStreamSynchronize(1)
            got = target.numpy().reshape(-1)[1 + skipped : 1 + skipped + 4 * rows]
            assert got.tobytes() == expected_of(images[skipped:])["scores"].tobytes()


def test_chunks_of_a_batch_on_the_gpu(gpu, monkeypatch):
    monkeypatch.setattr(room, "_MOST_CHUNK", 4)
    session = Session(GRAPH, device="cuda", taps=["sign1"])
    for seed in range(3):
        images = images_of(11, seed)
        got = session.run_tapped(GpuArray(images, stream=1))
        for name, expected in expected_of(images, "scores", "sign1").items():
            assert got[name].numpy().tobytes() == expected.tobytes()


@pytest.mark.parametrize("graphs", [True, False])
def test_streams_take_turns_with_one_workspace(gpu, monkeypatch, graphs):
    """What another stream still computes is not overwritten, in whatever order the GPU takes up work."""
    monkeypatch.setattr(workspace_room, "_IDLE", 1)
    monkeypatch.setattr(workspace_room, "GRAPH_IMAGES", 1 << 30 if graphs else 0)
    session = Session(GRAPH, device="cuda")
    streams = [Stream(device(0)) for _ in range(4)]
    inputs = [GpuArray(images_of(3, i), stream=stream.handle) for i, stream in enumerate(streams)]
    for _ in range(4):
        results = [session.run(images) for images in inputs]
        for images, result in zip(reversed(inputs), reversed(results), strict=True):
            assert result.numpy().tobytes() == expected_of(images.numpy())["scores"].tobytes()


def test_memory_of_others_is_kept_until_it_was_read(gpu):
    """Without a stream, nobody knows in which order its owner reuses it."""

    session = Session(GRAPH, device="cuda")
    given = [GpuArray(images_of(2, seed)) for seed in range(4)]
    alive = [weakref.ref(each) for each in given]
    results = []
    while given:
        results.append(session.run(given.pop()))
        gc.collect()
    assert alive[0]() is not None
    for result in results:
        result.numpy()
    session.run(GpuArray(images_of(2)))
    gc.collect()
    assert [each() for each in alive] == [None] * 4
    ordered = GpuArray(images_of(2), stream=1)
    gone = weakref.ref(ordered)
    session.run(ordered)
    del ordered
    gc.collect()
    assert gone() is None


def test_a_stream_that_is_recorded_is_refused(gpu):
    session, stream = Session(GRAPH, device="cuda"), Stream(device(0))
    images = GpuArray(images_of(2), stream=stream.handle)
    with device(0) as gpu_device:
        d = gpu_device._driver
        d.cuStreamBeginCapture(stream.handle, d.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_RELAXED)
        out = GpuArray(expected_of(images_of(2))["scores"], stream=stream.handle)
        for given, target, what in ((images, None, "images"), (GpuArray(images_of(2)), out, "out")):
            with pytest.raises(UsageError, match=f"{what}: its stream is being recorded into a CUDA graph by somebody"):
                session.run(given, out=target)
        status, graph = d.cuStreamEndCapture(stream.handle)
        assert int(status) == 0
        d.cuGraphDestroy(graph)
    assert session.run(images).numpy().tobytes() == expected_of(images.numpy())["scores"].tobytes()


def test_a_model_takes_arrays_of_the_gpu(gpu):
    model = Model(PackedNetwork(GRAPH, classes=("a", "b", "c", "d")), device="cuda")
    assert model.device == "cuda:0"
    assert repr(model).endswith("on cuda:0>")
    images = images_of(3)
    expected = expected_of(images)["scores"]
    for given in (images, GpuArray(images, stream=1)):
        prediction = model.predict(given)
        assert prediction.scores.tobytes() == expected.tobytes()
        assert prediction.labels.tolist() == expected.argmax(axis=1).tolist()
    assert isinstance(model.scores(GpuArray(images, stream=1)), DeviceArray)


def test_a_session_of_the_cpu_takes_none():
    with pytest.raises(ShapeError, match="expected a NumPy array uint8"):
        Session(GRAPH, engine="portable").run(object())


def test_a_result_that_is_filled_again(gpu):
    """Given as ``out``, it is ready when the second run is, whoever reads it."""
    builder = GraphBuilder()
    builder.add(Input("input", (70,), "bits"))
    sums = builder.add(Dense("sums", "input", random_words(np.random.default_rng(1), (40,), 70)))
    session = Session(builder.finish(sums), device="cuda")
    batches = [pack_bits(np.random.default_rng(seed).integers(0, 2, (5, 70)).astype(bool)) for seed in range(2)]
    expected = [evaluate(session.graph, words)["sums"].tobytes() for words in batches]
    assert expected[0] != expected[1]
    own = [Stream(device(0)), Stream(device(0))]
    for first, second in ((own[0], own[0]), (own[0], own[1]), (None, own[0]), (own[0], None)):
        streams = [stream.handle if stream else DEFAULT_STREAM for stream in (first, second)]
        arrays = [GpuArray(words, stream=handle) for words, handle in zip(batches, streams, strict=True)]
        result = session.run(arrays[0])
        assert result.numpy().tobytes() == expected[0]
        assert session.run(arrays[1], result) is result
        assert result.numpy().tobytes() == expected[1]
