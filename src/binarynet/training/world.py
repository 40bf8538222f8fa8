"""The processes that train one network together: starting them, agreeing, sharing.

One process is the usual case, and everything here is nothing then. Several are started by Lightning (on one machine),
or by torchrun or a cluster's scheduler (on any number); each runs the whole program. Process 0, the first, alone reads
and writes the run's directory and speaks to the user. What processes tell each other goes over a gloo group of its own,
on the CPU, so that it never waits for a device.
"""

from __future__ import annotations

import inspect
import io
import os
import signal
import subprocess
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
import torch.distributed as dist
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from binarynet import errors
from binarynet.errors import BinaryNetError, ConnectionLostError, PeerError, UsageError
from binarynet.training.recipe import Recipe

_PATIENCE = 10.0  # seconds in which processes that lost a peer may say so themselves


class World:
    """The processes of one run, this one among them.

    A context manager: leaving it ends the connection.

    Attributes:
        rank: which process this is, from 0.
        size: how many there are, ``training.devices * training.nodes``.

    Args:
        recipe: says how many.
        folder: the run's directory, if there is one.

    Raises:
        UsageError: there are not so many devices, or whoever started this process started another number.
    """

    def __init__(self, recipe: Recipe, folder: Path | None = None) -> None:
        self._recipe = recipe
        self._folder = folder
        self.size = recipe.training.devices * recipe.training.nodes
        self._control: Any = None
        self._asked: tuple[Tensor, Any] | None = None
        self._trainer: Trainer | None = None
        devices, nodes = recipe.training.devices, recipe.training.nodes
        _check_starter(devices, nodes)
        self.rank = 0 if self.size == 1 else self.trainer.global_rank
        if nodes > 1 and isinstance(self._environment, LightningEnvironment) and "MASTER_ADDR" not in os.environ:
            raise UsageError(
                f"training.nodes = {nodes}, but nobody says where they meet; start the command on each machine by "
                f"torchrun --nnodes={nodes} --nproc-per-node={devices} --node-rank=... --master-addr=..."
            )

    @property
    def trainer(self) -> Trainer:
        """Lightning's Trainer for this process; made when first asked for."""
        if self._trainer is None:
            self._trainer = self._new_trainer()
        return self._trainer

    @property
    def first(self) -> bool:
        """Whether this is the process that reads, writes and speaks."""
        return self.rank == 0

    @property
    def starts_the_others(self) -> bool:
        """Whether nobody waits for this process, because it starts all the others itself (or there are none)."""
        return self.size == 1 or not self._environment.creates_processes_externally

    def connect(self) -> None:
        """Start the others if that is for this process to do, and meet them all."""
        if self.size == 1:
            return
        strategy = self.trainer.strategy
        assert strategy.launcher is not None
        try:
            strategy.launcher.launch(strategy.setup_environment)
        except ValueError as error:  # a scheduler that was asked for another number
            raise UsageError(f"{error}; compare training.devices and training.nodes") from None
        self._control = dist.new_group(backend="gloo")

    def agree(self, error: BinaryNetError | None) -> None:
        """Go on only if no process has an error; all call this.

        Raises:
            BinaryNetError: this process's own error; in the first process also that of another.
            PeerError: another process has one, and the first process tells it.
        """
        if self.size == 1:
            if error is not None:
                raise error
            return
        failed = torch.tensor([self.size if error is None else self.rank])
        dist.all_reduce(failed, dist.ReduceOp.MIN, group=self._control)
        culprit = int(failed)
        if culprit == self.size:
            return
        kind = self._broadcast(type(error).__name__.encode(), culprit).decode()
        message = self._broadcast(str(error).encode(), culprit).decode()
        if not self.first:
            raise PeerError(message)
        if error is not None:
            raise error
        raise getattr(errors, kind, BinaryNetError)(f"process {culprit}: {message}")

    @contextmanager
    def together(self) -> Iterator[None]:
        """What all processes do (or one for all): an error of ours in one of them is raised in all, see :meth:`agree`.

        The processes must not meet in between.
        """
        error = None
        try:
            yield
        except BinaryNetError as raised:
            error = raised
        self.agree(error)

    def share(self, content: dict[str, Any]) -> dict[str, Any]:
        """The first process's content (tensors, numbers, strings, lists and dicts of them), in all."""
        if self.size == 1:
            return content
        packed = io.BytesIO()
        if self.first:
            torch.save(content, packed)
        received = self._broadcast(packed.getvalue(), 0)
        if self.first:
            return content
        shared: dict[str, Any] = torch.load(io.BytesIO(received), weights_only=True)
        return shared

    def sum(self, *values: float) -> tuple[float, ...]:
        """Each value added up over the processes, in float64."""
        if self.size == 1:
            return values
        totals = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(totals, group=self._control)
        return tuple(totals.tolist())

    def take_first(self, tensors: Iterable[Tensor]) -> None:
        """Make tensors on the training device those of the first process, in place."""
        if self.size > 1:
            for tensor in tensors:
                dist.broadcast(tensor, 0)

    def any_asked(self, asked: bool) -> bool:
        """Whether any process asked to stop: all hear it at the same call, the one after it was asked.

        So that no step waits for the network, a call starts the question and the next one takes the answer.
        """
        if self.size == 1:
            return asked
        answer = self._answer()
        flag = torch.tensor([int(asked)])
        self._asked = flag, dist.all_reduce(flag, dist.ReduceOp.MAX, group=self._control, async_op=True)
        return answer

    @contextmanager
    def lost_connections_told(self) -> Iterator[None]:
        """Turn what torch says where another process has gone into a ConnectionLostError."""
        try:
            yield
        except RuntimeError as error:
            if self.size == 1 or not (isinstance(error, dist.DistError) or "gloo" in str(error)):
                raise
            raise ConnectionLostError(
                "another process of this run has ended; see what it said, if anything (it may have been killed). "
                "Resume the run to go on"
            ) from error

    def prepare_training(self) -> None:
        """Take two things of several processes out of Lightning's hands, once its loop runs.

        Before each step it asks all processes by a broadcast over the device, and waits for it, whether one got
        SIGTERM (we ask over the CPU, see :meth:`any_asked`); and its handler of that signal meets the other processes
        in the middle of whatever they do. Here SIGTERM ends the process, and the run can be resumed.
        """
        if self.size == 1:
            return
        loop: Any = self.trainer.fit_loop.epoch_loop
        if hasattr(loop, "_broadcast_sigterm_tensor"):
            loop._broadcast_sigterm_tensor = lambda: None
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def __enter__(self) -> World:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._control is None:
            return
        gone = isinstance(error, ConnectionLostError)
        if not gone:
            with suppress(RuntimeError):
                self._answer()
        # torchrun's processes meet once: its store would send a second group to the addresses of the first.
        group = None if isinstance(self._environment, LightningEnvironment) else self._control
        if not gone or dist.get_backend() == "gloo":  # others might wait forever for what the lost process owes them
            dist.destroy_process_group(group)
        self._control = None
        if error is not None:
            self._see_the_others_end()

    @property
    def _environment(self) -> Any:
        strategy = self.trainer.strategy
        assert isinstance(strategy, DDPStrategy)
        return strategy.cluster_environment

    def _new_trainer(self) -> Trainer:
        training = self._recipe.training
        try:
            return Trainer(
                max_epochs=training.epochs,
                accelerator=training.accelerator,
                devices=training.devices,
                num_nodes=training.nodes,
                strategy="auto" if self.size == 1 else _ddp(training.synchronize_statistics),
                logger=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
                num_sanity_val_steps=0,
                use_distributed_sampler=False,
                default_root_dir=self._folder,
            )
        except MisconfigurationException as error:
            if self.size == 1:
                raise
            reason = " ".join(str(error).split())
            raise UsageError(
                f"training.devices = {training.devices} does not go with training.accelerator = "
                f'"{training.accelerator}" on this machine: {reason}'
            ) from None

    def _broadcast(self, content: bytes, source: int) -> bytes:
        length = torch.tensor([len(content)])
        dist.broadcast(length, source, group=self._control)
        data = torch.zeros(int(length), dtype=torch.uint8)
        if self.rank == source and content:
            data = torch.frombuffer(bytearray(content), dtype=torch.uint8)
        dist.broadcast(data, source, group=self._control)
        return data.numpy().tobytes()

    def _answer(self) -> bool:
        if self._asked is None:
            return False
        flag, work = self._asked
        self._asked = None
        work.wait()
        return bool(flag)

    def _see_the_others_end(self) -> None:
        """After an error: those that this process started end by themselves, or else by force."""
        processes: list[subprocess.Popen[bytes]] = getattr(self.trainer.strategy.launcher, "procs", [])
        for process in processes:
            try:
                process.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()


def _ddp(synchronized: bool) -> DDPStrategy:
    """Statistics that every process has alike need not be sent around before each step; others are the first one's."""
    options = inspect.signature(DistributedDataParallel.__init__).parameters
    name = "forward_sync_buffers" if "forward_sync_buffers" in options else "broadcast_buffers"
    chosen: dict[str, Any] = {name: not synchronized}
    return DDPStrategy(**chosen)


def _check_starter(devices: int, nodes: int) -> None:
    """Compare the recipe with what torchrun started."""
    if dist.is_available() and dist.is_torchelastic_launched():
        size, local = int(os.environ["WORLD_SIZE"]), int(os.environ["LOCAL_WORLD_SIZE"])
        if (devices, nodes) != (local, size // local):
            raise UsageError(
                f"torchrun started {size} processes, {local} on this machine, but the recipe has training.devices = "
                f"{devices} and training.nodes = {nodes}; set training.devices={local} training.nodes={size // local}"
            )
