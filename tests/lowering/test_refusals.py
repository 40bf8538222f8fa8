"""What cannot be lowered exactly is refused: by the module's name, with the reason, and with what to use instead."""

import operator

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from networks import SHAPE, Network
from torch import nn

from binarynet import ops
from binarynet.errors import NonFiniteError, UnsupportedLayerError, UsageError
from binarynet.layers import BatchNorm1d, BatchNorm2d, BinaryConv2d, BinaryLinear, ContrastNormalization, Sign
from binarynet.lowering import pack


def refused(module, message, shape=SHAPE, error=UnsupportedLayerError):
    with pytest.raises(error, match=message) as caught:
        pack(module, shape)
    assert len(str(caught.value)) < 700
    return str(caught.value)


MODULES = {
    "linear": (nn.Linear(42, 4), "use binarynet.layers.BinaryLinear"),
    "conv": (nn.Conv2d(7, 2, 1), "use binarynet.layers.BinaryConv2d"),
    "batch norm 1d": (nn.BatchNorm1d(42), "use binarynet.layers.BatchNorm1d"),
    "batch norm 2d": (nn.BatchNorm2d(7), "use binarynet.layers.BatchNorm2d"),
    "relu": (nn.ReLU(), "use binarynet.layers.Sign"),
    "average pool": (nn.AvgPool2d(2), "averages are not integers; use torch.nn.MaxPool2d"),
    "global average": (nn.AdaptiveAvgPool2d(1), "averages are not integers"),
    "softmax": (nn.Softmax(1), "take the softmax outside"),
    "log softmax": (nn.LogSoftmax(1), "take the softmax outside"),
    "tanh": (nn.Tanh(), "has no exact integer form; supported modules: BinaryLinear, BinaryConv2d"),
    "transposed conv": (nn.ConvTranspose2d(7, 2, 1), "has no exact integer form"),
    "group norm": (nn.GroupNorm(1, 7), "has no exact integer form"),
    "pool with dilation": (nn.MaxPool2d(2, dilation=2), "dilation and ceil_mode have no packed form"),
    "pool with ceil mode": (nn.MaxPool2d(2, ceil_mode=True), "use dilation=1, ceil_mode=False"),
    "pool with indices": (nn.MaxPool2d(2, return_indices=True), "return_indices has no packed form; leave it out"),
    "pool larger than the image": (nn.MaxPool2d(9), r"the window \(9, 9\) does not fit"),
    "partial flatten": (nn.Flatten(2), "only flatten\\(1\\), all but the batch, is exact"),
    "sign of signs": (Sign(), "sign follows a binary layer or its normalization"),
    "norm of signs": (BatchNorm2d(7), "normalization follows a binary layer"),
    "first layer behind signs": (BinaryConv2d(7, 2, 1, first=True), "its input is signs; drop first=True"),
    "channels": (BinaryConv2d(8, 2, 1), "takes 8 channels, its input has 7"),
    "dense on an image": (BinaryLinear(2, 4), r"expected a feature vector \[k\] \(flatten comes first\)"),
    "clipped signs": (nn.Hardtanh(), "clipping is exact only between a normalization and its sign"),
}


@pytest.mark.parametrize(("module", "message"), MODULES.values(), ids=MODULES.keys())
def test_modules(module, message):
    """Each stands behind the signs of a convolution, as ``head.strange``."""
    network = Network(lambda m, x: m.extra(m.features(x)))
    network.extra = nn.Sequential()
    network.extra.add_module("strange", module)
    refused(network, rf"^extra\.strange \({type(module).__name__}\): .*{message}")


AFTER = {
    "two norms": (lambda m, x: m.norm(m.norm(m.conv(x))), r"^norm \(BatchNorm2d\): .*real-valued output of norm"),
    "layer on normalized sums": (
        lambda m, x: m.next(m.norm(m.conv(x))),
        r"^next \(BinaryConv2d\): .* put a Sign before it",
    ),
    "layer on sums": (
        lambda m, x: m.next(m.conv(x)),
        r"^next \(BinaryConv2d\): its input is i32\[3, 2, 7\], expected u8 or bits",
    ),
    "layer on pixels": (lambda m, x: m.dense(m.flat(x)), r"^dense \(BinaryLinear\): .*construct it with first=True"),
    "norm of pixels": (lambda m, x: m.norm(x), r"^norm \(BatchNorm2d\): its input is u8\[5, 4, 3\], expected i32"),
    "sign of pixels": (lambda m, x: m.sign(x), r"^sign \(Sign\): its input is u8"),
    "pool of pixels": (lambda m, x: F.max_pool2d(x, 2), r"max_pool2d .*pool the sums or the signs"),
    "pooled norms as the result": (
        lambda m, x: F.max_pool2d(m.norm(m.conv(x)), 2),
        "between the last normalization and the result",
    ),
    "clipped norms as the result": (
        lambda m, x: F.hardtanh(m.norm(m.conv(x))),
        "between the last normalization and the result",
    ),
    "pooled norms flattened": (
        lambda m, x: m.sign(m.flat(F.max_pool2d(m.norm(m.conv(x)), 2))),
        "put the sign before the flatten",
    ),
    "flattened scores of many pixels": (
        lambda m, x: m.flat(m.norm(m.conv(x))),
        "between the last normalization and the result",
    ),
    "flattened signs of many pixels": (lambda m, x: m.flat(m.features(x)), "end with a dense layer"),
    "features": (
        lambda m, x: m.wide(m.flat(m.features(x))),
        r"^wide \(BinaryLinear\): takes 43 features, its input has 42",
    ),
    "fewer features": (lambda m, x: m.narrow(m.flat(m.features(x))), "^narrow .*takes 41 features, its input has 42"),
    "channels of a norm": (
        lambda m, x: m.norm9(m.conv(x)),
        r"^norm9 \(BatchNorm2d\): normalizes 9 channels, its input has 7",
    ),
    "norm for vectors": (
        lambda m, x: m.scores(m.conv(x)),
        r"^scores \(BatchNorm1d\): .*use binarynet.layers.BatchNorm2d",
    ),
    "norm for images": (
        lambda m, x: m.norm(m.dense(m.flat(m.features(x)))),
        r"^norm .*use binarynet.layers.BatchNorm1d",
    ),
    "clip away from zero": (lambda m, x: m.sign(F.hardtanh(m.norm(m.conv(x)), 0.0, 1.0)), "around 0"),
    "clip of sums": (lambda m, x: m.sign(F.hardtanh(m.conv(x))), "clipping is exact only between"),
    "clip by a size": (lambda m, x: m.sign(F.hardtanh(m.norm(m.conv(x)), x.size(0))), "takes several values"),
    "pool by a size": (lambda m, x: F.max_pool2d(m.features(x), x.size(0)), "takes several values of the network"),
    "pool by a pair of sizes": (lambda m, x: F.max_pool2d(m.features(x), (x.size(0), 1)), "takes several values"),
    "pool with indices": (
        lambda m, x: F.max_pool2d(m.features(x), 2, return_indices=True)[0],
        "has no exact integer form",
    ),
    "sign of a size": (lambda m, x: ops.sign(x.size(0)), "its input is a size, expected the output of a layer"),
    "stochastic sign function": (
        lambda m, x: ops.stochastic_sign(m.norm(m.conv(x))),
        "random in eval mode too; use binarynet.layers.StochasticSign",
    ),
    "binarized weights": (
        lambda m, x: ops.binarize_weight(m.norm(m.conv(x))),
        "binarize_weight .*has no exact integer form",
    ),
    "torch's sign": (
        lambda m, x: torch.sign(m.norm(m.conv(x))),
        r"^sign \(sign in forward\): has no exact .*binarynet\.ops\.sign",
    ),
    "relu function": (lambda m, x: F.relu(m.conv(x)), r"^relu \(relu in forward\): has no exact integer form"),
    "relu method": (lambda m, x: m.conv(x).relu(), r"^relu \(relu in forward\)"),
    "residual": (
        lambda m, x: (f := m.conv(x)) + f,
        r"^add \(add in forward\): takes several values of the network; sums",
    ),
    "residual of branches": (
        lambda m, x: operator.add(m.conv(x), m.conv(x)),
        "sums and concatenations have no packed form",
    ),
    "concatenation": (lambda m, x: torch.cat([m.conv(x), m.conv(x)], 1), r"^cat .*concatenations have no packed form"),
    "scaled": (lambda m, x: m.conv(x) * 0.5, r"^mul \(mul in forward\): has no exact integer form"),
    "negated": (lambda m, x: -m.conv(x), r"^neg .*has no exact integer form"),
    "own parameter": (
        lambda m, x: m.conv(x) + m.gain,
        "tensor of the module used directly in forward|takes several values",
    ),
    "parameter alone": (
        lambda m, x: m.sign(m.gain),
        r"^gain .*used directly in forward has no exact form; use a layer",
    ),
    "slice": (lambda m, x: m.conv(x)[:, :3], "only the batch size x.shape\\[0\\] may be used"),
    "other size": (lambda m, x: m.features(x).view(-1, x.size(1)), "only the batch size x.size\\(0\\) may be used"),
    "other shape": (lambda m, x: m.features(x).view(-1, x.shape[1]), "only the batch size x.shape\\[0\\] may be used"),
    "sizes kept": (lambda m, x: m.features(x).view(x.size(0), 6, 7), "use torch.flatten\\(x, 1\\)"),
    "batch mixed": (lambda m, x: m.features(x).view(-1, 7), "only a flatten of everything but the batch"),
    "batch fixed": (lambda m, x: m.features(x).view(1, 42), "only a flatten of everything but the batch"),
    "all flattened": (lambda m, x: torch.flatten(m.features(x)), "start_dim=0, end_dim=-1; only flatten"),
    "permuted": (lambda m, x: m.features(x).permute(0, 2, 3, 1), r"^permute .*has no exact integer form"),
    "device": (lambda m, x: m.features(x).to(x.device), "getattr .*has no exact integer form"),
    "dropout that stays on": (
        lambda m, x: F.dropout(m.features(x), 0.5),
        "drops in eval mode too; pass training=self.training",
    ),
    "dropout by flag": (lambda m, x: F.dropout(m.features(x), 0.5, training=True), "or use nn.Dropout"),
    "changed in place": (
        lambda m, x: ((f := m.conv(x)), f.neg_(), m.sign(f))[2],
        r"^neg_ .*its result is not used; .*changed in place",
    ),
    "changed by a module in place": (
        lambda m, x: ((f := m.norm(m.conv(x))), m.relu(f), m.sign(f))[2],
        r"^relu \(ReLU\): its result is not used",
    ),
    "dead branch": (
        lambda m, x: (m.next(m.features(x)), m.features(x))[1],
        r"^next \(BinaryConv2d\): its result is not used",
    ),
    "dead size": (lambda m, x: (m.norm(m.conv(x)).size(0), m.features(x))[1], "is neither used nor the output"),
    "tuple": (lambda m, x: (m.features(x), x), "forward returns tuple; it must return one tensor of scores"),
    "list": (lambda m, x: [m.features(x)], "forward returns .*list; it must return one tensor"),
    "dictionary": (lambda m, x: {"scores": m.features(x)}, "forward returns .*dict; it must return one tensor"),
    "nothing": (lambda m, x: None, "forward returns NoneType"),
    "a size": (lambda m, x: x.size(0), "forward must return one tensor of scores"),
    "branch on values": (
        lambda m, x: m.features(x) if x.sum() > 0 else x,
        "cannot be traced: .*control flow.*without branches",
    ),
    "branch on shapes": (
        lambda m, x: m.features(x) if x.shape[1] == 3 else x,
        "cannot be traced: .*without branches on values or shapes",
    ),
    "loop over the batch": (lambda m, x: torch.stack([m.features(i) for i in x]), "cannot be traced"),
    "length": (lambda m, x: m.features(x).view(len(x), -1), "cannot be traced: 'len' is not supported"),
    "range of a size": (lambda m, x: [m.conv(x) for _ in range(x.size(0))], "cannot be traced"),
    "to numpy": (lambda m, x: torch.from_numpy(np.asarray(m.conv(x))), "cannot be traced|has no exact integer form"),
    "an error of its own": (lambda m, x: 1 / 0, "cannot be traced: division by zero"),
    "an index error of its own": (lambda m, x: [][0], "cannot be traced: list index out of range"),
}


@pytest.mark.parametrize(("forward", "message"), AFTER.values(), ids=AFTER.keys())
def test_forward_functions(forward, message):
    network = Network(
        forward,
        next=BinaryConv2d(7, 2, 1),
        norm9=BatchNorm2d(9),
        wide=BinaryLinear(43, 4),
        narrow=BinaryLinear(41, 4),
        relu=nn.ReLU(inplace=True),
    )
    network.gain = nn.Parameter(torch.ones(1))
    refused(network, message)


# The signature of forward


class Two(Network):
    def forward(self, x, y):
        return self.conv(x)


class Optional(Network):
    def forward(self, x, mask=None):
        return self.sign(mask)


class OptionalResult(Network):
    def forward(self, x, mask=None):
        return mask


class Flag(Network):
    def forward(self, x, features=False):
        return self.features(x) if features else self.head(self.flat(self.features(x)))


class NoInput(Network):
    def forward(self):
        return torch.ones(1)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Two, "forward must take one tensor of images, it takes x, y"),
        (NoInput, "forward must take one tensor of images, it takes nothing"),
        (Optional, r"^sign \(Sign\): uses the optional argument 'mask' of forward; only one tensor may enter"),
        (OptionalResult, "uses the optional argument 'mask' of forward"),
        (Flag, "cannot be traced: .*control flow"),
    ],
)
def test_signatures(kind, message):
    refused(kind(), message)


class Unused(Network):
    """An optional argument that nothing depends on does no harm."""

    def forward(self, x, mask=None):
        return self.head(self.flat(self.features(x)))


def test_an_unused_optional_argument_is_allowed():
    assert pack(Unused(), SHAPE).graph.output == "scores"


# Hooks, parameters, sizes


@pytest.mark.parametrize("register", ["register_forward_hook", "register_forward_pre_hook"])
def test_hooks(register):
    network = Network(lambda m, x: m.head(m.flat(m.features(x))))
    handle = getattr(network.norm, register)(lambda *_: None)
    refused(network, r"^norm \(BatchNorm2d\): has forward hooks, which may change its result; remove them")
    handle.remove()
    handle = getattr(network, register)(lambda *_: None)
    refused(network, r"^Network \(Network\): has forward hooks")
    handle.remove()
    pack(network, SHAPE)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_floats(dtype):
    network = Network(lambda m, x: m.head(m.flat(m.features(x)))).to(dtype)
    refused(network, rf"^conv\.weight: is {dtype}; .* call module\.float\(\)")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite(value):
    network = Network(lambda m, x: m.head(m.flat(m.features(x))))
    with torch.no_grad():
        network.conv.weight[6, 2, 1, 0] = value
    message = rf"^conv: weight \[6, 2, 1, 0\] is {value}, expected a finite number: the training has diverged"
    refused(network, message, error=NonFiniteError)


@pytest.mark.parametrize("name", ["running_mean", "running_inv_std", "weight", "bias"])
def test_statistics_that_are_not_finite(name):
    network = Network(lambda m, x: m.head(m.flat(m.features(x))))
    with torch.no_grad():
        getattr(network.norm, name)[5] = np.nan
    refused(network, r"^norm: BatchNorm2d: channel 5 has scale .*nan.*diverged", error=NonFiniteError)


def test_scores_that_overflow():
    network = nn.Sequential(BinaryLinear(3, 2, first=True), BatchNorm1d(2, input_scale=3e38))
    refused(network, "scores of channel 0 can overflow float32", shape=(3,))


@pytest.mark.parametrize(
    "shape", [3, "abc", (), (3, 4), (5, 4, 0), (5, 4, -3), (1, 5, 4, 3), (5.0, 4.0, 3.0), None, ("5", "4", "3")]
)
def test_input_shapes(shape):
    message = refused(
        Network(), "input_shape .* must be \\(rows, columns, channels\\) or \\(features,\\)", shape, UsageError
    )
    assert repr(shape) in message


def test_an_input_beyond_all_memory():
    refused(BinaryConv2d(3, 7, 3, first=True), "more than .* elements", shape=(1 << 20, 1 << 20, 3))


def test_channels_of_the_input():
    network = Network(lambda m, x: m.features(x))
    refused(network, r"^conv \(BinaryConv2d\): takes 3 channels, its input has 4", shape=(5, 4, 4))
    refused(network, r"^conv \(BinaryConv2d\): .*expected an image", shape=(60,))


@pytest.mark.parametrize("given", [None, "model.pt", {}, Network, torch.nn.functional.relu])
def test_what_is_no_module(given):
    refused(given, "expected a torch module, got", error=UsageError)


def test_real_inputs():
    """By the layer's name where somebody else computes them, by the preprocessing's where we do."""
    network = Network(lambda m, x: m.conv(x))
    network.conv = BinaryConv2d(3, 7, 3, real_input=True)
    refused(network, r"^conv \(BinaryConv2d\): real_input=True: sums of real inputs are no integers; use first=True")
    network = Network(lambda m, x: m.norm(m.conv(m.sign(x))))
    network.sign = ContrastNormalization()
    refused(
        network, r"^sign \(ContrastNormalization\): real-valued preprocessing has no exact 8-bit form; train on the"
    )


class Ternary(BinaryLinear):
    def binary_weight(self):
        return super().binary_weight() * 0.5


def test_a_layer_whose_weights_are_not_binary():
    network = Network(lambda m, x: m.head(m.flat(m.features(x))))
    network.dense = Ternary(42, 4)
    refused(network, r"^dense \(Ternary\): binary_weight\(\) must give \+1 and -1 only")
