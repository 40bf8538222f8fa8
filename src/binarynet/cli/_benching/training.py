"""`binarynet bench training`: one training step of the paper's networks, ours and others'."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from binarynet import models, optim
from binarynet.analysis import Party, Timing, fair_clock, time_interleaved
from binarynet.cli._benching import straightforward
from binarynet.cli._benching.measuring import Comparison, Ratio, Row, Task
from binarynet.cli._peers_torch import threads
from binarynet.errors import VerificationError
from binarynet.training import memory
from binarynet.training.loss import squared_hinge

LEARNING_RATE = 1e-3
BASELINE = "torch, straightforward"
COMPILED = "torch.compile, straightforward"

TOLERANCES = {"binarynet": 1e-3, COMPILED: 5e-2}
"""Largest relative difference between the costs of the first step and the baseline's. A normalized value next to 0 may
round to the other side, and then its sign differs; a compiler rounds differently in every layer."""


@dataclass(frozen=True)
class TrainingNetwork:
    """A network whose training step is timed; ``batches`` are those it is measured at by default."""

    name: str
    input_shape: tuple[int, int, int]
    build: Callable[[], nn.Module]
    batches: tuple[int, ...]


@dataclass(frozen=True)
class TrainingResult:
    """One network's results; ``weights`` is the number of its binary weights."""

    network: TrainingNetwork
    weights: int
    batches: tuple[Comparison, ...]


def paper_networks() -> list[TrainingNetwork]:
    """The paper's MNIST and CIFAR-10 networks in the Theano setting, without dropout."""
    mnist, cifar = (28, 28, 1), (32, 32, 3)
    return [
        TrainingNetwork(
            "MLP 784-4096-4096-4096-10: the paper's for MNIST",
            mnist,
            lambda: models.build("mlp", input_shape=mnist, classes=10, hidden=(4096, 4096, 4096)),
            (100,),
        ),
        TrainingNetwork(
            "ConvNet 2x128-2x256-2x512-2x1024-10: the paper's for CIFAR-10",
            cifar,
            lambda: models.build("convnet", input_shape=cifar, classes=10),
            (50,),
        ),
    ]


def measure(
    network: TrainingNetwork,
    batches: Sequence[int],
    num_threads: int,
    seconds: float,
    compiled: bool,
    progress: Callable[[str], None] = lambda _: None,
) -> TrainingResult:
    """Time one training step (forward, cost, backward, update, clipping) of all parties, in turns.

    Memory that a step frees is kept for the next one, as `binarynet train` does; others gain by that, too.

    Raises:
        VerificationError: ours and the straightforward step do not compute the same cost.
    """
    results = []
    weights = 0
    with threads(num_threads), memory.kept(), torch.random.fork_rng():
        torch.manual_seed(0)
        for batch in batches:
            ours = network.build()
            weights = sum(weight.numel() for weight in optim.latent_weights(ours))
            images = torch.randint(0, 256, (batch, *_channels_first(network.input_shape)), dtype=torch.uint8)
            labels = torch.arange(batch) % 10
            steps = _steps(ours, images, labels, compiled)
            _check(steps, progress)
            timings = time_interleaved(
                [Party(name, step) for name, step in steps.items()],
                seconds,
                clock=fair_clock(num_threads)[0],
                progress=functools.partial(_tell, progress, batch),
            )
            baseline = next(timing for timing in timings if timing.name == BASELINE)
            rows = tuple(_row(timing, baseline) for timing in timings)
            task = Task(f"batch {batch}", batch, macs=0, read_bytes=0)
            results.append(Comparison(task, rows, BASELINE))
    return TrainingResult(network, weights, tuple(results))


def _row(timing: Timing, baseline: Timing) -> Row:
    speedup = timing.speedup_over(baseline)
    if not timing.name.startswith("binarynet"):
        return Row(timing.name, "float32", timing, speedup)
    return Row(timing.name, "packed", timing, speedup, (Ratio("straightforward", BASELINE, speedup),))


def _channels_first(shape: tuple[int, int, int]) -> tuple[int, int, int]:
    height, width, channels = shape
    return channels, height, width


def _tell(progress: Callable[[str], None], batch: int, name: str) -> None:
    progress(f"training step, batch {batch}: {name}")


def _steps(ours: nn.Module, images: Tensor, labels: Tensor, compiled: bool) -> dict[str, Callable[[], Tensor]]:
    """Party to its training step, which returns the cost. All binary ones start from the same weights."""
    plain, real = straightforward.binary(ours), straightforward.real(ours)
    parties: dict[str, tuple[Callable[[Tensor], Tensor], torch.optim.Optimizer]] = {
        "binarynet": (ours, optim.adam(ours, LEARNING_RATE, glorot=False)),
        BASELINE: (plain, _plain_adam(plain)),
    }
    if compiled:
        compilable = straightforward.binary(ours, compilable=True)
        parties[COMPILED] = torch.compile(compilable), _plain_adam(compilable)
    parties["torch, real weights and ReLU"] = real, _plain_adam(real, clip=False)
    return {
        name: functools.partial(_step, module, optimizer, images, labels)
        for name, (module, optimizer) in parties.items()
    }


def _plain_adam(network: nn.Sequential, clip: bool = True) -> torch.optim.Adam:
    optimizer = torch.optim.Adam(network.parameters(), LEARNING_RATE, fused=True)
    if clip:
        weights = straightforward.latent_weights(network)
        optimizer.register_step_post_hook(lambda *_: optim.clip_latent_weights(weights))
    return optimizer


def _step(
    module: Callable[[Tensor], Tensor], optimizer: torch.optim.Optimizer, images: Tensor, labels: Tensor
) -> Tensor:
    optimizer.zero_grad()
    cost = squared_hinge(module(images), labels)
    cost.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return cost.detach()


def _check(steps: dict[str, Callable[[], Tensor]], progress: Callable[[str], None]) -> None:
    """VerificationError unless all binary parties' first steps have the same cost."""
    progress("comparing the first steps")
    expected = float(steps[BASELINE]())
    costs = {name: float(steps[name]()) for name in TOLERANCES if name in steps}
    for name, cost in costs.items():
        if not abs(cost - expected) <= TOLERANCES[name] * abs(expected):
            raise VerificationError(
                f"{name}: the first step's cost is {cost:.6g}, but {expected:.6g} in {BASELINE}: they do not train "
                "the same network"
            )
