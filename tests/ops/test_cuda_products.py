"""Products for CUDA devices: the arithmetic around the device's kernels runs on the CPU, too."""

import pytest
import torch
import torch.nn.functional as F

from binarynet.layers import BinaryConv2d, BinaryLinear
from binarynet.ops import cuda_products

CUDA = pytest.param("cuda", marks=pytest.mark.gpu(torch=True))


@pytest.fixture(params=["cpu", CUDA])
def device(request, monkeypatch):
    """A device; the CPU multiplies bfloat16 by way of float32, for want of the same call."""
    if request.param == "cpu":
        monkeypatch.setattr(cuda_products, "_wide_product", lambda a, b: a.float() @ b.float())
    return request.param


def signs(*shape, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 2, shape, generator=generator) * 2.0 - 1


def operands(kind, weights, count):
    """Rows that resemble the first weights' signs, so that sums come close to the fan-in and need all their bits."""
    rows = weights[torch.arange(count) % len(weights)].flatten(1).clone()
    generator = torch.Generator().manual_seed(2)
    rows[torch.rand(rows.shape, generator=generator) < 0.001] *= -1
    if kind == "masked":
        rows[torch.rand(rows.shape, generator=generator) < 0.01] = 0
    elif kind == "first layer":
        rows *= 2.0 * torch.randint(64, 128, rows.shape, generator=generator) + 1
    return rows


@pytest.mark.parametrize("kind", ["signs", "masked", "first layer"])
def test_dense_sums_are_the_integers(device, kind):
    weights = signs(16, 4099)
    x = operands(kind, weights, 24)
    expected = (x.double() @ weights.double().T).float()
    assert expected.abs().max() > 4000
    assert torch.equal(cuda_products.linear(x.to(device), weights.to(device)).cpu(), expected)


@pytest.mark.parametrize("kind", ["signs", "masked", "first layer"])
@pytest.mark.parametrize("bound", [9 * 512, 1 << 20])
def test_convolved_sums_are_the_integers(device, kind, bound):
    weights = signs(6, 512, 3, 3)
    x = operands(kind, weights, 2).view(2, 512, 3, 3).repeat(1, 1, 2, 3)
    arguments = {"stride": (1, 2), "padding": (1, 1)}
    expected = F.conv2d(x.double(), weights.double(), **arguments).float()
    assert expected.abs().max() > 2000
    found = cuda_products.conv2d(x.to(device), weights.to(device), **arguments, sum_bound=bound)
    assert torch.equal(found.cpu(), expected)


@pytest.mark.parametrize("wrong", [0.5, 257.0, 256.0, float("inf")])
def test_other_operands_give_nan(device, wrong):
    x = signs(3, 64)
    x[1, 5] = wrong
    found = cuda_products.linear(x.to(device), signs(8, 64).to(device)).isnan().cpu()
    assert found[1].all()
    assert not found[[0, 2]].any()
    image = x.view(3, 1, 8, 8).to(device)
    found = cuda_products.conv2d(image, signs(2, 1, 3, 3).to(device), (1, 1), (1, 1), 9).isnan()
    assert found[1].any()


def test_gradients_are_those_of_torch(device):
    for ours, theirs, x, weights in (
        (cuda_products.linear, F.linear, signs(5, 64), signs(8, 64)),
        (
            lambda x, w: cuda_products.conv2d(x, w, (2, 1), (1, 0), 36),
            lambda x, w: F.conv2d(x, w, stride=(2, 1), padding=(1, 0)),
            signs(2, 4, 7, 6),
            signs(8, 4, 3, 3),
        ),
    ):
        results = []
        for function in (ours, theirs):
            a, b = x.to(device).requires_grad_(), weights.to(device).requires_grad_()
            out = function(a, b)
            out.backward(torch.randn(out.shape, generator=torch.Generator().manual_seed(3)).to(device))
            results.append((out, a.grad, b.grad))
        for one, other in zip(*results, strict=True):
            torch.testing.assert_close(one, other)


def test_the_operations_keep_torchs_rules(device):
    x, weights = signs(5, 64).to(device).requires_grad_(), signs(8, 64).to(device).requires_grad_()
    torch.library.opcheck(cuda_products._linear, (x, weights))
    images, kernels = signs(2, 4, 7, 6).to(device).requires_grad_(), signs(8, 4, 3, 3).to(device).requires_grad_()
    torch.library.opcheck(cuda_products._conv2d, (images, kernels, [2, 1], [1, 0], 36))


def test_torchs_own_setting_is_left_as_it_was():
    before = torch.backends.cudnn.allow_tf32
    with cuda_products._tf32():
        pass
    assert torch.backends.cudnn.allow_tf32 == before


@pytest.mark.gpu(torch=True)
@pytest.mark.parametrize("compiled", [False, True])
def test_layers_have_the_sums_of_the_cpu(compiled):
    for layer, x in (
        (BinaryLinear(4099, 16), signs(24, 4099)),
        (BinaryConv2d(512, 16, 3, padding=1), signs(4, 512, 8, 8)),
        (BinaryConv2d(3, 16, 3, padding=1, first=True), torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)),
    ):
        expected = layer(x)
        on_device = layer.cuda()
        if compiled:
            on_device = torch.compile(on_device, fullgraph=True)
        with torch.autocast("cuda", dtype=torch.bfloat16):
            found = on_device(x.cuda())
        assert found.dtype == torch.float32
        assert torch.equal(found.cpu(), expected)
