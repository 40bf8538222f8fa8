"""Native kernels of elementwise operations against their definitions: every instruction set, size, thread count."""

import functools
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.fx.experimental.proxy_tensor import make_fx

from binarynet import _native, ops
from binarynet.errors import BackendUnavailableError
from binarynet.ops import binarize, kernels

ISAS = [name for name, why_not in _native.instruction_sets() if not why_not]
SIZES = [0, 1, 3, 15, 16, 17, 31, 32, 33, 63, 65, 1000, (1 << 14) - 1, (1 << 14) + 5, 3 * (1 << 14) + 33]
EDGES = np.array(
    [0.0, -0.0, 1.0, -1.0, math.inf, -math.inf, math.nan, 1e-45, -1e-45, 1e-38, 3.4e38, math.sqrt(2), 0.5], np.float32
)
EDGES = np.concatenate([EDGES, np.nextafter(EDGES, np.float32(2)), np.nextafter(EDGES, np.float32(-2))])


def values(count, seed, spread=2.0):
    x = np.random.default_rng(seed).normal(size=count).astype(np.float32) * np.float32(spread)
    x[: len(EDGES)] = EDGES[: len(x)]
    return np.roll(x, seed)


def same(a, b):
    return np.array_equal(np.asarray(a).view(np.uint32), np.asarray(b).view(np.uint32))


@pytest.fixture(params=[(isa, threads) for isa in ISAS for threads in (1, 2, 3)], ids=str)
def threads(request, monkeypatch):
    isa, threads = request.param
    monkeypatch.setenv("BINARYNET_FORCE_ISA", isa)
    return threads


@np.errstate(all="ignore")
def test_maps(threads):
    native = _native.training
    for count in SIZES:
        x, g, out = values(count, 1), values(count, 2), np.full(count, 7, np.float32)
        native.sign(x, out, threads)
        assert same(out, np.where(x < 0, np.float32(-1), np.float32(1)))
        native.inside_window(g, x, out, threads)
        assert np.array_equal(out, g * (np.abs(x) <= 1), equal_nan=True)
        native.round_to_ap2(x, out, threads)
        mantissa, power = np.frexp(x.astype(np.float64))
        rounded = np.sign(x) * np.ldexp(1.0, np.where(mantissa * mantissa > 0.5, power, power - 1))
        assert same(out, np.where(np.isfinite(x) & (x != 0), rounded.astype(np.float32), x))


@np.errstate(all="ignore")
def test_noise(threads):
    for number, count in enumerate(SIZES):
        key = (0, 2**63 + 12345, 2**64 - 1)[number % 3]
        x, out = values(count, 3, 0.6), np.full(count, 7, np.float32)
        odd = (ops.random_words(ops.noise_key(key), count).numpy() >> 8) | 1
        _native.training.random_sign(x, out, key, threads)
        drawn = odd.astype(np.float32) < (x + np.float32(1)) * np.float32(2**23)
        assert same(out, np.where(np.isnan(x), x, np.where(drawn, np.float32(1), np.float32(-1))))
        for threshold in (0, 1, 1 << 23, (1 << 24) - 1, 1 << 24):
            _native.training.drop(x, out, key, threshold, threads)
            assert same(out, np.where(odd >= threshold, x, np.float32(0)))


@pytest.mark.parametrize(
    "shape", [(1, 4, 1), (3, 16, 5), (2, 64, 16), (2, 256, 33), (0, 4, 3), (2, 4, 0), (40, 64, 48)]
)
def test_noise_of_images_whose_channels_lie_side_by_side(threads, shape):
    images, pixels, channels = shape
    x = np.ascontiguousarray(values(math.prod(shape), 5, 0.6).reshape(shape))
    planes = np.ascontiguousarray(np.moveaxis(x, 2, 1)).reshape(-1)
    out, expected = np.full_like(x, 7), np.full_like(planes, 7)
    for name, options in (("random_sign", ()), ("drop", (9_000_000,))):
        getattr(_native.training, f"{name}_images")(x, out, 2**63 + 7, *options, threads)
        getattr(_native.training, name)(planes, expected, 2**63 + 7, *options, threads)
        assert same(np.moveaxis(out, 2, 1), expected.reshape(images, channels, pixels))


@np.errstate(all="ignore")
@pytest.mark.parametrize("clip", [False, True])
def test_optimizers(threads, clip):
    f = np.float32

    def start(count):
        moment = np.nan_to_num(np.abs(values(count, 7, 0.1)), posinf=1e30)
        return values(count, 4, 0.5), values(count, 5), values(count, 6, 0.1), moment

    def clipped(w):
        return np.where(w < -1, f(-1), np.where(w > 1, f(1), w)) if clip else w

    for count in SIZES:
        arrays, (w, g, m, v) = start(count), start(count)
        _native.training.adam(*arrays, 0.1, 0.999, 0.001, 0.02, 0.3, 1e-8, clip, threads)
        m = m + f(0.1) * (g - m)
        v = f(0.999) * v + f(0.001) * g * g
        w = clipped(w - f(0.02) * m / (np.sqrt(v) / f(0.3) + f(1e-8)))
        for ours, expected in zip(arrays, (w, g, m, v), strict=True):
            assert np.array_equal(ours, expected, equal_nan=True)

        arrays, (w, g, m, v) = start(count), start(count)
        _native.training.ada_max(*arrays, 0.9, 0.1, 0.999, 0.02, 2**-27, clip, threads)
        m = f(0.9) * m + f(0.1) * g
        v = ops.round_to_ap2(torch.from_numpy(np.maximum(f(0.999) * v, np.abs(g)))).numpy() + f(2**-27)
        w = clipped(w - f(0.02) * m / v)
        for ours, expected in zip(arrays, (w, g, m, v), strict=True):
            assert np.array_equal(ours, expected, equal_nan=True)


def norm_sum(terms, columns):
    """Sums per channel of [outer, channels, inner] in the order of shift_norm_kernels.h."""
    f = np.float32
    if columns:
        blocks = [terms[i : i + 64, :, 0] for i in range(0, terms.shape[0], 64)]
        partial = [functools.reduce(lambda a, b: a + b, block, np.zeros(terms.shape[1], f)) for block in blocks]
        return functools.reduce(lambda a, b: a + b.astype(np.float64), partial, np.zeros(terms.shape[1]))
    totals = np.zeros((terms.shape[1], 64))
    for plane in terms:
        for run in range(0, plane.shape[1], 1024):
            values = plane[:, run : run + 1024]
            padded = np.pad(values, ((0, 0), (0, -values.shape[1] % 64))).reshape(len(plane), -1, 64)
            totals += functools.reduce(lambda a, b: a + b, np.moveaxis(padded, 1, 0), np.zeros((len(plane), 64), f))
    return functools.reduce(lambda a, b: a + b, totals.T, np.zeros(len(totals)))


@pytest.mark.parametrize("shape", [(100, 130, 1), (3, 1, 1), (64, 64, 1), (5, 3, 7), (2, 2, 2500), (4, 5, 64)])
def test_shift_norm(threads, shape):
    f, (outer, channels, inner) = np.float32, shape
    count, scale, eps = f(outer * inner), f(2**-8), f(1e-5)
    rng = np.random.default_rng(channels)
    x, g = (rng.normal(size=shape).astype(f) * f(spread) for spread in (300, 1))
    weight, bias = (rng.normal(size=channels).astype(f) for _ in range(2))

    def ap2(a):
        return ops.round_to_ap2(torch.from_numpy(np.ascontiguousarray(a))).numpy()

    def wide(a):
        return np.asarray(a, f)[:, None]

    mean = (norm_sum(x * scale, inner == 1) / np.float64(count)).astype(f)
    centred = x * scale - wide(mean)
    variance = (norm_sum(centred * ap2(centred), inner == 1) / np.float64(count)).astype(f)
    inv_std = f(1) / np.sqrt(variance + eps)
    expected = centred * wide(ap2(weight) * ap2(inv_std)) + wide(bias)
    y, got_mean, got_inv_std = np.empty(x.size, f), np.empty(channels, f), np.empty(channels, f)
    options = (*shape, float(scale))
    _native.training.shift_norm(x.reshape(-1), *options, weight, bias, float(eps), y, got_mean, got_inv_std, threads)
    assert same(got_mean, mean)
    assert same(got_inv_std, inv_std)
    assert same(y, expected.reshape(-1))

    summed = norm_sum(g, inner == 1).astype(f)
    correlated = norm_sum(ap2(centred) * g, inner == 1).astype(f)
    s = ap2(inv_std)
    slope = s * s * correlated / count
    expected = (g - wide(summed / count) - ap2(centred) * wide(slope)) * wide(ap2(weight) * s) * scale
    gx, gw, gb = np.empty(x.size, f), np.empty(channels, f), np.empty(channels, f)
    _native.training.shift_norm_gradient(
        x.reshape(-1), g.reshape(-1), *options, weight, mean, inv_std, gx, gw, gb, threads
    )
    assert same(gx, expected.reshape(-1))
    assert same(gw, s * correlated)
    assert same(gb, summed)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda t, x, y: t.sign(x, y[1:], 1), r"out: expected a NumPy array float32 \[8\], got float32 \[7\]"),
        (lambda t, x, y: t.inside_window(y.astype(np.float64), x, y, 1), "g: expected .* float32"),
        (lambda t, x, y: t.random_sign(x[::2], y[:4], 1, 1), "x: expected"),
        (
            lambda t, x, y: t.random_sign_images(x[:6].reshape(1, 6, 1), x[:6].reshape(1, 6, 1), 1, 1),
            "multiple of 4, got 6",
        ),
        (lambda t, x, y: t.adam(x, y, x, y[:3], 0.1, 0.9, 0.1, 1, 1, 1, True, 1), "second: expected .*[8].*got.*[3]"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(call, message):
    with pytest.raises(_native.NativeError, match=message):
        call(_native.training, np.zeros(8, np.float32), np.zeros(8, np.float32))


# Who computes


def test_tensors_that_the_kernels_take(monkeypatch):
    x = torch.zeros(2, 3, 4, 5)
    monkeypatch.setenv("BINARYNET_FORCE_ISA", "portable")
    assert kernels.fast(x) is None  # torch is faster
    if "avx512_vpopcntdq" not in ISAS:
        return
    monkeypatch.delenv("BINARYNET_FORCE_ISA")
    last = x.contiguous(memory_format=torch.channels_last)
    assert kernels.fast(x, x) is _native.training
    assert kernels.fast(last, last) is _native.training
    assert kernels.fast(x, last) is None
    assert kernels.fast(x[:, 1:]) is None
    assert kernels.fast(x.double()) is None
    assert kernels.fast(x.to("meta")) is None
    assert kernels.fast(x.to_sparse()) is None
    parameter = nn.Parameter(x)
    assert kernels.fast(parameter) is None
    with torch.no_grad():
        assert kernels.fast(parameter) is _native.training


def test_an_unknown_instruction_set_is_an_error(monkeypatch):
    monkeypatch.setenv("BINARYNET_FORCE_ISA", "sse9")
    with pytest.raises(BackendUnavailableError, match="sse9"):
        kernels.fast(torch.zeros(1))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("height", [8, 9])
def test_torch_and_kernels_give_the_same(monkeypatch, layout, height):
    x = torch.from_numpy(values(2 * 40 * height * 7, 1, 0.7)).view(2, 40, height, 7).contiguous(memory_format=layout)
    g = torch.randn(x.shape, generator=torch.Generator().manual_seed(2)).contiguous(memory_format=layout)
    key, results = ops.noise_key(8), []
    for isa in ("portable", ISAS[0]):  # with portable kernels, torch computes
        monkeypatch.setenv("BINARYNET_FORCE_ISA", isa)
        results.append(
            [
                ops.sign(x),
                ops.round_to_ap2(x),
                binarize._inside_window(g, x),
                ops.stochastic_sign(x, key=key),
                ops.stochastic_weight(x, key=key),
                ops.drop(x, 0.3, key),
            ]
        )
    for torchs, ours in zip(*results, strict=True):
        assert same(torchs.numpy(), ours.numpy())
        assert ours.stride() == torchs.stride() == x.stride()


def test_gradients_of_gradients_are_torchs():
    """With create_graph, the kernels stay out of the backward pass, which autograd records."""
    x = torch.tensor([-2.0, -0.5, 0.5, 2.0], requires_grad=True)
    upstream = torch.ones(4, requires_grad=True)
    (gradient,) = torch.autograd.grad(ops.sign(x), x, upstream, create_graph=True)
    (again,) = torch.autograd.grad(gradient.sum(), upstream)
    assert again.tolist() == [0, 1, 1, 0]


def test_who_records_operations_sees_them():
    """make_fx records what goes through torch; a kernel's writing into memory would be lost."""
    x = torch.randn(3, 64)
    graph = make_fx(lambda x: ops.sign(x))(x)
    assert torch.equal(graph(-x), ops.sign(-x))


def test_values_that_do_not_lie_in_memory_as_they_are():
    x = torch.randn(3, 64)
    assert torch.equal(ops.sign(torch._neg_view(x)), ops.sign(-x))
    assert kernels.fast(torch._neg_view(x)) is None
    assert torch.equal(ops.sign(torch._efficientzerotensor((3, 64))), torch.ones(3, 64))
