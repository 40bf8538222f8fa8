"""Binarization as pure torch functions, with the saturating straight-through estimator."""

from binarynet.ops.binarize import binarize_weight, sign, stochastic_sign

__all__ = ["binarize_weight", "sign", "stochastic_sign"]
