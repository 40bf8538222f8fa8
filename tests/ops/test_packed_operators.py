"""Packed operands as torch operators, on the CPU; on a GPU where there is one."""

import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from binarynet import encoding, ops
from binarynet.errors import BackendUnavailableError, NonFiniteError, ShapeError, UsageError
from binarynet.ops import packed

GPU = pytest.param("cuda", marks=pytest.mark.gpu(torch=True))


@pytest.fixture(params=["cpu", GPU])
def device(request):
    return request.param


@pytest.fixture(params=["native", "portable", "no extension", GPU])
def computer(request, monkeypatch):
    """A device; on the CPU, everybody who can compute there."""
    if request.param == "portable":
        monkeypatch.setenv("BINARYNET_FORCE_ISA", "portable")
    elif request.param == "no extension":
        monkeypatch.setattr(packed, "_has_native", lambda: False)
    return "cuda" if request.param == "cuda" else "cpu"


def signs(*shape, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 2, shape, generator=generator) * 2.0 - 1


def near(rows, count, seed=2):
    """Rows that differ from the given ones in few places: their sums come close to the length."""
    found = rows[torch.arange(count) % len(rows)].clone()
    found[torch.rand(found.shape, generator=torch.Generator().manual_seed(seed)) < 0.02] *= -1
    return found


def words_of(values):
    """By the package's own packing in NumPy."""
    return torch.from_numpy(encoding.pack_bits((values >= 0).numpy()).view(np.int64))


DTYPES = [dtype for dtype in packed.SIGNED if dtype != torch.bool]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1,), (64,), (3, 65), (2, 3, 200), (5, 0), (0, 7), (0,)])
def test_signs_of_the_last_axis_become_words(computer, dtype, shape):
    values = (torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 3).to(dtype)
    found = ops.pack_bits(values.to(computer))
    assert found.dtype == torch.int64
    assert torch.equal(found.cpu(), words_of(values))
    assert torch.equal(ops.unpack_bits(found, shape[-1], dtype).cpu(), torch.where(values >= 0, 1, -1).to(dtype))


def test_special_values(computer):
    tiny = torch.finfo(torch.float64).smallest_normal
    values = torch.tensor([0.0, -0.0, torch.inf, -torch.inf, tiny, -tiny, -1.0], dtype=torch.float64, device=computer)
    assert ops.unpack_bits(ops.pack_bits(values), 7, torch.int8).tolist() == [1, 1, 1, -1, 1, -1, -1]
    single = values.float()  # -tiny becomes -0.0
    assert ops.unpack_bits(ops.pack_bits(single), 7, torch.bool).tolist() == [
        True,
        True,
        True,
        False,
        True,
        True,
        False,
    ]


def test_bits_of_bool(device):
    values = signs(4, 130) > 0
    found = ops.pack_bits(values.to(device))
    assert torch.equal(found.cpu(), words_of(values * 2 - 1))
    assert torch.equal(ops.unpack_bits(found, 130, torch.bool).cpu(), values)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_nan_is_refused_where_looking_is_free(dtype):
    values = torch.ones(3, 70, dtype=dtype)
    values[1, 69] = torch.nan
    with pytest.raises(NonFiniteError, match="NaN has no sign"):
        ops.pack_bits(values)
    values[1, 68:] = torch.tensor([torch.inf, -torch.inf])  # whose sum is NaN
    assert ops.pack_bits(values).shape == (3, 2)


@pytest.mark.gpu(torch=True)
def test_nan_packs_as_minus_one_on_cuda():
    values = torch.tensor([torch.nan, 1.0], device="cuda")
    assert ops.unpack_bits(ops.pack_bits(values), 2).tolist() == [-1, 1]


@pytest.mark.parametrize("length", [1, 63, 64, 65, 784, 4097])
@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (3, 10), (17, 200)])
def test_products_are_those_of_floats(computer, rows, columns, length):
    b = signs(columns, length)
    a = near(b, rows)
    found = ops.xnor_matmul(ops.pack_bits(a.to(computer)), ops.pack_bits(b.to(computer)), length)
    assert found.dtype == torch.int32
    assert torch.equal(found.cpu(), (a @ b.T).int())


@pytest.mark.parametrize(
    ("shape", "columns", "length"),
    [((2, 3, 4), 5, 70), ((), 5, 70), ((0,), 5, 70), ((2, 0), 5, 70), ((3,), 0, 70), ((3,), 5, 0), ((0,), 0, 0)],
)
def test_batches_vectors_and_nothing(computer, shape, columns, length):
    a, b = signs(*shape, length), signs(columns, length)
    found = ops.xnor_matmul(words_of(a).to(computer), words_of(b).to(computer), length)
    assert torch.equal(found.cpu(), (a @ b.T).int())


CONVOLUTIONS = [
    # batch, size, channels, out, kernel, stride, padding
    (2, (5, 5), 64, 8, (3, 3), (1, 1), (1, 1)),
    (1, (7, 4), 70, 65, (3, 2), (2, 1), (2, 0)),
    (3, (6, 6), 1, 3, (1, 1), (3, 2), (0, 0)),
    (1, (2, 9), 128, 5, (3, 5), (1, 2), (1, 4)),
    (0, (4, 4), 64, 4, (3, 3), (1, 1), (1, 1)),
    (2, (4, 4), 64, 0, (3, 3), (1, 1), (1, 1)),
    (2, (4, 4), 0, 3, (3, 3), (1, 1), (1, 1)),
]


@pytest.mark.parametrize(("batch", "size", "channels", "out", "kernel", "stride", "padding"), CONVOLUTIONS)
def test_convolutions_are_those_of_floats(computer, batch, size, channels, out, kernel, stride, padding):
    w = signs(out, *kernel, channels)
    x = signs(batch, *size, channels, seed=3)
    found = ops.xnor_conv2d(words_of(x).to(computer), words_of(w).to(computer), channels, stride, padding)
    padded = F.pad(x, (0, 0, padding[1], padding[1], padding[0], padding[0]))
    windows = padded.unfold(1, kernel[0], stride[0]).unfold(2, kernel[1], stride[1])
    expected = torch.einsum("byxcij,oijc->byxo", windows, w)
    assert found.dtype == torch.int32
    assert torch.equal(found.cpu(), expected.int())


def test_one_number_for_both_directions(device):
    x, w = words_of(signs(1, 6, 6, 64)).to(device), words_of(signs(4, 3, 3, 64)).to(device)
    assert torch.equal(ops.xnor_conv2d(x, w, 64, 2, 1), ops.xnor_conv2d(x, w, 64, (2, 2), (1, 1)))


def test_operands_need_not_be_contiguous(computer):
    values = signs(70, 6)
    turned = values.to(computer).T
    assert torch.equal(ops.pack_bits(turned).cpu(), words_of(values.T.contiguous()))
    a, b = words_of(signs(4, 200)).to(computer), words_of(signs(6, 200)).to(computer)
    strided_a = torch.stack([a, a + 1], -1)[..., 0]
    strided_b = b.T.contiguous().T
    shifted = torch.cat([a.new_zeros(1), a.flatten()])[1:].view(a.shape)  # not on a multiple of 16 bytes
    assert not strided_a.is_contiguous()
    assert not strided_b.is_contiguous()
    expected = ops.xnor_matmul(a, b, 200)
    assert torch.equal(ops.xnor_matmul(strided_a, strided_b, 200), expected)
    assert torch.equal(ops.xnor_matmul(shifted, b, 200), expected)
    assert torch.equal(ops.unpack_bits(strided_a, 200), ops.unpack_bits(a, 200))
    image, window = words_of(signs(2, 5, 4, 64)).to(computer), words_of(signs(3, 2, 2, 64)).to(computer)
    found = ops.xnor_conv2d(image.transpose(1, 2), window.transpose(1, 2), 64)
    assert torch.equal(found, ops.xnor_conv2d(image, window, 64).transpose(1, 2))


def test_padding_bits_are_ignored_and_operands_left_alone(computer):
    a, b = words_of(signs(4, 70)).to(computer), words_of(signs(3, 70)).to(computer)
    noisy_a, noisy_b = a.clone(), b.clone()
    noisy_a[:, -1] |= -1 << 6
    noisy_b[1, -1] |= 1 << 63
    before = noisy_a.clone()
    expected = ops.xnor_matmul(a, b, 70)
    for left, right in ((noisy_a, b), (a, noisy_b), (noisy_a, noisy_b)):
        assert torch.equal(ops.xnor_matmul(left, right, 70), expected)
    assert torch.equal(noisy_a, before)
    assert torch.equal(ops.unpack_bits(noisy_a, 70), ops.unpack_bits(a, 70))
    images, windows = (words.view(1, 2, -1, 2) for words in (noisy_a, noisy_b.repeat(2, 1)))
    clean = ops.xnor_conv2d(a.view(1, 2, 2, 2), b.repeat(2, 1).view(1, 2, 3, 2)[:, :, :2], 70)
    assert torch.equal(ops.xnor_conv2d(images, windows[:, :, :2], 70), clean)


WORDS = torch.zeros(3, 2, dtype=torch.int64)
IMAGE = torch.zeros(1, 4, 4, 2, dtype=torch.int64)
WINDOW = torch.zeros(5, 3, 3, 2, dtype=torch.int64)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ops.pack_bits(torch.ones(3, dtype=torch.uint8)), r"got torch.uint8 \[3\]; .* pass 2 \* x - 1"),
        (lambda: ops.pack_bits(torch.ones(3, dtype=torch.complex64)), "got torch.complex64"),
        (lambda: ops.pack_bits(torch.tensor(1.0)), r"expected .* \[\.\.\., n\], got torch.float32 \[\]"),
        (lambda: ops.unpack_bits(WORDS, 129), r"129 bits need int64 \[\.\.\., 3\], got torch.int64 \[3, 2\]"),
        (lambda: ops.unpack_bits(WORDS, -1), "cannot be negative"),
        (lambda: ops.unpack_bits(WORDS.int(), 128), "got torch.int32"),
        (lambda: ops.unpack_bits(WORDS[0, 0], 64), r"got torch.int64 \[\]"),
        (lambda: ops.unpack_bits(WORDS, 128, torch.uint8), "torch.uint8 cannot hold -1"),
        (lambda: ops.xnor_matmul(WORDS.view(torch.uint64), WORDS, 128), r"pass words.view\(torch.int64\)"),
        (lambda: ops.xnor_matmul(WORDS, WORDS[:, :1], 128), r"need int64 \[N, 2\], got torch.int64 \[3, 1\]"),
        (lambda: ops.xnor_matmul(WORDS, WORDS[None], 128), r"need int64 \[N, 2\], got torch.int64 \[1, 3, 2\]"),
        (lambda: ops.xnor_matmul(WORDS, WORDS, 64), r"64 bits need int64 \[\.\.\., M, 1\]"),
        (lambda: ops.xnor_matmul(*[torch.zeros(1, 262145, dtype=torch.int64)] * 2, 16777217), "16777216 is the most"),
        (lambda: ops.xnor_conv2d(IMAGE[0], WINDOW, 128), r"need int64 \[batch, height, width, 2\], got .* \[4, 4, 2\]"),
        (lambda: ops.xnor_conv2d(IMAGE, WINDOW[..., :1], 128), r"\[out_channels, kernel height, kernel width, 2\]"),
        (lambda: ops.xnor_conv2d(IMAGE, WINDOW, 128, 0), "expected two strides"),
        (lambda: ops.xnor_conv2d(IMAGE, WINDOW, 128, (1, 1, 1)), "expected two strides"),
        (lambda: ops.xnor_conv2d(IMAGE, WINDOW, 128, 1, (0, 3)), r"smaller than the kernel \[3, 3\], got .* \[0, 3\]"),
        (lambda: ops.xnor_conv2d(IMAGE[:, :2], WINDOW, 128), r"images of \[2, 4\] .* are smaller than the kernel"),
        (lambda: ops.xnor_conv2d(IMAGE[:, :, :0], WINDOW, 128, 1, 2), "are smaller than the kernel"),
    ],
)
def test_what_does_not_fit_is_named(call, message):
    with pytest.raises(ShapeError, match=message):
        call()


def test_operands_on_different_devices():
    with pytest.raises(UsageError, match="on one device, got cpu and meta"):
        ops.xnor_matmul(WORDS, WORDS.to("meta"), 128)
    with pytest.raises(UsageError, match="on one device, got meta and cpu"):
        ops.xnor_conv2d(IMAGE.to("meta"), WINDOW, 128)


def test_an_unknown_instruction_set_is_an_error(monkeypatch):
    monkeypatch.setenv("BINARYNET_FORCE_ISA", "mmx")
    for call in (lambda: ops.xnor_matmul(WORDS, WORDS, 128), lambda: ops.xnor_conv2d(IMAGE, WINDOW, 128)):
        with pytest.raises(BackendUnavailableError, match="mmx"):
            call()


def test_bits_have_no_gradient():
    x = torch.ones(2, 64, requires_grad=True)
    with pytest.raises(UsageError, match=r"pass x\.detach\(\), or train with binarynet\.ops\.sign"):
        ops.pack_bits(x)
    with torch.no_grad():
        assert ops.pack_bits(x).tolist() == [[-1], [-1]]
    unpacked = ops.unpack_bits(ops.pack_bits(x.detach()), 64)
    assert not unpacked.requires_grad


def test_the_operators_keep_torchs_rules(device):
    library = torch.ops.binarynet
    for x in (signs(3, 2, 70), signs(5, 64).double(), signs(0, 3), signs(4) > 0):
        torch.library.opcheck(library.pack_bits, (x.to(device),))
    for words, length, dtype in ((WORDS, 100, torch.float16), (WORDS[0], 128, torch.bool), (WORDS[:0], 70, torch.int8)):
        torch.library.opcheck(library.unpack_bits, (words.to(device), length, dtype))
    a, b = words_of(signs(2, 3, 100)).to(device), words_of(signs(4, 100)).to(device)
    for arguments in ((a, b, 100), (a[0, 0], b, 100), (a, b[:0], 100), (a.mT.contiguous().mT, b, 100)):
        torch.library.opcheck(library.xnor_matmul, arguments)
    x, w = words_of(signs(2, 5, 4, 70)).to(device), words_of(signs(3, 3, 2, 70)).to(device)
    for stride, padding in (([1, 1], [0, 0]), ([2, 1], [1, 1])):
        torch.library.opcheck(library.xnor_conv2d, (x, w, 70, stride, padding))


class Network(torch.nn.Module):
    """A user's own: a convolution and a product on bits, weights packed before."""

    def __init__(self):
        super().__init__()
        self.register_buffer("window", words_of(signs(64, 3, 3, 70)))
        self.register_buffer("weight", words_of(signs(10, 64 * 4)))

    def forward(self, x):
        sums = ops.xnor_conv2d(ops.pack_bits(x), self.window, 70, stride=2, padding=1)
        return ops.xnor_matmul(ops.pack_bits(sums).flatten(1), self.weight, 64 * 4).float() * 0.5

    def expected(self, x):
        """By floats."""
        window = ops.unpack_bits(self.window.cpu(), 70).permute(0, 3, 1, 2)
        sums = F.conv2d(torch.where(x >= 0, 1.0, -1.0).permute(0, 3, 1, 2), window, stride=2, padding=1)
        bits = torch.where(sums >= 0, 1.0, -1.0).permute(0, 2, 3, 1).flatten(1)
        return bits @ ops.unpack_bits(self.weight.cpu(), 64 * 4).T * 0.5


def test_networks_compile_into_one_graph(device):
    network = Network().to(device)
    compiled = torch.compile(network, fullgraph=True)
    for batch in (2, 3):
        x = torch.randn(batch, 4, 4, 70, generator=torch.Generator().manual_seed(batch))
        assert torch.equal(compiled(x.to(device)).cpu(), network.expected(x))


def test_networks_are_exported(tmp_path):
    network = Network()
    x = torch.randn(2, 4, 4, 70, generator=torch.Generator().manual_seed(0))
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(network, (x,), dynamic_shapes=({0: batch},))
    torch.export.save(program, tmp_path / "network.pt2")
    loaded = torch.export.load(tmp_path / "network.pt2").module()
    for images in (x, x[:1], torch.cat([x, -x])):
        assert torch.equal(loaded(images), network.expected(images))
    names = {str(node.target) for node in program.graph.nodes}
    assert {"binarynet.pack_bits.default", "binarynet.xnor_matmul.default", "binarynet.xnor_conv2d.default"} <= names


def test_compiled_code_says_what_is_wrong():
    function = torch.compile(lambda a: ops.xnor_matmul(a, a, 64), fullgraph=True)
    with pytest.raises(Exception, match=r"64 bits need int64 \[\.\.\., M, 1\]"):
        function(WORDS)


def test_vmap(device):
    x = signs(3, 5, 70).to(device)
    a, b = ops.pack_bits(x), words_of(signs(4, 70)).to(device)
    assert torch.equal(torch.vmap(ops.pack_bits)(x), a)
    assert torch.equal(torch.vmap(ops.pack_bits, in_dims=1)(x), a.transpose(0, 1))
    assert torch.equal(torch.vmap(lambda words: ops.unpack_bits(words, 70))(a), x)
    expected = ops.xnor_matmul(a, b, 70)
    assert torch.equal(torch.vmap(lambda one: ops.xnor_matmul(one, b, 70))(a), expected)
    several = b.repeat(3, 1, 1)
    assert torch.equal(torch.vmap(lambda one, two: ops.xnor_matmul(one, two, 70))(a, several), expected)
    assert torch.equal(torch.vmap(lambda two: ops.xnor_matmul(a[0], two, 70))(several)[1], expected[0])
    images, windows = words_of(signs(3, 2, 4, 4, 70)).to(device), words_of(signs(3, 5, 2, 2, 70)).to(device)
    one_by_one = torch.stack([ops.xnor_conv2d(image, windows[0], 70) for image in images])
    assert torch.equal(torch.vmap(lambda image: ops.xnor_conv2d(image, windows[0], 70))(images), one_by_one)
    found = torch.vmap(lambda window: ops.xnor_conv2d(images[0], window, 70))(windows)
    assert torch.equal(found[2], ops.xnor_conv2d(images[0], windows[2], 70))
    with pytest.raises(ShapeError, match="these examples have none"):
        torch.vmap(ops.pack_bits)(x[0, 0])


def test_the_words_are_those_of_the_package():
    """A layer's bits, seen by NumPy and by torch."""
    values = signs(3, 100)
    words = ops.pack_bits(values)
    array = words.numpy().view(np.uint64)
    assert np.array_equal(array, encoding.pack_bits(values.numpy() > 0))
    assert np.array_equal(encoding.unpack_bits(array, 100), values.numpy() > 0)


@pytest.mark.gpu(torch=True)
def test_products_are_recorded_in_cuda_graphs():
    """A product in a graph of torch's, replayed with other operands in the same memory."""
    values = [signs(300, 1024, seed=seed) for seed in range(3)]
    x = values[0].cuda()
    weights = ops.pack_bits(values[1].cuda())
    ops.xnor_matmul(ops.pack_bits(x), weights, 1024)  # kernels are compiled and constants copied
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        sums = ops.xnor_matmul(ops.pack_bits(x), weights, 1024)
    for given in values:
        x.copy_(given)
        graph.replay()
        assert torch.equal(sums.cpu(), (given @ values[1].T).int())


@pytest.mark.gpu(torch=True)
def test_products_are_on_the_current_stream():
    a, b = signs(2000, 4096).cuda(), signs(1000, 4096, seed=2).cuda()
    expected = (a @ b.T).int()
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(20):
            sums = ops.xnor_matmul(ops.pack_bits(a.clone()), ops.pack_bits(b.clone()), 4096)
    stream.synchronize()
    assert torch.equal(sums, expected)


@pytest.mark.gpu(torch=True)
def test_operands_on_host_and_gpu_are_refused():
    with pytest.raises(UsageError, match="on one device, got cpu and cuda:0"):
        ops.xnor_matmul(WORDS, WORDS.cuda(), 128)


def test_nothing_of_cuda_is_imported_for_the_cpu():
    script = """
        import sys, torch
        from binarynet import ops
        words = ops.pack_bits(torch.ones(2, 64))
        ops.xnor_matmul(words, words, 64)
        print([name for name in sys.modules if name.startswith("binarynet.cuda")])
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
