"""What can be lowered: many ways to write the same forward, the order of features, names, and the module's state."""

import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from networks import SHAPE, Network, assert_packs, torch_result, trained
from torch import nn

from binarynet import ops
from binarynet.encoding import unpack_bits
from binarynet.errors import FileFormatError, UnsupportedLayerError, UsageError, VerificationError
from binarynet.fileformat import to_bytes
from binarynet.layers import BatchNorm1d, BatchNorm2d, BinaryConv2d, BinaryLinear, Sign, StochasticSign
from binarynet.lowering import fold_thresholds, lower, lower_checked, pack, probe, torch_source
from binarynet.lowering.lower import _Lowering
from binarynet.models import build
from binarynet.runtime import load, verify
from random_graphs import random_images

FORWARDS = {
    "flatten module": lambda m, x: m.head(m.flat(m.features(x))),
    "torch.flatten": lambda m, x: m.head(torch.flatten(m.features(x), 1)),
    "torch.flatten by keyword": lambda m, x: m.head(torch.flatten(m.features(x), start_dim=1, end_dim=-1)),
    "tensor.flatten": lambda m, x: m.head(m.features(x).flatten(1)),
    "flatten to the last dimension": lambda m, x: m.head(m.features(x).flatten(1, 3)),
    "view by size": lambda m, x: m.head(m.features(x).view(x.size(0), -1)),
    "view by size of features": lambda m, x: m.head((f := m.features(x)).view(f.size(0), 42)),
    "view by size(dim=0)": lambda m, x: m.head(m.features(x).view(x.size(dim=0), -1)),
    "view by shape": lambda m, x: m.head(m.features(x).view(x.shape[0], -1)),
    "view by size()[0]": lambda m, x: m.head(m.features(x).view(x.size()[0], 42)),
    "view with the batch free": lambda m, x: m.head(m.features(x).view(-1, 42)),
    "reshape of a tuple": lambda m, x: m.head(m.features(x).reshape((x.shape[0], 42))),
    "contiguous": lambda m, x: m.head(m.features(x).contiguous().view(x.size(0), -1)),
    "sign function": lambda m, x: m.head(m.flat(ops.sign(m.norm(m.conv(x))))),
    "identity sign function": lambda m, x: m.head(m.flat(ops.identity_sign(m.norm(m.conv(x))))),
    "approx sign function": lambda m, x: m.head(m.flat(ops.approx_sign(m.norm(m.conv(x))))),
    "swish sign function": lambda m, x: m.head(m.flat(ops.swish_sign(m.norm(m.conv(x)), beta=10.0))),
    "sign module with an estimator": lambda m, x: m.head(m.flat(m.swish(m.norm(m.conv(x))))),
    "hardtanh before the sign": lambda m, x: m.head(m.flat(m.sign(F.hardtanh(m.norm(m.conv(x)))))),
    "hardtanh with other bounds": lambda m, x: m.head(m.flat(m.sign(F.hardtanh(m.norm(m.conv(x)), -0.5, 3.0)))),
    "hardtanh by keyword": lambda m, x: m.head(m.flat(m.sign(F.hardtanh(m.norm(m.conv(x)), min_val=-2.0)))),
    "hardtanh module": lambda m, x: m.head(m.flat(m.sign(m.clip(m.norm(m.conv(x)))))),
    "sign of the sums": lambda m, x: m.head(m.flat(m.sign(m.conv(x)))),
    "stochastic sign": lambda m, x: m.head(m.flat(m.noisy(m.norm(m.conv(x))))),
    "dropout modules": lambda m, x: m.head(m.drop(m.flat(m.drop2(m.features(x))))),
    "dropout function": lambda m, x: m.head(m.flat(F.dropout(m.features(x), 0.5, m.training))),
    "dropout function by keyword": lambda m, x: m.head(m.flat(F.dropout(m.features(x), training=m.training))),
    "identity": lambda m, x: m.same(m.head(m.flat(m.same(m.features(m.same(x)))))),
    "branch on training": lambda m, x: m.head(m.flat(m.features(x))) if not m.training else x,
    "norm before the flatten": lambda m, x: m.head(m.sign(m.flat(m.norm(m.conv(x))))),
    "flatten before the norm": lambda m, x: m.head(m.sign(m.norm42(m.flat(m.conv(x))))),
    "flatten twice": lambda m, x: m.head(m.flat(m.sign(m.flat(m.norm42(m.flat(m.conv(x))))))),
    "flatten the image first": lambda m, x: m.head60(m.flat(x)),
    "sums as the result": lambda m, x: m.dense(m.flat(m.features(x))),
    "bits as the result": lambda m, x: m.sign(m.head(m.flat(m.features(x)))),
    "pool of sums": lambda m, x: m.head14(m.flat(m.sign(m.norm(F.max_pool2d(m.conv(x), (2, 1)))))),
    "pool of norms": lambda m, x: m.head14(m.flat(m.sign(m.pool(m.norm(m.conv(x)))))),
    "pool of clipped norms": lambda m, x: m.head14(m.flat(m.sign(m.pool(m.clip(m.norm(m.conv(x))))))),
    "pool of bits": lambda m, x: m.head14(m.flat(torch.max_pool2d(m.features(x), (2, 1)))),
    "pool with stride and padding": lambda m, x: m.head14(m.flat(F.max_pool2d(m.features(x), 3, 2, (1, 1)))),
    "pool by keyword": lambda m, x: m.head14(m.flat(F.max_pool2d(m.features(x), kernel_size=(2, 1), stride=None))),
}


def everything(forward):
    return Network(
        forward,
        clip=nn.Hardtanh(inplace=True),
        noisy=StochasticSign(),
        swish=Sign("swish"),
        drop=nn.Dropout(0.5),
        drop2=nn.Dropout2d(0.5),
        same=nn.Identity(),
        norm42=BatchNorm1d(42, input_scale=1 / 255),
        head60=nn.Sequential(BinaryLinear(60, 9, first=True), BatchNorm1d(9, input_scale=1 / 255)),
        head14=nn.Sequential(BinaryLinear(14, 5), BatchNorm1d(5)),
        pool=nn.MaxPool2d((2, 1)),
    )


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("forward", FORWARDS.values(), ids=FORWARDS.keys())
def test_forward_functions(forward, training):
    assert_packs(everything(forward).train(training))


# The order of features


def dense_weights(graph, name):
    """+1 / -1 ``[out, in]`` of a dense node."""
    node = graph.node(name)
    return unpack_bits(node.weights, graph.types[node.source].channels) * 2 - 1


def test_weights_behind_a_flatten_are_permuted_to_channels_last():
    network = Network(lambda m, x: m.head(m.flat(m.features(x))))
    graph = lower(network, SHAPE).graph
    expected = network.dense.binary_weight().detach().numpy().reshape(4, 7, 3, 2)  # torch: [out, channel, row, column]
    got = dense_weights(graph, "dense").reshape(4, 3, 2, 7)
    for out, channel, row, column in np.ndindex(4, 7, 3, 2):
        assert got[out, row, column, channel] == expected[out, channel, row, column]
    assert not np.array_equal(got.reshape(4, -1), expected.reshape(4, -1))


def test_parameters_behind_a_flatten_are_permuted():
    network = everything(FORWARDS["flatten before the norm"])
    graph = lower(network, SHAPE).graph
    bits = unpack_bits(graph.node("dense").weights, 42)
    order = np.arange(42).reshape(7, 3, 2).transpose(1, 2, 0).reshape(-1)
    assert np.array_equal(bits, (network.dense.weight >= 0).numpy()[:, order])
    scale = network.norm42.affine()[0].numpy()
    assert np.array_equal(graph.node("sign").falling, (scale < 0)[order])


@pytest.mark.parametrize("shape", [(5, 4, 1), (1, 1, 6), (1, 4, 3), (5, 1, 3), (2, 3, 4)])
def test_images_that_are_flattened_first(shape):
    assert_packs(trained(build("mlp", input_shape=shape, classes=3, hidden=(9, 8))), shape)


@pytest.mark.parametrize("input_shape", [(7,), [7], (np.int64(7),), torch.Size([7])])
def test_features(input_shape):
    model = assert_packs(trained(nn.Sequential(BinaryLinear(7, 5, first=True), BatchNorm1d(5))), tuple(input_shape))
    assert model.input_shape == (7,)


def test_a_head_of_one_pixel_flattens_to_scores():
    """A fully convolutional head: after the last layer one pixel is left, so that no order can be wrong."""
    layers = [BinaryConv2d(3, 7, 3, first=True), BatchNorm2d(7), Sign(), BinaryConv2d(7, 6, (3, 2))]
    assert_packs(trained(nn.Sequential(*layers, BatchNorm2d(6), nn.Flatten())))
    assert_packs(trained(nn.Sequential(*layers, nn.Flatten(), BatchNorm1d(6))))
    assert_packs(trained(nn.Sequential(*layers, nn.Flatten())))


def test_one_channel_needs_no_order():
    layers = [BinaryConv2d(3, 1, 3, first=True), BatchNorm2d(1)]
    assert_packs(trained(nn.Sequential(*layers, nn.Flatten())))
    assert_packs(trained(nn.Sequential(*layers, Sign(), nn.Flatten())))


def test_windows_keep_rows_and_columns_apart():
    layers = [
        BinaryConv2d(3, 5, (3, 2), stride=(1, 2), padding=(2, 1), first=True),
        nn.MaxPool2d((3, 2), stride=(2, 1), padding=(1, 0)),
        BatchNorm2d(5),
        Sign(),
        BinaryConv2d(5, 4, (1, 2), padding=(0, 1)),
        BatchNorm2d(4),
    ]
    model = assert_packs(trained(nn.Sequential(*layers)), (6, 5, 3))
    window = model.graph.node("0").window
    assert (window.kernel, window.stride, window.padding) == ((3, 2), (1, 2), (2, 1))
    window = model.graph.node("1").window
    assert (window.kernel, window.stride, window.padding) == ((3, 2), (2, 1), (1, 0))


# Names and sharing


def test_values_are_named_like_the_modules():
    graph = lower(build("mlp", input_shape=(2, 2, 3), classes=4, hidden=(5,)), (2, 2, 3)).graph
    assert list(graph.types) == ["input", "flatten", "dense1", "sign1", "dense2", "scores"]


def test_shared_modules_get_numbers():
    network = Network(lambda m, x: m.scores(m.dense(m.sign(m.square(m.sign(m.square(m.flat(m.features(x)))))))))
    network.square = BinaryLinear(42, 42)
    model = assert_packs(network)
    assert list(model.graph.types) == [
        "input", "conv", "sign", "flat", "square", "sign_2", "square_2", "sign_3", "dense", "scores",
    ]  # fmt: skip


def test_modules_called_like_our_own_values():
    network = nn.Sequential()
    network.add_module("input", BinaryConv2d(3, 7, 3, first=True))
    network.add_module("scores", BatchNorm2d(7))
    network.add_module("sign", Sign())
    network.add_module("pool", nn.MaxPool2d(2))
    assert_packs(trained(network))


def test_nested_modules_keep_their_path():
    network = nn.Sequential(
        nn.Sequential(BinaryConv2d(3, 7, 3, first=True), BatchNorm2d(7)), nn.ModuleList([Sign()])[0]
    )
    assert list(lower(network, SHAPE).graph.types) == ["input", "0.0", "1"]


class Doubled(BinaryLinear):
    """A layer with a forward of its own: what it does counts, not what it is."""

    def forward(self, x):
        return super().forward(x) * 2


class Mirrored(BinaryLinear):
    """The forward is ours, the weights are not the signs of the latent ones."""

    def binary_weight(self):
        return -super().binary_weight()


class Named(BinaryLinear):
    """Nothing is changed but the construction."""

    def __init__(self):
        super().__init__(42, 4)


def test_subclasses():
    network = Network(lambda m, x: m.scores(m.dense(m.flat(m.features(x)))))
    for layer in (Named(), Mirrored(42, 4)):
        network.dense = layer
        assert_packs(network)
    network.dense = Doubled(42, 4)
    with pytest.raises(UnsupportedLayerError):
        lower(network, SHAPE)


def test_a_changed_forward_of_one_object_is_noticed():
    """Only the probe can see it: the class says something else."""
    network = Network(lambda m, x: m.scores(m.dense(m.flat(m.features(x)))))
    honest = network.dense.forward
    network.dense.forward = lambda x: -honest(x)
    with pytest.raises(VerificationError, match=r"differs from torch in 'scores'.*channel 0"):
        pack(network, SHAPE)


def test_a_compiled_network_and_a_single_layer():
    network = Network(lambda m, x: m.head(m.flat(m.features(x))))
    images = random_images(np.random.default_rng(0), 3, SHAPE)
    packed = pack(torch.compile(network), SHAPE)
    assert np.array_equal(packed.scores(images), torch_result(network, images))
    assert_packs(BinaryLinear(7, 5, first=True), (7,))


# The module stays as it was


def state(network):
    flags = {name: module.training for name, module in network.named_modules()}
    hooks = {name: len(module._forward_hooks) for name, module in network.named_modules()}
    values = {name: (id(v), v.clone(), v.requires_grad) for name, v in network.state_dict(keep_vars=True).items()}
    return flags, hooks, values, torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002


def assert_same_state(before, after):
    assert before[:2] == after[:2]
    assert before[2].keys() == after[2].keys()
    for name, (identity, value, grad) in before[2].items():
        assert after[2][name][0] == identity
        assert after[2][name][2] == grad
        assert torch.equal(after[2][name][1], value), name
    assert torch.equal(before[3], after[3])
    assert np.array_equal(before[4], after[4])


def test_packing_leaves_the_module_alone():
    network = everything(FORWARDS["dropout modules"]).train()
    network.norm.eval()
    network.conv.weight.requires_grad_(False)
    before = state(network)
    first = pack(network, SHAPE)
    assert_same_state(before, state(network))
    second = pack(network, SHAPE)
    assert to_bytes(first.network) == to_bytes(second.network)


def test_a_refusal_leaves_the_module_alone():
    network = Network(lambda m, x: m.head(m.flat(m.features(x).relu())))
    network.norm.eval()
    before = state(network)
    with pytest.raises(UnsupportedLayerError):
        pack(network, SHAPE)
    failing = Network(lambda m, x: m.head(m.flat(m.features(x))) if x.sum() > 0 else x).train()
    failing.norm.eval()
    flags = state(failing)[0]
    with pytest.raises(UnsupportedLayerError):
        pack(failing, SHAPE)
    assert state(failing)[0] == flags
    assert_same_state(before, state(network))


def test_packed_models_do_not_follow_later_training():
    network = Network(lambda m, x: m.head(m.flat(m.features(x))))
    images = random_images(np.random.default_rng(0), 3, SHAPE)
    model = pack(network, SHAPE)
    before = model.scores(images)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.neg_()
    assert np.array_equal(model.scores(images), before)


def test_packing_under_autocast_and_inference_mode():
    network = Network(lambda m, x: m.head(m.flat(m.features(x))))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_packs(network)
    with torch.inference_mode():
        assert_packs(network)


# torch as a source for verification


def test_the_source_has_every_layer():
    lowered = lower_checked(everything(FORWARDS["flatten before the norm"]), SHAPE)
    images = random_images(np.random.default_rng(0), 4, SHAPE)
    values = torch_source(lowered)(images, list(lowered.graph.types))
    assert set(values) == set(lowered.graph.types)
    assert torch_source(lowered)(images, ["sign"]).keys() == {"sign"}


def test_signs_before_a_pooling_are_left_to_the_reference():
    lowered = lower_checked(everything(FORWARDS["pool of norms"]), SHAPE)
    images = random_images(np.random.default_rng(0), 4, SHAPE)
    values = torch_source(lowered)(images, list(lowered.graph.types))
    assert set(lowered.graph.types) - set(values) == {"sign"}
    assert "sign.pool" in values
    assert probe(lowered).exact


def test_sums_that_are_no_integers_are_noticed():
    """A layer whose object was changed so that it returns halves: converting them to integers would hide it."""
    network = Network(lambda m, x: m.dense(m.flat(m.features(x))))
    honest = network.dense.forward
    network.dense.forward = lambda x: honest(x) + 0.25
    lowered = lower_checked(network, SHAPE)
    images = random_images(np.random.default_rng(0), 4, SHAPE)
    with pytest.raises(VerificationError, match="the sums of 'dense' are not integers"):
        verify(lowered.graph, images, extra={"torch": torch_source(lowered)})


# What goes into the file


def test_pack_stores_what_prediction_needs(tmp_path):
    network = Network(lambda m, x: m.head(m.flat(m.features(x))))
    policy = {"height": 5, "width": 4, "channels": 3, "resize": "crop", "background": 255}
    model = pack(network, SHAPE, np.array(["a", "b", "c", "d"]), image_policy=policy, provenance={"epochs": 3})
    model.save(tmp_path / "model.bnn")
    again = load(tmp_path / "model.bnn")
    assert again.classes == ("a", "b", "c", "d")
    assert (again.network.image_policy, again.network.provenance) == (policy, {"epochs": 3})
    images = random_images(np.random.default_rng(0), 6, SHAPE)
    prediction = again.predict(images)
    assert np.array_equal(prediction.scores, torch_result(network, images))
    assert prediction.names == ["abcd"[i] for i in prediction.labels]


@pytest.mark.parametrize("classes", ["abcd", 4])
def test_classes_are_a_list_of_names(classes):
    network = Network(lambda m, x: m.head(m.flat(m.features(x))))
    with pytest.raises(UsageError, match=f"classes must be a list with one name per score, got {classes!r}"):
        pack(network, SHAPE, classes)


def test_one_class_name_per_score():
    network = Network(lambda m, x: m.head(m.flat(m.features(x))))
    with pytest.raises(FileFormatError, match=r"3 class names for an output of f32\[4\]"):
        pack(network, SHAPE, ["a", "b", "c"])


# Proof that the proof can fail


def off_by_one(scale, shift, bound):
    """Thresholds of a ties network one too high in channel 5, where a sum meets the threshold."""
    thresholds, falling = fold_thresholds(scale, shift, bound)
    thresholds[5] += 1
    return thresholds, falling


def wrong_direction(scale, shift, bound):
    thresholds, falling = fold_thresholds(scale, shift, bound)
    falling[5] ^= True
    return thresholds, falling


@pytest.mark.parametrize("fault", [off_by_one, wrong_direction])
def test_a_wrong_threshold_is_noticed_with_layer_and_channel(fault, monkeypatch):
    """Shifts are odd multiples of the scale, so that the sums -7, -5 ... 7 meet every threshold."""
    norm = BatchNorm1d(8)
    with torch.no_grad():
        norm.bias.copy_(-torch.arange(-7.0, 8.0, 2.0))
    network = nn.Sequential(BinaryLinear(1, 7, first=True), Sign(), BinaryLinear(7, 8), norm, Sign())
    assert_packs(network, (1,))
    monkeypatch.setattr(sys.modules[_Lowering.__module__], "fold_thresholds", fault)
    with torch.no_grad():  # channel 5 sums to 3, which is its threshold: 5 weights agree with the bits, 2 do not
        bits = torch.where(network[0].weight[:, 0] >= 0, 1.0, -1.0)
        network[2].weight[5] = bits * torch.tensor([1, 1, 1, 1, 1, -1, -1])
    message = r"reference differs from torch in '4': \d+ of \d+ bits values; first at image \d+, channel 5"
    with pytest.raises(VerificationError, match=message):
        pack(network, (1,))


def test_a_wrong_order_of_features_is_noticed(monkeypatch):
    """Without the permutation behind a flatten, the scores are wrong."""
    honest = _Lowering.flatten_stored
    monkeypatch.setattr(_Lowering, "flatten_stored", lambda *a: replace(honest(*a), order=None))
    with pytest.raises(VerificationError, match="differs from torch in"):
        pack(Network(lambda m, x: m.head(m.flat(m.features(x)))), SHAPE)


def test_a_wrong_weight_bit_is_noticed(monkeypatch):
    network = Network(lambda m, x: m.head(m.flat(m.features(x))))
    lowered = lower_checked(network, SHAPE)
    with torch.no_grad():
        network.dense.weight[2, 17].neg_()
    with pytest.raises(VerificationError, match=r"reference differs from torch in 'scores': .*image 0, channel 2:"):
        probe(lowered).require_exact()
