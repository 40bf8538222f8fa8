"""Arrays of a GPU from and to other libraries: what is taken, what is refused, who waits for whom, who keeps what."""

import gc
import weakref

import numpy as np
import pytest
from simulated_sessions import GpuArray, simulated_product

from binarynet._native import dlpack
from binarynet.cuda.arrays import DeviceArray, Loan, view
from binarynet.cuda.device import device
from binarynet.cuda.streams import DEFAULT_STREAM, Event, Stream, identity
from binarynet.errors import ShapeError, UsageError


@pytest.fixture(scope="module", params=["early", "late"])
def gpu(request):
    with simulated_product(schedule=request.param) as control:
        yield control


class Producer:
    """Another library's array by DLPack.

    Args:
        values: copied to the device.
        versioned: whether it knows of DLPack 1 and the arguments that came with it.
        where: the DLPack device that it claims; default: where it lies.
        element: DLPack type code and bits, where they are not those of the values.
    """

    def __init__(self, values, versioned=True, where=None, element=None, ordinal=0):
        self.array = GpuArray(values, ordinal)
        self.where = where or (2, ordinal)
        self.element = element or ({"i": 0, "u": 1, "f": 2}[values.dtype.kind], values.dtype.itemsize * 8)
        self.asked = []
        if not versioned:
            self.__class__ = OldProducer

    def __dlpack_device__(self):
        return self.where

    def __dlpack__(self, *, stream=None, max_version=None, dl_device=None, copy=None):
        self.asked.append((stream, max_version, copy))
        return dlpack.give(
            self, self.array.address, self.array.shape, *self.element, *self.where, max_version is not None
        )


class OldProducer(Producer):
    def __dlpack__(self, stream=None):
        self.asked.append((stream, None, None))
        return dlpack.give(self, self.array.address, self.array.shape, *self.element, *self.where, False)


VALUES = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)


def result(values, stream=DEFAULT_STREAM, gpu=None):
    """A DeviceArray with these values."""
    gpu = gpu or device(0)
    memory = gpu.upload(np.ascontiguousarray(values), "a test")
    with gpu:
        ready = Event(gpu)
        ready.record(stream)
        loan = Loan(memory, ready, stream, identity(gpu, stream))
    return DeviceArray(gpu, loan, memory.address, values.shape, values.dtype)


@pytest.mark.parametrize("versioned", [True, False])
def test_dlpack_in(gpu, versioned):
    producer = Producer(VALUES, versioned)
    found = view(producer, device(0), "images")
    assert (found.address, found.shape, found.dtype) == (producer.array.address, VALUES.shape, VALUES.dtype)
    assert (found.stream, found.read_only, found.ordered) == (DEFAULT_STREAM, False, False)
    assert producer.asked == [(DEFAULT_STREAM, (1, 0) if versioned else None, False if versioned else None)]


def test_dlpack_in_keeps_the_memory_as_long_as_it_is_used(gpu):
    producer = Producer(VALUES)
    alive = weakref.ref(producer)
    found = view(producer, device(0), "images")
    del producer
    gc.collect()
    assert alive() is not None
    del found
    gc.collect()
    assert alive() is None


@pytest.mark.parametrize(
    ("where", "text"),
    [
        ((1, 0), "lies in the host's memory; move it to cuda:0, or give a NumPy array, which is copied"),
        ((3, 0), "lies in locked memory of the host; copy it to the GPU's own memory"),
        ((13, 0), "lies in managed memory; copy it to the GPU's own memory"),
        ((10, 0), "lies in an AMD GPU; move it to cuda:0"),
        ((99, 0), "lies in a device of another kind (DLPack's number 99); move it to cuda:0"),
        ((2, 1), 'it lies on cuda:1; move it, or use a session on that GPU (device="cuda:1")'),
    ],
)
def test_dlpack_from_elsewhere(gpu, where, text):
    with pytest.raises(UsageError) as error:
        view(Producer(VALUES, where=where), device(0), "images")
    assert str(error.value).startswith("images: expected memory of cuda:0")
    assert text in str(error.value)


@pytest.mark.parametrize("element", [(4, 16), (5, 64), (1, 4)])
def test_dlpack_elements_that_numpy_does_not_have(gpu, element):
    with pytest.raises(ShapeError, match=rf"DLPack type code {element[0]}, {element[1]} bits, 1 lanes\) are none of"):
        view(Producer(VALUES, element=element), device(0), "images")


def test_dlpack_that_its_producer_refuses(gpu):
    class Refusing(Producer):
        def __dlpack__(self, **options):
            raise BufferError("it requires gradients; call detach()")

    with pytest.raises(
        UsageError, match=r"out: this test_arrays Refusing cannot be shared: it requires gradients; call"
    ):
        view(Refusing(VALUES), device(0), "out")


@pytest.mark.parametrize(("stream", "work"), [(None, DEFAULT_STREAM), (1, 1), (2, 2)])
def test_the_cuda_array_interface_in(gpu, stream, work):
    array = GpuArray(VALUES.astype(np.uint64), stream=stream)
    found = view(array, device(0), "images")
    assert (found.address, found.shape, found.dtype) == (array.address, VALUES.shape, np.dtype(np.uint64))
    assert (found.stream, found.ordered, found.owner) == (work, stream is not None, array)


INTERFACES = [
    ({"mask": 1}, ShapeError, "expected an array without a mask"),
    ({"stream": 0}, UsageError, "names the stream 0"),
    ({"strides": (1, 2, 6)}, UsageError, "expected C-contiguous memory, got uint8 [2, 3, 4] with strides of [1, 2, 6]"),
    ({"strides": (24, 4, 1)}, UsageError, "expected C-contiguous memory"),
    ({"typestr": "nonsense"}, ShapeError, "is not as specified"),
    ({"shape": None}, ShapeError, "is not as specified"),
    ({"stream": "1"}, ShapeError, "is not as specified"),
    ({"data": (None, False)}, ShapeError, "is not as specified"),
    ({"strides": 4}, ShapeError, "is not as specified"),
]


@pytest.mark.parametrize(("changes", "kind", "text"), INTERFACES)
def test_the_cuda_array_interface_that_is_refused(gpu, changes, kind, text):
    with pytest.raises(kind) as error:
        view(GpuArray(VALUES, **changes), device(0), "images")
    assert str(error.value).startswith("images: ")
    assert text in str(error.value)


def test_the_cuda_array_interface_taken_though_it_says_more_than_it_must(gpu):
    assert view(GpuArray(VALUES, strides=(12, 4, 1)), device(0), "images").shape == VALUES.shape
    one = GpuArray(VALUES, shape=(2, 1, 12), strides=(12, 999, 1))
    assert view(one, device(0), "images").shape == (2, 1, 12)
    for address in (0, None):
        empty = GpuArray(VALUES, shape=(0, 3), data=(address, True), strides=(7, 7))
        assert view(empty, device(0), "images").read_only


def test_the_cuda_array_interface_from_elsewhere(gpu):
    there = GpuArray(VALUES, ordinal=1)
    with pytest.raises(UsageError, match="expected memory of cuda:0, it lies on cuda:1; move it"):
        view(there, device(0), "images")
    host = GpuArray(VALUES, data=(VALUES.ctypes.data, False))
    with pytest.raises(
        UsageError, match="this simulated_sessions GpuArray lies in the host's memory; move it to cuda:0"
    ):
        view(host, device(0), "images")


@pytest.mark.parametrize("array", [[1, 2], None, "images", np.float32(1)])
def test_what_is_no_array(gpu, array):
    with pytest.raises((ShapeError, UsageError), match="images: expected"):
        view(array, device(0), "images")


def test_torch_works_on_its_current_stream(gpu, monkeypatch):
    """Without a GPU in torch: its tensor and its stream are stood in for, by name."""
    import torch

    handle = 0

    class Tensor(Producer):
        is_cuda = True

    class Current:
        @property
        def cuda_stream(self):
            return handle

    monkeypatch.setattr(torch, "Tensor", Tensor)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda ordinal: Current())
    assert view(Tensor(VALUES), device(0), "images").stream == DEFAULT_STREAM
    own = Stream(device(0))
    handle = own.handle
    tensor = Tensor(VALUES)
    found = view(tensor, device(0), "images")
    assert (found.stream, found.ordered) == (own.handle, True)
    assert tensor.asked == [(own.handle, (1, 0), False)]


def test_a_tensor_of_the_cpu_is_refused(gpu):
    torch = pytest.importorskip("torch")
    with pytest.raises(
        UsageError, match="this torch Tensor lies in the host's memory; move it to cuda:0, or give a NumPy"
    ):
        view(torch.zeros(3), device(0), "images")
    with pytest.raises(UsageError, match=r"out: .* lies in the host's memory; move it to cuda:0$"):
        view(torch.zeros(3), device(0), "out", copied=False)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint64, np.int32, np.float32])
def test_a_result_is_what_it_holds(gpu, dtype):
    values = np.arange(12).reshape(3, 4).astype(dtype)
    array = result(values)
    assert (array.shape, array.dtype, array.ndim, array.size, array.nbytes) == ((3, 4), dtype, 2, 12, values.nbytes)
    assert (array.device, len(array)) == ("cuda:0", 3)
    assert repr(array) == f"<binarynet.DeviceArray {np.dtype(dtype)} [3, 4] on cuda:0>"
    assert array.numpy().tobytes() == values.tobytes()
    assert np.asarray(array).tobytes() == values.tobytes()
    assert np.asarray(array, np.float64).dtype == np.float64
    if int(np.__version__.partition(".")[0]) >= 2:
        with pytest.raises(ValueError, match="cannot become a NumPy array without a copy"):
            np.asarray(array, copy=False)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint64, np.int32, np.float32])
@pytest.mark.parametrize("version", [None, (0, 8), (1, 0), (1, 3), (2, 0)])
def test_dlpack_out(gpu, dtype, version):
    array = result(np.arange(12).reshape(3, 4).astype(dtype))
    capsule = array.__dlpack__(max_version=version)
    name = '"dltensor_versioned"' if version and version >= (1, 0) else '"dltensor"'
    assert name in repr(capsule)
    address, shape, strides, element, where, read_only, owner = dlpack.take(capsule)
    assert (address, shape, strides, where, read_only) == (array.address, (3, 4), (4, 1), (2, 0), False)
    assert element == ({"i": 0, "u": 1, "f": 2}[array.dtype.kind], array.dtype.itemsize * 8, 1)
    before = gpu.count("alive_allocations")
    del array
    assert gpu.count("alive_allocations") == before
    del owner
    assert gpu.count("alive_allocations") == before - 1


def test_a_capsule_that_nobody_took_lets_go(gpu):
    before = gpu.count("alive_allocations")
    array = result(VALUES)
    for version in (None, (1, 0)):
        array.__dlpack__(max_version=version)
    assert gpu.count("alive_allocations") == before + 1
    del array
    gc.collect()
    assert gpu.count("alive_allocations") == before


def test_a_capsule_is_taken_once(gpu):
    capsule = result(VALUES).__dlpack__()
    dlpack.take(capsule)
    with pytest.raises(TypeError, match="no DLPack capsule, or one that was used before"):
        dlpack.take(capsule)


def test_dlpack_devices_and_copies(gpu):
    array = result(VALUES)
    assert array.__dlpack_device__() == (2, 0)
    assert np.from_dlpack(Cpu(array)).tobytes() == VALUES.tobytes()
    with pytest.raises(BufferError, match="does not come to the host without a copy"):
        array.__dlpack__(dl_device=(1, 0), copy=False)
    for wrong in ((2, 1), (10, 0)):
        with pytest.raises(BufferError, match="cannot be given to the DLPack device"):
            array.__dlpack__(dl_device=wrong)
    address, *_, owner = dlpack.take(array.__dlpack__(copy=True, dl_device=(2, 0)))
    assert address != array.address
    again = np.empty_like(VALUES)
    device(0).copy_to_host(again, address, "a test")
    assert again.tobytes() == VALUES.tobytes()
    del owner


class Cpu:
    """Asks for an array on the host, as ``numpy.from_dlpack(device="cpu")`` does."""

    def __init__(self, array):
        self.array = array

    def __dlpack_device__(self):
        return 1, 0

    def __dlpack__(self, *, max_version=None, **_):
        return self.array.__dlpack__(dl_device=(1, 0), max_version=max_version)


@pytest.mark.parametrize("stream", [0, -2, True, "1", 1.0])
def test_streams_that_are_none(gpu, stream):
    with pytest.raises(BufferError, match="DLPack: a CUDA stream is -1, 1, 2 or a handle, not"):
        result(VALUES).__dlpack__(stream=stream)


def test_a_consumers_stream_waits_for_the_result(gpu):
    own, other = Stream(device(0)), Stream(device(0))
    array = result(VALUES, own.handle)
    for stream, waits in ((own.handle, 0), (-1, 0), (other.handle, 1), (None, 1)):
        gpu.forget_reports()
        array.__dlpack__(stream=stream)
        assert sum("cuStreamWaitEvent" in line for line in gpu.log()) == waits


def test_another_stream_with_the_handle_of_one_that_is_gone_waits_for_the_result(gpu, monkeypatch):
    own = Stream(device(0))
    array = result(VALUES, own.handle)
    monkeypatch.setattr(array._loan, "number", array._loan.number + 999)  # as the driver would number the one before
    for use in (lambda: array.__dlpack__(stream=own.handle), lambda: view(array, device(0), "images")):
        array._loan.shared = False
        gpu.forget_reports()
        use()
        assert sum("cuStreamWaitEvent" in line for line in gpu.log()) == 1
        assert array._loan.shared


def test_the_cuda_array_interface_out(gpu):
    own = Stream(device(0))
    array = result(VALUES, own.handle)
    assert array.__cuda_array_interface__ == {
        "shape": VALUES.shape,
        "typestr": "|u1",
        "data": (array.address, False),
        "strides": None,
        "version": 3,
        "stream": own.handle,
    }
    found = view(array, device(0), "images")
    assert (found.address, found.stream, found.ordered) == (array.address, own.handle, True)
    with pytest.raises(UsageError, match="expected memory of cuda:1, it lies on cuda:0"):
        view(array, device(1), "images")
