"""The paper's networks at full size, in both settings: packed, and equal to torch in every layer on every engine."""

import pytest
import torch

import binarynet as bn
from binarynet import models
from binarynet.layers import Normalization


@pytest.mark.parametrize(
    ("name", "shape", "binary_weights"),
    [
        ("mnist-mlp-4096", (28, 28, 1), 36_806_656),
        ("mnist-mlp-2048", (28, 28, 1), 10_014_720),
        ("cifar10-convnet", (32, 32, 3), 14_022_016),
        ("svhn-convnet", (32, 32, 3), 6_397_632),
    ],
)
@pytest.mark.parametrize("setting", [{}, {"normalization": "shift", "activation": "stochastic_sign"}])
def test_packs_exactly(name, shape, binary_weights, setting, tmp_path):
    network = models.build(name, input_shape=shape, classes=10, **setting)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, Normalization):  # as after training: rising and falling channels, moved thresholds
                module.weight.normal_()
                module.bias.normal_()
                module.running_mean.normal_(0, 5)
                module.running_inv_std.uniform_(0.005, 0.05)
    packed = bn.pack(network, shape)  # raises where one bit of one layer differs on its probe images
    packed.save(tmp_path / "model.bnn")
    size = (tmp_path / "model.bnn").stat().st_size
    assert binary_weights / 8 < size < 1.07 * binary_weights / 8
    images = torch.randint(0, 256, (3, *shape), dtype=torch.uint8)
    with torch.no_grad():
        scores = network.eval()(images.permute(0, 3, 1, 2).contiguous())
    assert packed.predict(images.numpy()).scores.tobytes() == scores.numpy().tobytes()
