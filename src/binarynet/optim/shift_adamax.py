"""Shift-based AdaMax (arXiv 1602.02830, Alg. 4): Adam's infinity-norm sibling, with steps that are powers of two."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from binarynet import ops
from binarynet.errors import UsageError
from binarynet.ops import kernels
from binarynet.optim._base import Clipping, ParameterwiseOptimizer
from binarynet.optim.glorot import parameter_groups, with_clip

PRINTED_BETAS = (1 - 2.0**-3, 1 - 2.0**-10)
"""``(beta1, beta2)`` as the paper prints them; its program, and the defaults here, have (0.9, 0.999)."""

PRINTED_LR = 2.0**-10
"""The learning rate as the paper prints it; its programs start with 2^-6 (MNIST, CIFAR-10) and 2^-7 (SVHN)."""


class ShiftAdaMax(Clipping, ParameterwiseOptimizer):
    """AdaMax whose step size and normalizer are rounded to powers of two, as in the paper's Torch7 program.

    For a gradient g, in update t (from 1), with :func:`binarynet.ops.ap2`::

        m = beta1 * m + (1 - beta1) * g
        v = max(beta2 * v, |g|)
        v = AP2(v) + eps                     # the rounded value is what decays next time
        step = AP2(lr / (1 - beta1^t))
        x = x - step * lr_scale * m / v

    m and v start at 0; ``lr_scale`` is the group's Glorot factor (1 where a group has none), and is not rounded here:
    ``lr`` of a group is taken as base rate times ``lr_scale``, as :func:`binarynet.optim.parameter_groups` makes it,
    and only ``lr / lr_scale / (1 - beta1^t)`` is rounded.

    Where print and program differ, this is the program. Print leaves the corrected momentum undefined and has the
    factor ``1 - beta1`` for ``1 - beta1^t``; the constants that it states are ``PRINTED_BETAS`` and ``PRINTED_LR``.
    A consequence of the rounding: any ``beta2`` above sqrt(1/2) decays a power of two to something that is rounded
    back up, so that v never falls with the program's constants, nor with the printed ones.

    float32 parameters on the CPU are updated in one pass over memory where the machine has a fast kernel for it
    (:mod:`binarynet.ops.kernels`), all others by torch; results differ by rounding.

    Args:
        params: parameters or groups of them.
        lr: learning rate.
        betas: decay rates of m and v.
        eps: added to v, which keeps ``m / v`` finite where every gradient so far was 0.
        clip: keep what is updated in [-1, 1]; of groups that do not say it themselves.

    Raises:
        UsageError: ``lr`` or ``eps`` not positive, or a beta outside [0, 1).
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float = 2.0**-6,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 2.0**-27,
        clip: bool = False,
    ) -> None:
        if not lr > 0 or not eps > 0 or not all(0 <= beta < 1 for beta in betas):
            raise UsageError(
                f"ShiftAdaMax: expected lr > 0, eps > 0 and betas in [0, 1), got lr={lr}, eps={eps}, betas={betas}"
            )
        super().__init__(params, {"lr": lr, "betas": tuple(betas), "eps": eps})
        self.add_clip(clip)

    def _update(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32)  # on the CPU: reading it does not synchronize
            state["exp_avg"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
            state["exp_inf"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
        beta1, beta2 = group["betas"]
        scale = group.get("lr_scale", 1.0)
        state["step"] += 1
        momentum, norm, eps = state["exp_avg"], state["exp_inf"], group["eps"]
        step = ops.ap2_value(group["lr"] / scale / (1 - beta1 ** float(state["step"])))
        tensors = (parameter, gradient, momentum, norm)
        if (native := kernels.fast(*tensors)) is not None:
            flat = map(kernels.flat, tensors)
            rate, clip, threads = step * scale, group["clip"], torch.get_num_threads()
            native.ada_max(*flat, beta1, 1 - beta1, beta2, rate, eps, clip, threads)
            kernels.written(parameter, momentum, norm)
            return
        momentum.mul_(beta1).add_(gradient, alpha=1 - beta1)
        torch.maximum(norm.mul_(beta2), gradient.abs(), out=norm)
        norm.copy_(ops.round_to_ap2(norm)).add_(eps)
        parameter.addcdiv_(momentum, norm, value=-step * scale)
        if group["clip"]:
            parameter.clamp_(-1, 1)


def shift_adamax(
    model: nn.Module,
    lr: float = 2.0**-6,
    *,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 2.0**-27,
    glorot: bool = True,
    power_of_two: bool = False,
    clip: bool = True,
) -> ShiftAdaMax:
    """Shift-based AdaMax as in the Torch7 setting: Glorot-scaled latent weights, clipped after each step.

    Args:
        model: the network; move it to its device first.
        lr: learning rate of everything but the latent weights, whose rate is ``lr * glorot_factor(layer)``.
        betas, eps: see :class:`ShiftAdaMax`.
        glorot: scale the learning rates of latent weights.
        power_of_two: round the Glorot factors to powers of two, as the paper's CIFAR-10 and SVHN programs do (its
            MNIST program does not).
        clip: keep latent weights in [-1, 1]; the key ``clip`` of their groups.

    Raises:
        UsageError: see :func:`parameter_groups` and :class:`ShiftAdaMax`.
    """
    groups = parameter_groups(model, lr, glorot=glorot, power_of_two=power_of_two)
    return ShiftAdaMax(with_clip(groups, clip), lr, betas=betas, eps=eps)
