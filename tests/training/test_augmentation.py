"""Flips and crops of training images."""

import numpy as np
import pytest
import torch

from binarynet import training
from binarynet.data import Split
from binarynet.errors import UsageError
from binarynet.training import augmentation, recipe
from binarynet.training.augmentation import Augmentation
from binarynet.training.batches import TrainingBatches

IMAGES = torch.randint(0, 256, (400, 3, 6, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def by_hand(image, fill, padding):
    """Every image that flips and crops can make of one, as (flipped, row, column, pixels)."""
    channels, height, width = image.shape
    padded = np.full((channels, height + 2 * padding, width + 2 * padding), fill, dtype=np.uint8)
    padded[:, padding : padding + height, padding : padding + width] = image
    for row in range(2 * padding + 1):
        for column in range(2 * padding + 1):
            cut = padded[:, row : row + height, column : column + width]
            yield False, row, column, cut
            yield True, row, column, cut[:, :, ::-1]


def found(augmented, original, fill, padding):
    """Which of them an augmented image is."""
    for *place, pixels in by_hand(original.numpy(), fill, padding):
        if np.array_equal(pixels, augmented.numpy()):
            return tuple(place)
    raise AssertionError("not a crop of the padded image")


@pytest.mark.parametrize(("flip", "padding", "fill"), [(True, 0, 128), (False, 2, 128), (True, 2, 7)])
def test_every_image_is_flipped_and_cropped_by_itself_and_all_ways_alike(flip, padding, fill):
    before = IMAGES.clone()
    result = Augmentation(flip=flip, crop_padding=padding, crop_fill=fill)(IMAGES, 3)
    assert result.dtype == torch.uint8
    assert result.shape == IMAGES.shape
    assert torch.equal(IMAGES, before)
    places = [found(after, image, fill, padding) for after, image in zip(result, IMAGES, strict=True)]
    ways = (2 if flip else 1) * (2 * padding + 1) ** 2
    counts = np.array([places.count(place) for place in set(places)])
    assert len(counts) == ways
    assert abs(counts - 400 / ways).max() < 5 * (400 / ways) ** 0.5


def test_the_seed_alone_decides():
    augment = Augmentation(flip=True, crop_padding=1, crop_fill=128)
    torch.manual_seed(1)
    first = augment(IMAGES, 5)
    torch.manual_seed(2)
    assert torch.equal(augment(IMAGES, 5), first)
    assert not torch.equal(augment(IMAGES, 6), first)


def batches(**place):
    pixels = IMAGES.permute(0, 2, 3, 1).contiguous().numpy()
    augment = Augmentation(flip=True, crop_padding=1, crop_fill=128)
    return TrainingBatches(Split(pixels, np.arange(400)), 40, seed=9, augmentation=augment, **place)


def test_epochs_steps_and_ranks_differ_and_a_resumed_epoch_goes_on_alike():
    whole, resumed = batches(), batches(first_epoch=2, first_step=3)
    whole.epoch = resumed.epoch = 2
    wanted = list(whole)[3:]
    for a, b in zip(resumed, wanted, strict=True):
        assert a.step == b.step
        assert torch.equal(a.images, b.images)
    whole.epoch = 3
    shown = {int(label): image for batch in whole for label, image in zip(batch.labels, batch.images, strict=True)}
    before = {int(label): image for batch in wanted for label, image in zip(batch.labels, batch.images, strict=True)}
    assert not all(torch.equal(shown[label], before[label]) for label in before)
    augment = Augmentation(flip=True, crop_padding=1, crop_fill=128)
    ranks = [next(iter(batches(rank=rank, world_size=2))) for rank in (0, 1)]
    draws = [[found(i, IMAGES[n], 128, 1) for i, n in zip(b.images, b.labels, strict=True)] for b in ranks]
    assert draws[0] != draws[1]
    assert augment(IMAGES[:0], 1).shape == (0, 3, 6, 5)


def test_streams_never_change():
    # Stored checkpoints rely on this: a resumed run must draw what the first part would have drawn.
    first = next(iter(batches()))
    places = [found(i, IMAGES[n], 128, 1) for i, n in zip(first.images[:6], first.labels[:6], strict=True)]
    assert places == [(True, 2, 1), (False, 2, 2), (False, 2, 2), (False, 1, 1), (True, 0, 2), (False, 0, 0)]


def of(shape, *overrides):
    return augmentation.of_recipe(recipe.load("digits-mlp", overrides), shape)


def test_what_makes_no_sense_for_the_images_is_refused():
    assert of((32, 32, 3)) is None
    assert of((1, 1, 64)) is None
    assert of((4, 3, 1), "augmentation.crop_padding=2").crop_padding == 2
    with pytest.raises(UsageError, match=r"crop_padding 3: some crops of 4 x 3 images .* expected less than 3"):
        of((4, 3, 1), "augmentation.crop_padding=3")
    for override in ("augmentation.flip=true", "augmentation.crop_padding=1"):
        with pytest.raises(UsageError, match=r"flips, crops and warps are for images, but digits has features; leave"):
            of((1, 1, 64), override)
    with pytest.raises(UsageError, match=r"augmentation.flip: mirroring images of 8 x 1 pixels changes nothing"):
        of((8, 1, 3), "augmentation.flip=true")


def test_a_run_with_augmentation_is_another_run_and_its_record_says_so(quick_recipe, tmp_path):
    overrides = ["training.epochs=1", "augmentation.crop_padding=1", "augmentation.crop_fill=0"]
    plain = training.train(quick_recipe, overrides=overrides[:1], out=tmp_path / "plain", show="off")
    first = training.train(quick_recipe, overrides=overrides, out=tmp_path / "first", show="off")
    second = training.train(quick_recipe, overrides=overrides, out=tmp_path / "second", show="off")
    costs = [result.history[0].training_cost for result in (plain, first, second)]
    assert costs[0] != costs[1] == costs[2]
    record = training.load_run(first.directory).provenance
    stated = {key: value for key, value in record["augmentation"].items() if value}
    assert stated == {"crop_padding": 1}
    with pytest.raises(UsageError, match="crop_padding 8: some crops of 8 x 8"):
        training.train(quick_recipe, overrides=["augmentation.crop_padding=8"], out=tmp_path / "no", show="off")
    assert not (tmp_path / "no").exists()
