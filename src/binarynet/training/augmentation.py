"""Random flips, crops and warps of training images, whole batches at a time, on uint8."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from binarynet.errors import UsageError
from binarynet.training.recipe import Recipe
from binarynet.training.warping import Warp, sent


class Augmentation:
    """What a recipe's ``[augmentation]`` does to a batch, see :class:`binarynet.training.recipe.AugmentationSection`.

    Args:
        flip: mirror each image left to right with probability 1/2.
        crop_padding: put so many pixels around each image, and cut its size out again at a random place.
        crop_fill: the byte that those pixels have.
        warp: what happens before that, if anything.
    """

    def __init__(self, *, flip: bool, crop_padding: int, crop_fill: int, warp: Warp | None = None) -> None:
        self.flip = flip
        self.crop_padding = crop_padding
        self.crop_fill = crop_fill
        self.warp = warp

    def __call__(self, images: Tensor, seed: int) -> Tensor:
        """Changed copies of a batch.

        Args:
            images: uint8 ``[batch, channels, height, width]``, on any device.
            seed: all that the changes depend on, besides the batch's size.

        Returns:
            uint8 of the same shape.
        """
        draw = np.random.Generator(np.random.PCG64(seed))
        count, _, height, width = images.shape
        mirrored = draw.random(count) < 0.5
        offsets = draw.integers(0, 2 * self.crop_padding + 1, (2, count))
        if self.warp is not None:
            images = self.warp(images, draw)
        if self.crop_padding:
            padded = F.pad(images, (self.crop_padding,) * 4, value=self.crop_fill)
            windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # a view [batch, channels, row, column, h, w]
            rows, columns = sent(offsets, images.device)
            images = windows[torch.arange(count, device=images.device), :, rows, columns]
        if self.flip:
            chosen = sent(mirrored, images.device)
            images = torch.where(chosen.view(-1, 1, 1, 1), images.flip(3), images)
        return images


def of_recipe(recipe: Recipe, shape: tuple[int, int, int]) -> Augmentation | None:
    """The recipe's augmentation for images of a (height, width, channels); None where it has none.

    Raises:
        UsageError: it makes no sense for these images.
    """
    chosen = recipe.augmentation
    height, width, _ = shape
    warps = chosen.warps()
    if not chosen.flip and not chosen.crop_padding and not warps:
        return None
    if height == width == 1:
        raise UsageError(
            f"augmentation: flips, crops and warps are for images, but {recipe.dataset.name} has features; "
            "leave [augmentation] out"
        )
    if chosen.flip and width == 1:
        raise UsageError(f"augmentation.flip: mirroring images of {height} x 1 pixels changes nothing; leave it out")
    if chosen.crop_padding >= min(height, width):
        raise UsageError(
            f"augmentation.crop_padding {chosen.crop_padding}: some crops of {height} x {width} images would show "
            f"padding only; expected less than {min(height, width)}"
        )
    for key, pixels in (("shift", chosen.shift), ("bend", chosen.bend)):
        if pixels >= min(height, width):
            raise UsageError(
                f"augmentation.{key} {pixels:g}: would move pixels out of {height} x {width} images altogether; "
                f"expected less than {min(height, width)}"
            )
    warp = Warp(**warps, fill=chosen.crop_fill) if warps else None
    return Augmentation(flip=chosen.flip, crop_padding=chosen.crop_padding, crop_fill=chosen.crop_fill, warp=warp)
