"""Glorot scaling, the Adam step and clipping, against NumPy transcriptions of the formulas."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from binarynet import models, optim
from binarynet.errors import UsageError
from binarynet.layers import BatchNorm1d, BinaryConv2d, BinaryLayer, BinaryLinear, Sign


def factors(name, shape, **options):
    with torch.device("meta"):
        model = models.build(name, input_shape=shape, classes=10, **options)
    return [optim.glorot_factor(m) for m in model.modules() if isinstance(m, BinaryLayer)]


@pytest.mark.parametrize(
    ("name", "shape", "options", "published"),
    [
        ("mlp", (28, 28, 1), {"hidden": [4096] * 3}, [57.04, 73.90, 73.90, 52.32]),
        ("mlp", (28, 28, 1), {"hidden": [2048] * 3}, [43.45, 52.26, 52.26, 37.04]),
        ("convnet", (32, 32, 3), {}, [28.04, 39.19, 48.00, 55.43, 67.88, 78.38, 78.38, 36.95, 26.26]),
        (
            "convnet",
            (32, 32, 3),
            {"blocks": [[64, 64], [128, 128], [256, 256]]},
            [20.05, 27.71, 33.94, 39.19, 48.00, 55.43, 58.42, 36.95, 26.26],
        ),
    ],
)
def test_factors_of_the_papers_networks(name, shape, options, published):
    assert [round(f, 2) for f in factors(name, shape, **options)] == published


def small_network():
    torch.manual_seed(1)
    return nn.Sequential(
        BinaryLinear(20, 12, first=True),
        BatchNorm1d(12, input_scale=1 / 255),
        Sign(),
        BinaryLinear(12, 12),
        BatchNorm1d(12),
        Sign(),
        BinaryLinear(12, 4),
        BatchNorm1d(4),
    )


def step_gradients(model, step):
    generator = torch.Generator().manual_seed(step)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)


def test_adam_multiplies_the_finished_step_and_then_clips():
    model = small_network()
    lr, b1, b2, eps = 0.01, 0.9, 0.999, 1e-8
    scales = {id(m.weight): optim.glorot_factor(m) for m in model if isinstance(m, BinaryLayer)}
    reference = {
        name: (p.detach().double().numpy().copy(), np.zeros(p.shape), np.zeros(p.shape), scales.get(id(p)))
        for name, p in model.named_parameters()
    }
    optimizer = optim.adam(model, lr)
    reached_the_bound = 0
    for step in range(1, 6):
        step_gradients(model, step)
        for name, parameter in model.named_parameters():
            value, m, v, scale = reference[name]
            g = parameter.grad.double().numpy()
            m[:] = b1 * m + (1 - b1) * g
            v[:] = b2 * v + (1 - b2) * g**2
            moved = value - lr * (m / (1 - b1**step)) / (np.sqrt(v / (1 - b2**step)) + eps)
            value[:] = moved if scale is None else np.clip(value + scale * (moved - value), -1, 1)
        optimizer.step()
        for name, parameter in model.named_parameters():
            value, *_, scale = reference[name]
            np.testing.assert_allclose(parameter.detach(), value, rtol=2e-5, atol=2e-6, err_msg=name)
            reached_the_bound += 0 if scale is None else int((parameter.detach().abs() == 1).sum())
    assert reached_the_bound > 0


def test_groups_hold_every_parameter_once():
    model = small_network()
    model.append(model[3])  # a shared layer
    groups = optim.parameter_groups(model, 0.5)
    members = [id(p) for group in groups for p in group["params"]]
    assert sorted(members) == sorted(id(p) for p in model.parameters())
    assert [group["name"] for group in groups] == ["latent x4.619", "latent x4", "latent x3.266", "other"]
    for group in groups:
        assert group["lr"] == 0.5 * group["lr_scale"]
    squared = optim.parameter_groups(model, 0.5, power=2)
    assert squared[0]["lr_scale"] == pytest.approx(groups[0]["lr_scale"] ** 2)
    assert [group["lr"] for group in optim.parameter_groups(model, 0.5, glorot=False)] == [0.5, 0.5]


@pytest.mark.parametrize("make", [torch.optim.SGD, torch.optim.RMSprop, torch.optim.Adagrad])
def test_any_optimizer_clips_latent_weights_only(make):
    model = small_network()
    optimizer = make(optim.parameter_groups(model, 100.0), lr=100.0)
    handle = optim.clip_after_step(optimizer, model)
    step_gradients(model, 0)
    optimizer.step()
    assert all(weight.abs().max() == 1 for weight in optim.latent_weights(model))
    assert model[1].weight.abs().max() > 1
    handle.remove()
    optimizer.step()
    assert any(weight.abs().max() > 1 for weight in optim.latent_weights(model))


def test_clipping_keeps_values_inside_and_nan():
    weight = torch.tensor([-3.0, -1.0, -0.0, 0.25, 1.0, 9.0, math.nan])
    optim.clip_latent_weights([weight])
    assert weight[:-1].tolist() == [-1.0, -1.0, 0.0, 0.25, 1.0, 1.0]
    assert math.copysign(1, weight[2]) == -1
    assert math.isnan(weight[-1])


def test_latent_weights_lists_each_once():
    model = nn.Sequential(BinaryConv2d(3, 4, 3), BatchNorm1d(4))
    model.append(model[0])
    assert [weight.shape for weight in optim.latent_weights(model)] == [(4, 3, 3, 3)]


def test_what_is_refused():
    with pytest.raises(UsageError, match="must be positive, got 0"):
        optim.adam(small_network(), lr=0)
    with pytest.raises(UsageError, match="has no trainable parameters"):
        optim.parameter_groups(nn.Sequential(nn.Flatten()), 0.1)


@pytest.mark.parametrize("new", [optim.adam, optim.shift_adamax, lambda model: optim.ClippedAdam(model.parameters())])
def test_a_step_counts_as_a_change_of_the_weights(new):
    """A graph that still needs the old ones must not go on with the new ones in silence."""
    layer = nn.Linear(256, 128, bias=False)
    model = nn.Sequential(layer, BinaryLinear(128, 130))
    optimizer = new(model)
    x = torch.randn(4, 256, requires_grad=True)
    y = layer(x)
    model[1](torch.ones(2, 128)).sum().backward()
    y.sum().backward(retain_graph=True)
    optimizer.step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_weights_that_are_computed_are_refused():
    model = nn.Sequential(BinaryLinear(8, 4))
    nn.utils.parametrize.register_parametrization(model[0], "weight", nn.Hardtanh())
    for call in (optim.adam, optim.shift_adamax, optim.latent_weights):
        with pytest.raises(UsageError, match=r"^0: the weights are no parameter, but computed from one"):
            call(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model(torch.ones(2, 8)).sum().backward()
    optimizer.step()
