"""A moving average of a network's weights over the steps of its training (Polyak and Juditsky's averaging)."""

from __future__ import annotations

import copy

import torch
from torch import nn

from binarynet.layers import Normalization
from binarynet.training.batches import TrainingBatches

EVERY = 10
"""Steps from one update of the average to the next. An update reads and writes all weights, which takes an eighth of a
step of the paper's largest MLP on one CPU thread; in ten steps, weights change little."""

BATCHES = 100
"""At most so many training batches give the averaged network's statistics."""


class WeightAverage:
    """A second network whose learned values are averages over those that the first one has had.

    Averaged are all parameters: latent weights, whose signs are the averaged network's weights, and gain and bias of
    normalizations. An average is exponential, with ``decay`` for each step; at first, while it spans fewer updates
    than that, it is the plain mean.

    Batch statistics are no averages: signs of averages are not averages of signs, so the averaged network has other
    sums than the trained one ever had. They are taken anew by :meth:`take_statistics`.

    Attributes:
        network: the averaged network, in evaluation mode. No part of the module that trains.

    Args:
        network: what is trained.
        decay: weight of the past per step, 0 < decay < 1.
        batches: the training batches.
        steps: that the run has behind it.
    """

    def __init__(self, network: nn.Module, decay: float, batches: TrainingBatches, steps: int = 0) -> None:
        self.network = copy.deepcopy(network).requires_grad_(False).eval()
        self._source = network
        self._decay = decay
        self._batches = batches
        self._steps = steps

    @torch.no_grad()
    def after_step(self) -> None:
        """Take the weights in, if it is time; called after every step of the optimizer."""
        self._steps += 1
        if self._steps % EVERY:
            return
        newest = max(1 - self._decay**EVERY, EVERY / self._steps)
        for averaged, weight in zip(self.network.parameters(), self._source.parameters(), strict=True):
            averaged.lerp_(weight, newest)

    @torch.no_grad()
    def take_statistics(self) -> None:
        """Give the averaged network's normalizations the mean statistics of some training batches, not augmented.

        All else is in evaluation mode: nothing is dropped or stochastic. Each process calls this.
        """
        norms = [module for module in self.network.modules() if isinstance(module, Normalization)]
        momenta = [norm.momentum for norm in norms]
        try:
            for number, images in enumerate(self._batches.plain(BATCHES), start=1):
                for norm in norms:
                    norm.train()
                    norm.momentum = 1 / number
                self.network(images)
        finally:
            for norm, momentum in zip(norms, momenta, strict=True):
                norm.eval()
                norm.momentum = momentum
