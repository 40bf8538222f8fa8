"""Bop: binary weights flipped without latent ones (Helwegen et al. 2019, arXiv 1906.02107, algorithm 1)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from binarynet import ops
from binarynet.errors import UsageError
from binarynet.optim._base import ParameterwiseOptimizer


class Bop(ParameterwiseOptimizer):
    """Flips a binary weight where an exponential average of its gradients has pushed against it strongly enough.

    For a gradient g and the weight's sign w (+1 or -1, +1 for 0)::

        m = (1 - gamma) * m + gamma * g
        w = -w  where  w * m > threshold,  else  w

    The condition is strict: a weight whose ``w * m`` equals the threshold stays, and so does one with ``m = 0`` at
    ``threshold = 0``. m starts at 0. The parameters hold +1 and -1 after the first step, whatever they were before;
    :class:`binarynet.layers.BinaryLinear` and its kin take their sign anyway. Clipping has nothing to do then.

    It is for the weights of binary layers only. Everything else needs an optimizer of its own::

        weights = binarynet.optim.latent_weights(model)
        taken = {id(weight) for weight in weights}
        flips = binarynet.optim.Bop(weights, threshold=1e-8, gamma=1e-4)
        others = torch.optim.Adam([p for p in model.parameters() if id(p) not in taken])

    Args:
        params: parameters, or groups of them with their own ``threshold`` and ``gamma``; decay gamma during training
            by ``param_groups``.
        threshold: at least 0; the larger, the fewer flips.
        gamma: weight of the newest gradient, in (0, 1].

    Raises:
        UsageError: an argument out of range.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        threshold: float = 1e-8,
        gamma: float = 1e-4,
    ) -> None:
        if not threshold >= 0 or not 0 < gamma <= 1:
            raise UsageError(
                f"Bop: expected threshold >= 0 and gamma in (0, 1], got threshold={threshold}, gamma={gamma}"
            )
        super().__init__(params, {"threshold": threshold, "gamma": gamma})

    def _update(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state["exp_avg"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
        average = state["exp_avg"]
        average.mul_(1 - group["gamma"]).add_(gradient, alpha=group["gamma"])
        signs = ops.binarize_weight(parameter)
        parameter.copy_(torch.where(signs * average > group["threshold"], -signs, signs))
