"""Binary activations."""

from __future__ import annotations

from torch import Tensor, nn

from binarynet import ops


class Sign(nn.Module):
    """Deterministic sign with the saturating straight-through estimator: :func:`binarynet.ops.sign`."""

    def forward(self, x: Tensor) -> Tensor:
        """Float tensor of any shape to +1 / -1 of the same shape and dtype."""
        return ops.sign(x)


class StochasticSign(nn.Module):
    """:func:`binarynet.ops.stochastic_sign` in training mode, :func:`binarynet.ops.sign` in evaluation mode.

    The Torch7 runs of the paper train with it (arXiv 1602.02830, section 2). The noise comes from torch's global
    generator.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Float tensor of any shape to +1 / -1 of the same shape and dtype."""
        return ops.stochastic_sign(x) if self.training else ops.sign(x)
