"""predict, evaluate and verify on packed files: what a user without torch has."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import binarynet
from binarynet.data import load
from binarynet.errors import VerificationError
from binarynet.graph import Flatten, Graph, Input, evaluate
from binarynet.runtime import Difference, ValueCheck, Verification, engines

USABLE = [engine.name for engine in engines() if engine.available]


@pytest.fixture
def picture(tmp_path):
    """The first test digit as a PNG."""
    path = tmp_path / "a [1].png"
    Image.fromarray(load("digits").test.images[0, :, :, 0]).save(path)
    return path


def scores(file, images):
    graph = binarynet.load(file).graph
    return evaluate(graph, images)[graph.output]


def test_predict(run, file, picture):
    expected = scores(file, load("digits").test.images[:1])[0]
    result = run("predict", file, picture)
    assert (result.code, result.err) == (0, "")
    header, line = result.out.splitlines()
    assert header.split() == ["image", "class", "score"]
    assert line.split() == [*str(picture).split(), str(np.argmax(expected)), f"{expected.max():.3f}"]


def test_predict_json_with_top(run, file, picture, tmp_path):
    images = load("digits").test.images[:2]
    np.save(tmp_path / "b.npy", images[1])
    result = run("predict", file, picture, tmp_path / "b.npy", "--json", "--top", 3)
    answer = json.loads(result.out)
    assert answer["engine"] == USABLE[0]
    for entry, image, expected in zip(
        answer["predictions"], [picture, tmp_path / "b.npy"], scores(file, images), strict=True
    ):
        assert entry["image"] == str(image)
        best = np.argsort(-expected, kind="stable")[:3]
        assert [c["index"] for c in entry["top"]] == best.tolist()
        assert [c["class"] for c in entry["top"]] == [str(i) for i in best]
        assert [np.float32(c["score"]) for c in entry["top"]] == expected[best].tolist()


def test_predict_shows_further_classes_below(run, file, picture):
    lines = run("predict", file, picture, "--top", "99").out.splitlines()
    assert len(lines) == 11
    assert all(len(line.split()) == 2 for line in lines[2:])


def test_predict_many_images(run, file, picture, monkeypatch):
    monkeypatch.setattr("binarynet.cli.predict.BATCH", 2)
    assert len(json.loads(run("predict", file, *[picture] * 5, "--json").out)["predictions"]) == 5


@pytest.mark.parametrize("engine", USABLE)
def test_predict_on_every_engine(run, file, picture, engine):
    answer = json.loads(run("predict", file, picture, "--json", "--engine", engine, "--threads", "1").out)
    assert answer["engine"] == engine


def test_predict_resizes_by_the_files_policy(run, file, tmp_path):
    small = load("digits").test.images[0]
    Image.fromarray(np.kron(small[..., 0], np.ones((4, 4), np.uint8))).save(tmp_path / "big.png")
    assert run("predict", file, tmp_path / "big.png").code == 0


def test_predict_without_names_and_policy(run, make_file, picture):
    path = make_file(classes=(), image_policy=None)
    assert run("predict", path, picture).out.split()[-2] in "0123456789"


NO_POLICY = "was packed without image_policy, so it does not say how such a picture becomes an input)"


def test_without_a_policy_a_picture_of_another_size_is_refused(run, make_file, tmp_path):
    Image.new("L", (30, 20)).save(tmp_path / "big.png")
    path = make_file(image_policy=None)
    result = run("predict", path, tmp_path / "big.png")
    assert result.code == 1
    assert result.error == (
        f"{tmp_path / 'big.png'}: 20 x 30 pixels (height x width), expected 8 x 8; resize the picture "
        f"({path} {NO_POLICY}"
    )


def test_without_a_policy_a_transparent_picture_is_refused(run, make_file, tmp_path):
    path = make_file(image_policy=None)
    Image.new("RGBA", (8, 8), (1, 2, 3, 255)).save(tmp_path / "opaque.png")
    assert run("predict", path, tmp_path / "opaque.png").code == 0
    Image.new("RGBA", (8, 8), (1, 2, 3, 254)).save(tmp_path / "clear.png")
    result = run("predict", path, tmp_path / "clear.png")
    assert result.code == 1
    assert result.error.startswith(
        f"{tmp_path / 'clear.png'}: has transparent pixels; lay them over a background first"
    )
    assert result.error.endswith(NO_POLICY)


def test_a_policy_that_refuses_does_not_blame_its_absence(run, make_file, tmp_path):
    Image.new("L", (30, 20)).save(tmp_path / "big.png")
    policy = {"height": 8, "width": 8, "channels": 1, "resize": "refuse", "background": None}
    result = run("predict", make_file(image_policy=policy), tmp_path / "big.png")
    assert result.error.endswith("expected 8 x 8; resize the picture")


def test_without_a_policy_own_pictures_of_another_size_are_refused(run, make_file, tmp_path):
    for label in "01":
        folder = tmp_path / "own" / label
        folder.mkdir(parents=True)
        for i in range(10):
            Image.new("L", (30, 20), i).save(folder / f"{i}.png")
    path = make_file(classes=(), image_policy=None)
    result = run("evaluate", path, "--dataset", tmp_path / "own")
    assert result.code == 1
    assert "20 x 30 pixels (height x width), expected 8 x 8" in result.error
    assert result.error.endswith(NO_POLICY)


@pytest.mark.parametrize("command", ["predict", "inspect", "bench", "verify"])
def test_a_folder_is_no_packed_network(run, tmp_path, picture, command):
    more = [picture] if command == "predict" else []
    (tmp_path / "folder").mkdir()
    result = run(command, tmp_path / "folder", *more)
    assert result.code == 2
    assert "is a folder" in result.error
    (tmp_path / "folder" / "run.json").write_text("{}")
    if command != "verify":
        folder = tmp_path / "folder"
        told = f"{folder}: is the folder of a run, not a packed network; "
        assert run(command, folder, *more).error == f"{told}pack it first: binarynet pack {folder}"
        (folder / "model.bnn").touch()
        result = run(command, folder, *more)
        assert (result.code, result.error) == (2, f"{told}its packed network is {folder / 'model.bnn'}")


def test_predict_shows_class_names_as_they_are(run, make_file, picture):
    path = make_file(classes=tuple(f"[red]c{i}[/]" for i in range(10)))
    assert "[red]c" in run("predict", path, picture).out


def test_predict_works_where_torch_is_not_installed(file, picture):
    code = (
        "import sys\n"
        "for name in ('torch', 'lightning', 'sklearn', 'pooch', 'scipy', 'matplotlib'): sys.modules[name] = None\n"
        "from binarynet.cli import app\n"
        f"app.main(['predict', {str(file)!r}, {str(picture)!r}])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize("command", ["predict", "evaluate", "verify", "inspect", "bench", "pack"])
@pytest.mark.parametrize(
    ("content", "message"), [(None, "no such"), (b"", "model.bnn"), (b"nothing of that kind", "model.bnn")]
)
def test_bad_files(run, tmp_path, picture, command, content, message):
    path = tmp_path / "model.bnn"
    if content is not None:
        path.write_bytes(content)
    result = run(command, path, *([picture] if command == "predict" else []))
    assert message in result.error
    assert result.code == (2 if command == "pack" and content is not None else 1)  # pack takes no files: wrong usage


def test_bad_images(run, file, picture, tmp_path):
    (tmp_path / "text.png").write_text("hello")
    result = run("predict", file, picture, tmp_path / "text.png")
    assert result.code == 1
    assert result.error.startswith(f"{tmp_path / 'text.png'}: not a PNG or JPEG picture")
    np.save(tmp_path / "f.npy", np.zeros((8, 8), np.float32))
    assert "holds float32, expected uint8" in run("predict", file, tmp_path / "f.npy").error
    assert run("predict", file, tmp_path / "none.png").error == f"{tmp_path / 'none.png'}: no such file"


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ({"height": 8}, "image policy: expected the keys"),
        (
            {"height": 8, "width": 9, "channels": 1, "resize": "pad", "background": 0},
            "image policy: it gives images of [8, 9, 1] (height, width, channels), the network takes [8, 8, 1]",
        ),
    ],
)
@pytest.mark.parametrize("command", ["predict", "inspect"])
def test_wrong_policy_in_a_file(run, make_file, picture, monkeypatch, policy, message, command):
    with monkeypatch.context() as unchecked:
        unchecked.setattr("binarynet.fileformat.content.check_image_policy", lambda *_: None)
        path = make_file(image_policy=policy)
    result = run(command, path, *([picture] if command == "predict" else []))
    assert result.code == 1
    assert message in result.error
    assert "model.bnn: " in result.error


def test_unknown_engine(run, file, picture):
    result = run("predict", file, picture, "--engine", "abacus")
    assert result.code == 2
    assert "unknown engine 'abacus'; this build has: " in result.error


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_evaluate(run, file, split):
    part = load("digits").splits()[split]
    wrong = int((scores(file, part.images).argmax(axis=1) != part.labels).sum())
    facts = json.loads(run("evaluate", file, "--split", split, "--json").out)
    assert (facts["wrong"], facts["images"], facts["split"]) == (wrong, len(part), split)
    assert facts["error"] == wrong / len(part)
    text = run("evaluate", file, "--split", split).out
    assert f"{split} error  {100 * wrong / len(part):.2f} %  ({wrong:,} of {len(part):,} wrong)" in text


def test_evaluate_on_own_pictures(run, make_file, tmp_path):
    for label in "01":
        folder = tmp_path / "own" / label
        folder.mkdir(parents=True)
        for i in range(10):
            Image.fromarray(np.full((20, 30, 3), 25 * i, np.uint8)).save(folder / f"{i}.png")
    path = make_file(classes=tuple("0123456789"))
    result = run("evaluate", path, "--dataset", tmp_path / "own")
    assert result.code == 1
    assert "its classes (0, 1) are not those of" in result.error
    facts = json.loads(run("evaluate", make_file(classes=()), "--dataset", tmp_path / "own", "--json").out)
    assert facts["images"] == 4


def test_evaluate_without_a_known_data_set(run, make_file):
    result = run("evaluate", make_file(provenance={}))
    assert result.code == 2
    assert result.error.endswith("does not say what it was trained on; name a data set with --dataset")


def test_evaluate_with_an_unknown_data_set(run, file):
    result = run("evaluate", file, "--dataset", "mnits")
    assert result.code == 2
    assert "unknown data set 'mnits': known are digits, mnist, fashion-mnist, cifar10, svhn" in result.error


def test_evaluate_with_images_of_another_size(run, file, tmp_path):
    np.savez(tmp_path / "own.npz", x=np.zeros((20, 9, 9), np.uint8), y=np.arange(20) % 2)
    result = run("evaluate", file, "--dataset", tmp_path / "own.npz")
    assert result.code == 1
    assert "its images are [9, 9, 1], the network takes [8, 8, 1]" in result.error


def test_notes_of_a_data_set_are_shown(run, make_file, tmp_path):
    for label in "01":
        folder = tmp_path / "own" / label
        folder.mkdir(parents=True)
        (folder / "read.me").touch()
        for i in range(5):
            Image.fromarray(np.full((8, 8), i, np.uint8)).save(folder / f"{i}.png")
    result = run("evaluate", make_file(classes=()), "--dataset", tmp_path / "own")
    assert result.code == 0
    assert result.err == f"note: {tmp_path / 'own'}: 2 files that are no pictures were ignored (read.me, ...)\n"


def test_verify(run, file):
    result = run("verify", file)
    assert (result.code, result.err) == (0, "")
    lines = result.out.splitlines()
    assert lines[0] == f"{file}: all 360 test images of digits, compared with reference"
    native = [name for name in USABLE if name != "reference"]
    assert lines[2].split() == ["layer", "kind", "values", *native]
    assert lines[3].split() == ["sign1", "bits", "25,200", *["0"] * len(native)]
    assert lines[4].split() == ["scores", "scores", "3,600", *["0"] * len(native)]
    assert lines[-1] == "exact: 0 differences in 28,800 values on every engine"


def test_verify_json_with_sums_and_some_images(run, file):
    answer = json.loads(run("verify", file, "--images", "7", "--sums", "--json").out)
    assert answer["exact"]
    assert answer["images"] == 7
    assert [(layer["name"], layer["compared"]) for layer in answer["layers"]] == [
        ("dense1", 490),
        ("sign1", 490),
        ("dense2", 70),
        ("scores", 70),
    ]


def test_verify_on_random_images_needs_no_data(run, make_file):
    result = run("verify", make_file(provenance={}), "--random", "33")
    assert result.code == 0
    assert "33 random images" in result.out


def test_verify_without_data_says_what_to_do(run, make_file, monkeypatch):
    monkeypatch.setattr("binarynet.data.mnist.MIRRORS", ())
    result = run("verify", make_file(provenance={"dataset": "mnist"}))
    assert result.code == 1
    assert "mnist: not found in " in result.error
    assert result.error.endswith("(or verify on random images: --random 1000)")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a", "b", "c"], "expected [RUN] MODEL.bnn, got 3 paths"),
        (["{folder}"], "is a folder; the packed network comes last: binarynet verify [RUN] MODEL.bnn"),
        (["{file}", "{file}"], "is not a run's folder; expected [RUN] MODEL.bnn"),
        (["{file}", "--random", "3", "--images", "3"], "--random takes no data set: leave --images, --dataset and"),
    ],
)
def test_verify_wrong_usage(run, file, tmp_path, arguments, message):
    result = run("verify", *[argument.format(folder=tmp_path, file=file) for argument in arguments])
    assert result.code == 2
    assert message in result.error


def test_a_missing_run_is_a_failure(run, file, tmp_path):
    for command in (["verify", tmp_path / "no", file], ["pack", tmp_path / "no"], ["evaluate", tmp_path / "no"]):
        result = run(*command)
        assert (result.code, result.error) == (1, f"{tmp_path / 'no'}: no such run folder or .bnn file")


@pytest.mark.parametrize("name", ["own", "data/own", "data/own.npz"])
@pytest.mark.parametrize("command", ["evaluate", "verify"])
def test_where_the_recorded_data_are_not_found_their_place_is_asked_for(run, make_file, command, name):
    path = make_file(provenance={"dataset": name})
    result = run(command, path)
    assert result.code == 1
    assert result.error.startswith(
        f"{path}: was trained on {name}, which is not found from here; say where the data are: --dataset PATH"
    )


def test_verify_names_what_differs(run, file, monkeypatch):
    def differing(graph, images, **_):
        check = ValueCheck("sign1", "bits", 25_200, {"portable": 3}, {"portable": Difference(5, (17,), 1, -1)})
        return Verification("reference", ("portable",), len(images), [check])

    monkeypatch.setattr("binarynet.verify", differing, raising=False)
    result = run("verify", file)
    assert result.code == 1
    assert result.out.splitlines()[-1].split() == ["sign1", "bits", "25,200", "3"]
    assert "exact" not in result.out
    assert result.err == (
        "error: portable differs from reference in 'sign1': 3 of 25200 bits values; "
        "first at image 5, channel 17: expected 1, got -1\n"
    )
    with pytest.raises(VerificationError):
        differing(None, [0]).require_exact()


def test_a_network_without_scores(run, make_file, picture):
    graph = Graph((Input("image", (8, 8, 1)), Flatten("pixels", "image")), "pixels")
    path = make_file(graph=graph, classes=())
    result = run("predict", path, picture)
    assert result.code == 2
    assert "this network returns u8[64], not scores" in result.error
