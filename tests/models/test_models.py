"""The registered architectures."""

import pytest
import torch

from binarynet import models
from binarynet.errors import UsageError
from binarynet.layers import (
    BatchNorm1d,
    BinaryLayer,
    ContrastNormalization,
    Normalization,
    ShiftBatchNorm1d,
    ShiftBatchNorm2d,
    Whitening,
)


def binary_weights(model):
    return sum(m.weight.numel() for m in model.modules() if isinstance(m, BinaryLayer))


@pytest.mark.parametrize(
    ("name", "shape", "options", "count"),
    [
        ("mnist-mlp-4096", (28, 28, 1), {"hidden": [4096] * 3}, 36_806_656),
        ("mnist-mlp-2048", (28, 28, 1), {"hidden": [2048] * 3}, 10_014_720),
        (
            "cifar10-convnet",
            (32, 32, 3),
            {"blocks": [[128, 128], [256, 256], [512, 512]], "dense": [1024, 1024]},
            14_022_016,
        ),
        (
            "svhn-convnet",
            (32, 32, 3),
            {"blocks": [[64, 64], [128, 128], [256, 256]], "dense": [1024, 1024]},
            6_397_632,
        ),
    ],
)
def test_the_papers_networks_have_the_papers_sizes(name, shape, options, count):
    """Written out here once more (arXiv 1602.02830, sections 2.1 to 2.4)."""
    architecture = "mlp" if "hidden" in options else "convnet"
    with torch.device("meta"):
        named = models.build(name, input_shape=shape, classes=10)
        written = models.build(architecture, input_shape=shape, classes=10, **options)
    assert binary_weights(named) == count
    assert str(named) == str(written)


def test_a_named_network_still_has_all_options():
    chosen = {"hidden": [5, 4], "activation": "stochastic_sign", "normalization": "shift", "dropout_hidden": 0.5}
    named = models.build("mnist-mlp-4096", input_shape=(2, 2, 1), classes=3, **chosen)
    assert str(named) == str(models.build("mlp", input_shape=(2, 2, 1), classes=3, **chosen))
    assert models.options("mnist-mlp-4096").keys() == models.options("mlp").keys()
    assert models.options("mnist-mlp-2048")["hidden"].default == (2048, 2048, 2048)
    assert models.options("mlp")["hidden"].default == (1024, 1024, 1024)


def test_layer_names_and_order():
    mlp = models.build("mlp", input_shape=(2, 2, 1), classes=3, hidden=[5])
    assert list(dict(mlp.named_children())) == ["flatten", "dense1", "norm1", "sign1", "dense2", "norm2"]
    net = models.build("convnet", input_shape=(4, 4, 1), classes=3, blocks=[[2, 2]], dense=[5])
    assert list(dict(net.named_children())) == [
        *["conv1", "norm1", "sign1", "conv2", "pool2", "norm2", "sign2", "flatten"],
        *["dense3", "norm3", "sign3", "dense4", "norm4"],
    ]


@pytest.mark.parametrize("normalization", ["batch", "shift"])
@pytest.mark.parametrize("activation", ["sign", "stochastic_sign", "identity_sign", "approx_sign", "swish_sign"])
@pytest.mark.parametrize(
    ("name", "shape", "options"),
    [
        ("mlp", (1, 1, 13), {"hidden": [8, 4]}),
        ("mlp", (3, 2, 1), {"hidden": []}),
        ("convnet", (7, 5, 3), {"blocks": [[4, 3], [5]], "dense": [6], "kernel_size": 5}),
        ("convnet", (4, 4, 1), {"blocks": [[2]], "dense": []}),
    ],
)
@pytest.mark.parametrize("weights", ["sign", "stochastic_sign"])
def test_networks_run_in_both_modes(name, shape, options, activation, normalization, weights):
    chosen = {"activation": activation, "normalization": normalization, "dropout_in": 0.2, "dropout_hidden": 0.5}
    chosen["weights"] = weights
    model = models.build(name, input_shape=shape, classes=4, **chosen, **options)
    height, width, channels = shape
    images = torch.randint(0, 256, (6, channels, height, width), dtype=torch.uint8)
    scores = model(images)
    assert scores.shape == (6, 4)
    scores.square().sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    assert torch.equal(model.eval()(images), model(images))


def test_normalizations_are_shift_based_but_for_the_last():
    chosen = {"input_shape": (4, 4, 1), "classes": 3, "normalization": "shift"}
    net = models.build("convnet", blocks=[[2, 2]], dense=[5], **chosen)
    norms = [module for module in net.modules() if isinstance(module, Normalization)]
    assert [type(norm) for norm in norms] == [ShiftBatchNorm2d, ShiftBatchNorm2d, ShiftBatchNorm1d, BatchNorm1d]
    assert [norm.input_scale for norm in norms] == [1 / 256, 1, 1, 1]
    mlp = models.build("mlp", hidden=[5], **chosen)
    assert [type(module) for module in mlp.modules() if isinstance(module, Normalization)] == [
        ShiftBatchNorm1d,
        BatchNorm1d,
    ]


def test_dropout_reaches_the_layers_that_it_names():
    net = models.build(
        "convnet", input_shape=(8, 8, 3), classes=4, blocks=[[2, 2]], dense=[3], dropout_in=0.1, dropout_hidden=0.4
    )
    assert [m.dropout for m in net.modules() if isinstance(m, BinaryLayer)] == [0.1, 0.4, 0.4, 0.4]
    assert [m.first for m in net.modules() if isinstance(m, BinaryLayer)] == [True, False, False, False]


@pytest.mark.parametrize(("preprocessing", "kind"), [("zca", Whitening), ("gcn_lcn", ContrastNormalization)])
@pytest.mark.parametrize(
    ("name", "options"), [("mlp", {"hidden": [4]}), ("convnet", {"blocks": [[4, 4]], "dense": [4]})]
)
def test_preprocessing_comes_first_and_makes_the_inputs_real(name, options, preprocessing, kind):
    net = models.build(name, input_shape=(4, 6, 3), classes=3, preprocessing=preprocessing, **options)
    entry, layer, norm = net.preprocess, *[m for m in net if isinstance(m, BinaryLayer | Normalization)][:2]
    assert type(entry) is kind
    assert next(iter(net)) is entry
    assert (layer.first, layer.real_input, norm.input_scale) == (False, True, 1)
    images = torch.randint(0, 256, (9, 3, 4, 6), dtype=torch.uint8)
    if kind is Whitening:
        entry.fit(images)
    net(images).square().sum().backward()
    assert layer.weight.grad.abs().sum() > 0
    assert net.eval()(images[:1]).shape == (1, 3)


def test_what_is_refused():
    with pytest.raises(UsageError, match="there is no preprocessing 'pca'; there are none, zca, gcn_lcn"):
        models.build("mlp", input_shape=(2, 2, 1), classes=2, preprocessing="pca")
    with pytest.raises(UsageError, match='"gcn_lcn" is for images, got features; use "none" or "zca"'):
        models.build("mlp", input_shape=(1, 1, 9), classes=2, preprocessing="gcn_lcn")
    with pytest.raises(
        UsageError, match=r"unknown architecture 'mpl' \(did you mean 'mlp'\?\); there are cifar10-convnet, conv"
    ):
        models.build("mpl", input_shape=(1, 1, 4), classes=2)
    with pytest.raises(UsageError, match=r"mlp has no option 'hiden' \(did you mean 'hidden'\?\); it has hidden, drop"):
        models.build("mlp", input_shape=(1, 1, 4), classes=2, hiden=[3])
    with pytest.raises(UsageError, match="mnist-mlp-2048 has no option 'blocks'; it has hidden"):
        models.build("mnist-mlp-2048", input_shape=(1, 1, 4), classes=2, blocks=[[3]])
    with pytest.raises(UsageError, match="already an architecture named 'mlp'"):
        models.register(models.mlp)
    with pytest.raises(UsageError, match="already an architecture named 'svhn-convnet'"):
        models.register_network("svhn-convnet", "convnet")
    with pytest.raises(UsageError, match="mlp has no option 'blocks'"):
        models.register_network("mine", "mlp", blocks=[[3]])
    assert "mine" not in models.available()
    with pytest.raises(UsageError, match="3 poolings need images of at least 8 x 8 pixels, got 7 x 9"):
        models.build("convnet", input_shape=(7, 9, 1), classes=2)
    with pytest.raises(UsageError, match="every block needs at least one convolution"):
        models.build("convnet", input_shape=(8, 8, 1), classes=2, blocks=[[3], []])
    with pytest.raises(UsageError, match="at least 2 classes"):
        models.build("mlp", input_shape=(1, 1, 4), classes=1)
