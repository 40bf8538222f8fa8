"""Launches of the steps that are no block: pooling, thresholds, affine maps, flattening."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from binarynet.cuda import operations
from binarynet.cuda.blocks import Launch
from binarynet.graph import Affine, Flatten, MaxPool, Threshold
from binarynet.runtime.cuda_steps import DeviceStep

Array = npt.NDArray[Any]


def constants(step: DeviceStep) -> dict[str, Array]:
    """What the step's kernel reads beside its source, by name; to be copied to the device."""
    node = step.node
    if isinstance(node, Threshold):
        return operations.threshold_constants(node.thresholds, node.falling)
    if isinstance(node, Affine):
        return {"scale": node.scale, "shift": node.shift}
    if step.falling is not None and step.falling.any():
        return {"falling": operations.falling_words(step.falling)}
    return {}


def launch(step: DeviceStep, images: int, source: int, result: int, addresses: dict[str, int]) -> Launch:
    """How to compute the step for so many images.

    Args:
        step: what.
        images: at least one.
        source, result: device addresses.
        addresses: those of :func:`constants`.
    """
    node, kind = step.node, step.source_type
    rows = images * int(np.prod(kind.shape[:-1], dtype=object))
    if isinstance(node, MaxPool):
        size = (kind.shape[0], kind.shape[1])
        window = (node.window.kernel, node.window.stride, node.window.padding)
        if kind.kind == "i32":
            return operations.max_pool_sums(images, size, kind.channels, *window, source, result)
        falling = addresses.get("falling", 0)
        return operations.max_pool_bits(images, size, kind.channels, *window, source, result, falling)
    if isinstance(node, Threshold):
        return operations.threshold(rows, kind.channels, source, result, addresses)
    if isinstance(node, Affine):
        return operations.affine(rows, kind.channels, source, result, addresses["scale"], addresses["shift"])
    assert isinstance(node, Flatten)
    return operations.flatten_bits(images, rows // images, kind.channels, source, result)
