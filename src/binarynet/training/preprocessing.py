"""Fitting a network's preprocessing to its training images."""

from __future__ import annotations

from torch import nn

from binarynet.data import Split
from binarynet.layers import Whitening
from binarynet.training.batches import to_tensors


def fit(network: nn.Module, train: Split) -> None:
    """Fit what a checkpoint has not brought along; most networks have nothing that wants to be fitted."""
    for module in network.modules():
        if isinstance(module, Whitening) and not module.fitted:
            module.fit(to_tensors(train)[0])
