"""Models: load, predict, save."""

import copy
import multiprocessing
import pickle
import warnings

import numpy as np
import pytest

import binarynet
from binarynet.errors import DataError, FileFormatError, ShapeError, UsageError
from binarynet.fileformat import PackedNetwork
from binarynet.graph import Dense, Flatten, Graph, Input
from binarynet.runtime import Model, engines, load
from random_graphs import changed, dense_graph, image_graph, random_images

CLASSES = ("ant", "bee", "cat", "dog")


def image_model(**options):
    return Model(PackedNetwork(image_graph(seed=5), CLASSES), **options)


def grey_model():
    graph = Graph((Input("input", (4, 3, 1)), Flatten("f", "input"), Dense("d", "f", np.ones((2, 1), np.uint64))), "d")
    return Model(PackedNetwork(graph))


def test_prediction():
    classes = tuple("abcdefghij")
    model = Model(PackedNetwork(dense_graph(), classes))
    images = random_images(np.random.default_rng(0), 30, (70,))
    prediction = model.predict(images)
    assert prediction.scores.tobytes() == model.scores(images).tobytes()
    assert prediction.labels.dtype == np.int64
    assert prediction.labels.tolist() == [max(range(10), key=row.__getitem__) for row in prediction.scores.tolist()]
    assert prediction.names == [classes[i] for i in prediction.labels]
    assert len(prediction) == 30
    assert len(set(prediction.names)) > 1


def test_ties_go_to_the_first_class():
    graph = changed(dense_graph(), "scores", scale=np.zeros(10, np.float32), shift=np.zeros(10, np.float32))
    shift = np.float32([0, 0, 3, 1, 3, 3, 0, 0, 0, 3])
    model = Model(PackedNetwork(changed(graph, "scores", shift=shift)))
    prediction = model.predict(np.zeros((2, 70), np.uint8))
    assert prediction.labels.tolist() == [2, 2]
    assert prediction.names == ["2", "2"]  # no class names: the label as text


@pytest.mark.parametrize("engine", [engine.name for engine in engines() if engine.available])
def test_saving_and_loading(tmp_path, engine):
    model = image_model()
    size = model.save(tmp_path / "model.bnn")
    assert size == (tmp_path / "model.bnn").stat().st_size
    images = random_images(np.random.default_rng(0), 6, (6, 5, 3))
    again = binarynet.load(str(tmp_path / "model.bnn"), engine=engine, num_threads=1)
    assert (again.engine, again.classes, again.input_shape) == (engine, CLASSES, (6, 5, 3))
    assert again.scores(images).tobytes() == model.scores(images).tobytes()
    again.save(tmp_path / "again.bnn")
    assert (tmp_path / "again.bnn").read_bytes() == (tmp_path / "model.bnn").read_bytes()


def test_loading_what_is_no_model(tmp_path):
    (tmp_path / "model.bnn").write_bytes(b"PK\x03\x04 not a model")
    with pytest.raises(FileFormatError, match=r"model\.bnn: not a .bnn file"):
        load(tmp_path / "model.bnn")


def test_one_image_is_a_batch_of_one():
    model = image_model()
    image = random_images(np.random.default_rng(0), 1, (6, 5, 3))[0]
    assert np.array_equal(model.scores(image), model.scores(image[np.newaxis]))
    assert len(model.predict(image)) == 1


def test_grey_images_may_leave_out_their_channel():
    model = grey_model()
    images = random_images(np.random.default_rng(0), 5, (4, 3, 1))
    expected = model.scores(images)
    assert np.array_equal(model.scores(images[..., 0]), expected)
    assert np.array_equal(model.scores(images[0]), expected[:1])
    assert np.array_equal(model.scores(images[0, ..., 0]), expected[:1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PendingDeprecationWarning)  # np.matrix, which keeps two axes
        matrix = np.matrix(images[0, ..., 0])
    assert np.array_equal(model.scores(matrix), expected[:1])
    with pytest.raises(ShapeError, match="without a mask, got MaskedArray"):
        model.scores(np.ma.masked_array(images[0, ..., 0]))


@pytest.mark.parametrize("shape", [(6, 5), (2, 6, 5), (6, 5, 3, 1), (3, 6, 5), (2, 3, 6, 5), (0,), ()])
def test_other_shapes_are_refused(shape):
    with pytest.raises(ShapeError, match=r"images: expected uint8 \[n, 6, 5, 3\], got \["):
        image_model().scores(np.zeros(shape, np.uint8))


@pytest.mark.parametrize("shape", [(3, 4), (4,), (2, 3, 4), (4, 3, 2)])
def test_other_shapes_of_grey_images_are_refused(shape):
    with pytest.raises(ShapeError, match=r"images: expected uint8 \[n, 4, 3, 1\]"):
        grey_model().scores(np.zeros(shape, np.uint8))


def test_floats_are_not_converted_silently():
    with pytest.raises(ShapeError, match=r"expected uint8 values 0\.\.255, got float64; map them once"):
        image_model().predict(np.zeros((1, 6, 5, 3)))
    with pytest.raises(ShapeError, match="expected a NumPy array"):
        image_model().predict([[0]])


def test_networks_without_scores_do_not_predict():
    with pytest.raises(UsageError, match=r"this network returns i32\[2\], not scores; use model\.session\.run"):
        grey_model().predict(np.zeros((1, 4, 3, 1), np.uint8))


def test_repr_says_what_it_is():
    assert repr(image_model(engine="reference")) == "<binarynet.Model 6 x 5 x 3 -> f32[4], engine reference>"


@pytest.mark.parametrize("copied", [lambda model: pickle.loads(pickle.dumps(model)), copy.deepcopy])
def test_models_can_be_copied(copied):
    model = image_model(engine="portable", num_threads=1)
    again = copied(model)
    images = random_images(np.random.default_rng(0), 3, (6, 5, 3))
    assert again.scores(images).tobytes() == model.scores(images).tobytes()
    assert (again.classes, again.engine, again.session.num_threads) == (CLASSES, "portable", 1)
    assert again.session.graph is again.graph


def test_a_model_works_in_another_process():
    model = image_model(num_threads=1)
    images = random_images(np.random.default_rng(0), 3, (6, 5, 3))
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(model.scores, (images,)).tobytes() == model.scores(images).tobytes()


@pytest.mark.parametrize(("name", "shown"), [("a\0b", r"'a\\x00b'"), ("a\ud800", r"'a\\ud800'")])
def test_a_name_that_no_file_can_have(name, shown):
    with pytest.raises(FileFormatError, match=rf"^{shown}: no file can have this name"):
        load(name)
    with pytest.raises(DataError, match=rf"^{shown}: cannot be written: "):
        image_model().save(name)
