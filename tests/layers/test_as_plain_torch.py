"""Every operation and layer as plain PyTorch: one compiled graph with its backward pass, and autocast."""

import copy

import pytest
import torch
from torch import nn

from binarynet import ops
from binarynet.layers import (
    BatchNorm1d,
    BatchNorm2d,
    BinaryConv2d,
    BinaryLinear,
    ShiftBatchNorm1d,
    ShiftBatchNorm2d,
    Sign,
    StochasticSign,
    set_noise_key,
)

KEY = ops.noise_key(5)
OPS = {
    "sign": ops.sign,
    "stochastic_sign": lambda x: ops.stochastic_sign(x, key=KEY),
    "binarize_weight": ops.binarize_weight,
    "stochastic_weight": lambda x: ops.stochastic_weight(x, key=KEY),
    "identity_sign": ops.identity_sign,
    "approx_sign": ops.approx_sign,
    "swish_sign": ops.swish_sign,
    "ap2": ops.ap2,
    "drop": lambda x: ops.drop(x, 0.3, KEY),
}
LAYERS = {
    "Sign": (lambda: Sign(), (8, 6)),
    "Sign identity": (lambda: Sign("identity"), (8, 6)),
    "Sign approx": (lambda: Sign("approx"), (8, 6)),
    "Sign swish": (lambda: Sign("swish"), (8, 6)),
    "StochasticSign": (lambda: StochasticSign(), (8, 6)),
    "BatchNorm1d": (lambda: BatchNorm1d(6), (8, 6)),
    "BatchNorm2d": (lambda: BatchNorm2d(6), (4, 6, 3, 2)),
    "ShiftBatchNorm1d": (lambda: ShiftBatchNorm1d(6), (8, 6)),
    "ShiftBatchNorm2d": (lambda: ShiftBatchNorm2d(6), (4, 6, 3, 2)),
    "BinaryLinear": (lambda: BinaryLinear(6, 5), (8, 6)),
    "BinaryLinear, packed": (lambda: BinaryLinear(140, 130), (8, 140)),
    "BinaryLinear, noisy": (lambda: BinaryLinear(6, 5, dropout=0.3, weights="stochastic_sign"), (8, 6)),
    "BinaryConv2d": (lambda: BinaryConv2d(6, 5, 3, padding=1), (4, 6, 4, 5)),
    "BinaryConv2d, noisy": (
        lambda: BinaryConv2d(6, 5, 3, padding=1, dropout=0.3, weights="stochastic_sign"),
        (4, 6, 4, 5),
    ),
}
TAKES_SIGNS = ("BinaryLinear", "BinaryConv2d")


def values(shape, dtype=torch.float32):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    return x.to(dtype).requires_grad_()


def layer_and_input(name):
    make, shape = LAYERS[name]
    torch.manual_seed(2)
    layer, x = make(), values(shape)
    if name.startswith(TAKES_SIGNS):
        x = ops.sign(x).detach().requires_grad_()
    set_noise_key(layer, 11)
    return layer, x


def forward_and_backward(function, x, parameters=()):
    """The result and all gradients, for a fixed upstream gradient."""
    y = function(x)
    upstream = torch.sin(torch.arange(y.numel())).view(y.shape).to(y.dtype)
    return [y, *torch.autograd.grad(y, (x, *parameters), upstream)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", OPS)
def test_operations_compile_into_one_graph(name, dtype):
    x = values((7, 9), dtype)
    eager = forward_and_backward(OPS[name], x)
    compiled = forward_and_backward(torch.compile(OPS[name], fullgraph=True, backend="aot_eager"), x)
    assert all(map(torch.equal, compiled, eager))


@pytest.mark.parametrize("name", LAYERS)
def test_layers_compile_into_one_graph(name):
    layer, x = layer_and_input(name)
    twin = copy.deepcopy(layer)
    for mode in (True, False):
        layer.train(mode)
        twin.train(mode)
        compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
        for _ in range(2):
            # In evaluation mode, the parameters of a normalization have no gradient.
            wanted = [list(module.parameters()) if mode else [] for module in (twin, layer)]
            eager = forward_and_backward(twin, x, wanted[0])
            ours = forward_and_backward(compiled, x, wanted[1])
            for a, b in zip(ours, eager, strict=True):
                torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    for a, b in zip(layer.buffers(), twin.buffers(), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("name", OPS)
def test_operations_keep_their_dtype_under_autocast(name):
    for dtype in (torch.float32, torch.bfloat16):
        x = values((7, 9), dtype)
        plain = forward_and_backward(OPS[name], x)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            mixed = forward_and_backward(OPS[name], x)
        assert all(map(torch.equal, mixed, plain))


@pytest.mark.parametrize("name", LAYERS)
def test_layers_give_float32_under_autocast(name):
    layer, x = layer_and_input(name)
    twin = copy.deepcopy(layer)
    plain = forward_and_backward(twin, x, twin.parameters())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = layer(x)
    mixed = [y, *torch.autograd.grad(y, (x, *layer.parameters()), torch.sin(torch.arange(y.numel())).view(y.shape))]
    assert y.dtype == torch.float32
    assert all(map(torch.equal, mixed, plain))


def test_a_network_trains_under_autocast_to_the_same_bits():
    """Its products leave autocast, and nothing else in it is touched by autocast."""

    def network():
        torch.manual_seed(4)
        return nn.Sequential(
            BinaryConv2d(1, 8, 3, padding=1, first=True),
            nn.MaxPool2d(2),
            ShiftBatchNorm2d(8, input_scale=1 / 255),
            StochasticSign(),
            nn.Flatten(),
            BinaryLinear(8 * 16, 160, dropout=0.2),
            BatchNorm1d(160),
            Sign(),
            BinaryLinear(160, 4, weights="stochastic_sign"),
            BatchNorm1d(4),
        )

    images = torch.randint(0, 256, (20, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    results = []
    for enabled in (False, True):
        model = network()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for step in range(3):
            set_noise_key(model, step)
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
                scores = model(images)
            optimizer.zero_grad()
            scores.square().mean().backward()
            optimizer.step()
        results.append([scores, *model.parameters()])
    assert all(map(torch.equal, *results))
