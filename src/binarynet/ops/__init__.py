"""Binarization as pure torch functions, with straight-through estimators of its gradient, and powers of two."""

from binarynet.ops.binarize import binarize_weight, sign, stochastic_sign
from binarynet.ops.estimators import approx_sign, identity_sign, swish_sign
from binarynet.ops.powers import ap2, ap2_value, round_to_ap2

__all__ = [
    "ap2",
    "ap2_value",
    "approx_sign",
    "binarize_weight",
    "identity_sign",
    "round_to_ap2",
    "sign",
    "stochastic_sign",
    "swish_sign",
]
