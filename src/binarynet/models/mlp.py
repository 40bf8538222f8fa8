"""Multi-layer perceptrons (arXiv 1602.02830, section 2.1: 3 x 4096 and 3 x 2048 hidden units on MNIST)."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from typing import Literal

from torch import nn

from binarynet.encoding import INPUT_MAX
from binarynet.errors import UsageError
from binarynet.layers import BatchNorm1d, BinaryLinear, Sign, StochasticSign
from binarynet.models._registry import register

Activation = Literal["sign", "stochastic_sign"]
"""How hidden activations are binarized in training mode; in evaluation mode both are the sign."""

ACTIVATIONS: dict[str, type[nn.Module]] = {"sign": Sign, "stochastic_sign": StochasticSign}


@register
def mlp(
    input_shape: tuple[int, int, int],
    classes: int,
    hidden: Sequence[int] = (1024, 1024, 1024),
    dropout_in: float = 0.0,
    dropout_hidden: float = 0.0,
    activation: Activation = "sign",
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
        activation: "sign" or "stochastic_sign".

    Raises:
        UsageError: an option out of range.
    """
    if classes < 2:
        raise UsageError(f"mlp: a classifier needs at least 2 classes, got {classes}")
    layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
    previous = math.prod(input_shape)
    for number, size in enumerate((*hidden, classes), start=1):
        add_dense(layers, number, previous, size, dropout_in if number == 1 else dropout_hidden, first=number == 1)
        if number <= len(hidden):
            layers[f"sign{number}"] = ACTIVATIONS[activation]()
        previous = size
    return nn.Sequential(layers)


def add_dense(
    layers: OrderedDict[str, nn.Module], number: int, inputs: int, outputs: int, dropout: float, *, first: bool = False
) -> None:
    """Append ``dense<number>`` and ``norm<number>``."""
    layers[f"dense{number}"] = BinaryLinear(inputs, outputs, first=first, dropout=dropout)
    layers[f"norm{number}"] = BatchNorm1d(outputs, input_scale=1 / INPUT_MAX if first else 1.0)
