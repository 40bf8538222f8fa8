"""The callback that writes down a run: checkpoints, the table of epochs, TensorBoard events."""

from __future__ import annotations

import contextlib
import time
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch.utils.tensorboard import SummaryWriter

from binarynet.errors import DataError
from binarynet.files import write_whole
from binarynet.training import checkpoint
from binarynet.training.batches import Batch, TrainingBatches
from binarynet.training.evaluation import check_finite
from binarynet.training.interrupt import Interrupt, Stopped
from binarynet.training.module import Classifier
from binarynet.training.progress import EpochRow, Progress, to_csv
from binarynet.training.run_directory import BEST, TRAINING, RunDirectory
from binarynet.training.world import World


class Recorder(Callback):
    """Keeps ``progress`` up to date, and the run's directory with it.

    At the end of an epoch, in this order: the selected weights (if this epoch is the best), the checkpoint to go on
    from, the table, the events. A kill between any two of them leaves a directory that a resumed run repeats into
    the same final state.

    Of several processes, the first one writes; the others keep their progress, and hear where writing failed.

    Args:
        run: where to write.
        module: what is trained.
        progress: where the run stands, by its last complete checkpoint; updated in place.
        batches: the training batches; told the epoch.
        interrupt: asked before each step whether to stop.
        world: the processes that train.
    """

    def __init__(
        self,
        run: RunDirectory,
        module: Classifier,
        progress: Progress,
        batches: TrainingBatches,
        interrupt: Interrupt,
        world: World,
    ) -> None:
        self._run = run
        self._module = module
        self._progress = progress
        self._batches = batches
        self._interrupt = interrupt
        self._world = world
        self._writer: SummaryWriter | None = None
        self._wall = self._cpu = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._world.prepare_training()
        if self._world.first:
            self._writer = SummaryWriter(str(self._run.tensorboard), purge_step=self._progress.epoch + 1)
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._batches.epoch = trainer.current_epoch

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int) -> None:
        if self._world.any_asked(self._interrupt.requested):
            raise Stopped

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if self._world.size == 1:  # several processes have different numbers of these, and ask before the next step
            self._interrupt.check()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        every, done = self._module.recipe.training.checkpoint_every_steps, batch.step + 1
        if every and done % every == 0 and done < self._batches.num_steps:
            self._take_time()
            after = self._progress.copy()
            after.step, after.cost_sum = done, self._module.cost_sum()
            with self._world.together():
                check_finite(self._module.network)
                self._save(after)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._take_time()
        progress, validation = self._progress, self._module.validation
        row = EpochRow(
            epoch=trainer.current_epoch + 1,
            steps=(trainer.current_epoch + 1) * self._batches.num_steps,
            learning_rate=self._module.learning_rate(trainer.current_epoch),
            training_cost=self._module.cost_sum() / (self._batches.num_steps * self._world.size),
            validation_cost=validation.cost,
            validation_error=validation.error,
            seconds=progress.epoch_seconds,
        )
        self._module.start_next_epoch()
        after = progress.copy()
        best = after.finish_epoch(row)
        with self._world.together():
            check_finite(self._module.network)
            check_finite(self._module.evaluated)
            if best and self._world.first:
                weights = {
                    "epoch": row.epoch,
                    "validation_error": row.validation_error,
                    "network": self._module.evaluated.state_dict(),
                }
                checkpoint.save(self._run.best, BEST, weights)
            self._save(after)
            if self._world.first:
                write_whole(self._run.metrics, to_csv(progress.history))
                self._log(row)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        with contextlib.suppress(OSError):  # of events that a full disk did not take
            self._close()

    def _save(self, after: Progress) -> None:
        """Write the checkpoint to go on from; only then is that where the run stands."""
        if self._world.first:
            content = {
                "progress": after.to_dict(),
                "network": self._module.network.state_dict(),
                "optimizer": self._module.optimizer.state_dict(),
            }
            if self._module.evaluated is not self._module.network:
                content["average"] = self._module.evaluated.state_dict()
            checkpoint.save(self._run.last, TRAINING, content)
        self._progress.become(after)

    def _take_time(self) -> None:
        wall, cpu = time.perf_counter(), time.process_time()
        self._progress.train_seconds += wall - self._wall
        self._progress.epoch_seconds += wall - self._wall
        self._progress.cpu_seconds += self._world.sum(cpu - self._cpu)[0]
        self._wall, self._cpu = wall, cpu

    def _log(self, row: EpochRow) -> None:
        if self._writer is None:
            return
        try:
            self._writer.add_scalar("cost/training", row.training_cost, row.epoch)
            self._writer.add_scalar("cost/validation", row.validation_cost, row.epoch)
            self._writer.add_scalar("error/validation", row.validation_error, row.epoch)
            self._writer.add_scalar("learning_rate", row.learning_rate, row.epoch)
            self._writer.flush()
        except OSError as error:
            raise DataError(f"{self._run.tensorboard}: cannot be written: {error.strerror or error}") from None

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
