"""Counting errors of a torch network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from binarynet.data import Split
from binarynet.errors import NonFiniteError
from binarynet.training.batches import EvaluationBatches
from binarynet.training.loss import squared_hinge


@dataclass(frozen=True)
class Evaluation:
    """How a network did on a split.

    Attributes:
        num_images: images seen, all of them.
        num_errors: images whose largest score was not their label's (of equal scores the first counts).
        cost: squared hinge loss, mean over images and classes.
    """

    num_images: int
    num_errors: int
    cost: float

    @property
    def error(self) -> float:
        """Share of errors, 0 to 1."""
        return self.num_errors / self.num_images


def evaluate(model: nn.Module, split: Split, *, batch_size: int = 1000) -> Evaluation:
    """Run a network in evaluation mode over a whole split.

    Args:
        model: takes uint8 ``[batch, channels, height, width]``; runs on the device of its parameters and is left in
            the mode it was in.
        split: images and labels.
        batch_size: has no influence on the result.

    Raises:
        NonFiniteError: a parameter, statistic or score is NaN or infinite.
    """
    check_finite(model)
    device = next(iter(model.parameters())).device
    was_training = model.training
    total = Total()
    model.eval()
    try:
        with torch.inference_mode():
            for images, labels in EvaluationBatches(split, batch_size):
                total.add(model(images.to(device)), labels.to(device))
    finally:
        model.train(was_training)
    return total.result()


class Total:
    """Errors and cost summed over batches, on the device of the scores."""

    def __init__(self) -> None:
        self._num_images = 0
        self._num_errors: Tensor | int = 0
        self._cost_sum: Tensor | float = 0.0

    def add(self, scores: Tensor, labels: Tensor) -> None:
        """Scores float ``[batch, classes]``, labels int64 ``[batch]``."""
        self._num_images += len(labels)
        self._num_errors = self._num_errors + (scores.argmax(1) != labels).sum()
        self._cost_sum = self._cost_sum + squared_hinge(scores, labels).double() * len(labels)

    def result(self, joined: Callable[..., tuple[float, ...]] = lambda *sums: sums) -> Evaluation:
        """The sums as one :class:`Evaluation`; NonFiniteError where the cost is not finite.

        Args:
            joined: adds numbers up over several processes, see :meth:`binarynet.training.world.World.sum`.
        """
        images, errors, cost_sum = joined(self._num_images, int(self._num_errors), float(self._cost_sum))
        cost = cost_sum / images
        if not cost < float("inf"):
            raise NonFiniteError(f"the scores of {images:,.0f} images give a cost of {cost}; look for NaN")
        return Evaluation(int(images), int(errors), cost)


def check_finite(model: nn.Module) -> None:
    """Raise NonFiniteError, naming the first parameter or buffer that holds NaN or infinity."""
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            number = int((~torch.isfinite(tensor)).sum())
            raise NonFiniteError(
                f"{name} holds {number:,} values that are NaN or infinite; the training has diverged: "
                "go back to an earlier checkpoint, or train with a smaller optimizer.learning_rate"
            )
