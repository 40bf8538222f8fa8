"""Sessions: taps, batches, threads, and what they refuse."""

import copy
import gc
import pickle
import threading
import warnings

import numpy as np
import pytest

from binarynet.errors import BinaryNetError, ShapeError, UsageError
from binarynet.graph import Affine, Dense, Graph, GraphBuilder, Input, evaluate
from binarynet.runtime import Session, engines
from random_graphs import dense_graph, image_graph, random_images, random_inputs, random_threshold, random_words

ENGINES = [engine.name for engine in engines() if engine.available]
each_engine = pytest.mark.parametrize("engine", ENGINES)


def images_for(graph, batch=5, seed=0):
    return random_images(np.random.default_rng(seed), batch, graph.input.shape)


@each_engine
@pytest.mark.parametrize("make", [dense_graph, image_graph])
def test_every_value_can_be_tapped(engine, make):
    graph = make()
    images = images_for(graph)
    expected = evaluate(graph, images, list(graph.types))
    for name in graph.types:
        values = Session(graph, taps=[name], engine=engine).run_tapped(images)
        assert set(values) == {name, graph.output}
        for key, value in values.items():
            assert (value.dtype, value.shape) == (expected[key].dtype, expected[key].shape)
            assert value.tobytes() == expected[key].tobytes()


@each_engine
def test_taps_may_repeat(engine):
    graph = image_graph()
    session = Session(graph, taps=["sign1", "scores", "sign1"], engine=engine)
    assert set(session.run_tapped(images_for(graph))) == {"sign1", "scores"}


def test_unknown_taps_are_named():
    with pytest.raises(UsageError, match="no value is called 'sign9'; there are: input, conv1, pool1"):
        Session(image_graph(), taps=["sign9"])


@each_engine
def test_results_belong_to_the_caller(engine):
    graph = image_graph()
    session = Session(graph, engine=engine, taps=["input"])
    images = images_for(graph)
    first = session.run_tapped(images)
    kept = first["scores"].copy()
    first["input"][:] = 0
    again = session.run(images_for(graph, seed=1))
    again[:] = 7
    assert np.array_equal(first["scores"], kept)
    assert np.array_equal(images, images_for(graph))
    assert np.array_equal(session.run(images), kept)


@each_engine
def test_a_session_outlives_its_graph(engine):
    graph = dense_graph()
    images = images_for(graph)
    expected = evaluate(graph, images)["scores"]
    nodes = list(graph)
    session = Session(Graph(tuple(nodes), "scores"), engine=engine)
    if engine != "reference":
        for node in nodes:  # the native core has copies
            for field in ("weights", "thresholds", "scale"):
                if hasattr(node, field):
                    getattr(node, field)[...] = 0
    del nodes, graph
    gc.collect()
    assert np.array_equal(session.run(images), expected)


@each_engine
def test_images_may_be_views(engine):
    graph = image_graph()
    big = np.random.default_rng(0).integers(0, 256, (10, 7, 8, 5), dtype=np.uint8)
    view = big[::-2, 1:, 7:2:-1, ::2]
    assert view.shape == (5, 6, 5, 3)
    session = Session(graph, engine=engine)
    assert np.array_equal(session.run(view), session.run(np.ascontiguousarray(view)))
    read_only = view.copy()
    read_only.setflags(write=False)
    assert np.array_equal(session.run(read_only), session.run(view))
    columns_first = np.asfortranarray(view)
    assert np.array_equal(session.run(columns_first), session.run(view))


@each_engine
@pytest.mark.parametrize("batch", [0, 1, 2, 63, 64, 65, 200])
def test_batches_of_any_size(engine, batch):
    graph = dense_graph()
    images = images_for(graph, batch)
    session = Session(graph, engine=engine)
    scores = session.run(images)
    assert (scores.shape, scores.dtype) == ((batch, 10), np.float32)
    one_by_one = [session.run(images[i : i + 1]) for i in range(batch)]
    assert np.array_equal(scores, np.concatenate([*one_by_one, scores[:0]]))


@each_engine
@pytest.mark.parametrize(
    "images",
    [
        np.zeros((1, 6, 5, 3), np.float32),
        np.zeros((1, 6, 5, 3), np.int8),
        np.zeros((6, 5, 3), np.uint8),
        np.zeros((1, 3, 6, 5), np.uint8),
        np.zeros((1, 6, 5, 4), np.uint8),
        [[0]],
        None,
    ],
)
def test_wrong_images_are_refused(engine, images):
    session = Session(image_graph(), engine=engine)
    with pytest.raises(ShapeError, match="images: expected"):
        session.run(images)


@each_engine
@pytest.mark.parametrize("num_threads", [0, -1, 1025, 2**70, "2", 1.5, True, [1]])
def test_threads_are_a_number_from_one(engine, num_threads):
    with pytest.raises(UsageError, match="num_threads must be an integer from 1 to 1024, got ") as error:
        Session(image_graph(), engine=engine, num_threads=num_threads)
    assert str(error.value).endswith(repr(num_threads))


def test_threads_may_be_a_numpy_integer():
    assert Session(image_graph(), engine="portable", num_threads=np.int64(2)).num_threads == 2


def through_pickle(session):
    return pickle.loads(pickle.dumps(session))


@each_engine
@pytest.mark.parametrize("copied", [through_pickle, copy.deepcopy, copy.copy])
def test_sessions_can_be_copied_and_sent_to_other_processes(engine, copied):
    graph = image_graph()
    session = Session(graph, engine=engine, num_threads=2, taps=["sign1"])
    again = copied(session)
    assert again is not session
    assert (again.engine, again.num_threads, again.taps) == (engine, session.num_threads, ("sign1",))
    expected = session.run_tapped(images_for(graph))
    values = again.run_tapped(images_for(graph))
    assert {name: value.tobytes() for name, value in values.items()} == {
        name: value.tobytes() for name, value in expected.items()
    }


def test_a_copied_session_without_an_engine_takes_the_best_again(monkeypatch):
    data = pickle.dumps(Session(image_graph()))
    monkeypatch.setenv("BINARYNET_FORCE_ISA", "portable")
    assert pickle.loads(data).engine == "portable"


@each_engine
def test_one_session_in_many_threads(engine):
    """Four Python threads, one session that uses two threads itself: each gets its own images' scores."""
    graph = dense_graph(300, 200, 10)
    session = Session(graph, engine=engine, num_threads=2)
    batches = [images_for(graph, 20 + i, seed=i) for i in range(4)]
    expected = [evaluate(graph, batch)["scores"] for batch in batches]
    wrong = []

    def work(i):
        for _ in range(25):
            if not np.array_equal(session.run(batches[i]), expected[i]):
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@each_engine
def test_more_threads_than_work(engine):
    graph = Graph((Input("input", (1,)), Dense("d", "input", np.ones((1, 1), np.uint64))), "d")
    session = Session(graph, engine=engine, num_threads=7)
    assert session.run(np.array([[3]], np.uint8)).tolist() == [[6 - 255]]


@each_engine
def test_scores_do_not_depend_on_company_or_history(engine):
    """Workspaces are reused: results of one run must not shine through the next one."""
    graph = image_graph()
    session = Session(graph, engine=engine, num_threads=1)
    images = images_for(graph, 8)
    alone = [session.run(images[i : i + 1])[0] for i in range(8)]
    session.run(np.full((30, 6, 5, 3), 255, np.uint8))
    together = session.run(images[::-1])[::-1]
    assert np.array_equal(np.stack(alone), together)


def test_parameters_may_be_views():
    """Graphs made by hand hold whatever NumPy gives: every second row, read-only, in reverse."""
    rng = np.random.default_rng(0)
    weights = random_words(rng, (20,), 70)[::-2]
    scale = rng.normal(size=20).astype(np.float32)[::2]
    scale.setflags(write=False)
    nodes = (Input("input", (70,)), Dense("d", "input", weights), Affine("s", "d", scale, scale[::-1]))
    graph = Graph(nodes, "s")
    images = images_for(graph)
    for engine in ENGINES:
        assert np.array_equal(Session(graph, engine=engine).run(images), evaluate(graph, images)["s"])


def bits_graph(k=100, out=70):
    rng = np.random.default_rng(0)
    builder = GraphBuilder()
    builder.add(Input("bits", (k,), "bits"))
    builder.add(Dense("sums", "bits", random_words(rng, (out,), k)))
    return builder.finish(builder.add(random_threshold(rng, "sign", "sums", out, k)))


@each_engine
@pytest.mark.parametrize("batch", [0, 1, 9])
def test_packed_bits_as_the_input(engine, batch):
    graph = bits_graph()
    bits = random_inputs(np.random.default_rng(1), batch, graph)
    session = Session(graph, engine=engine, taps=["bits"])
    values = session.run_tapped(bits)
    assert np.array_equal(values["bits"], bits)
    assert np.array_equal(values["sign"], evaluate(graph, bits)["sign"])
    assert np.array_equal(session.run(np.repeat(bits, 2, axis=0)[::2]), values["sign"])


@each_engine
def test_wrong_bits_are_refused(engine):
    session = Session(bits_graph(), engine=engine)
    bits = random_inputs(np.random.default_rng(1), 3, session.graph)
    with pytest.raises(ShapeError, match=r"expected packed bits uint64 \[n, 2\], got uint8"):
        session.run(bits.view(np.uint8))
    with pytest.raises(ShapeError, match=r"expected uint64 \[n, 2\], got \[3, 1\]"):
        session.run(bits[:, :1])
    bits[2, 1] |= np.uint64(1 << 36)
    with pytest.raises(UsageError, match=r"padding bits .*are not 0: .*only the lowest 36 bits are used"):
        session.run(bits)


@each_engine
@pytest.mark.parametrize("batch", [0, 1, 9])
def test_results_go_where_they_are_wanted(engine, batch):
    graph = dense_graph()
    images = images_for(graph, batch)
    session = Session(graph, engine=engine)
    out = np.full((batch, 10), np.nan, np.float32)
    assert session.run(images, out=out) is out
    assert np.array_equal(out, session.run(images))
    strided = np.repeat(images, 2, axis=0)[::2]
    again = np.empty_like(out)
    assert session.run(strided, out=again) is again
    assert np.array_equal(again, out)


@each_engine
@pytest.mark.parametrize(
    "out",
    [
        np.zeros((5, 10), np.float64),
        np.zeros((4, 10), np.float32),
        np.zeros((5, 1, 1, 10), np.float32),
        np.zeros((5, 20), np.float32)[:, ::2],
        np.broadcast_to(np.float32(0), (5, 10)),
        memoryview(np.zeros((5, 10), np.float32)),
        np.ma.masked_array(np.zeros((5, 10), np.float32)),
        [[0.0] * 10] * 5,
        [0.0],
    ],
)
def test_wrong_memory_for_results_is_refused(engine, out):
    graph = dense_graph()
    with pytest.raises(UsageError, match="out: expected "):
        Session(graph, engine=engine).run(images_for(graph), out=out)


@each_engine
def test_results_may_not_overwrite_the_images(engine):
    session = Session(bits_graph(128, 128), engine=engine)
    bits = random_inputs(np.random.default_rng(1), 6, session.graph)
    with pytest.raises(UsageError, match="out: expected memory of its own, it overlaps the images"):
        session.run(bits[:5], out=bits[1:])
    with pytest.raises(UsageError, match="out: expected memory of its own, it overlaps the images"):
        session.run(bits[::2], out=bits[:3])
    empty = bits[:0]
    assert session.run(empty, out=empty) is empty


@each_engine
def test_masks_are_refused_and_not_ignored(engine):
    images = images_for(dense_graph())
    masked = np.ma.masked_array(images, mask=images > 100)
    with pytest.raises(
        ShapeError, match=r"images: expected a NumPy array .* without a mask, got MaskedArray; .*filled"
    ):
        Session(dense_graph(), engine=engine).run(masked)


@each_engine
def test_other_subclasses_are_arrays(engine):
    class Named(np.ndarray):
        pass

    session = Session(dense_graph(), engine=engine)
    images = images_for(session.graph)
    expected = session.run(images)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PendingDeprecationWarning)  # np.matrix
        matrix = np.matrix(images)
    for given in (matrix, matrix[::-1][::-1], images.view(Named)):
        got = session.run(given)
        assert type(got) is np.ndarray
        assert np.array_equal(got, expected)
    out = np.zeros_like(expected).view(Named)
    assert session.run(images, out=out) is out
    assert np.array_equal(out, expected)


@each_engine
def test_batches_beyond_memory_are_named(engine):
    builder = GraphBuilder()
    session = Session(builder.finish(builder.add(Input("input", (1 << 20,)))), engine=engine)
    many = np.broadcast_to(np.zeros((1, 1 << 20), np.uint8), (1 << 31, 1 << 20))  # beyond any address space
    for ask in (session.run, session.profile) if engine != "reference" else (session.run,):
        with pytest.raises(BinaryNetError, match=r"images: 2,147,483,648 of uint8 \[1048576\], .* GiB .*fewer of them"):
            ask(many)


def test_python_arrays_of_other_kinds_are_refused():
    graph = dense_graph()
    with pytest.raises(ShapeError, match=r"expected a NumPy array .*, got memoryview"):
        Session(graph, engine="portable").run(memoryview(images_for(graph)))
