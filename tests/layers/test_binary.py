"""Binary layers: exact integers, gradients, dropout, the first layer, and what they refuse."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from binarynet import ops
from binarynet.encoding import EXACT_FLOAT32_LIMIT
from binarynet.errors import ShapeError, UsageError
from binarynet.layers import BinaryConv2d, BinaryLinear, set_noise_key
from binarynet.ops import products


def signs(shape, seed):
    return torch.randint(0, 2, shape, generator=torch.Generator().manual_seed(seed)).float() * 2 - 1


def pixels(shape, seed):
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def as_integers(weight):
    return torch.where(weight >= 0, 1, -1).numpy().astype(np.int64)


def correlated(weight, flips, seed):
    """Inputs [rows, fan_in] that agree with the weights row by row but for a few flips: sums near fan_in."""
    x = torch.from_numpy(as_integers(weight)).float().flatten(1)
    where = torch.randint(0, x.shape[1], (x.shape[0], flips), generator=torch.Generator().manual_seed(seed))
    return x.scatter(1, where, -x.gather(1, where))


@pytest.mark.parametrize("fan_in", [1, 3, 31, 64, 65, 1025, 4096])
@pytest.mark.parametrize("autocast", [False, True])
def test_linear_sums_near_the_bound_are_exact(fan_in, autocast):
    layer = BinaryLinear(fan_in, 7).eval()
    x = correlated(layer.weight.detach(), min(2, fan_in), seed=fan_in)
    expected = x.numpy().astype(np.int64) @ as_integers(layer.weight.detach()).T
    assert np.abs(expected).max() >= max(fan_in - 4, 1)  # the sums are where bfloat16 could not hold them
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        result = layer(x.bfloat16() if autocast else x)
    assert result.dtype == torch.float32
    assert np.array_equal(result.detach().numpy(), expected)


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("channels", [3, 65, 256])
def test_convolution_sums_near_the_bound_are_exact(channels, autocast):
    layer = BinaryConv2d(channels, 5, 3, padding=1).eval()
    weight = layer.weight.detach()
    x = correlated(weight, 1, seed=channels).view(5, channels, 3, 3)
    expected = F.conv2d(x.double(), torch.from_numpy(as_integers(weight)).double(), padding=1)
    assert expected.abs().max() >= channels * 9 - 2
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        result = layer(x)
    assert result.dtype == torch.float32
    assert torch.equal(result.double(), expected)


@settings(max_examples=30, deadline=None)
@given(
    channels=st.integers(1, 9),
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    size=st.tuples(st.integers(4, 9), st.integers(4, 9)),
    first=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_convolution_equals_its_definition(channels, kernel, stride, padding, size, first, seed):
    torch.manual_seed(seed)
    padding = (min(padding[0], kernel[0] - 1), min(padding[1], kernel[1] - 1))
    layer = BinaryConv2d(channels, 3, kernel, stride=stride, padding=padding, first=first)
    shape = (2, channels, *size)
    x = pixels(shape, seed) if first else signs(shape, seed)
    operands = x.numpy().astype(np.int64) * 2 - 255 if first else x.numpy().astype(np.int64)
    padded = np.pad(operands, ((0, 0), (0, 0), (padding[0],) * 2, (padding[1],) * 2))
    windows = np.lib.stride_tricks.sliding_window_view(padded, kernel, axis=(2, 3))
    windows = windows[:, :, :: stride[0], :: stride[1]]
    expected = np.einsum("nchwij,ocij->nohw", windows, as_integers(layer.weight.detach()))
    assert np.array_equal(layer(x).detach().numpy(), expected)


def test_first_layer_at_the_largest_fan_in_is_exact():
    layer = BinaryLinear(65_793, 2, first=True)
    nn.init.ones_(layer.weight)
    x = torch.full((1, 65_793), 255, dtype=torch.uint8)
    x[0, 0] = 128  # 2*128 - 255 = 1
    assert layer(x).tolist() == [[255.0 * 65_792 + 1] * 2]
    assert layer.sum_bound == 65_793 * 255 <= EXACT_FLOAT32_LIMIT


@pytest.mark.parametrize(
    "make",
    [lambda: BinaryLinear(65_794, 1, first=True), lambda: BinaryConv2d(4113, 1, 4, first=True)],
    ids=["linear", "convolution"],
)
def test_first_layer_beyond_the_largest_fan_in_is_refused_with_the_remedy(make):
    with pytest.raises(UsageError, match=r"65793 inputs exactly in float32, got a fan-in of 65\d\d\d; use smaller"):
        make()


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64, torch.int8])
def test_first_layer_takes_uint8_only(dtype):
    with pytest.raises(ShapeError, match=r"expected uint8 images \(0..255\), got"):
        BinaryLinear(4, 2, first=True)(torch.zeros(1, 4, dtype=dtype))


def test_other_layers_refuse_integers():
    with pytest.raises(ShapeError, match="give first=True"):
        BinaryLinear(4, 2)(torch.zeros(1, 4, dtype=torch.uint8))


def test_wrong_shapes_are_named():
    with pytest.raises(ShapeError, match=r"expected \[..., 4\], got \[1, 2, 2\]; put nn.Flatten"):
        BinaryLinear(4, 2)(torch.ones(1, 2, 2))
    with pytest.raises(ShapeError, match=r"expected \[batch, 3, height, width\], got \[1, 2, 5, 5\]"):
        BinaryConv2d(3, 2, 3)(torch.ones(1, 2, 5, 5))


@pytest.mark.parametrize("bad", [{"stride": 0}, {"padding": -1}, {"padding": "valid"}, {"dropout": 1.0}])
def test_bad_arguments_are_refused(bad):
    with pytest.raises(UsageError):
        BinaryConv2d(3, 2, 3, **bad)


@pytest.mark.parametrize(("kernel", "stride"), [(2, 1), (3, 2), ((3, 4), 1)])
def test_same_padding_needs_an_odd_kernel_at_stride_one(kernel, stride):
    with pytest.raises(UsageError, match="needs an odd kernel at stride 1"):
        BinaryConv2d(3, 2, kernel, stride=stride, padding="same")
    assert BinaryConv2d(3, 2, (3, 5), padding="same")(torch.ones(1, 3, 6, 7)).shape == (1, 2, 6, 7)


@pytest.mark.parametrize("factory", [lambda: BinaryLinear(6, 4), lambda: BinaryConv2d(6, 4, 3, padding=1)])
def test_only_binary_weights_take_part_in_both_directions(factory):
    layer = factory()
    with torch.no_grad():
        layer.weight.flatten()[0] = -0.0
        layer.weight.flatten()[1] = 3.0  # outside the clip window: the weights' gradient has no mask
    binary = torch.where(layer.weight.detach() >= 0, 1.0, -1.0).requires_grad_()
    shape = (5, 6) if isinstance(layer, BinaryLinear) else (5, 6, 4, 4)
    x, reference = signs(shape, 1).requires_grad_(), signs(shape, 1).requires_grad_()
    y = layer(x)
    expected = (
        F.linear(reference, binary) if isinstance(layer, BinaryLinear) else F.conv2d(reference, binary, padding=1)
    )
    upstream = torch.randn(y.shape)
    y.backward(upstream)
    expected.backward(upstream)
    assert torch.equal(y, expected)
    torch.testing.assert_close(x.grad, reference.grad)  # sums in another order
    torch.testing.assert_close(layer.weight.grad, binary.grad)
    assert torch.equal(layer.binary_weight(), binary)


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("p", [0.2, 0.3])
def test_dropout_masks_operands_and_rescales_the_finished_sum(first, p):
    layer = BinaryLinear(101, 9, first=first, dropout=p)
    x = pixels((6, 101), 4) if first else signs((6, 101), 4)
    set_noise_key(layer, 11)
    mask = ops.drop(torch.ones(6, 101), p, layer.noise_key.clone())
    result = layer(x)
    operands = (x.float() * 2 - 255 if first else x) * mask
    sums = operands.double() @ layer.binary_weight().detach().double().T
    assert torch.equal(sums, sums.round())
    assert torch.equal(result, sums.float() * (1 / (1 - p)))
    assert abs(mask.mean().item() - (1 - p)) < 0.1
    assert torch.equal(layer.eval()(x), ((x.float() * 2 - 255 if first else x) @ layer.binary_weight().T))


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("options", [{}, {"dropout": 0.3}, {"weights": "stochastic_sign"}])
def test_packed_and_torchs_products_agree(first, options):
    results = []
    for mode in ("torch", "packed"):
        torch.manual_seed(3)
        layer = BinaryLinear(101, 37, first=first, **options)
        set_noise_key(layer, 1)
        x = pixels((6, 101), 4) if first else signs((6, 101), 4).requires_grad_()
        with products.use(mode):
            y = layer(x)
            y.square().sum().backward()
        results.append((y.detach(), layer.weight.grad, layer.weight.grad if first else x.grad))
    assert torch.equal(results[0][0], results[1][0])
    torch.testing.assert_close(results[0][1:], results[1][1:], rtol=1e-5, atol=1e-3)


class HalvedWeights(BinaryLinear):
    def binary_weight(self):
        return super().binary_weight() / 2


def test_a_subclass_may_have_weights_of_its_own():
    layer = HalvedWeights(128, 128)
    x = signs((3, 128), 1)
    assert torch.equal(layer(x), x @ layer.binary_weight().T)


def test_half_precision_modules_still_sum_in_float32():
    layer = BinaryLinear(1028, 1).bfloat16()
    nn.init.ones_(layer.weight)
    result = layer(torch.ones(1, 1028, dtype=torch.bfloat16))
    assert result.dtype == torch.float32
    assert result.item() == 1028.0


def test_initial_weights_are_uniform_in_the_clip_window():
    torch.manual_seed(0)
    weight = BinaryLinear(300, 300).weight.detach()
    assert weight.abs().max() <= 1
    assert abs(weight.mean().item()) < 0.01
    assert abs(weight.var().item() - 1 / 3) < 0.01


def test_fans_count_the_kernel():
    layer = BinaryConv2d(3, 128, 3)
    assert (layer.fan_in, layer.fan_out) == (27, 1152)
    assert dict(layer.named_parameters()).keys() == {"weight"}


def test_shapes_can_be_asked_on_the_meta_device():
    with torch.device("meta"):
        assert BinaryConv2d(3, 4, 3, stride=2)(torch.ones(2, 3, 9, 9)).shape == (2, 4, 4, 4)


@pytest.mark.parametrize(("kernel", "padding"), [(1, 1), (3, 3), ((3, 1), (1, 1))])
def test_padding_of_a_whole_kernel_is_refused(kernel, padding):
    with pytest.raises(UsageError, match="padding must be smaller than the kernel"):
        BinaryConv2d(1, 1, kernel, padding=padding)


def odd_strides(images):
    """uint8 ``[n, h, w, 1]`` as torch's ``[n, 1, h, w]`` with the strides that a transposed NumPy array leaves."""
    tensor = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
    assert tensor.stride() != torch.empty(tensor.shape).stride()
    return tensor


def test_one_channel_with_the_strides_of_a_transposed_image():
    """oneDNN reads wrong pixels for such strides where the window moves sideways and the result is one wide."""
    torch.manual_seed(0)
    layer = BinaryConv2d(1, 8, 3, stride=(1, 2), padding=(1, 0), first=True)
    images = odd_strides(np.random.default_rng(0).integers(0, 256, (2, 6, 3, 1), dtype=np.uint8))
    plain = torch.empty(images.shape, dtype=torch.uint8).copy_(images)
    integers = 2 * plain.double() - 255
    expected = F.conv2d(integers, layer.binary_weight().double(), stride=(1, 2), padding=(1, 0))
    assert torch.equal(layer(images).double(), expected)


@pytest.mark.filterwarnings("ignore:TF32 acceleration on top of oneDNN")
def test_sums_are_integers_without_onednn():
    """There torch would take NNPACK for larger batches, whose transformed sums are not exact."""
    torch.manual_seed(0)
    layer = BinaryConv2d(16, 16, 3, padding=1)
    x = torch.randint(0, 2, (33, 16, 8, 8)).float() * 2 - 1
    with torch.backends.mkldnn.flags(enabled=False):
        sums = layer(x)
    assert torch.equal(sums, sums.round())
