"""Multi-layer perceptrons (arXiv 1602.02830, section 2.1: 3 x 4096 and 3 x 2048 hidden units on MNIST)."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

from torch import nn

from binarynet.errors import UsageError
from binarynet.layers import (
    BatchNorm1d,
    BatchNorm2d,
    BinaryLinear,
    Normalization,
    ShiftBatchNorm1d,
    ShiftBatchNorm2d,
    Sign,
    StochasticSign,
    Weights,
)
from binarynet.models._entry import SIGNS, Entry, PreprocessingName, enter
from binarynet.models._registry import register

Activation = Literal["sign", "stochastic_sign", "identity_sign", "approx_sign", "swish_sign"]
"""How hidden activations are binarized in training mode; in evaluation mode all are the sign."""

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "sign": Sign,
    "stochastic_sign": StochasticSign,
    "identity_sign": partial(Sign, "identity"),
    "approx_sign": partial(Sign, "approx"),
    "swish_sign": partial(Sign, "swish"),
}

NormalizationName = Literal["batch", "shift"]
"""The normalization of hidden layers. Scores have an ordinary one in any case, as in the paper's Torch7 programs."""

NORMALIZATIONS: dict[str, tuple[Callable[..., Normalization], Callable[..., Normalization]]] = {
    "batch": (BatchNorm1d, BatchNorm2d),
    "shift": (ShiftBatchNorm1d, ShiftBatchNorm2d),
}
"""Of features, and of images."""


@register
def mlp(
    input_shape: tuple[int, int, int],
    classes: int,
    hidden: Sequence[int] = (1024, 1024, 1024),
    dropout_in: float = 0.0,
    dropout_hidden: float = 0.0,
    activation: Activation = "sign",
    normalization: NormalizationName = "batch",
    weights: Weights = "sign",
    preprocessing: PreprocessingName = "none",
) -> nn.Sequential:
    """Flatten, then a binary layer, normalization and sign per hidden size, and a normalized output layer.

    Shapes: uint8 ``[batch, channels, height, width]`` (or ``[batch, features]``) to float32 scores
    ``[batch, classes]``.

    Args:
        input_shape: (height, width, channels).
        classes: number of classes.
        hidden: size of each hidden layer.
        dropout_in: probability of masking an input.
        dropout_hidden: probability of masking a hidden activation.
        activation: "sign"; "stochastic_sign" as in the paper's Torch7 setting; "identity_sign", "approx_sign" or
            "swish_sign" for another gradient (:class:`binarynet.layers.Sign`).
        normalization: of hidden layers: "batch", or "shift" as in the Torch7 setting; the last one is "batch".
        weights: of every layer in training mode: "sign", or "stochastic_sign", drawn anew in every forward pass.
        preprocessing: "none": bytes enter as 2u - 255; "zca" or "gcn_lcn": real numbers do, which does not pack
            (:class:`binarynet.layers.Whitening`, which then wants to be fitted;
            :class:`binarynet.layers.ContrastNormalization`).

    Raises:
        UsageError: an option out of range.
    """
    if classes < 2:
        raise UsageError(f"mlp: a classifier needs at least 2 classes, got {classes}")
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    entry = enter(layers, preprocessing, input_shape)
    layers["flatten"] = nn.Flatten()
    previous = math.prod(input_shape)
    for number, size in enumerate((*hidden, classes), start=1):
        hidden_layer = number <= len(hidden)
        add_dense(
            layers,
            number,
            previous,
            size,
            dropout_in if number == 1 else dropout_hidden,
            entry=entry if number == 1 else SIGNS,
            normalization=normalization if hidden_layer else "batch",
            weights=weights,
        )
        if hidden_layer:
            layers[f"sign{number}"] = ACTIVATIONS[activation]()
        previous = size
    return nn.Sequential(layers)


def add_dense(
    layers: OrderedDict[str, nn.Module],
    number: int,
    inputs: int,
    outputs: int,
    dropout: float,
    *,
    entry: Entry = SIGNS,
    normalization: str = "batch",
    weights: Weights = "sign",
) -> None:
    """Append ``dense<number>`` and ``norm<number>``."""
    layers[f"dense{number}"] = BinaryLinear(inputs, outputs, **entry.options, dropout=dropout, weights=weights)
    layers[f"norm{number}"] = new_normalization(normalization, outputs, entry)


def new_normalization(name: str, features: int, entry: Entry, *, images: bool = False) -> Normalization:
    """The normalization behind a binary layer."""
    return NORMALIZATIONS[name][images](features, input_scale=entry.input_scale)
