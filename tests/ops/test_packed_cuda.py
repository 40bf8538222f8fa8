"""What the packed operators start on a GPU, run by the simulator: everything but torch's own memory and streams."""

from __future__ import annotations

import types

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from machine import Machine

from binarynet import encoding
from binarynet.cuda.device_operands import DeviceLayout
from binarynet.ops import packed, packed_cuda

STREAM = 77


class Tensor:
    """What the operators ask of a CUDA tensor, in a machine's memory."""

    device = types.SimpleNamespace(index=0)

    def __init__(self, machine, values=None, shape=None, dtype=None, offset=0):
        self.machine = machine
        self.dtype = values.dtype if dtype is None else dtype
        self.shape = values.shape if shape is None else torch.Size(shape)
        if values is None:
            self.address = machine.allocate(max(self.numel() * self.dtype.itemsize, 1))
        else:
            memory = np.concatenate(
                [np.zeros(offset, np.uint8), values.contiguous().view(-1).view(torch.uint8).numpy()]
            )
            self.address = machine.upload(memory) + offset

    def numel(self):
        return self.shape.numel()

    def __len__(self):
        return self.shape[0]

    def data_ptr(self):
        return self.address

    def contiguous(self):
        return self

    def clone(self):
        return Tensor(self.machine, self.fetched())

    def to(self, dtype):
        return self if dtype == self.dtype else Tensor(self.machine, self.fetched().to(dtype))

    def __ge__(self, other):
        return Tensor(self.machine, self.fetched() >= other)

    def __gt__(self, other):
        return Tensor(self.machine, self.fetched() > other)

    def fetched(self):
        if self.numel() == 0:
            return torch.empty(self.shape, dtype=self.dtype)
        found = self.machine.download(self.address, self.numel() * self.dtype.itemsize, np.uint8)
        return torch.from_numpy(found).view(self.dtype).view(self.shape)


class Device:
    """A device that runs launches at once."""

    def __init__(self, capability):
        self.capability, self.machine = capability, Machine(capability)
        self.started = []

    def upload(self, array, what):
        return types.SimpleNamespace(address=self.machine.upload(array))

    def launch(self, launch, stream):
        assert stream == STREAM
        self.started.append(launch.kernel)
        self.machine.run(launch)


@pytest.fixture(params=[(9, 0), (7, 5)], ids=["sm90", "sm75"])
def device(request, monkeypatch):
    found = Device(request.param)
    monkeypatch.setattr(packed_cuda, "_device", lambda tensor: found)
    monkeypatch.setattr(packed_cuda, "_stream", lambda tensor: STREAM)
    monkeypatch.setattr(packed_cuda, "_is_recorded", lambda: False)
    monkeypatch.setattr(packed_cuda, "_empty", lambda shape, dtype, on: Tensor(found.machine, shape=shape, dtype=dtype))
    return found


def signs(*shape, seed=1):
    return torch.randint(0, 2, shape, generator=torch.Generator().manual_seed(seed)) * 2.0 - 1


def words_of(values):
    return torch.from_numpy(encoding.pack_bits((values >= 0).numpy()).view(np.int64))


@pytest.mark.parametrize("dtype", packed.SIGNED)
def test_packing(device, dtype):
    for shape in ((3, 70), (2, 2, 64), (1, 1), (5, 0), (0, 9)):
        values = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 2
        values = values > 0 if dtype == torch.bool else values.to(dtype)
        found = packed_cuda.pack_bits(Tensor(device.machine, values))
        assert torch.equal(found.fetched(), words_of(values * 2 - 1 if dtype == torch.bool else values))
    assert len(device.started) == 3  # nothing is started for nothing


@pytest.mark.parametrize("dtype", packed.SIGNED)
def test_unpacking(device, dtype):
    values = signs(3, 2, 70)
    found = packed_cuda.unpack_bits(Tensor(device.machine, words_of(values)), 70, dtype)
    assert found.dtype == dtype
    assert torch.equal(found.fetched(), values > 0 if dtype == torch.bool else values.to(dtype))


@pytest.mark.parametrize(
    ("shape", "columns", "length"), [((3,), 10, 70), ((2, 5), 33, 300), ((), 5, 64), ((90,), 70, 256)]
)
def test_products(device, shape, columns, length):
    a, b = signs(*shape, length), signs(columns, length, seed=2)
    expected = (a @ b.T).int()
    operands = (Tensor(device.machine, words_of(values), offset=8) for values in (a, b))
    found = packed_cuda.xnor_matmul(*operands, length, expected.shape)
    assert torch.equal(found.fetched(), expected)


def test_convolutions(device):
    x, w = signs(2, 5, 6, 70), signs(9, 3, 2, 70, seed=2)
    expected = F.conv2d(x.permute(0, 3, 1, 2), w.permute(0, 3, 1, 2), stride=(2, 1), padding=(1, 1)).permute(0, 2, 3, 1)
    operands = (Tensor(device.machine, words_of(values)) for values in (x, w))
    found = packed_cuda.xnor_conv2d(*operands, 70, (2, 1), (1, 1), expected.shape)
    assert torch.equal(found.fetched(), expected.int())


def test_what_a_shape_needs_is_copied_once(device, monkeypatch):
    made = []
    monkeypatch.setattr(packed_cuda, "DeviceLayout", lambda *given: made.append(given) or DeviceLayout(*given))
    a, b = (Tensor(device.machine, words_of(signs(*shape))) for shape in ((3, 130), (7, 130)))
    for rows in (3, 3, 2):
        x = Tensor(device.machine, words_of(signs(rows, 130)))
        assert packed_cuda.xnor_matmul(x, b, 130, (rows, 7)).fetched().shape == (rows, 7)
    packed_cuda.xnor_matmul(a, b, 130, (3, 7))
    assert len(made) == 1


def test_what_a_recorded_graph_reads_is_kept(device, monkeypatch):
    monkeypatch.setattr(packed_cuda, "_recorded", set())
    a, b = (Tensor(device.machine, words_of(signs(*shape))) for shape in ((3, 130), (7, 130)))
    packed_cuda.xnor_matmul(a, b, 130, (3, 7))
    assert not packed_cuda._recorded
    monkeypatch.setattr(packed_cuda, "_is_recorded", lambda: True)
    packed_cuda.xnor_matmul(a, b, 130, (3, 7))
    assert len(packed_cuda._recorded) == 1
