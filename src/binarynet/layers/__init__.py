"""Binary layers, signs and normalizations as torch modules.

Block order is the paper's: binary layer, max-pooling, normalization, sign. torch's own ``MaxPool2d``, ``Flatten``,
``Identity`` and ``Dropout`` serve in between. :class:`Preprocessing` stands before the first layer, in networks that
cannot be packed.
"""

from binarynet.layers.activation import Estimator, Sign, StochasticSign
from binarynet.layers.binary import BinaryConv2d, BinaryLayer, BinaryLinear, Weights
from binarynet.layers.noise import NoisyLayer, set_noise_key
from binarynet.layers.normalization import BatchNorm1d, BatchNorm2d, Normalization
from binarynet.layers.preprocessing import ContrastNormalization, Preprocessing, Whitening
from binarynet.layers.shift_normalization import ShiftBatchNorm1d, ShiftBatchNorm2d

LEAVES = (BinaryLayer, Sign, StochasticSign, Normalization, Preprocessing)
"""Module classes that a ``torch.fx`` trace must not look into."""

__all__ = [
    "LEAVES",
    "BatchNorm1d",
    "BatchNorm2d",
    "BinaryConv2d",
    "BinaryLayer",
    "BinaryLinear",
    "ContrastNormalization",
    "Estimator",
    "NoisyLayer",
    "Normalization",
    "Preprocessing",
    "ShiftBatchNorm1d",
    "ShiftBatchNorm2d",
    "Sign",
    "StochasticSign",
    "Weights",
    "Whitening",
    "set_noise_key",
]
