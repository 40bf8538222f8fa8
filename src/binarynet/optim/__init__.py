"""Optimization of latent weights: Glorot learning-rate scaling, and clipping to [-1, 1] after each step.

For a training loop of one's own, one line does both::

    optimizer = binarynet.optim.adam(model, lr=3e-3)             # the paper's Theano setting
    optimizer = binarynet.optim.shift_adamax(model, lr=2**-6)    # its Torch7 setting

and for any other optimizer of torch, two::

    optimizer = torch.optim.SGD(binarynet.optim.parameter_groups(model, lr=0.1, power=2), lr=0.1)
    binarynet.optim.clip_after_step(optimizer, model)
"""

from binarynet.optim.bop import Bop
from binarynet.optim.clipped_adam import ClippedAdam
from binarynet.optim.glorot import adam, glorot_factor, parameter_groups
from binarynet.optim.latent import clip_after_step, clip_latent_weights, latent_weights
from binarynet.optim.shift_adamax import PRINTED_BETAS, PRINTED_LR, ShiftAdaMax, shift_adamax

__all__ = [
    "PRINTED_BETAS",
    "PRINTED_LR",
    "Bop",
    "ClippedAdam",
    "ShiftAdaMax",
    "adam",
    "clip_after_step",
    "clip_latent_weights",
    "glorot_factor",
    "latent_weights",
    "parameter_groups",
    "shift_adamax",
]
