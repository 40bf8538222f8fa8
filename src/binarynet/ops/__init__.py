"""Binarization as pure torch functions, with the saturating straight-through estimator, and powers of two."""

from binarynet.ops.binarize import binarize_weight, sign, stochastic_sign
from binarynet.ops.powers import ap2, ap2_value, round_to_ap2

__all__ = ["ap2", "ap2_value", "binarize_weight", "round_to_ap2", "sign", "stochastic_sign"]
