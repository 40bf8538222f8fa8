"""Binary activations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from torch import Tensor, nn

from binarynet import ops
from binarynet.errors import UsageError
from binarynet.layers.noise import NoisyLayer

Estimator = Literal["clipped", "identity", "approx", "swish"]
"""What stands in for the derivative of the sign."""

_FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "clipped": ops.sign,
    "identity": ops.identity_sign,
    "approx": ops.approx_sign,
    "swish": ops.swish_sign,
}


class Sign(nn.Module):
    """Deterministic sign; the estimator changes its gradient only, never its result.

    Args:
        estimator: "clipped", the paper's own and the derivative of hard tanh (:func:`binarynet.ops.sign`);
            "identity" (:func:`binarynet.ops.identity_sign`); "approx" (:func:`binarynet.ops.approx_sign`);
            "swish" (:func:`binarynet.ops.swish_sign`, beta 5).

    Raises:
        UsageError: an unknown estimator.
    """

    def __init__(self, estimator: Estimator = "clipped") -> None:
        super().__init__()
        if estimator not in _FUNCTIONS:
            raise UsageError(f"Sign: there is no estimator {estimator!r}; there are {', '.join(_FUNCTIONS)}")
        self.estimator = estimator

    def forward(self, x: Tensor) -> Tensor:
        """Float tensor of any shape to +1 / -1 of the same shape and dtype."""
        return _FUNCTIONS[self.estimator](x)

    def extra_repr(self) -> str:
        return "" if self.estimator == "clipped" else f"estimator={self.estimator!r}"


class StochasticSign(NoisyLayer):
    """:func:`binarynet.ops.stochastic_sign` in training mode, :func:`binarynet.ops.sign` in evaluation mode.

    The Torch7 runs of the paper train with it (arXiv 1602.02830, section 2). The noise is that of
    :func:`binarynet.layers.set_noise_key`, or of torch's global generator.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Float tensor of any shape to +1 / -1 of the same shape and dtype."""
        return ops.stochastic_sign(x, key=self.next_noise_key(x.device)) if self.training else ops.sign(x)
