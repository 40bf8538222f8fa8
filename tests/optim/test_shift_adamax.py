"""Shift-based AdaMax against a NumPy transcription of the paper's program."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

from binarynet import models, ops, optim
from binarynet.errors import UsageError
from binarynet.layers import BatchNorm1d, BinaryLayer, BinaryLinear, Sign
from binarynet.optim import PRINTED_BETAS, PRINTED_LR, ShiftAdaMax


def ap2(values):
    values = np.asarray(values, np.float64)
    mantissa, exponent = np.frexp(np.abs(values))
    return np.sign(values) * np.ldexp(1.0, np.where(mantissa * mantissa > 0.5, exponent, exponent - 1))


class Transcription:
    def __init__(self, x, lr, betas, eps, scale):
        self.x, self.lr, (self.b1, self.b2), self.eps, self.scale = x, lr, betas, eps, scale
        self.m, self.v, self.t = np.zeros_like(x), np.zeros_like(x), 0

    def step(self, g):
        self.t += 1
        self.m = self.b1 * self.m + (1 - self.b1) * g
        self.v = np.maximum(self.b2 * self.v, np.abs(g))
        self.v = ap2(self.v) + self.eps
        self.x = self.x - ap2(self.lr / (1 - self.b1**self.t)) * self.scale * self.m / self.v


def gradients(shape, t, dtype):
    """Random ones over many magnitudes; beside them 0, exact powers of two and both sides of sqrt(2)."""
    generator = torch.Generator().manual_seed(t)
    g = torch.randn(shape, generator=generator, dtype=torch.float64)
    g *= 2.0 ** torch.randint(-30, 10, shape, generator=generator).double()
    root = torch.tensor(math.sqrt(2), dtype=torch.float32)
    g[0] = 0
    g[1] = (-2.0) ** (t % 7)
    g[2] = torch.nextafter(root, torch.tensor(2.0)).double()
    g[3] = torch.nextafter(root, torch.tensor(0.0)).double()
    return g.to(dtype)


@pytest.mark.parametrize(
    ("lr", "betas", "eps"), [(2**-6, (0.9, 0.999), 2**-27), (PRINTED_LR, PRINTED_BETAS, 2**-27), (0.3, (0, 0.5), 1e-3)]
)
@pytest.mark.parametrize("scale", [None, 57.04, 64.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_updates_are_the_transcription(lr, betas, eps, scale, dtype):
    x = torch.randn(40, 3, generator=torch.Generator().manual_seed(9), dtype=dtype).requires_grad_()
    group = {"params": [x], "lr": lr * (scale or 1)} | ({"lr_scale": scale} if scale else {})
    optimizer = ShiftAdaMax([group], lr, betas=betas, eps=eps)
    program = Transcription(x.detach().double().numpy().copy(), lr, betas, eps, scale or 1.0)
    for t in range(1, 41):
        x.grad = gradients(x.shape, t, dtype)
        optimizer.step()
        program.step(x.grad.double().numpy())
    tolerance = 2e-5 if dtype == torch.float32 else 1e-12
    largest = np.abs(program.x).max()
    np.testing.assert_allclose(x.detach(), program.x, rtol=tolerance, atol=largest * tolerance)
    np.testing.assert_allclose(optimizer.state[x]["exp_inf"], program.v, rtol=1e-6)
    assert np.all(x[0].detach().numpy() == program.x[0])  # no gradient, no step


def test_defaults_are_those_of_the_program_and_print_is_an_option():
    (group,) = ShiftAdaMax([nn.Parameter(torch.zeros(1))]).param_groups
    assert (group["lr"], group["betas"], group["eps"]) == (2**-6, (0.9, 0.999), 2**-27)
    assert PRINTED_BETAS == (0.875, 1023 / 1024)
    assert PRINTED_LR == 1 / 1024


def test_without_momentum_every_step_is_a_power_of_two_times_the_gradient():
    x = nn.Parameter(torch.zeros(1000))
    x.grad = torch.randn(1000, generator=torch.Generator().manual_seed(1))
    optimizer = ShiftAdaMax([x], 0.01, betas=(0.0, 0.999), eps=1e-30)
    optimizer.step()
    ratio = x.detach().double() / x.grad.double()
    torch.testing.assert_close(ratio, ops.ap2(ratio), rtol=1e-6, atol=0)


def network():
    torch.manual_seed(1)
    return nn.Sequential(
        BinaryLinear(20, 12, first=True), BatchNorm1d(12, input_scale=1 / 255), Sign(), BinaryLinear(12, 4)
    )


def test_latent_weights_are_scaled_and_clipped():
    model = network()
    optimizer = optim.shift_adamax(model, 2.0)
    scales = [optim.glorot_factor(m) for m in model.modules() if isinstance(m, BinaryLayer)]
    assert [g["lr_scale"] for g in optimizer.param_groups] == [*scales, 1.0]
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    assert all(w.abs().max() <= 1 for w in optim.latent_weights(model))
    assert bool((model[0].weight == -1).all())
    assert bool((model[1].bias < -1).any())  # not a latent weight
    unclipped = optim.shift_adamax(model, 2.0, clip=False)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    unclipped.step()
    assert bool((model[0].weight < -1).all())


@pytest.mark.parametrize(
    ("blocks", "rounded"),
    [
        ([[128, 128], [256, 256], [512, 512]], [32, 32, 64, 64, 64, 64, 64, 32, 32]),
        ([[64, 64], [128, 128], [256, 256]], [16, 32, 32, 32, 64, 64, 64, 32, 32]),
    ],
)
def test_rounded_factors_are_those_of_the_papers_programs(blocks, rounded):
    with torch.device("meta"):
        model = models.build("convnet", input_shape=(32, 32, 3), classes=10, blocks=blocks)
    groups = optim.parameter_groups(model, 1.0, power_of_two=True)
    scale_of = {id(p): g["lr_scale"] for g in groups for p in g["params"]}
    got = [scale_of[id(m.weight)] for m in model.modules() if isinstance(m, BinaryLayer)]
    assert got == rounded


def test_a_saved_state_goes_on_to_the_bit():
    model = network()
    optimizer = optim.shift_adamax(model)

    def run(model, optimizer, steps):
        for t in steps:
            for number, parameter in enumerate(model.parameters()):
                generator = torch.Generator().manual_seed(100 * t + number)
                parameter.grad = torch.randn(parameter.shape, generator=generator)
            optimizer.step()

    run(model, optimizer, range(5))
    twin = copy.deepcopy(model)
    other = optim.shift_adamax(twin)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    run(model, optimizer, range(5, 9))
    run(twin, other, range(5, 9))
    for a, b in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(a, b)
    fresh = optim.shift_adamax(copy.deepcopy(model))
    assert fresh.state_dict()["state"] == {}


def test_a_closure_and_missing_gradients():
    x, unused = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))
    optimizer = ShiftAdaMax([x, unused])

    def closure():
        optimizer.zero_grad()
        cost = x.square().sum()
        cost.backward()
        return cost

    assert optimizer.step(closure).item() == 3
    assert bool((x < 1).all())
    assert torch.equal(unused, torch.ones(3))


@pytest.mark.parametrize("bad", [{"lr": 0.0}, {"eps": 0.0}, {"betas": (1.0, 0.9)}, {"betas": (0.9, -0.1)}])
def test_what_is_refused(bad):
    with pytest.raises(UsageError, match="ShiftAdaMax: expected lr > 0, eps > 0 and betas in"):
        ShiftAdaMax([nn.Parameter(torch.zeros(1))], **bad)
