"""Glorot learning-rate scaling and Adam with it (arXiv 1602.02830, section 2.1)."""

from __future__ import annotations

import math
from typing import Any

from torch import nn

from binarynet import ops
from binarynet.errors import UsageError
from binarynet.layers import BinaryLayer
from binarynet.optim.clipped_adam import ClippedAdam
from binarynet.optim.latent import binary_layers

_OTHER = "other"


def glorot_factor(layer: BinaryLayer) -> float:
    """``1 / sqrt(1.5 / (fan_in + fan_out))``, the factor on the learning rate of a layer's latent weights.

    The paper's text reads as if the rate were multiplied by Glorot's coefficient; its code divides by it, and so do
    we. A kernel's area counts in both fans. Greater than 1 for every layer: latent weights live in [-1, 1], far
    wider than the initialization that the rate would suit.
    """
    return math.sqrt((layer.fan_in + layer.fan_out) / 1.5)


def parameter_groups(
    model: nn.Module, lr: float, *, glorot: bool = True, power: int = 1, power_of_two: bool = False
) -> list[dict[str, Any]]:
    """Parameter groups for any optimizer of torch: latent weights by their Glorot factor, then everything else.

    A group's learning rate multiplies the finished step of Adam and of SGD alike, which is what the factor is for.

    Args:
        model: the network.
        lr: learning rate before scaling.
        glorot: scale the rate of latent weights; False puts them all into one group with ``lr``.
        power: exponent of the factor; 1 for Adam and its kin, 2 for plain or Nesterov SGD (BinaryConnect 2.5).
        power_of_two: round the finished scale to the nearest power of two (:func:`binarynet.ops.ap2`), which makes it
            a shift; the paper's Torch7 programs do so for CIFAR-10 and SVHN.

    Returns:
        Groups with the keys ``params``, ``lr``, ``name`` ("latent ..." or "other") and ``lr_scale``
        (``lr`` divided by the given one).

    Raises:
        UsageError: the network has no trainable parameters, ``lr`` is not positive, or a layer's weights are computed
            from something else.
    """
    if not lr > 0:
        raise UsageError(f"the learning rate must be positive, got {lr}")
    latent: dict[float, dict[int, nn.Parameter]] = {}
    for module in binary_layers(model):
        if module.weight.requires_grad:
            scale = glorot_factor(module) ** power if glorot else 1.0
            if power_of_two:
                scale = ops.ap2_value(scale)
            latent.setdefault(scale, {})[id(module.weight)] = module.weight
    taken = {key for parameters in latent.values() for key in parameters}
    groups = [
        {"params": list(parameters.values()), "lr": lr * scale, "name": f"latent x{scale:.4g}", "lr_scale": scale}
        for scale, parameters in latent.items()
    ]
    others = [p for p in model.parameters() if p.requires_grad and id(p) not in taken]
    if others:
        groups.append({"params": others, "lr": lr, "name": _OTHER, "lr_scale": 1.0})
    if not groups:
        raise UsageError(f"{type(model).__name__} has no trainable parameters")
    return groups


def with_clip(groups: list[dict[str, Any]], clip: bool) -> list[dict[str, Any]]:
    """Groups of :func:`parameter_groups` that say whether their latent weights are clipped; others never are."""
    return [{**group, "clip": clip and group["name"] != _OTHER} for group in groups]


def adam(
    model: nn.Module,
    lr: float = 3e-3,
    *,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    glorot: bool = True,
    power_of_two: bool = False,
    clip: bool = True,
) -> ClippedAdam:
    """Adam as in the Theano setting of the paper: Glorot-scaled latent weights, clipped after each step.

    Args:
        model: the network; move it to its device first.
        lr: learning rate of everything but the latent weights, whose rate is ``lr * glorot_factor(layer)``.
        betas: decay rates of the two moments.
        eps: added to the root of the second moment.
        glorot: scale the learning rates of latent weights.
        power_of_two: round the Glorot factors to powers of two.
        clip: keep latent weights in [-1, 1]; the key ``clip`` of their groups.

    Raises:
        UsageError: see :func:`parameter_groups`.
    """
    groups = parameter_groups(model, lr, glorot=glorot, power_of_two=power_of_two)
    on_fused_device = all(p.device.type in ("cpu", "cuda") for group in groups for p in group["params"])
    return ClippedAdam(with_clip(groups, clip), lr, betas, eps, fused=on_fused_device or None)
