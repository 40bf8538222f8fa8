"""What optimizers that update one parameter after the other have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, overload

import torch
from torch import Tensor
from torch._compile import _disable_dynamo


class Clipping(torch.optim.Optimizer):
    """An optimizer with a key ``clip`` in its groups: keep what is updated in [-1, 1]."""

    def add_clip(self, clip: bool) -> None:
        """Give the key to all groups without it, and to those that will be added; after ``__init__``."""
        self.defaults["clip"] = clip
        for group in self.param_groups:
            group.setdefault("clip", clip)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a saved state; groups that say nothing of ``clip`` keep their own."""
        groups = state_dict["param_groups"]
        if len(groups) == len(self.param_groups):  # if not, torch refuses
            groups = [{"clip": own["clip"], **given} for own, given in zip(self.param_groups, groups, strict=True)]
        super().load_state_dict({**state_dict, "param_groups": groups})


def computed(closure: Callable[[], float] | None) -> float | None:
    """The cost of a step's closure, which may need gradients."""
    if closure is None:
        return None
    with torch.enable_grad():
        return closure()


class ParameterwiseOptimizer(torch.optim.Optimizer):
    """An optimizer that says what happens to one parameter; ``step`` goes through them all."""

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
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad, group)
        return cost

    @abstractmethod
    def _update(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        """Update one parameter in place, with the options of its group; its state is ``self.state[parameter]``."""
