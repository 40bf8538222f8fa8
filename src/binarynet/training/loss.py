"""The loss of the paper's runs."""

from __future__ import annotations

import torch
from torch import Tensor

from binarynet.errors import ShapeError


def squared_hinge(scores: Tensor, labels: Tensor) -> Tensor:
    """Mean over batch and classes of ``max(0, 1 - t * y)^2``, targets t being +1 for the label's class, else -1.

    The mean is over all elements, not a sum over classes, as in both of the paper's programs.

    Args:
        scores: float ``[batch, classes]``.
        labels: int64 ``[batch]``, class indices.

    Returns:
        A scalar.

    Raises:
        ShapeError: other shapes.
    """
    if scores.ndim != 2 or labels.shape != scores.shape[:1]:
        raise ShapeError(
            f"squared_hinge: expected scores [batch, classes] and labels [batch], "
            f"got {list(scores.shape)} and {list(labels.shape)}"
        )
    targets = torch.full_like(scores, -1.0).scatter_(1, labels.unsqueeze(1), 1.0)
    return (1 - targets * scores).clamp_min(0).square().mean()
