"""Noise: the generator against published numbers and a transcription, and statistics that can fail."""

import math

import numpy as np
import pytest
import torch
from torch import fx, nn

from binarynet import ops
from binarynet.errors import ShapeError, UsageError
from binarynet.ops import noise

LIMIT = 5.0
"""Standard deviations. Keys are fixed, so that a test passes always or never."""


# The generator


@pytest.mark.parametrize(
    ("counter", "key", "published"),
    [
        ([0, 0, 0, 0], [0, 0], [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        ([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            [0xA4093822, 0x299F31D0],
            [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
        ),
    ],
)
def test_published_answers(counter, key, published):
    words = noise._philox(tuple(map(torch.tensor, counter)), tuple(map(torch.tensor, key)))
    assert [int(word) for word in words] == published


def transcribed_words(key, count, first_block=0):
    """Philox4x32-10 with Python's own integers."""
    words = []
    for block in range(first_block, first_block + -(-count // 4)):
        c0, c1, c2, c3 = block & 0xFFFFFFFF, block >> 32, 0, 0
        k0, k1 = key & 0xFFFFFFFF, key >> 32
        for _ in range(10):
            p, q = c0 * 0xD2511F53, c2 * 0xCD9E8D57
            c0, c1, c2, c3 = (q >> 32) ^ c1 ^ k0, q & 0xFFFFFFFF, (p >> 32) ^ c3 ^ k1, p & 0xFFFFFFFF
            k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
        words += [c0, c1, c2, c3]
    return words[:count]


@pytest.mark.parametrize("key", [0, 1, 0x0123456789ABCDEF, 2**63, 2**64 - 1])
@pytest.mark.parametrize("count", [0, 1, 4, 203])
def test_words_are_the_transcription(key, count):
    words = ops.random_words(ops.noise_key(key), count)
    assert words.dtype == torch.int64
    assert words.tolist() == transcribed_words(key, count)


def test_blocks_beyond_32_bits_are_counted_on():
    """Tensors that large are not made here."""
    words = noise._philox(
        tuple(torch.tensor([c]) for c in (5, 1, 0, 0)), (torch.tensor(0x89ABCDEF), torch.tensor(0x01234567))
    )
    block = (1 << 32) + 5
    assert [int(word) for word in words] == transcribed_words(0x0123456789ABCDEF, 4, first_block=block)


def test_keys_keep_the_lowest_64_bits():
    assert ops.noise_key(2**64 + 5).item() == 5
    assert ops.noise_key(2**64 - 1).item() == -1


# What is drawn from it

EDGES = [0.0, -0.0, 1.0, -1.0, math.inf, -math.inf, 1e-45, 0.5, -0.5, math.nan]
NEIGHBOURS = [float(np.nextafter(np.float32(c), np.float32(d))) for c in (1, -1, 0.5, -0.5) for d in (2, -2)]


@pytest.mark.parametrize("function", [ops.stochastic_sign, ops.stochastic_weight])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_signs_are_the_transcription(function, dtype):
    generator = torch.Generator().manual_seed(1)
    x = torch.cat([torch.tensor(EDGES + NEIGHBOURS).repeat(40), torch.rand(2000, generator=generator) * 2.4 - 1.2])
    x = x.to(dtype)
    drawn = function(x, key=ops.noise_key(77))
    odd = (np.array(transcribed_words(77, x.numel()), np.int64) >> 8) | 1
    wide = np.float64 if dtype == torch.float64 else np.float32
    values = x.to(torch.float64).numpy().astype(wide)
    expected = np.where(odd < (values + wide(1)) * wide(2**23), 1.0, -1.0)
    expected[np.isnan(values)] = np.nan
    assert drawn.dtype == dtype
    assert np.array_equal(drawn.double().numpy(), expected, equal_nan=True)


@pytest.mark.parametrize("probability", [0.0, 0.2, 0.5, 2**-23, 1 - 2**-24, 1.0])
def test_what_is_dropped_is_the_transcription(probability):
    x = torch.arange(1.0, 1002).view(7, 11, 13)
    odd = (np.array(transcribed_words(5, 1001), np.int64) >> 8) | 1
    expected = np.where(odd / 2**24 >= probability, x.flatten(), 0).reshape(x.shape)
    x.requires_grad_()
    kept = ops.drop(x, probability, ops.noise_key(5))
    assert np.array_equal(kept.detach(), expected)
    kept.backward(torch.full(x.shape, 3.0))
    assert np.array_equal(x.grad, 3.0 * (expected != 0))


def layouts(x):
    """The same values in other orders of memory."""
    yield x.to(memory_format=torch.channels_last)
    yield x.permute(3, 1, 0, 2).contiguous().permute(2, 1, 3, 0)
    yield torch.stack([x, x], -1)[..., 0]
    yield torch.cat([x.new_zeros(1), x.flatten()])[1:].view(x.shape)  # not aligned


def test_the_memory_layout_changes_nothing():
    x = torch.rand(3, 5, 4, 7, generator=torch.Generator().manual_seed(1)) * 2 - 1
    key = ops.noise_key(9)
    for other in layouts(x):
        assert torch.equal(other, x)
        assert torch.equal(ops.stochastic_sign(other, key=key), ops.stochastic_sign(x, key=key))
        assert torch.equal(ops.drop(other, 0.4, key), ops.drop(x, 0.4, key))
    one = torch.full((1, 1, 1, 1), 0.3)
    assert torch.equal(
        ops.stochastic_sign(one.expand(3, 5, 4, 7), key=key), ops.stochastic_sign(one.tile(3, 5, 4, 7), key=key)
    )


def test_the_number_of_threads_changes_nothing():
    x = torch.rand(300_001, generator=torch.Generator().manual_seed(1)) * 2 - 1
    key, before, results = ops.noise_key(9), torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            results.append((ops.stochastic_sign(x, key=key), ops.drop(x, 0.3, key)))
    finally:
        torch.set_num_threads(before)
    assert all(map(torch.equal, *results))


def test_without_a_key_torchs_generator_decides():
    x = torch.zeros(1000)
    torch.manual_seed(4)
    first, second = ops.stochastic_sign(x), ops.stochastic_sign(x)
    dropped, weight = ops.drop(x + 1, 0.5), ops.stochastic_weight(x)
    torch.manual_seed(4)
    assert torch.equal(ops.stochastic_sign(x), first)
    assert torch.equal(ops.stochastic_sign(x), second)
    assert torch.equal(ops.drop(x + 1, 0.5), dropped)
    assert torch.equal(ops.stochastic_weight(x), weight)
    assert not torch.equal(first, second)


# Statistics


def deviations(p, x, key):
    """Of the number of +1 among draws for each row of x from its expectation, if p is its probability."""
    count = x.shape[1]
    ups = (ops.stochastic_sign(x, key=ops.noise_key(key)) > 0).sum(1).double()
    return (ups - count * p) / torch.sqrt(count * p * (1 - p))


@pytest.mark.parametrize("wrong_by", [0.0, 0.004])
def test_the_probability_on_a_grid(wrong_by):
    x = torch.linspace(-0.98, 0.98, 50, dtype=torch.float64)
    z = deviations((x + 1) / 2, (x + 2 * wrong_by).float()[:, None].expand(50, 100_000), 3)
    chi_square = z.square().sum().item()  # expected 50, standard deviation 10
    if wrong_by:
        assert z.mean().abs() > LIMIT / math.sqrt(50)
        assert chi_square > 50 + LIMIT * 10
    else:
        assert z.abs().max() < LIMIT
        assert abs(z.mean().item()) < 4 / math.sqrt(50)
        assert abs(chi_square - 50) < 4 * 10


@pytest.mark.parametrize("wrong_by", [0.0, 0.01])
@pytest.mark.parametrize("p", [0.05, 0.2, 0.5, 0.9])
def test_the_share_of_what_is_dropped(p, wrong_by):
    count = 400_000
    dropped = (ops.drop(torch.ones(count), p + wrong_by, ops.noise_key(21)) == 0).sum().item()
    z = (dropped - count * p) / math.sqrt(count * p * (1 - p))
    assert abs(z) < 4 if not wrong_by else abs(z) > LIMIT


def correlation(a, b):
    """In standard deviations, for values of mean 0 and variance 1."""
    return (a * b).sum().item() / math.sqrt(a.numel())


def fair(key, count=200_000):
    return ops.stochastic_sign(torch.zeros(count), key=ops.noise_key(key)).double()


def test_a_correlation_would_be_found():
    a, b = fair(1), fair(2)
    mixed = torch.where(torch.arange(a.numel()) % 50 == 0, a, b)  # 2 % of the values are shared
    assert abs(correlation(a, mixed)) > LIMIT


@pytest.mark.parametrize("lag", [1, 2, 3, 4, 5, 7, 8, 16, 64, 100, 4096])
def test_neighbours_are_uncorrelated(lag):
    values = fair(12)
    assert abs(correlation(values[lag:], values[:-lag])) < 4


@pytest.mark.parametrize("difference", [1, 2, 3, 1 << 31, 1 << 32, 1 << 33, 1 << 63])
def test_keys_that_count_are_uncorrelated(difference):
    for key in (0, 5, 0x9E3779B97F4A7C15):
        assert abs(correlation(fair(key), fair(key + difference))) < 4


def test_every_bit_of_a_word_is_fair_and_none_follows_another():
    words = ops.random_words(ops.noise_key(31), 1 << 18)
    bits = (((words[:, None] >> torch.arange(32)) & 1) * 2 - 1).double()
    count = bits.shape[0]
    assert bits.mean(0).abs().max() < LIMIT / math.sqrt(count)
    covariance = bits.T @ bits / count - torch.eye(32)
    assert covariance.abs().max() < LIMIT / math.sqrt(count)


# As operations


def test_a_trace_shows_one_node():
    class Network(nn.Module):
        def forward(self, x):
            return ops.drop(ops.stochastic_weight(x), 0.5)

    calls = [node.target for node in fx.symbolic_trace(Network()).graph.nodes if node.op == "call_function"]
    assert calls == [ops.stochastic_weight, ops.drop]


def test_what_is_refused():
    x, key = torch.zeros(3), ops.noise_key(1)
    with pytest.raises(UsageError, match="give a key or a generator, not both"):
        ops.stochastic_sign(x, torch.Generator(), key=key)
    with pytest.raises(ShapeError, match=r"stochastic_weight: expected a key of int64 with one element, got .*\[2\]"):
        ops.stochastic_weight(x, key=torch.zeros(2, dtype=torch.int64))
    with pytest.raises(ShapeError, match="the key is on meta, the values are on cpu"):
        ops.drop(x, 0.5, key.to("meta"))
    with pytest.raises(ShapeError, match=r"drop: expected a float tensor, got torch\.int64"):
        ops.drop(torch.ones(3, dtype=torch.int64), 0.5)
    with pytest.raises(UsageError, match=r"drop: expected a probability, got 1\.5"):
        ops.drop(x, 1.5)
    with pytest.raises(ShapeError, match="expected a key of int64"):
        ops.random_words(torch.zeros(()), 4)
