"""What several processes compute from their shares of joined batches; run by ``test_synchronized.py``.

    python joined_batches.py RANK WORLD STORE OUT

Every case is computed by :func:`layer_case` or :func:`network_case`, in these processes and, with ``world=1``, in the
test's own.
"""

import sys
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from binarynet.layers import (
    BatchNorm1d,
    BatchNorm2d,
    BinaryConv2d,
    BinaryLinear,
    ShiftBatchNorm1d,
    ShiftBatchNorm2d,
    Sign,
)

KINDS = {kind.__name__: kind for kind in (BatchNorm1d, BatchNorm2d, ShiftBatchNorm1d, ShiftBatchNorm2d)}
SHARES = {"equal": (8, 8), "unequal": (3, 13), "one sample": (1, 15)}
VALUES = ("integers", "reals", "constant channel")
LAYER_CASES = [(kind, share, values) for kind in KINDS for share in SHARES for values in VALUES]
NETWORK_CASES = [(network, norm) for network in ("mlp", "convnet") for norm in ("batch", "shift")]
STEPS = 5


def layer_case(kind, share, values, rank, world, *, wrap=lambda norm: norm, **attributes):
    """One training step of a norm on this process's share of a batch of 16: outputs, gradients, running statistics."""
    generator = torch.Generator().manual_seed(len(kind) + len(values))
    norm = KINDS[kind](5, input_scale=1 / 255)
    for name, value in attributes.items():
        setattr(norm, name, value)
    with torch.no_grad():
        for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_inv_std):
            tensor.copy_(torch.randn(5, generator=generator))
    shape = (16, 5, 2, 4)[: norm.num_dimensions]
    x = torch.randint(-15, 16, shape, generator=generator).float()
    if values == "reals":
        x = 200 * x + torch.randn(shape, generator=generator)
        norm.double()
        x = x.double()
    if values == "constant channel":
        x[:, 2] = 7
    upstream = torch.randn(shape, generator=generator, dtype=x.dtype)
    mine = slice(None) if world == 1 else slice(sum(SHARES[share][:rank]), sum(SHARES[share][: rank + 1]))
    own = x[mine].clone().requires_grad_()
    y = wrap(norm)(own)
    y.backward(upstream[mine])
    return {
        "y": y.detach(),
        "x.grad": own.grad,
        "weight.grad": norm.weight.grad,
        "bias.grad": norm.bias.grad,
        "running_mean": norm.running_mean,
        "running_inv_std": norm.running_inv_std,
    }


def build(network, norm):
    """A small network; the same initial weights everywhere."""
    torch.manual_seed(7)
    one, two = (BatchNorm1d, BatchNorm2d) if norm == "batch" else (ShiftBatchNorm1d, ShiftBatchNorm2d)
    if network == "mlp":
        body = [nn.Flatten(), BinaryLinear(64, 24, first=True), one(24, input_scale=1 / 255), Sign()]
        return nn.Sequential(*body, BinaryLinear(24, 20), one(20), Sign(), BinaryLinear(20, 4), BatchNorm1d(4))
    body = [BinaryConv2d(1, 6, 3, padding=1, first=True), nn.MaxPool2d(2), two(6, input_scale=1 / 255), Sign()]
    body += [BinaryConv2d(6, 8, 3, padding=1), two(8), Sign(), nn.Flatten()]
    return nn.Sequential(*body, BinaryLinear(8 * 16, 4), BatchNorm1d(4))


def network_case(network, norm, rank, world):
    """Some steps of SGD on joined batches of 16 images, by DistributedDataParallel if there are several processes."""
    model = build(network, norm)
    run = model if world == 1 else DistributedDataParallel(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
    generator = torch.Generator().manual_seed(11)
    share = 16 // world
    for _ in range(STEPS):
        images = torch.randint(0, 256, (16, 1, 8, 8), dtype=torch.uint8, generator=generator)
        targets = torch.randint(0, 2, (16, 4), generator=generator) * 2.0 - 1
        mine = slice(rank * share, (rank + 1) * share)
        optimizer.zero_grad()
        (1 - targets[mine] * run(images[mine])).clamp_min(0).square().mean().backward()
        optimizer.step()
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def compiled(norm):
    """In one graph, or not at all; the "eager" backend spares the time of generating code."""
    torch._dynamo.reset()
    return torch.compile(norm, fullgraph=True, backend="eager")


def main(rank, world, store, out):
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{store}", rank=rank, world_size=world, timeout=timedelta(seconds=60)
    )
    alone = [dist.new_group([member]) for member in range(world)][rank]
    results = {case: layer_case(*case, rank, world) for case in LAYER_CASES}
    results |= {case: network_case(*case, rank, world) for case in NETWORK_CASES}
    for kind in KINDS:
        results[kind, "off"] = layer_case(kind, "unequal", "integers", rank, world, synchronize=False)
        results[kind, "alone"] = layer_case(kind, "unequal", "integers", rank, world, process_group=alone)
        results[kind, "compiled"] = layer_case(kind, "unequal", "integers", rank, world, wrap=compiled)
    torch.save(results, Path(out) / f"{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
