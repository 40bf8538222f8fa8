"""Adam with clipping built in: one pass over memory per parameter on the CPU."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, overload

import torch
from torch import Tensor
from torch._compile import _disable_dynamo
from torch.optim.adam import adam as torch_adam

from binarynet.ops import kernels
from binarynet.optim._base import Clipping, computed


class ClippedAdam(Clipping, torch.optim.Adam):
    """``torch.optim.Adam`` whose groups may have ``clip=True``: what it updates there ends up in [-1, 1].

    It is torch's optimizer in everything else: options, state, state_dict (whose groups have the key ``clip`` more),
    hooks and schedulers. A state of torch's own Adam can be loaded; ``clip`` stays as it was then.

    float32 parameters on the CPU are updated by the package's kernel where the machine has a fast one
    (:mod:`binarynet.ops.kernels`): gradient, weight and moments are read once, weight and moments written once. With

        m = m + (1 - beta1) * (g - m)
        v = beta2 * v + (1 - beta2) * g * g
        w = w - lr / (1 - beta1^t) * m / (sqrt(v) / sqrt(1 - beta2^t) + eps)

    each operation rounds once, in float32, from left to right; the factors are computed in float64 and rounded once.
    torch's own (``fused=True``) computes the same with fused multiply-adds, so that results differ by rounding. All
    other parameters, and groups with weight decay, AMSGrad or one of torch's special modes, are updated by torch.

    Args:
        params: parameters or groups of them.
        lr, betas, eps: see ``torch.optim.Adam``.
        clip: of groups that do not say it themselves.
        fused: how torch updates what it has to; see ``torch.optim.Adam``.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        *,
        clip: bool = False,
        fused: bool | None = None,
    ) -> None:
        super().__init__(params, lr=lr, betas=betas, eps=eps, fused=fused)
        self.add_clip(clip)
        self._step_supports_amp_scaling = False  # a gradient scaler unscales the gradients itself then

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @_disable_dynamo  # a compiled step runs as it is: it reads a count, and calls kernels
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Update every parameter that has a gradient.

        Args:
            closure: computes the cost anew; its result is returned.
        """
        cost = computed(closure)
        for group in self.param_groups:
            left = group["params"]
            if _plain(group):
                left = [parameter for parameter in left if not self._update(parameter, group)]
            if left:
                self._update_by_torch({**group, "params": left})
        return cost

    def _update(self, weight: Tensor, group: dict[str, Any]) -> bool:
        """Update one parameter by the package's kernel; False if that does not take it."""
        gradient = weight.grad
        if gradient is None:
            return True
        if (native := kernels.fast(weight, gradient)) is None:
            return False
        state = self.state[weight]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32)
            state["exp_avg"] = torch.zeros_like(weight, memory_format=torch.preserve_format)
            state["exp_avg_sq"] = torch.zeros_like(weight, memory_format=torch.preserve_format)
        tensors = (weight, gradient, state["exp_avg"], state["exp_avg_sq"])
        if kernels.fast(*tensors) is None:
            return False
        state["step"] += 1
        count, (beta1, beta2) = float(state["step"]), group["betas"]
        native.adam(
            *map(kernels.flat, tensors),
            1 - beta1,
            beta2,
            1 - beta2,
            group["lr"] / (1 - beta1**count),
            math.sqrt(1 - beta2**count),
            group["eps"],
            group["clip"],
            torch.get_num_threads(),
        )
        kernels.written(weight, state["exp_avg"], state["exp_avg_sq"])
        return True

    def _update_by_torch(self, group: dict[str, Any]) -> None:
        weights: list[Tensor] = []
        rest: list[list[Tensor]] = [[] for _ in range(5)]
        has_complex = self._init_group(group, weights, *rest)  # type: ignore[no-untyped-call]
        beta1, beta2 = group["betas"]
        shared = [
            "amsgrad",
            "lr",
            "weight_decay",
            "eps",
            "maximize",
            "foreach",
            "capturable",
            "differentiable",
            "fused",
        ]
        options = {key: group[key] for key in shared}
        if group.get("decoupled_weight_decay"):  # torch before 2.7 does not know it
            options["decoupled_weight_decay"] = True
        options |= {"has_complex": has_complex, "beta1": beta1, "beta2": beta2}
        torch_adam(weights, *rest, **options)  # type: ignore[arg-type]
        if group["clip"]:
            for weight in weights:
                weight.clamp_(-1, 1)


def _plain(group: dict[str, Any]) -> bool:
    """Nothing but Adam as published, with numbers for options."""
    special = ("amsgrad", "weight_decay", "maximize", "capturable", "differentiable")
    numbers = (group["lr"], *group["betas"], group["eps"])
    return not any(group[key] for key in special) and all(isinstance(number, int | float) for number in numbers)
