"""Rotation, scale, shift and bending of training images."""

import numpy as np
import pytest
import torch

from binarynet import training
from binarynet.data import Split
from binarynet.errors import UsageError
from binarynet.training import augmentation, recipe
from binarynet.training.augmentation import Augmentation
from binarynet.training.batches import TrainingBatches
from binarynet.training.warping import Warp

IMAGES = torch.randint(0, 256, (30, 3, 9, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


class Extreme:
    """A generator whose uniform numbers are the largest possible ones, and whose normal ones are 1; keeps a record."""

    def __init__(self):
        self.asked = []

    def uniform(self, low, high, size):
        self.asked.append((low, high))
        return np.full(size, float(high))

    def standard_normal(self, size, dtype):
        return np.ones(size, dtype)


def warp(images, draw=None, fill=0, **amounts):
    none = {"rotation": 0.0, "scale": 0.0, "shift": 0.0, "bend": 0.0}
    return Warp(**{**none, **amounts}, fill=fill)(images, draw or Extreme())


def by_hand(image, angle, factor, shift, fill):
    """One image, channel by channel and pixel by pixel: what lands at (row, column), between four pixels."""
    _, height, width = image.shape
    framed = np.pad(image.astype(float), ((0, 0), (1, 1), (1, 1)), constant_values=fill)
    result = np.empty(image.shape)
    for row in range(height):
        for column in range(width):
            place = complex(column - (width - 1) / 2, row - (height - 1) / 2) - shift
            place *= np.exp(-1j * np.deg2rad(angle)) / factor
            x, y = place.real + (width - 1) / 2, place.imag + (height - 1) / 2
            left, top = int(np.floor(x)), int(np.floor(y))
            value = np.zeros(image.shape[0])
            for r, c, share in (
                (top, left, (top + 1 - y) * (left + 1 - x)),
                (top, left + 1, (top + 1 - y) * (x - left)),
                (top + 1, left, (y - top) * (left + 1 - x)),
                (top + 1, left + 1, (y - top) * (x - left)),
            ):
                inside = 0 <= r < height and 0 <= c < width
                value += share * (framed[:, r + 1, c + 1] if inside else fill)
            result[:, row, column] = value
    return result


@pytest.mark.parametrize(
    ("rotation", "scale", "shift", "fill"),
    [(0.0, 0.0, 0.4, 7), (25.0, 0.0, 0.0, 128), (0.0, 0.3, 0.0, 255), (170.0, 0.2, 1.7, 0)],
)
def test_pixels_are_where_the_amounts_say(rotation, scale, shift, fill):
    before = IMAGES.clone()
    result = warp(IMAGES, rotation=rotation, scale=scale, shift=shift, fill=fill)
    assert result.dtype == torch.uint8
    assert result.shape == IMAGES.shape
    assert torch.equal(IMAGES, before)
    for after, image in zip(result.numpy(), IMAGES.numpy(), strict=True):
        wanted = by_hand(image, rotation, 1 + scale, complex(shift, shift), fill)
        assert abs(after - wanted).max() < 0.51  # the nearest byte


def test_directions():
    image = torch.zeros(1, 1, 5, 5, dtype=torch.uint8)
    image[0, 0, 2, 4] = 200  # right of the centre
    assert warp(image, rotation=90.0)[0, 0, 4, 2] == 200  # rows go down: below it
    assert warp(image, shift=1.0, fill=3)[0, 0, 3].tolist() == [3, 0, 0, 0, 0]
    assert warp(image, shift=1.0, fill=3)[0, 0, 0].tolist() == [3, 3, 3, 3, 3]
    image[0, 0, 2, 3] = 100
    assert warp(image, scale=0.999)[0, 0, 2].tolist() == pytest.approx([0, 0, 0, 50, 100], abs=1)


def test_bending_moves_smoothly():
    shifted = warp(IMAGES, bend=2.0, fill=9)  # all points displaced alike: a shift to the left and up
    assert torch.equal(shifted[:, :, :-2, :-2], IMAGES[:, :, 2:, 2:])
    assert (shifted[:, :, -2:] == 9).all()
    assert (shifted[..., -2:] == 9).all()
    ramp = torch.arange(0, 224, 8, dtype=torch.uint8).expand(200, 1, 28, 28).contiguous()
    bent = warp(ramp, np.random.Generator(np.random.PCG64(1)), bend=0.5)[:, 0].float() / 8
    moved = (bent - torch.arange(28))[:, 3:25, 3:25]  # pixels along x
    assert float(moved.std()) == pytest.approx(0.4, abs=0.1)  # between the points it is smaller than 0.5
    assert float(moved.mean().abs()) < 0.05
    assert float((moved.diff(dim=1) ** 2).mean() ** 0.5) < 0.15  # from one row to the next
    assert float(moved.std((1, 2)).mean()) > 0.2  # within an image


def test_amounts_are_drawn_for_each_image_from_symmetric_ranges():
    draw = Extreme()
    warp(IMAGES, draw, rotation=10.0, scale=0.25, shift=2.0)
    assert draw.asked == [(-10.0, 10.0), (0.75, 1.25), (-2.0, 2.0)]
    same = IMAGES[:1].expand(30, -1, -1, -1)
    drawn = warp(same, np.random.Generator(np.random.PCG64(1)), shift=2.0)
    assert len({image.numpy().tobytes() for image in drawn}) == 30


def test_nothing_but_fill_stays_so():
    for byte in (0, 128, 255):
        plain = torch.full((4, 1, 8, 8), byte, dtype=torch.uint8)
        seed = np.random.Generator(np.random.PCG64(1))
        assert torch.equal(warp(plain, seed, rotation=30.0, scale=0.3, shift=2.0, bend=2.0, fill=byte), plain)


def test_a_warp_leaves_flips_and_crops_as_they_were_drawn_and_the_seed_alone_decides():
    chosen = {"flip": True, "crop_padding": 1, "crop_fill": 0}
    none = Warp(rotation=0.0, scale=0.0, shift=0.0, bend=0.0, fill=0)
    assert torch.equal(Augmentation(**chosen, warp=none)(IMAGES, 5), Augmentation(**chosen)(IMAGES, 5))
    warped = Augmentation(**chosen, warp=Warp(rotation=9.0, scale=0.1, shift=1.0, bend=1.0, fill=0))
    torch.manual_seed(1)
    first = warped(IMAGES, 5)
    torch.manual_seed(2)
    assert torch.equal(warped(IMAGES, 5), first)
    assert not torch.equal(warped(IMAGES, 6), first)


def test_streams_never_change():
    # Stored checkpoints rely on this: a resumed run must draw what the first part would have drawn.
    ramp = np.broadcast_to(np.arange(10, 190, 20, dtype=np.uint8)[:, None], (4, 9, 9))[..., None].copy()
    chosen = Augmentation(
        flip=False, crop_padding=0, crop_fill=0, warp=Warp(rotation=20.0, scale=0.2, shift=1.0, bend=0.5, fill=0)
    )
    batches = TrainingBatches(Split(ramp, np.arange(4)), 4, seed=9, augmentation=chosen)
    drawn = next(iter(batches)).images[:, 0, 4, 4].tolist()  # the middle of rows of 10, 30, ..., 170
    assert drawn == pytest.approx([90, 72, 90, 71], abs=1)


def of(shape, *overrides):
    return augmentation.of_recipe(recipe.load("digits-mlp", overrides), shape)


def test_a_recipe_says_how_much():
    made = of((28, 28, 1), "augmentation.rotation=10", "augmentation.bend=0.5", "augmentation.crop_fill=0")
    assert vars(made.warp) == {"rotation": 10, "scale": 0, "shift": 0, "bend": 0.5, "fill": 0}
    assert of((28, 28, 1), "augmentation.flip=true").warp is None
    for key in ("rotation", "scale", "shift", "bend"):
        assert of((8, 8, 1), f"augmentation.{key}=0.5").warp is not None
        with pytest.raises(UsageError, match=r"flips, crops and warps are for images, but digits has features; leave"):
            of((1, 1, 64), f"augmentation.{key}=0.5")
    for key in ("shift", "bend"):
        with pytest.raises(UsageError, match=rf"augmentation.{key} 3: would move .* 4 x 3 images .* less than 3"):
            of((4, 3, 1), f"augmentation.{key}=3")


def test_a_run_with_warped_images_is_another_run_and_its_record_says_so(quick_recipe, tmp_path):
    overrides = ["training.epochs=1", "augmentation.rotation=10", "augmentation.shift=0.5", "augmentation.crop_fill=0"]
    plain = training.train(quick_recipe, overrides=overrides[:1], out=tmp_path / "plain", show="off")
    first = training.train(quick_recipe, overrides=overrides, out=tmp_path / "first", show="off")
    second = training.train(quick_recipe, overrides=overrides, out=tmp_path / "second", show="off")
    costs = [result.history[0].training_cost for result in (plain, first, second)]
    assert costs[0] != costs[1] == costs[2]
    record = training.load_run(first.directory).provenance["augmentation"]
    assert {key: value for key, value in record.items() if value} == {"rotation": 10, "shift": 0.5}
