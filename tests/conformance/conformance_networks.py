"""Builders of torch networks for the conformance cases; everything follows from the seed."""

import math

import numpy as np
import torch
from torch import nn

from binarynet.encoding import INPUT_MAX
from binarynet.layers import BatchNorm1d, BatchNorm2d, BinaryConv2d, BinaryLinear, Normalization, Sign


def set_affine(norm, scale, shift):
    """Make a normalization compute exactly ``x * scale + shift`` (float32 values)."""
    with torch.no_grad():
        norm.running_mean.zero_()
        norm.running_inv_std.fill_(1.0)
        norm.weight.copy_(torch.as_tensor(scale))
        norm.bias.copy_(torch.as_tensor(shift))
    norm.input_scale = 1.0
    return norm


def randomize(network, seed):
    """Statistics as after training, for every normalization: both signs of scale, zeros of both signs among them."""
    rng = np.random.default_rng(seed)
    fan_in = 1
    for module in network.modules():
        if isinstance(module, BinaryConv2d | BinaryLinear):
            fan_in = module.fan_in
            with torch.no_grad():
                module.weight.copy_(torch.as_tensor(rng.uniform(-1, 1, tuple(module.weight.shape))))
        elif isinstance(module, Normalization):
            n, spread = module.num_features, math.sqrt(fan_in)
            gain, offset = rng.normal(0, 1, n), rng.normal(0, 0.5, n)
            gain[rng.random(n) < 0.08] = 0.0
            gain[rng.random(n) < 0.08] = -0.0
            offset[rng.random(n) < 0.08] = -0.0
            with torch.no_grad():
                module.weight.copy_(torch.as_tensor(gain))
                module.bias.copy_(torch.as_tensor(offset))
                module.running_mean.copy_(torch.as_tensor(rng.normal(0, 0.5 * spread, n)))
                module.running_inv_std.copy_(torch.as_tensor(rng.uniform(0.5, 1.5, n) / spread))
    return network


def dense_net(inputs, sizes, seed):
    """Features through binary dense layers; the last one gives scores."""
    layers = []
    for i, size in enumerate(sizes):
        layers += [BinaryLinear(inputs, size, first=i == 0)]
        layers += [BatchNorm1d(size, input_scale=1 / INPUT_MAX if i == 0 else 1.0), Sign()]
        inputs = size
    return randomize(nn.Sequential(*layers[:-1]), seed)


def conv_net(size, channels, out, kernel, seed, *, stride=1, padding=0, pool=None, pool_at="sums", first=False):
    """One convolution under test, on 8-bit images or behind a 1 x 1 layer that makes bits; then 3 scores.

    ``pool_at``: "sums" (the paper's order), "norm" (between normalization and sign) or "bits" (after the sign).
    """
    layers = []
    if not first:
        layers += [BinaryConv2d(2, channels, 1, first=True), BatchNorm2d(channels, input_scale=1 / INPUT_MAX), Sign()]
    tested = BinaryConv2d(channels, out, kernel, stride=stride, padding=padding, first=first)
    norm = BatchNorm2d(out, input_scale=1 / INPUT_MAX if first else 1.0)
    block = {"conv": [tested], "sums": [], "norm": [norm], "between": [], "sign": [Sign()], "bits": []}
    if pool is not None:
        block[{"sums": "sums", "norm": "between", "bits": "bits"}[pool_at]] = [pool]
    layers += [module for part in block.values() for module in part]
    body = nn.Sequential(*layers)
    with torch.no_grad():
        shape = body.eval()(torch.zeros(1, 2 if not first else channels, *size, dtype=torch.uint8)).shape
    return randomize(nn.Sequential(body, nn.Flatten(), BinaryLinear(shape[1:].numel(), 3), BatchNorm1d(3)), seed)


def ties_net(k):
    """Scale +-1 and an integer shift: for every sum that occurs, a channel where sum * scale + shift is exactly 0.

    With :func:`ramp_images`, the first layer turns image i into i bits +1 and k - i bits -1, which the second layer,
    all weights +1, sums to 2i - k. Its channels have every threshold from -k - 1 to k + 1, rising and falling.
    """
    counter, summing = BinaryLinear(k, k, first=True), BinaryLinear(k, 2 * (2 * k + 3))
    with torch.no_grad():
        counter.weight.fill_(1.0)
        summing.weight.fill_(0.5)
    steps = 2.0 * np.arange(k) + 1 - k
    count = set_affine(BatchNorm1d(k), np.ones(k), -255 * steps)
    targets = np.arange(-k - 1.0, k + 2.0)
    scale = np.repeat([1.0, -1.0], 2 * k + 3)
    norm = set_affine(BatchNorm1d(len(scale)), scale, np.concatenate([-targets, targets]))
    return nn.Sequential(counter, count, Sign(), summing, norm, Sign())


def ramp_images(k):
    """uint8 ``[k + 1, k]``: image i has i white pixels."""
    return np.where(np.arange(k) < np.arange(k + 1)[:, np.newaxis], 255, 0).astype(np.uint8)


def correlated_dense(k, seed, outputs=12, flips=3):
    """Constant bits, and weights that agree (or disagree) with them but for a few: sums near +k and -k."""
    rng = np.random.default_rng(seed)
    pattern = rng.integers(0, 2, k) * 2.0 - 1.0
    first = BinaryLinear(1, k, first=True)
    constant = set_affine(BatchNorm1d(k), np.zeros(k, np.float32), pattern.astype(np.float32))
    tested = BinaryLinear(k, outputs)
    weights = np.where(np.arange(outputs)[:, np.newaxis] % 2 == 0, pattern, -pattern)
    for row in weights:
        row[rng.integers(0, k, min(flips, k - 1))] *= -1
    with torch.no_grad():
        tested.weight.copy_(torch.as_tensor(weights))
    norm = set_affine(BatchNorm1d(outputs), rng.normal(0, 1, outputs), rng.normal(0, k, outputs))
    return nn.Sequential(first, constant, Sign(), tested, norm)


def correlated_conv(channels, seed, outputs=9):
    """The same for a 3 x 3 convolution with zero padding: inside sums near 9 * channels, at borders less."""
    rng = np.random.default_rng(seed)
    pattern = rng.integers(0, 2, channels) * 2.0 - 1.0
    first = BinaryConv2d(1, channels, 1, first=True)
    constant = set_affine(BatchNorm2d(channels), np.zeros(channels, np.float32), pattern.astype(np.float32))
    tested = BinaryConv2d(channels, outputs, 3, padding=1)
    signs = np.where(np.arange(outputs) % 2 == 0, 1.0, -1.0)
    with torch.no_grad():
        tested.weight.copy_(
            torch.as_tensor(signs[:, None, None, None] * pattern[None, :, None, None]).expand(-1, -1, 3, 3)
        )
        tested.weight[:, 0, 1, 2] *= -1
    reach = 9.0 * channels
    norm = set_affine(BatchNorm2d(outputs), signs.astype(np.float32), np.linspace(-reach, reach, outputs))
    return nn.Sequential(first, constant, Sign(), tested, norm, Sign())


def extreme_first(k, seed, outputs=5):
    """A first layer whose weights are all +1, all -1 or mixed: black and white images reach +-255 k exactly."""
    rng = np.random.default_rng(seed)
    layer = BinaryLinear(k, outputs, first=True)
    weights = rng.uniform(-1, 1, (outputs, k))
    weights[0], weights[1] = 1.0, -1.0
    with torch.no_grad():
        layer.weight.copy_(torch.as_tensor(weights))
    norm = set_affine(BatchNorm1d(outputs), rng.normal(0, 1, outputs), rng.normal(0, 255 * k, outputs))
    return nn.Sequential(layer, norm)
