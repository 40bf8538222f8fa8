"""Convolutional networks (the defaults are the CIFAR-10 network of arXiv 1602.02830, section 2.3)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

from binarynet.errors import UsageError
from binarynet.layers import BinaryConv2d, Weights
from binarynet.models._entry import SIGNS, PreprocessingName, enter
from binarynet.models._registry import register
from binarynet.models.mlp import ACTIVATIONS, Activation, NormalizationName, add_dense, new_normalization


@register
def convnet(
    input_shape: tuple[int, int, int],
    classes: int,
    blocks: Sequence[Sequence[int]] = ((128, 128), (256, 256), (512, 512)),
    dense: Sequence[int] = (1024, 1024),
    kernel_size: int = 3,
    dropout_in: float = 0.0,
    dropout_hidden: float = 0.0,
    activation: Activation = "sign",
    normalization: NormalizationName = "batch",
    weights: Weights = "sign",
    preprocessing: PreprocessingName = "none",
) -> nn.Sequential:
    """Blocks of "same" convolutions, each block closed by 2 x 2 max-pooling, then dense layers.

    A convolution is followed by (pooling,) normalization and sign, in this order. With the defaults, 32 x 32 x 3
    inputs and 10 classes there are 14,022,016 binary weights.

    Shapes: uint8 ``[batch, channels, height, width]`` to float32 scores ``[batch, classes]``.

    Args:
        input_shape: (height, width, channels).
        classes: number of classes.
        blocks: output channels of each convolution, block by block.
        dense: size of each hidden dense layer.
        kernel_size: odd.
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
        UsageError: an option out of range, or images too small for so many poolings.
    """
    height, width, channels = input_shape
    if classes < 2:
        raise UsageError(f"convnet: a classifier needs at least 2 classes, got {classes}")
    if not blocks or not all(blocks):
        raise UsageError(f"convnet: every block needs at least one convolution, got blocks={list(map(list, blocks))}")
    if min(height, width) >> len(blocks) == 0:
        raise UsageError(
            f"convnet: {len(blocks)} poolings need images of at least {2 ** len(blocks)} x {2 ** len(blocks)} pixels, "
            f"got {height} x {width}; use fewer blocks or larger images"
        )
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    entry = enter(layers, preprocessing, input_shape)
    number = 0
    for block in blocks:
        for position, size in enumerate(block, start=1):
            number += 1
            layers[f"conv{number}"] = BinaryConv2d(
                channels,
                size,
                kernel_size,
                padding="same",
                **entry.options,
                dropout=dropout_in if number == 1 else dropout_hidden,
                weights=weights,
                channels_last=number == 1,
            )
            if position == len(block):
                layers[f"pool{number}"] = nn.MaxPool2d(2)
                height, width = height // 2, width // 2
            layers[f"norm{number}"] = new_normalization(normalization, size, entry, images=True)
            layers[f"sign{number}"] = ACTIVATIONS[activation]()
            channels, entry = size, SIGNS
    layers["flatten"] = nn.Flatten()
    inputs = height * width * channels
    for size in dense:
        number += 1
        add_dense(layers, number, inputs, size, dropout_hidden, normalization=normalization, weights=weights)
        layers[f"sign{number}"] = ACTIVATIONS[activation]()
        inputs = size
    add_dense(layers, number + 1, inputs, classes, dropout_hidden, weights=weights)  # scores stay real
    return nn.Sequential(layers)
