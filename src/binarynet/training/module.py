"""The LightningModule: one training step, and the errors on the validation split."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from binarynet import optim
from binarynet.errors import NonFiniteError
from binarynet.layers import Normalization, set_noise_key
from binarynet.training import optimizer_state as optimizer_states
from binarynet.training.averaging import WeightAverage
from binarynet.training.batches import Batch
from binarynet.training.evaluation import Evaluation, Total
from binarynet.training.loss import squared_hinge
from binarynet.training.randomness import Purpose, derive, seed_torch
from binarynet.training.recipe import Recipe
from binarynet.training.world import World


class Classifier(LightningModule):
    """Trains a network by a recipe.

    Args:
        network: takes uint8 ``[batch, channels, height, width]``, gives float scores ``[batch, classes]``.
        recipe: what to do.
        world: the processes that train it; by default this one alone.
        average: an average of the network's weights, to be kept and evaluated; None: the network itself is.
        optimizer_state: to go on from; checked already, see :meth:`new_optimizer`.
        cost_sum: sum of the costs of the steps, in all processes, that the first epoch has behind it already.
    """

    def __init__(
        self,
        network: nn.Module,
        recipe: Recipe,
        *,
        world: World | None = None,
        average: WeightAverage | None = None,
        optimizer_state: dict[str, Any] | None = None,
        cost_sum: float = 0.0,
    ) -> None:
        super().__init__()
        self.network = network
        self.recipe = recipe
        self.world = world if world is not None else World(recipe)
        for module in network.modules():
            if isinstance(module, Normalization):
                module.synchronize = recipe.training.synchronize_statistics
        self.optimizer: torch.optim.Optimizer
        self.validation: Evaluation
        self._run: Callable[[Tensor], Tensor] = network
        if chosen := recipe.training.compile:
            # torch limits the recompilations of a piece of code, and all networks share theirs: of many networks that
            # one program trains one after the other, the ninth would be refused.
            torch.compiler.reset()
            self._run = torch.compile(network, fullgraph=True, mode=None if chosen is True else chosen)
        self._average = average
        self._optimizer_state = optimizer_state
        self._cost_sum: Tensor | float = cost_sum if self.world.first else 0.0
        self._validation_total = Total()

    def new_optimizer(self) -> torch.optim.Optimizer:
        """The recipe's optimizer before its first step."""
        chosen = self.recipe.optimizer
        new = {"adam": optim.adam, "adamax_shift": optim.shift_adamax}[chosen.name]
        return new(
            self.network,
            chosen.learning_rate,
            betas=(chosen.beta1, chosen.beta2),
            eps=chosen.eps,
            glorot=chosen.glorot_scaling,
            power_of_two=chosen.glorot_power_of_two,
        )

    def configure_optimizers(self) -> torch.optim.Optimizer:
        self.optimizer = self.new_optimizer()
        if self._optimizer_state is not None:
            optimizer_states.restore(self.optimizer, self._optimizer_state)
            self._optimizer_state = None
        if (average := self._average) is not None:
            average.network.to(self.device)
            self.optimizer.register_step_post_hook(lambda *_: average.after_step())
        return self.optimizer

    @property
    def evaluated(self) -> nn.Module:
        """What is evaluated and selected: the network, or the average of its weights."""
        return self.network if self._average is None else self._average.network

    def learning_rate(self, epoch: int) -> float:
        """The learning rate of an epoch (from 0), before Glorot scaling."""
        return self.recipe.optimizer.rate(epoch, self.recipe.training.epochs)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        rate = self.learning_rate(self.current_epoch)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["lr_scale"]

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        seed = derive(self.recipe.seed, Purpose.STEP, self.current_epoch, batch.step, self.global_rank)
        seed_torch(seed, self.device)  # for modules of torch and of the user
        set_noise_key(self.network, seed)
        if self.recipe.training.compile:
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        cost = squared_hinge(self._run(batch.images), batch.labels)
        seen = cost.detach()
        self._cost_sum = self._cost_sum + seen.double()
        if (batch.step + 1) % self.recipe.training.log_every_steps == 0:
            (value,) = self.world.sum(float(seen))
            if not math.isfinite(value):
                where = f"epoch {self.current_epoch + 1}, step {batch.step + 1}"
                self.world.agree(
                    NonFiniteError(
                        f"the training cost is {value} in {where}; train with a smaller optimizer.learning_rate"
                    )
                )
        return cost

    def cost_sum(self) -> float:
        """Sum of the costs of this epoch's steps so far, over all processes, which meet here."""
        return self.world.sum(float(self._cost_sum))[0]

    def start_next_epoch(self) -> None:
        """Forget the finished epoch's costs."""
        self._cost_sum = 0.0

    def on_validation_epoch_start(self) -> None:
        if self._average is not None:
            self._average.take_statistics()
        if not self.recipe.training.synchronize_statistics:
            self.world.take_first(self.evaluated.buffers())  # what the checkpoint will hold
        self._validation_total = Total()

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        images, labels = batch
        self._validation_total.add(self.evaluated(images), labels)

    def on_validation_epoch_end(self) -> None:
        with self.world.together():
            self.validation = self._validation_total.result(self.world.sum)
