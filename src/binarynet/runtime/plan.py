"""What a native session does at a batch, step by step, and how long each step takes."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Step:
    """One step of a run over one chunk of images. On a GPU it is one kernel: units and tasks are its blocks of threads.

    Attributes:
        kind: "block" (a convolution or dense layer, with the pooling and the threshold that are fused into it; on a
            GPU the threshold, or the affine map), or "max_pool", "threshold", "affine", "flatten" where such a node is
            a step of its own.
        values: names of the values that it computes; only the last one goes to memory. (On a GPU, a pooling behind its
            layer's threshold makes that threshold's value.)
        method: how, in the words of the engine's kernels; may depend on the number of images.
        units, tasks, threads: the work divides into so many units; so many ranges of them are taken one by one, by at
            most so many threads. On a GPU, threads are those of a block.
        why_threads: what decided that number.
        weight_bytes: weights and thresholds as the kernel reads them.
        scratch_bytes: the kernel's own memory, of all its threads.
        in_bytes, out_bytes: of the chunk's values.
        work: rough, in 64-bit XNOR-popcounts.
        kernel, grid, shared_bytes: on a GPU, the kernel and its source, blocks of threads in x, y and z, and dynamic
            shared memory of a block.
    """

    kind: str
    values: tuple[str, ...]
    method: str
    units: int
    tasks: int
    threads: int
    why_threads: str
    weight_bytes: int
    scratch_bytes: int
    in_bytes: int
    out_bytes: int
    work: int
    kernel: str = ""
    grid: str = ""
    shared_bytes: int = 0

    @property
    def name(self) -> str:
        """The first of its values: that of the layer, where it is one."""
        return self.values[0]


@dataclass(frozen=True)
class Plan:
    """What a session does with a batch.

    Attributes:
        engine, why_engine: the instruction set, and what decided it.
        num_threads: threads that a run may use.
        batch, num_chunks, chunk: the batch is computed in so many chunks of at most so many images.
        weight_bytes: of all steps.
        arena_bytes: values between the steps, of one chunk.
        scratch_bytes: the kernels' own memory, of the step that needs most.
        workspace_bytes: memory that one run uses and the session keeps; enough for every batch. There is as much again
            for each further run at the same time.
        steps: in order.
        device: "cpu", or the GPU, "cuda:0".
    """

    engine: str
    why_engine: str
    num_threads: int
    batch: int
    num_chunks: int
    chunk: int
    weight_bytes: int
    arena_bytes: int
    scratch_bytes: int
    workspace_bytes: int
    steps: tuple[Step, ...]
    device: str = "cpu"

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class StepTime:
    """Wall-clock time of one step, over all chunks of a batch: nanoseconds of each repetition."""

    step: Step
    nanoseconds: tuple[int, ...]

    @property
    def median(self) -> float:
        """Median over the repetitions, in nanoseconds."""
        return float(statistics.median(self.nanoseconds))


@dataclass(frozen=True)
class MethodRange:
    """A step's method from ``first_batch`` images at a time on, up to the next range of the same step."""

    step: str
    first_batch: int
    method: str


def method_ranges(plan_of: Callable[[int], Plan], largest: int) -> tuple[MethodRange, ...]:
    """Where the methods of steps change: for each step, the ranges of batch sizes from 1 to ``largest``.

    Args:
        plan_of: batch to plan, :meth:`Session.plan`.
        largest: where to stop; batches that are computed in more than one chunk say nothing new.
    """
    ranges: dict[str, list[MethodRange]] = {}
    for batch in range(1, largest + 1):
        plan = plan_of(batch)
        if plan.num_chunks > 1:
            break
        for step in plan.steps:
            found = ranges.setdefault(step.name, [])
            if not found or found[-1].method != step.method:
                found.append(MethodRange(step.name, batch, step.method))
    return tuple(item for found in ranges.values() for item in found)
