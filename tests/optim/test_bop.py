"""Bop: the strict condition, its ties, and training with it."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

from binarynet import optim
from binarynet.errors import UsageError
from binarynet.layers import BatchNorm1d, BinaryLinear, Sign
from binarynet.optim import Bop


def after_step(weights, gradients, **options):
    weight = nn.Parameter(torch.tensor(weights, dtype=torch.float64))
    weight.grad = torch.tensor(gradients, dtype=torch.float64)
    Bop([weight], **options).step()
    return weight.tolist()


def test_ties_stay():
    above, below = math.nextafter(0.5, 1), math.nextafter(0.5, 0)
    gradients = [0.5, above, below, -0.5, -above]
    assert after_step([1.0] * 5, gradients, threshold=0.5, gamma=1.0) == [1, -1, 1, 1, 1]
    assert after_step([-1.0] * 5, gradients, threshold=0.5, gamma=1.0) == [-1, -1, -1, -1, 1]


def test_without_threshold_nothing_flips_where_the_average_is_zero():
    assert after_step([1.0, -1.0, 1.0, -1.0], [0.0, -0.0, 5e-324, -5e-324], threshold=0.0, gamma=1.0) == [1, -1, -1, 1]


def test_weights_become_their_signs():
    assert after_step([0.3, -0.2, 0.0, -0.0], [0.0] * 4, threshold=0.0, gamma=0.5) == [1, -1, 1, 1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_updates_are_the_transcription(dtype):
    weight = nn.Parameter(torch.randn(60, generator=torch.Generator().manual_seed(1), dtype=dtype))
    optimizer = Bop([weight], threshold=0.05, gamma=0.125)  # powers of two: float32 makes the same comparisons
    signs, average, flips = np.where(weight.detach().numpy() >= 0, 1.0, -1.0), np.zeros(60), 0
    for t in range(50):
        generator = torch.Generator().manual_seed(t)
        weight.grad = torch.randint(-8, 9, (60,), generator=generator).to(dtype) / 16
        optimizer.step()
        average = 0.875 * average + 0.125 * weight.grad.double().numpy()
        flipped = signs * average > 0.05
        signs = np.where(flipped, -signs, signs)
        flips += flipped.sum()
        assert np.array_equal(weight.detach().numpy(), signs)
    assert flips > 50


def test_a_saved_state_goes_on_to_the_bit():
    weight = nn.Parameter(torch.ones(30))
    optimizer = Bop([weight], threshold=0.01, gamma=0.1)

    def run(weight, optimizer, steps):
        for t in steps:
            weight.grad = torch.randn(30, generator=torch.Generator().manual_seed(t))
            optimizer.step()

    run(weight, optimizer, range(5))
    twin = copy.deepcopy(weight)
    other = Bop([twin])
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    run(weight, optimizer, range(5, 20))
    run(twin, other, range(5, 20))
    assert torch.equal(weight, twin)
    assert other.param_groups[0]["threshold"] == 0.01


def test_it_trains_a_network():
    torch.manual_seed(0)
    model = nn.Sequential(
        BinaryLinear(30, 64, first=True),
        BatchNorm1d(64, input_scale=1 / 255),
        Sign(),
        BinaryLinear(64, 2),
        BatchNorm1d(2),
    )
    images = torch.randint(0, 256, (200, 30), dtype=torch.uint8)
    labels = (images[:, :15].int().sum(1) > images[:, 15:].int().sum(1)).long()
    weights = optim.latent_weights(model)
    taken = {id(weight) for weight in weights}
    flips = Bop(weights, threshold=1e-5, gamma=1e-2)
    others = torch.optim.Adam([p for p in model.parameters() if id(p) not in taken], lr=1e-2)
    costs = []
    for _ in range(60):
        model.zero_grad()
        cost = nn.functional.cross_entropy(model(images), labels)
        cost.backward()
        flips.step()
        others.step()
        costs.append(cost.item())
    assert costs[-1] < costs[0] / 2
    assert all(bool((weight.abs() == 1).all()) for weight in weights)


@pytest.mark.parametrize("bad", [{"threshold": -1.0}, {"threshold": math.nan}, {"gamma": 0.0}, {"gamma": 1.5}])
def test_what_is_refused(bad):
    with pytest.raises(UsageError, match="Bop: expected threshold >= 0 and gamma in"):
        Bop([nn.Parameter(torch.zeros(1))], **bad)
