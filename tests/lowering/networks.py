"""Small torch networks for the tests of lowering; images are 5 x 4 x 3, so that no two sizes agree."""

import numpy as np
import torch
from torch import nn

from binarynet.encoding import to_signs, unpack_bits
from binarynet.layers import BatchNorm1d, BatchNorm2d, BinaryConv2d, BinaryLinear, Normalization, Sign
from binarynet.lowering import pack
from binarynet.runtime import REFERENCE, Session, engines
from random_graphs import random_images

SHAPE = (5, 4, 3)
ENGINES = [engine.name for engine in engines() if engine.available]


def trained(module, seed=0):
    """Statistics as after training, both signs of scale."""
    generator = torch.Generator().manual_seed(seed)

    def draw(low, high, n):
        return torch.rand(n, generator=generator) * (high - low) + low

    with torch.no_grad():
        for norm in module.modules():
            if isinstance(norm, Normalization):
                n = norm.num_features
                norm.running_mean.copy_(draw(-2, 2, n))
                norm.running_inv_std.copy_(draw(0.1, 1, n))
                norm.weight.copy_(draw(-1, 1, n))
                norm.bias.copy_(draw(-1, 1, n))
    return module


class Network(nn.Module):
    """Layers to make forward functions of: one convolution (3 x 3, to 3 x 2 x 7), one dense layer of 42 features.

    ``forward`` is the function given, called with the module and the images.
    """

    def __init__(self, function=None, **more):
        super().__init__()
        torch.manual_seed(1)
        self.function = function
        self.conv = BinaryConv2d(3, 7, 3, first=True)
        self.norm = BatchNorm2d(7, input_scale=1 / 255)
        self.sign = Sign()
        self.flat = nn.Flatten()
        self.dense = BinaryLinear(42, 4)
        self.scores = BatchNorm1d(4)
        for name, module in more.items():
            self.add_module(name, module)
        trained(self)

    def forward(self, x):
        return self.function(self, x)

    def features(self, x):
        """Signs of the convolution, torch layout [n, 7, 3, 2]."""
        return self.sign(self.norm(self.conv(x)))

    def head(self, features):
        return self.scores(self.dense(features))


def torch_result(module, images):
    """What the module itself says in eval mode, in the graph's layout, without lowering anything."""
    training = module.training
    tensor = torch.from_numpy(images)
    with torch.no_grad():
        result = module.eval()(tensor.permute(0, 3, 1, 2).contiguous() if tensor.ndim == 4 else tensor).numpy()
    module.train(training)
    return result.transpose(0, 2, 3, 1) if result.ndim == 4 else result


def assert_packs(module, shape=SHAPE, batch=9):
    """The packed network equals the module on every engine, bit for bit; returns the model."""
    model = pack(module, shape)
    images = random_images(np.random.default_rng(3), batch, shape)
    expected = torch_result(module, images)
    output = model.graph.output_type
    for engine in ENGINES:
        got = Session(model.graph, engine=engine).run(images)
        if output.kind == "bits":
            got = to_signs(unpack_bits(got, output.channels))
        if output.kind == "f32":
            assert got.dtype == np.float32
            assert np.array_equal(got.view(np.uint32), np.ascontiguousarray(expected).view(np.uint32)), engine
        else:
            assert np.array_equal(got, expected), engine
    assert REFERENCE in ENGINES
    return model
