"""Latent weights: finding them, and keeping them in [-1, 1] (arXiv 1602.02830, section 1.3 and algorithm 1)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from binarynet.errors import UsageError
from binarynet.layers import BinaryLayer


def latent_weights(model: nn.Module) -> list[nn.Parameter]:
    """The latent weights of all binary layers of a network, in module order, each once.

    Raises:
        UsageError: a layer's weights are no parameter, but computed from one (``parametrize``, ``prune``).
    """
    found = {id(layer.weight): layer.weight for layer in binary_layers(model)}
    return list(found.values())


def binary_layers(model: nn.Module) -> list[BinaryLayer]:
    """The binary layers of a network, in module order, their weights being parameters.

    Raises:
        UsageError: see :func:`latent_weights`.
    """
    layers = {name: module for name, module in model.named_modules() if isinstance(module, BinaryLayer)}
    for name, layer in layers.items():
        if not isinstance(layer.weight, nn.Parameter):
            raise UsageError(
                f"{name or type(layer).__name__}: the weights are no parameter, but computed from one, which has no "
                "Glorot factor and nothing to clip; use an optimizer of torch on model.parameters()"
            )
    return list(layers.values())


@torch.no_grad()
def clip_latent_weights(weights: Iterable[torch.Tensor]) -> None:
    """Project latent weights onto [-1, 1], in place. NaN stays NaN."""
    for weight in weights:
        weight.clamp_(-1, 1)


def clip_after_step(optimizer: torch.optim.Optimizer, model: nn.Module) -> RemovableHandle:
    """Clip the network's latent weights after every step of an optimizer.

    Without it, weights leave the window in which their sign can still be turned around by a few updates.

    Args:
        optimizer: any optimizer of torch.
        model: the network whose binary layers are meant.

    Returns:
        A handle whose ``remove()`` undoes it.
    """
    weights = latent_weights(model)

    def clip(optimizer: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        clip_latent_weights(weights)

    return optimizer.register_step_post_hook(clip)
