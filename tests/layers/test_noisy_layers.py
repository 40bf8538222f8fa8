"""Noise of layers: keyed, its own for each layer and call; and stochastic weights, which are binary."""

import copy
import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn

from binarynet import ops, optim
from binarynet.errors import UsageError
from binarynet.layers import BatchNorm1d, BinaryConv2d, BinaryLinear, Sign, StochasticSign, set_noise_key
from binarynet.lowering import lower, torch_source
from binarynet.runtime import verify


def correlation(a, b):
    """In standard deviations, of +-1 with mean 0."""
    return (a * b).double().sum().item() / math.sqrt(a.numel())


class TwoSigns(nn.Module):
    """Uses one sign twice, and another once."""

    def __init__(self):
        super().__init__()
        self.twice, self.once = StochasticSign(), StochasticSign()

    def forward(self, x):
        return torch.stack([self.twice(x), self.once(x), self.twice(x)])


def test_layers_calls_and_keys_share_no_noise():
    model, x, drawn = TwoSigns(), torch.zeros(40_000), []
    for key in (0, 1, 2, 2**32, 2**64 + 1):
        set_noise_key(model, key)
        drawn += [*model(x), *model(x)]  # two forward passes within a step, too
    for a, b in itertools.combinations(drawn, 2):
        assert abs(correlation(a, b)) < 4.5


def test_the_same_key_gives_the_same_noise():
    model, x = TwoSigns(), torch.rand(1000) * 2 - 1
    set_noise_key(model, 7)
    first, second = model(x), model(x)
    assert not torch.equal(first, second)
    set_noise_key(model, 7)
    assert torch.equal(model(x), first)
    twin = copy.deepcopy(model)
    assert torch.equal(model(x), second)
    assert torch.equal(twin(x), second)
    assert model.state_dict() == {}


def test_a_layers_noise_does_not_depend_on_what_others_draw():
    def network(dropout):
        torch.manual_seed(1)
        return nn.Sequential(BinaryLinear(40, 30, dropout=dropout), StochasticSign())

    last = []
    for dropout in (0.0, 0.5):
        model = network(dropout)
        set_noise_key(model, 3)
        last.append(model[1](torch.zeros(99)))
    assert torch.equal(*last)


def test_without_a_key_the_noise_is_torchs():
    model, x = TwoSigns(), torch.zeros(500)
    results = []
    for _ in range(2):
        torch.manual_seed(3)
        results.append([model(x), model(x)])
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])
    assert not torch.equal(*results[0])
    set_noise_key(model, 1)
    set_noise_key(model, None)
    torch.manual_seed(3)
    assert torch.equal(model(x), results[0][0])


def test_evaluation_draws_nothing():
    model = nn.Sequential(BinaryLinear(20, 9, dropout=0.5, weights="stochastic_sign"), StochasticSign()).eval()
    set_noise_key(model, 1)
    before = torch.get_rng_state()
    x = ops.sign(torch.randn(5, 20))
    assert torch.equal(model(x), model(x))
    assert torch.equal(model(x), ops.sign(x @ ops.sign(model[0].weight).T))
    set_noise_key(model, None)
    state = torch.get_rng_state()
    model(x)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(before, state)  # the input was drawn


def test_a_key_follows_its_layer_to_another_device():
    model = nn.Sequential(StochasticSign(), BinaryLinear(4, 2))
    set_noise_key(model, 1)
    assert model.to("meta")[0].noise_key.device.type == "meta"
    assert model.half()[0].noise_key.dtype == torch.int64
    late = StochasticSign()
    set_noise_key(late, 1)  # nothing tells where it will be used
    late(torch.zeros(3, device="meta"))
    assert late.noise_key.device.type == "meta"


# Stochastic weights


STOCHASTIC = {
    "linear": lambda: (BinaryLinear(60, 50, weights="stochastic_sign"), ops.sign(torch.randn(7, 60))),
    "convolution": lambda: (
        BinaryConv2d(6, 8, 3, padding=1, weights="stochastic_sign"),
        ops.sign(torch.randn(2, 6, 5, 4)),
    ),
    "first": lambda: (
        BinaryLinear(60, 50, first=True, weights="stochastic_sign"),
        torch.randint(0, 256, (7, 60), dtype=torch.uint8),
    ),
}


@pytest.mark.parametrize("kind", STOCHASTIC)
def test_the_weights_of_a_step_are_binary_and_those_of_its_backward_pass(kind):
    """With the drawn weights put in by hand, an ordinary layer gives the same results and gradients."""
    layer, x = STOCHASTIC[kind]()
    set_noise_key(layer, 4)
    weight = ops.stochastic_weight(layer.weight, key=layer.noise_key.clone())
    assert set(weight.unique().tolist()) == {-1.0, 1.0}
    assert not torch.equal(weight, ops.sign(layer.weight))
    plain = copy.deepcopy(layer)
    plain.weights = "sign"
    with torch.no_grad():
        plain.weight.copy_(weight)
    results = []
    for module in (layer, plain):
        given = x.clone().requires_grad_(x.is_floating_point())
        y = module(given)
        assert torch.equal(y, y.round())
        y.backward(torch.sin(torch.arange(y.numel()).view(y.shape).float()))
        results.append((y, given.grad, module.weight.grad))
    for ours, theirs in zip(*results, strict=True):
        assert (ours is None and theirs is None) or torch.equal(ours, theirs)
    assert not torch.equal(layer(x), results[0][0])  # the next pass draws others
    layer.eval()
    assert torch.equal(layer.binary_weight(), ops.sign(layer.weight))


def test_drawn_weights_have_the_hard_sigmoid_as_probability():
    w = torch.linspace(-1.2, 1.2, 49)
    layer = BinaryLinear(49, 50_000, weights="stochastic_sign")
    with torch.no_grad():
        layer.weight.copy_(w.expand(50_000, 49))
    set_noise_key(layer, 2)
    share = (layer.binary_weight() > 0).double().mean(0)
    p = ((w.double() + 1) / 2).clamp(0, 1)
    inside = (p > 0) & (p < 1)
    assert torch.equal(share[~inside], p[~inside])
    z = (share - p)[inside] / torch.sqrt(p * (1 - p) / 50_000)[inside]
    assert z.abs().max() < 4
    assert abs(z.square().sum().item() - len(z)) < 4 * math.sqrt(2 * len(z))


def test_a_network_with_stochastic_weights_trains_and_packs_exactly():
    torch.manual_seed(0)
    options = {"weights": "stochastic_sign"}
    model = nn.Sequential(
        nn.Flatten(),
        BinaryLinear(30, 96, first=True, **options),
        BatchNorm1d(96, input_scale=1 / 255),
        Sign(),
        BinaryLinear(96, 2, **options),
        BatchNorm1d(2),
    )
    images = torch.randint(0, 256, (300, 1, 5, 6), dtype=torch.uint8)
    halves = images.flatten(1).int().unflatten(1, (2, 15)).sum(2)
    labels = (halves[:, 0] > halves[:, 1]).long()
    optimizer = optim.adam(model, 1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
    model.eval()
    assert (model(images).argmax(1) != labels).float().mean() < 0.12
    lowered = lower(model, (5, 6, 1))
    batch = np.ascontiguousarray(images.permute(0, 2, 3, 1).numpy())
    assert verify(lowered.graph, batch, extra={"torch": torch_source(lowered)}).exact


def test_what_is_refused():
    with pytest.raises(UsageError, match=r"BinaryConv2d: weights must be one of .*'stochastic_sign'.*, got 'noisy'"):
        BinaryConv2d(3, 4, 3, weights="noisy")
    with pytest.raises(UsageError, match="expected a non-negative integer, got -1"):
        set_noise_key(StochasticSign(), -1)


def channels_last_zeros(height=5):
    return torch.zeros(3, 6, height, 3).contiguous(memory_format=torch.channels_last).requires_grad_()


@pytest.mark.parametrize("height", [4, 5])  # of four pixels each, kernels take the images as they lie
def test_channels_last_images_keep_their_format_and_get_the_same_noise(height):
    x = channels_last_zeros(height)
    layer = StochasticSign()
    set_noise_key(layer, 3)
    y = layer(x)
    assert not y.is_contiguous()
    assert y.is_contiguous(memory_format=torch.channels_last)
    set_noise_key(layer, 3)
    assert torch.equal(layer(x.detach().contiguous()), y)
    upstream = torch.arange(float(x.numel())).view(x.shape)  # another layout than that of y
    y.backward(upstream)
    assert torch.equal(x.grad, upstream)


def test_a_dropped_operand_of_channels_last_images_gets_no_gradient():
    x = channels_last_zeros()
    layer = BinaryConv2d(6, 1, 1, dropout=0.5)
    set_noise_key(layer, 3)
    y = layer(x + 1)
    y.backward(torch.ones(3, 1, 5, 3))
    signs = layer.binary_weight()[0].view(1, 6, 1, 1)
    kept = x.grad != 0
    assert 0.4 < float(kept.float().mean()) < 0.6
    assert torch.equal(x.grad, kept * signs * 2)
    assert torch.equal(y, (kept * signs * 2).sum(1, keepdim=True))


def test_a_key_set_in_inference_mode_serves_training():
    layer = StochasticSign()
    with torch.inference_mode():
        set_noise_key(layer, 3)
        layer(torch.zeros(4))
    first = layer(torch.zeros(64, requires_grad=True))
    assert not torch.equal(first, layer(torch.zeros(64, requires_grad=True)))
