from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from binarynet.data import load, load_like
from binarynet.data.images import ImagePolicy
from binarynet.errors import DataError, UsageError


def fill(folder: Path, count: int, value: int, *, size: tuple[int, int] = (6, 5), rgb: bool = False) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        pixels = np.full((*size, 3) if rgb else size, value, np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:03}.png")


@pytest.fixture
def pictures(tmp_path) -> Path:
    fill(tmp_path / "pictures" / "cat", 20, 100)
    fill(tmp_path / "pictures" / "dog", 10, 200)
    return tmp_path / "pictures"


def test_class_folders(pictures):
    data = load(pictures)
    assert data.name == str(pictures)
    assert data.classes == ("cat", "dog")
    assert data.policy.shape == (6, 5, 1)
    assert data.notes == ()
    counts = {part: np.bincount(split.labels).tolist() for part, split in data.splits().items()}
    assert counts == {"train": [14, 7], "validation": [2, 1], "test": [4, 2]}
    for split in data.splits().values():
        np.testing.assert_array_equal(split.images[:, 0, 0, 0], np.array([100, 200])[split.labels])


def names(data_folder: Path) -> dict[str, set[int]]:
    """Which pictures are in which part, told by their pixel values."""
    return {part: set(split.images[:, 0, 0, 0].tolist()) for part, split in load(data_folder).splits().items()}


def test_split_is_fixed_and_moves_little_when_pictures_come_in(tmp_path):
    root = tmp_path / "p"
    for label in ("a", "b"):
        fill(root / label, 0, 0)
        for i in range(100):
            Image.fromarray(np.full((2, 2), i, np.uint8)).save(root / label / f"{i}.png")
    before = names(root)
    assert before == names(root)
    for label in ("a", "b"):
        for i in range(100, 110):
            Image.fromarray(np.full((2, 2), i, np.uint8)).save(root / label / f"{i}.png")
    after = names(root)
    assert len(before["test"] - after["test"]) <= 8


def test_split_does_not_depend_on_where_the_folder_is(pictures, tmp_path):
    for i, path in enumerate(sorted(pictures.rglob("*.png"))):
        Image.fromarray(np.full((2, 2), i, np.uint8)).save(path)
    shutil.copytree(pictures, tmp_path / "elsewhere")
    first, second = load(pictures), load(tmp_path / "elsewhere")
    np.testing.assert_array_equal(first.test.images, second.test.images)


def test_own_splits(tmp_path):
    for part, value in (("train", 1), ("val", 2), ("test", 3)):
        fill(tmp_path / part / "a", 3, value)
        fill(tmp_path / part / "b", 2, value)
    for part, split in load(tmp_path).splits().items():
        value = {"train": 1, "validation": 2, "test": 3}[part]
        assert set(split.images.ravel().tolist()) == {value}
        assert split.labels.tolist() == [0, 0, 0, 1, 1]


def test_train_and_test_only(tmp_path):
    for part in ("train", "test"):
        fill(tmp_path / part / "a", 10, 7)
        fill(tmp_path / part / "b", 10, 7)
    assert [len(split) for split in load(tmp_path).splits().values()] == [18, 2, 20]


@pytest.mark.parametrize(("image_size", "shape"), [(4, (4, 4, 1)), ([3, 9], (3, 9, 1)), ((3, 9), (3, 9, 1))])
def test_image_size(pictures, image_size, shape):
    data = load(pictures, image_size=image_size)
    assert data.policy.shape == shape
    assert data.train.images.shape[1:] == shape
    assert set(data.train.images.ravel().tolist()) == {100, 200}


@pytest.mark.parametrize("image_size", [0, -1, 4097, [3], [3, 4, 5], [3, 0], True, [3.0, 4], "32"])
def test_wrong_image_size(pictures, image_size):
    with pytest.raises(UsageError, match="image_size must be pixels per side or"):
        load(pictures, image_size=image_size)


def test_colour(pictures):
    assert load(pictures).policy.channels == 1
    assert load(pictures, colour="rgb").policy.channels == 3
    fill(pictures / "cat", 1, 100, rgb=True)
    assert load(pictures).policy.channels == 3
    assert load(pictures, colour="grey").policy.channels == 1
    with pytest.raises(UsageError, match="colour must be auto, grey or rgb, got 'pink'"):
        load(pictures, colour="pink")


def test_resize_rule_travels_in_the_policy(pictures):
    policy = load(pictures, image_size=8, resize="pad", background=3).policy
    assert (policy.resize, policy.background) == ("pad", 3)
    with pytest.raises(DataError, match="resize must be one of"):
        load(pictures, resize="zoom")


def test_pictures_of_several_sizes(pictures):
    fill(pictures / "dog", 1, 9, size=(7, 5))
    message = r"pictures differ in size, .*\.png has 6 x 5 pixels; set image_size to bring all of them to one size"
    with pytest.raises(DataError, match=message):
        load(pictures)
    assert load(pictures, image_size=6).policy.shape == (6, 6, 1)


def test_unknown_option(pictures):
    with pytest.raises(UsageError, match="no option 'size'; it takes image_size, colour, resize, background"):
        load(pictures, size=3)


def test_empty_class(pictures):
    (pictures / "eel").mkdir()
    with pytest.raises(DataError, match=r"eel: the class is empty: no PNG or JPEG picture in it"):
        load(pictures)


def test_class_with_too_few_pictures(pictures):
    fill(pictures / "eel", 2, 1)
    with pytest.raises(DataError, match="class 'eel' has 2 samples, at least 3 are needed to split it; add samples"):
        load(pictures)


def test_one_class_only(tmp_path):
    fill(tmp_path / "cat", 5, 1)
    with pytest.raises(DataError, match="at least 2 class folders with PNG or JPEG pictures, found only cat"):
        load(tmp_path)


def test_no_class_folders(tmp_path):
    with pytest.raises(DataError, match=r"expected at least 2 class folders .* found none"):
        load(tmp_path)


def test_text_file_named_png(pictures):
    (pictures / "cat" / "x.png").write_text("no picture")
    with pytest.raises(DataError, match=r"cat/x\.png: not a PNG or JPEG picture"):
        load(pictures)


def test_truncated_picture(pictures):
    content = (pictures / "dog" / "003.png").read_bytes()
    (pictures / "dog" / "003.png").write_bytes(content[: len(content) - 30])
    with pytest.raises(DataError, match=r"dog/003\.png: damaged or truncated picture"):
        load(pictures)


def test_other_picture_formats(pictures):
    (pictures / "cat" / "x.webp").touch()
    with pytest.raises(DataError, match=r"x\.webp: only PNG and JPEG pictures are read; convert it"):
        load(pictures)


def test_other_files_are_ignored_with_a_note_hidden_ones_without(pictures):
    (pictures / "cat" / "notes.txt").touch()
    (pictures / "dog" / ".DS_Store").touch()
    (pictures / "README").touch()
    (pictures / ".git").mkdir()
    assert load(pictures).notes == (f"{pictures}: 1 file that is no picture was ignored (notes.txt)",)
    (pictures / "dog" / "b.csv").touch()
    assert load(pictures).notes == (f"{pictures}: 2 files that are no pictures were ignored (notes.txt, ...)",)


def test_hidden_folders_with_pictures_are_noted(pictures):
    fill(pictures / ".owl", 3, 1)
    data = load(pictures)
    assert data.classes == ("cat", "dog")
    assert data.notes == (f"{pictures}: the hidden folder is no class and skipped, with the pictures in it (.owl)",)
    fill(pictures / "__eel", 1, 1)
    (pictures / ".cache").mkdir()
    assert load(pictures).notes == (
        f"{pictures}: 2 hidden folders are no class and skipped, with the pictures in it (.owl, ...)",
    )


def test_pictures_of_another_size_than_a_refusing_policy_takes(pictures):
    with pytest.raises(DataError, match=r"6 x 5 pixels \(height x width\), expected 8 x 8; resize the picture$"):
        load(pictures, image_size=8, resize="refuse")


def test_folder_within_a_class_folder(pictures):
    (pictures / "cat" / "more").mkdir()
    with pytest.raises(DataError, match="a folder within a class folder; pictures must lie directly in cat"):
        load(pictures)


def test_split_and_class_folders_mixed(pictures):
    fill(pictures / "test" / "cat", 3, 1)
    with pytest.raises(DataError, match=r"expected either class folders, or train and .* found cat, dog, test"):
        load(pictures)


def test_two_folders_for_one_split(tmp_path):
    for part in ("train", "val", "valid"):
        fill(tmp_path / part / "a", 1, 1)
    with pytest.raises(DataError, match="several validation folders: val, valid; keep one"):
        load(tmp_path)


def test_unknown_class_in_test(tmp_path):
    for label in ("a", "b"):
        fill(tmp_path / "train" / label, 5, 1)
    fill(tmp_path / "test" / "c", 5, 1)
    with pytest.raises(DataError, match=r"test: class folder c is not among the training classes \(a, b\)"):
        load(tmp_path)


def test_class_missing_in_test_is_noted(tmp_path):
    for label in ("a", "b"):
        fill(tmp_path / "train" / label, 5, 1)
    fill(tmp_path / "test" / "b", 5, 1)
    data = load(tmp_path)
    assert data.notes == (f"{tmp_path / 'test'}: no pictures of class a",)
    assert data.test.labels.tolist() == [1] * 5


def test_empty_test_folder(tmp_path):
    for label in ("a", "b"):
        fill(tmp_path / "train" / label, 5, 1)
    (tmp_path / "test").mkdir()
    with pytest.raises(DataError, match="test: no PNG or JPEG pictures in class folders"):
        load(tmp_path)


def test_path_is_also_looked_up_in_data_dir(pictures, monkeypatch, tmp_path):
    monkeypatch.chdir("/")
    assert load("pictures", tmp_path).classes == ("cat", "dog")


def test_unknown_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        UsageError,
        match="unknown data set 'mnits': known are digits, mnist, fashion-mnist, cifar10, svhn, or give a folder",
    ):
        load("mnits")


@pytest.mark.parametrize("path", ["some/where", "data.npz"])
def test_missing_path(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=f"^{path}: no such file or folder"):
        load(path)


def test_file_of_another_kind(tmp_path):
    (tmp_path / "x.csv").touch()
    with pytest.raises(DataError, match=r"x\.csv: expected a folder of class folders or an \.npz file"):
        load(tmp_path / "x.csv")


def test_load_like_brings_pictures_to_the_policy(pictures):
    policy = ImagePolicy(9, 7, 3, resize="pad", background=8)
    data = load_like(pictures, policy)
    assert data.policy == policy
    assert data.test.images.shape == (6, 9, 7, 3)


def test_load_like_refuses_what_cannot_fit(pictures):
    with pytest.raises(DataError, match="holds pictures, but the network takes 64 channels"):
        load_like(pictures, ImagePolicy(1, 1, 64))
    with pytest.raises(DataError, match=r"digits: its images are \[8, 8, 1\], the network takes \[28, 28, 1\]"):
        load_like("digits", ImagePolicy(28, 28, 1))
