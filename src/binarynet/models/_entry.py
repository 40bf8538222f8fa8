"""What enters a layer, and what that means for it and for its normalization."""

from __future__ import annotations

from collections import OrderedDict
from typing import Literal, NamedTuple, TypedDict, get_args

from torch import nn

from binarynet.encoding import INPUT_MAX
from binarynet.errors import UsageError
from binarynet.layers import ContrastNormalization, Whitening

PreprocessingName = Literal["none", "zca", "gcn_lcn"]
"""What happens to images before the first layer; all but "none" make its inputs real-valued."""


class LayerOptions(TypedDict):
    """Of a binary layer."""

    first: bool
    real_input: bool


class Entry(NamedTuple):
    """What a binary layer is told of its inputs, and the ``input_scale`` of the normalization behind it."""

    options: LayerOptions
    input_scale: float = 1.0


SIGNS = Entry({"first": False, "real_input": False})
_BYTES = Entry({"first": True, "real_input": False}, 1 / INPUT_MAX)
_REALS = Entry({"first": False, "real_input": True})


def enter(layers: OrderedDict[str, nn.Module], preprocessing: str, input_shape: tuple[int, int, int]) -> Entry:
    """Append ``preprocess`` where there is one; what the first binary layer gets."""
    height, width, channels = input_shape
    if preprocessing == "none":
        return _BYTES
    if preprocessing == "zca":
        layers["preprocess"] = Whitening((channels, height, width))
    elif preprocessing != "gcn_lcn":
        raise UsageError(
            f"there is no preprocessing {preprocessing!r}; there are {', '.join(get_args(PreprocessingName))}"
        )
    elif height == width == 1:
        raise UsageError('preprocessing "gcn_lcn" is for images, got features; use "none" or "zca"')
    else:
        layers["preprocess"] = ContrastNormalization()
    return _REALS
