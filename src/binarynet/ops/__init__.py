"""Binarization with straight-through estimators of its gradient, its noise, products, packed bits, powers of two."""

from binarynet.ops import convolutions, products
from binarynet.ops.binarize import binarize_weight, sign, stochastic_sign, stochastic_weight
from binarynet.ops.estimators import approx_sign, identity_sign, swish_sign
from binarynet.ops.noise import drop, noise_key, random_words
from binarynet.ops.packed import pack_bits, unpack_bits, xnor_conv2d, xnor_matmul
from binarynet.ops.powers import ap2, ap2_value, round_to_ap2

__all__ = [
    "ap2",
    "ap2_value",
    "approx_sign",
    "binarize_weight",
    "convolutions",
    "drop",
    "identity_sign",
    "noise_key",
    "pack_bits",
    "products",
    "random_words",
    "round_to_ap2",
    "sign",
    "stochastic_sign",
    "stochastic_weight",
    "swish_sign",
    "unpack_bits",
    "xnor_conv2d",
    "xnor_matmul",
]
