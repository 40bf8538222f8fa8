"""In-memory batches: whole splits as uint8 tensors, gathered by index; no workers, no per-sample Python."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from binarynet.data import Split
from binarynet.errors import UsageError
from binarynet.training.augmentation import Augmentation
from binarynet.training.randomness import Purpose, derive, permutation


class Batch(NamedTuple):
    """One training batch.

    Attributes:
        step: its number within the epoch, from 0.
        images: uint8 ``[batch, channels, height, width]``.
        labels: int64 ``[batch]``.
    """

    step: int
    images: Tensor
    labels: Tensor


def to_tensors(split: Split) -> tuple[Tensor, Tensor]:
    """A split as torch takes it: uint8 ``[n, channels, height, width]`` and int64 ``[n]``."""
    return torch.from_numpy(split.images).permute(0, 3, 1, 2).contiguous(), torch.from_numpy(split.labels)


class TrainingBatches:
    """The shuffled batches of one epoch after the other, from any step of any epoch on.

    Iterating yields the batches of ``epoch``; in the epoch in which a resumed run starts, from ``first_step`` on.
    It has no length on purpose: Lightning then takes an epoch to be as long as the iterator.

    Args:
        split: the training split.
        batch_size: samples per batch and process.
        seed: the recipe's seed.
        drop_last: leave out an incomplete last batch.
        rank, world_size: this process among all; each step takes ``batch_size * world_size`` consecutive samples
            of the epoch's permutation, and each process its share of them.
        first_epoch, first_step: where the run starts.
        augmentation: changes the images of each batch; None leaves them as they are.
        device: where batches are wanted. On a CUDA device the split lies there, if it takes no more than half of the
            free memory, and batches are gathered there; else they are gathered in pinned memory and copied while the
            device computes. Either way nothing waits for the device. For other devices, batches are left on the CPU.

    Raises:
        UsageError: the split does not fill a single batch, or batches that no training can use would result.
    """

    def __init__(
        self,
        split: Split,
        batch_size: int,
        *,
        seed: int,
        drop_last: bool = True,
        rank: int = 0,
        world_size: int = 1,
        first_epoch: int = 0,
        first_step: int = 0,
        augmentation: Augmentation | None = None,
        device: torch.device | None = None,
    ) -> None:
        count, per_step = len(split), batch_size * world_size
        if drop_last and count < per_step:
            raise UsageError(
                f"{count:,} training images do not fill one batch of {per_step:,}; use a smaller training.batch_size"
            )
        if not drop_last and world_size > 1 and count % per_step:
            raise UsageError("training.drop_last=false works on one process only; leave incomplete batches out")
        if not drop_last and count % per_step == 1:
            raise UsageError(
                f"{count:,} training images leave a last batch of 1 after batches of {per_step:,}, which has no "
                "statistics; use another training.batch_size or training.drop_last=true"
            )
        self._images, self._labels = to_tensors(split)
        self._streams_to: torch.device | None = None
        if device is not None and device.type not in ("cpu", "mps"):
            if _fits(self._images, device):
                self._images, self._labels = self._images.to(device), self._labels.to(device)
            else:
                self._streams_to = device
        self._batch_size = batch_size
        self._seed = seed
        self._rank = rank
        self._world_size = world_size
        self._first = (first_epoch, first_step)
        self._augmentation = augmentation
        self.num_steps = count // per_step if drop_last else -(-count // per_step)
        self.epoch = first_epoch

    def __iter__(self) -> Iterator[Batch]:
        order = torch.from_numpy(permutation(self._seed, self.epoch, len(self._labels))).to(self._labels.device)
        first_epoch, first_step = self._first
        per_step = self._batch_size * self._world_size
        for step in range(first_step if self.epoch == first_epoch else 0, self.num_steps):
            start = step * per_step + self._rank * self._batch_size
            chosen = order[start : start + self._batch_size]
            images, labels = self._gather(self._images, chosen), self._gather(self._labels, chosen)
            if self._augmentation is not None:
                images = self._augmentation(
                    images, derive(self._seed, Purpose.AUGMENTATION, self.epoch, step, self._rank)
                )
            yield Batch(step, images, labels)

    def plain(self, count: int) -> Iterator[Tensor]:
        """This process's images in the first batches of epoch 0, not augmented: at most ``count`` batches."""
        order = torch.from_numpy(permutation(self._seed, 0, len(self._labels))).to(self._labels.device)
        per_step = self._batch_size * self._world_size
        for step in range(min(count, max(1, len(order) // per_step))):
            start = step * per_step + self._rank * self._batch_size
            yield self._gather(self._images, order[start : start + self._batch_size])

    def _gather(self, tensor: Tensor, chosen: Tensor) -> Tensor:
        if self._streams_to is None:
            return tensor.index_select(0, chosen)
        # New memory each time: torch's allocator of pinned memory hands it out again once the copy is done.
        gathered = torch.empty((len(chosen), *tensor.shape[1:]), dtype=tensor.dtype, pin_memory=True)
        return torch.index_select(tensor, 0, chosen, out=gathered).to(self._streams_to, non_blocking=True)


def _fits(images: Tensor, device: torch.device) -> bool:
    if device.type != "cuda":
        return True
    free, _ = torch.cuda.mem_get_info(device)
    return images.numel() * images.element_size() <= free // 2


class EvaluationBatches:
    """A split's samples in their order, the last batch as small as it comes; yields (images, labels).

    Args:
        split: the split.
        batch_size: samples per batch.
        rank, world_size: this process among all; each takes its share of consecutive samples, none twice.

    Raises:
        UsageError: there are fewer samples than processes.
    """

    def __init__(self, split: Split, batch_size: int, *, rank: int = 0, world_size: int = 1) -> None:
        count = len(split)
        if count < world_size:
            raise UsageError(f"{count:,} images cannot be shared among {world_size} processes; use fewer of them")
        images, labels = to_tensors(split)
        own = slice(rank * count // world_size, (rank + 1) * count // world_size)
        self._images, self._labels = images[own], labels[own]
        self._batch_size = batch_size

    def __len__(self) -> int:
        return -(-len(self._labels) // self._batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for start in range(0, len(self._labels), self._batch_size):
            chosen = slice(start, start + self._batch_size)
            yield self._images[chosen], self._labels[chosen]
