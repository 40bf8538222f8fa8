"""Batch statistics over several processes: two gloo processes on this machine against one with the joined batch."""

import os
import subprocess
import sys
from pathlib import Path

import joined_batches
import pytest
import torch
from joined_batches import KINDS, LAYER_CASES, NETWORK_CASES, SHARES, layer_case, network_case

from binarynet.errors import UsageError
from binarynet.layers import BatchNorm1d

SCRIPT = Path(joined_batches.__file__)
WORLD = 2


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """The results of every case from each process; a process that hangs is ended by its time limit."""
    folder = tmp_path_factory.mktemp("joined")
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), str(rank), str(WORLD), str(folder / "store"), str(folder)],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(WORLD)
    ]
    try:
        errors = [process.communicate(timeout=120)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0] * WORLD, "\n".join(errors)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(WORLD)]


def joined(results, case):
    """What the processes have together: outputs and input gradients side by side, parameters' gradients added up."""
    parts = [result[case] for result in results]
    whole = {name: torch.cat([part[name] for part in parts]) for name in ("y", "x.grad")}
    whole |= {name: sum(part[name] for part in parts) for name in ("weight.grad", "bias.grad")}
    for name in ("running_mean", "running_inv_std"):
        assert all(torch.equal(part[name], parts[0][name]) for part in parts), name
        whole[name] = parts[0][name]
    return whole


@pytest.mark.parametrize(("kind", "share", "values"), LAYER_CASES)
def test_they_equal_one_process_with_the_joined_batch(ranks, kind, share, values):
    ours, one = joined(ranks, (kind, share, values)), layer_case(kind, share, values, 0, 1)
    tolerance = {"rtol": 1e-12, "atol": 1e-12} if values == "reals" else {"rtol": 2e-6, "atol": 2e-6}
    for name in one:
        size = float(one[name].abs().max())
        torch.testing.assert_close(ours[name], one[name], rtol=tolerance["rtol"], atol=tolerance["atol"] * size)
    if values != "reals":  # sums of integers over a power of two of values are exact, so nothing may differ
        assert torch.equal(ours["y"], one["y"])
        assert torch.equal(ours["running_mean"], one["running_mean"])
        assert torch.equal(ours["running_inv_std"], one["running_inv_std"])


@pytest.mark.parametrize("case", NETWORK_CASES)
def test_networks_train_to_the_weights_of_one_process(ranks, case):
    first, second = (result[case] for result in ranks)
    one, untrained = network_case(*case, 0, 1), joined_batches.build(*case).state_dict()
    for name in one:
        assert torch.equal(first[name], second[name]), name
        assert not torch.equal(one[name], untrained[name]), name
        # Means of gradients are rounded in another order than in one process.
        torch.testing.assert_close(first[name], one[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_they_can_be_left_apart(ranks, kind):
    for rank, result in enumerate(ranks):
        off, alone, together = result[kind, "off"], result[kind, "alone"], result[kind, "unequal", "integers"]
        assert len(off["y"]) == SHARES["unequal"][rank]
        for name in off:
            assert torch.equal(off[name], alone[name])
        assert not torch.equal(off["y"], together["y"])
        assert not torch.equal(off["running_mean"], together["running_mean"])
    assert not torch.equal(ranks[0][kind, "off"]["running_mean"], ranks[1][kind, "off"]["running_mean"])


@pytest.mark.parametrize("kind", KINDS)
def test_one_compiled_graph_gives_the_same(ranks, kind):
    for result in ranks:
        compiled, eager = result[kind, "compiled"], result[kind, "unequal", "integers"]
        for name in eager:
            torch.testing.assert_close(
                compiled[name], eager[name], rtol=1e-5, atol=1e-6 * float(eager[name].abs().max())
            )


def test_one_process_needs_two_values():
    with pytest.raises(UsageError, match="need at least 2 values per channel"):
        BatchNorm1d(5)(torch.ones(1, 5))
