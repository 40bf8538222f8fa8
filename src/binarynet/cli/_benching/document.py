"""Everything that was measured, as plain JSON values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from binarynet.analysis import Spread
from binarynet.cli._benching.measuring import Comparison, Row

if TYPE_CHECKING:
    from binarynet.cli._benching.networks import NetworkResult
    from binarynet.cli._benching.suites import SuiteResult
    from binarynet.cli._benching.training import TrainingResult


def conditions(suite: str, machine: dict[str, Any], threads: int, seconds: float) -> dict[str, Any]:
    """What every document begins with."""
    keys = ("version", "processor", "cores", "load", "system", "python", "libraries", "engines", "gpu")
    return {
        "suite": suite,
        "machine": {key: machine[key] for key in keys if key in machine},
        "threads": threads if machine["gpu"] is None else None,
        "clock": machine["clock"],
        "seconds": seconds,
    }


def of_networks(start: dict[str, Any], results: Sequence[NetworkResult]) -> dict[str, Any]:
    """`bench model`."""
    return {
        **start,
        "absent": [asdict(one) for one in dict.fromkeys(one for result in results for one in result.absent)],
        "networks": [
            {
                "name": result.network.name,
                "weights": result.network.num_weights,
                "packed_bytes": result.network.packed_bytes,
                "float32_bytes": result.network.float32_bytes,
                "equal_to_reference": list(result.checked),
                "timed_images_compared_with": result.compared_with,
                "batches": [_comparison(comparison) for comparison in result.batches],
            }
            for result in results
        ],
    }


def of_training(start: dict[str, Any], results: Sequence[TrainingResult]) -> dict[str, Any]:
    """`bench training`."""
    return {
        **start,
        "networks": [
            {
                "name": result.network.name,
                "weights": result.weights,
                "batches": [_comparison(comparison) for comparison in result.batches],
            }
            for result in results
        ],
    }


def of_suite(start: dict[str, Any], result: SuiteResult) -> dict[str, Any]:
    """`bench gemm` and `bench layers`."""
    return {
        **start,
        "absent": [asdict(absence) for absence in result.absent],
        "tables": [{"name": comparison.task.name, **_comparison(comparison)} for comparison in result.tables],
    }


def _comparison(comparison: Comparison) -> dict[str, Any]:
    """One table; times in milliseconds."""
    task, limits = comparison.task, comparison.limits
    found: dict[str, Any] = {
        "batch": task.batch,
        "cold_caches": task.cold,
        "macs": task.macs,
        "baseline": comparison.baseline,
        "rows": [_row(task.batch, task.macs, row) for row in comparison.rows],
    }
    if limits is not None:
        found["limits"] = {
            "clock_ghz": asdict(limits.clock_ghz),
            "ports": [
                {"engine": port.engine, "method": port.method, "macs_per_cycle": asdict(port.macs_per_cycle)}
                for port in limits.ports
            ],
            "read_bytes": limits.reading[0].bytes,
            "read_bytes_per_cycle": asdict(limits.reading[0].bytes_per_cycle),
            "reading": [asdict(reading) for reading in limits.reading],
        }
    return found


def _row(batch: int, macs: int, row: Row) -> dict[str, Any]:
    median = row.timing.time_ns.median
    found: dict[str, Any] = {
        "name": row.name,
        "arithmetic": row.arithmetic,
        "ms": {key: value / 1e6 for key, value in asdict(row.timing.time_ns).items()},
        "images_per_second": batch * 1e9 / median,
        "speedup": _spread(row.speedup),
        "calls": row.timing.num_calls,
        "rounds_ms": [value / 1e6 for value in row.timing.rounds_ns],
    }
    if row.method or row.details:
        found["method"] = row.method or row.details
    if row.ours:
        found["ratios"] = [{"over": ratio.kind, "name": ratio.name, **asdict(ratio.spread)} for ratio in row.ratios]
    if macs:
        found |= {
            "gmacs_per_second": macs / median,
            "macs_per_cycle": _spread(row.macs_per_cycle),
            "share_of_ports": _spread(row.port_share),
            "share_of_reading": _spread(row.read_share),
            "share_of_peak": _spread(row.peak_share),
            "read_bytes": row.read_bytes,
            "file_bytes": row.file_bytes,
            "peak_bytes": row.peak_bytes,
        }
    return found


def _spread(spread: Spread | None) -> dict[str, float] | None:
    return asdict(spread) if spread is not None else None
