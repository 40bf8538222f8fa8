"""What ``torch.fx`` does not see must not be packed in silence: the module itself is called and compared."""

from __future__ import annotations

import types

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from binarynet.errors import UnsupportedLayerError, UsageError
from binarynet.layers import BatchNorm1d, BatchNorm2d, BinaryConv2d, BinaryLinear, Sign
from binarynet.lowering import lower, pack, torch_source

SHAPE = (8, 8, 1)
UNSEEN = "does something that its trace does not show"


def mlp() -> nn.Sequential:
    net = nn.Sequential(
        nn.Flatten(),
        BinaryLinear(64, 96, first=True),
        BatchNorm1d(96, input_scale=1 / 255),
        Sign(),
        BinaryLinear(96, 10),
        BatchNorm1d(10),
    )
    for module in net:
        if isinstance(module, BatchNorm1d):
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
    return net


class Wrapped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = mlp()

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


class BranchesOnType(Wrapped):
    def forward(self, x: Tensor) -> Tensor:
        if isinstance(x, Tensor):
            x = 255 - x
        return self.body(x)


class OwnCall(Wrapped):
    def __call__(self, x: Tensor) -> Tensor:
        return -super().__call__(x)


class NeverInEvalMode(Wrapped):
    def train(self, mode: bool = True) -> NeverInEvalMode:
        super().train(True)
        return self


class Doubled(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return weight.double()


class ClippedInPlace(Wrapped):
    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        z = F.hardtanh(y, -3, 3, inplace=True)
        return y.view(z.size(0), -1)


def test_branch_on_the_type_of_the_input() -> None:
    with pytest.raises(UnsupportedLayerError, match=f"BranchesOnType: {UNSEEN}"):
        pack(BranchesOnType(), SHAPE)


def test_overridden_call() -> None:
    with pytest.raises(UnsupportedLayerError, match=f"OwnCall: {UNSEEN}"):
        pack(OwnCall(), SHAPE)


def test_forward_as_an_attribute_of_the_instance() -> None:
    net = mlp()
    net.forward = types.MethodType(lambda self, x: -nn.Sequential.forward(self, x), net)  # type: ignore[method-assign]
    with pytest.raises(UnsupportedLayerError, match=UNSEEN):
        pack(net, SHAPE)


def test_global_hook() -> None:
    hook = nn.modules.module.register_module_forward_hook(
        lambda module, _, output: -output if isinstance(module, Wrapped) else None
    )
    try:
        with pytest.raises(UnsupportedLayerError, match=UNSEEN):
            pack(Wrapped(), SHAPE)
    finally:
        hook.remove()
    pack(Wrapped(), SHAPE)


def test_eval_that_does_not_reach_eval_mode() -> None:
    network = NeverInEvalMode()
    with pytest.raises(UnsupportedLayerError, match=r"NeverInEvalMode\): stays in training mode after eval\(\)"):
        pack(network, SHAPE)
    assert network.training


def test_float64_by_parametrization() -> None:
    net = nn.Sequential(*list(mlp())[:4])
    parametrize.register_parametrization(net[1], "weight", Doubled(), unsafe=True)
    with pytest.raises(UnsupportedLayerError, match=r"torch computes it in torch\.float64"):
        pack(net, SHAPE)


def test_in_place_change_of_a_value_that_is_used_elsewhere() -> None:
    with pytest.raises(UnsupportedLayerError, match="inplace=True changes a value that is used elsewhere"):
        pack(ClippedInPlace(), SHAPE)


def test_in_place_clipping_between_normalization_and_sign_is_exact() -> None:
    body = list(mlp())
    pack(nn.Sequential(*body[:3], nn.Hardtanh(inplace=True), *body[3:]), SHAPE)


def test_clipping_to_nothing_is_refused() -> None:
    """-1e-50 is -0 in float32: the clipped value would be 0, whose sign is +1."""
    body = list(mlp())
    with pytest.raises(UnsupportedLayerError, match="around 0"):
        pack(nn.Sequential(*body[:3], nn.Hardtanh(-1e-50, 1), *body[3:]), SHAPE)


def test_flush_to_zero_is_noticed() -> None:
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor cannot flush subnormal floats to zero")
    try:
        with pytest.raises(UsageError, match="set_flush_denormal"):
            pack(mlp(), SHAPE)
    finally:
        torch.set_flush_denormal(False)


def test_network_without_weights_or_layers() -> None:
    with torch.device("meta"):
        net = nn.Sequential(nn.Flatten(), BinaryLinear(64, 10, first=True), BatchNorm1d(10))
    with pytest.raises(UsageError, match="meta device"):
        pack(net, SHAPE)
    with pytest.raises(UnsupportedLayerError, match="at least one binary layer"):
        pack(nn.Sequential(), SHAPE)


def test_network_that_fails_on_the_images() -> None:
    class Fails(Wrapped):
        def forward(self, x: Tensor) -> Tensor:
            return self.body(x.flatten(1, 3))

    with pytest.raises(UnsupportedLayerError, match=r"Fails: fails on uint8 images \[17, 64\]"):
        pack(Fails(), (64,))


@pytest.mark.parametrize("wrap", [nn.DataParallel, lambda net: torch.compile(net, backend="eager")])
def test_wrappers_are_opened(wrap: object) -> None:
    net = mlp()
    model = pack(wrap(net), SHAPE)  # type: ignore[operator]
    images = np.random.default_rng(3).integers(0, 256, (5, *SHAPE), dtype=np.uint8)
    with torch.no_grad():
        expected = net.eval()(torch.from_numpy(images).permute(0, 3, 1, 2))
    np.testing.assert_array_equal(model.scores(images), expected.numpy())


def test_module_names_beyond_the_graph_s_alphabet() -> None:
    net = nn.Sequential()
    for name, module in zip(("flach", "größe", "n" * 200, "sign"), list(mlp()), strict=False):
        net.add_module(name, module)
    lowered = lower(net, SHAPE)
    assert list(lowered.graph.types) == ["input", "flach", "gr__e", "sign"]
    images = np.zeros((2, *SHAPE), np.uint8)
    assert set(torch_source(lowered)(images, ["sign"])) == {"sign"}


@pytest.mark.parametrize(
    "options", [{"provenance": [1]}, {"image_policy": "pad"}, {"classes": 5}, {"classes": "0123456789"}]
)
def test_wrong_arguments(options: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        pack(mlp(), SHAPE, **options)  # type: ignore[arg-type]


def test_classes_may_be_any_sequence() -> None:
    assert pack(mlp(), SHAPE, np.arange(10)).classes == tuple("0123456789")  # type: ignore[arg-type]


@pytest.mark.parametrize("conv", [False, True])
def test_weights_drawn_while_training_pack_as_signs_from_train_mode_too(conv):
    torch.manual_seed(0)
    first = (
        BinaryConv2d(1, 32, 3, first=True, weights="stochastic_sign")
        if conv
        else nn.Sequential(nn.Flatten(), BinaryLinear(36, 128, first=True, weights="stochastic_sign"))
    )
    norm = BatchNorm2d if conv else BatchNorm1d
    last = nn.Sequential(nn.Flatten(), BinaryLinear(512 if conv else 128, 4, weights="stochastic_sign"), BatchNorm1d(4))
    net = nn.Sequential(first, norm(32 if conv else 128, input_scale=1 / 255), Sign(), last)
    net(torch.randint(0, 256, (9, 1, 6, 6), dtype=torch.uint8))
    assert net.training
    state = torch.get_rng_state()
    pack(net, input_shape=(6, 6, 1))  # proves equality
    assert net.training
    assert torch.equal(torch.get_rng_state(), state)
