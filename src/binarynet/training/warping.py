"""Small random changes of shape of training images: rotation, scale, shift, bending; whole batches at a time."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

_CONTROL_SPACING = 7  # pixels between the points whose displacements are drawn: a quarter of an MNIST image


class Warp:
    """Rotates, scales, shifts and bends each image by amounts of its own; pixels are interpolated bilinearly.

    The order, seen from the image: bent first, then rotated and scaled about its centre, then shifted.

    Args:
        rotation: largest angle, in degrees; angles are uniform in [-rotation, rotation].
        scale: sizes are multiplied by factors that are uniform in [1 - scale, 1 + scale].
        shift: largest shift along either axis, in pixels; shifts are uniform in [-shift, shift], fractions included.
        bend: standard deviation, in pixels, of normally distributed displacements of a lattice of points, some 7 pixels
            apart, between which the displacement is interpolated by cubic splines ("elastic" deformation).
        fill: the byte that lies around the image.
    """

    def __init__(self, *, rotation: float, scale: float, shift: float, bend: float, fill: int) -> None:
        self.rotation = rotation
        self.scale = scale
        self.shift = shift
        self.bend = bend
        self.fill = fill

    def __call__(self, images: Tensor, draw: np.random.Generator) -> Tensor:
        """Warped copies of a batch.

        Args:
            images: uint8 ``[batch, channels, height, width]``, at least one, on any device.
            draw: where the amounts come from.

        Returns:
            uint8 of the same shape, rounded to the nearest byte; which of two neighbours is the nearest may differ
            between kinds of devices.
        """
        count, _, height, width = images.shape
        angle = np.deg2rad(draw.uniform(-self.rotation, self.rotation, count))
        factor = draw.uniform(1 - self.scale, 1 + self.scale, count)
        shift_x, shift_y = draw.uniform(-self.shift, self.shift, (2, count))
        # Where an output pixel at (x, y), in pixels from the centre, comes from: R(-angle) ((x, y) - shift) / factor.
        cosine, sine = np.cos(angle) / factor, np.sin(angle) / factor
        origin_x = -(cosine * shift_x + sine * shift_y)
        origin_y = sine * shift_x - cosine * shift_y
        # torch's coordinates are -1 and 1 at the image's edges, whatever its size.
        rows = [
            [cosine, sine * height / width, origin_x * 2 / width],
            [-sine * width / height, cosine, origin_y * 2 / height],
        ]
        places = np.array(rows).transpose(2, 0, 1).astype(np.float32)
        grid = F.affine_grid(sent(places, images.device), [count, 1, height, width], align_corners=False)
        if self.bend:
            grid = grid + self._displacements(draw, count, height, width, images.device)
        around = float(self.fill)  # what grid_sample finds outside of the image is 0
        warped = F.grid_sample(images.float() - around, grid, "bilinear", "zeros", align_corners=False)
        return (warped + around).round_().to(torch.uint8)

    def _displacements(
        self, draw: np.random.Generator, count: int, height: int, width: int, device: torch.device
    ) -> Tensor:
        """float32 ``[count, height, width, 2]``: x and y in torch's coordinates."""
        along_y, along_x = _spline(height), _spline(width)
        points = draw.standard_normal((count, 2, along_y.shape[1], along_x.shape[1]), dtype=np.float32)
        points *= self.bend * np.array([2 / width, 2 / height], dtype=np.float32)[:, None, None]
        field = along_y.to(device) @ sent(points, device) @ along_x.T.to(device)
        return field.permute(0, 2, 3, 1)


@functools.cache
def _spline(size: int) -> Tensor:
    """Weights of evenly spaced points, the outer ones at the edges, at each pixel: float32 ``[size, points]``."""
    points = max(2, round(size / _CONTROL_SPACING) + 1)
    each_alone = torch.eye(points).view(1, points, points, 1)
    return F.interpolate(each_alone, (size, 1), mode="bicubic", align_corners=True).view(points, size).T


def sent(values: npt.NDArray[Any], device: torch.device) -> Tensor:
    """A tensor on a device, which is not waited for."""
    tensor = torch.from_numpy(values)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)
