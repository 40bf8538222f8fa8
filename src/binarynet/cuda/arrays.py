"""Arrays of a GPU, from and to torch, CuPy, JAX and whoever else knows DLPack or ``__cuda_array_interface__``.

Nothing is copied. What is read comes as a :class:`View` of somebody's memory and says on which stream it is ready.
What is returned is a :class:`DeviceArray`, which gives itself to others by both protocols: DLPack (versions 0 and 1, as
in the Python array API standard) and version 3 of the CUDA array interface (Numba's specification).
"""

from __future__ import annotations

import sys
from collections import deque
from dataclasses import dataclass
from operator import index
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from binarynet.cuda.driver import check
from binarynet.cuda.streams import DEFAULT_STREAM, Event, identity
from binarynet.errors import BackendUnavailableError, ShapeError, UsageError

if TYPE_CHECKING:
    from binarynet.cuda.device import Device
    from binarynet.cuda.memory import Memory

Shape = tuple[int, ...]
Type = np.dtype[Any]

_CPU, _CUDA, _CUDA_HOST, _CUDA_MANAGED = 1, 2, 3, 13  # DLPack's device types
_DEVICES = {1: "the host's memory", 3: "locked memory of the host", 10: "an AMD GPU", 13: "managed memory"}
_KINDS = {0: "i", 1: "u", 2: "f", 6: "b"}
"""NumPy's letter for DLPack's type codes."""
_CODES = {kind: code for code, kind in _KINDS.items()}
_OR_COPIED = ", or give a NumPy array, which is copied"


_ROUND = 512
"""Results' memory comes in multiples of so many bytes."""
_MOST_KEPT = 4
"""Results of one size that are kept for each stream ..."""
_MOST_KINDS = 64
"""... of at most so many sizes and streams."""


@dataclass(frozen=True)
class View:
    """Somebody's memory on a GPU: dense, rows last.

    Attributes:
        address, shape, dtype: what lies where.
        stream: what is started there comes after the memory was written.
        read_only: True where its owner says so.
        owner: keeps the memory.
        ordered: True where the owner reuses the memory in the order of ``stream``; else ``owner`` must be kept until
            the work with it is done.
    """

    address: int
    shape: Shape
    dtype: Type
    stream: int
    read_only: bool
    owner: Any
    ordered: bool


class Loan:
    """Memory of a result, and the event behind its making; it goes back to a pool when nobody has it any more.

    Attributes:
        memory: whole.
        ready: set on the stream that made the result.
        stream, number: that stream's handle, and its :func:`binarynet.cuda.streams.identity`, which tells it from later
            streams with that handle.
        shared: True once others may use the memory on streams that are not known here.
    """

    def __init__(
        self, memory: Memory, ready: Event, stream: int, number: int, home: deque[tuple[Memory, Event]] | None = None
    ) -> None:
        self.memory, self.ready, self.stream, self.number = memory, ready, stream, number
        self.shared = False
        self._home = home

    def __del__(self) -> None:
        if self._home is not None and not self.shared:
            self._home.append((self.memory, self.ready))


class ResultPool:
    """Memory of results that nobody has any more, for the next ones on the same stream: their work comes later there.

    Memory that was shared with other streams is freed instead, which waits for them. No locks: memory comes back
    whenever Python collects garbage.
    """

    def __init__(self, device: Device) -> None:
        self._device = device
        self._homes: dict[tuple[int, int], deque[tuple[Memory, Event]]] = {}

    def take(self, nbytes: int, stream: int, number: int, what: str) -> Loan:
        """Memory for a result that is made on a stream, of this number (:func:`binarynet.cuda.streams.identity`);
        DeviceError if there is none."""
        size = -(-nbytes // _ROUND) * _ROUND
        if len(self._homes) > _MOST_KINDS:
            self._homes.clear()
        home = self._homes.setdefault((number, size), deque(maxlen=_MOST_KEPT))
        try:
            memory, ready = home.pop()
        except IndexError:
            memory, ready = self._device.allocate(size, what), Event(self._device)
        return Loan(memory, ready, stream, number, home)


class DeviceArray:
    """A result in a GPU's memory. It may still be computed: whoever reads it waits by himself, as below.

    ``torch.from_dlpack(array)``, ``cupy.from_dlpack(array)`` and ``jax.dlpack.from_dlpack(array)`` share its memory, as
    do libraries that know ``__cuda_array_interface__``; their streams wait on the GPU, the host does not.

    Attributes:
        shape, dtype: as of a NumPy array; C-contiguous.
    """

    __slots__ = ("_device", "_loan", "address", "dtype", "shape")

    def __init__(self, device: Device, loan: Loan, address: int, shape: Shape, dtype: Type) -> None:
        self._device, self._loan = device, loan
        self.address, self.shape, self.dtype = address, shape, dtype

    @property
    def device(self) -> str:
        """ "cuda:0" """
        return str(self._device)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return int(np.prod(self.shape, dtype=object))

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"<binarynet.DeviceArray {self.dtype} {list(self.shape)} on {self.device}>"

    def numpy(self) -> npt.NDArray[Any]:
        """A copy in the host's memory; waits until the result is there.

        Raises:
            DeviceError: its computation failed.
        """
        array = np.empty(self.shape, self.dtype)
        if self.nbytes:
            self._loan.ready.wait(f"finish a result on {self.device}")
            self._device.copy_to_host(array, self.address, "a result")
        return array

    def made_anew(self) -> None:
        """Whoever reads it from now on waits for what was started on its stream so far: it was written again. The
        context must be current."""
        self._loan.ready.record(self._loan.stream)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        if copy is False:
            raise ValueError(f"{self!r} cannot become a NumPy array without a copy")
        array = self.numpy()
        return array if dtype is None else array.astype(dtype, copy=False)

    def __dlpack_device__(self) -> tuple[int, int]:
        return _CUDA, self._device.ordinal

    def __dlpack__(
        self,
        *,
        stream: int | None = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        """A DLPack capsule (Python array API standard, 2024.12).

        Args:
            stream: where the consumer works, which waits there: 1, 2 or a handle; None: 1; -1: it waits by itself.
            max_version: newest version of DLPack that the consumer knows; default: the one before 1.
            dl_device: where the data are wanted: here, or the host, (1, 0), which needs a copy.
            copy: True asks for memory of its own, False refuses it.

        Raises:
            BufferError: another device, or a copy that is needed and refused.
        """
        if dl_device is not None and tuple(dl_device) == (_CPU, 0):
            if copy is False:
                raise BufferError(f"{self!r} does not come to the host without a copy")
            return self.numpy().__dlpack__(max_version=max_version)
        if dl_device is not None and tuple(dl_device) != self.__dlpack_device__():
            raise BufferError(f"{self!r} cannot be given to the DLPack device {tuple(dl_device)}")
        given = self._copied() if copy else self
        given._hand_over(_checked_stream(stream))
        code, bits = _CODES[self.dtype.kind], self.dtype.itemsize * 8
        versioned = max_version is not None and max_version[0] >= 1
        where = self.__dlpack_device__()
        return _capsules().give(given, given.address, given.shape, code, bits, *where, versioned)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        self._loan.shared = True
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self.address, False),
            "strides": None,
            "version": 3,
            "stream": self._loan.stream,
        }

    def _hand_over(self, stream: int) -> None:
        """Let a consumer's stream wait for the result; -1: nobody waits here."""
        loan = self._loan
        if stream == -1:
            loan.shared = True
            return
        with self._device as device:
            if stream != loan.stream or identity(device, stream) != loan.number:
                loan.shared = True
                loan.ready.delay(stream)

    def _copied(self) -> DeviceArray:
        loan = self._loan
        memory = self._device.allocate(self.nbytes, "a copy of a result")
        with self._device as device:
            copied = Loan(memory, Event(device), DEFAULT_STREAM, identity(device, DEFAULT_STREAM))
            if self.nbytes:
                loan.ready.delay(DEFAULT_STREAM)
                check(
                    device._driver.cuMemcpyDtoDAsync(memory.address, self.address, self.nbytes, DEFAULT_STREAM),
                    f"copy a result on {device}",
                )
            copied.ready.record(DEFAULT_STREAM)
        loan.shared = True
        return DeviceArray(self._device, copied, memory.address, self.shape, self.dtype)


def view(array: Any, device: Device, what: str, *, copied: bool = True) -> View:
    """Somebody's array on a device, without a copy.

    Args:
        array: a :class:`DeviceArray`, or anything with ``__dlpack__`` or ``__cuda_array_interface__``.
        device: where it has to lie.
        what: its name, for errors.
        copied: whether the caller would copy a NumPy array, for errors.

    Raises:
        UsageError: it lies elsewhere, is not contiguous or cannot be shared; says what to do.
        ShapeError: it is no array, or its elements have no NumPy type.
    """
    if isinstance(array, DeviceArray):
        _require_here(array._device.ordinal, device, what)
        loan = array._loan
        with device:
            if identity(device, loan.stream) != loan.number:  # its stream is gone, another one has the handle
                loan.shared = True
                loan.ready.delay(loan.stream)
        return View(array.address, array.shape, array.dtype, loan.stream, False, array, True)
    stream = _torch_stream(array, device)
    if stream is None and hasattr(array, "__cuda_array_interface__"):
        return _by_interface(array, array.__cuda_array_interface__, device, what, copied)
    if hasattr(array, "__dlpack__") and hasattr(array, "__dlpack_device__"):
        return _by_dlpack(array, stream, device, what, copied)
    raise ShapeError(
        f"{what}: expected a NumPy array or one of the GPU (torch, CuPy, JAX: DLPack or __cuda_array_interface__), got "
        f"{type(array).__name__}"
    )


def _by_dlpack(array: Any, stream: int | None, device: Device, what: str, copied: bool) -> View:
    kind, ordinal = (int(number) for number in array.__dlpack_device__())
    if kind != _CUDA:
        where = _DEVICES.get(kind, f"a device of another kind (DLPack's number {kind})")
        remedy = "copy it to the GPU's own memory" if kind in (_CUDA_HOST, _CUDA_MANAGED) else f"move it to {device}"
        numpy = _OR_COPIED if kind == _CPU and copied else ""
        raise UsageError(f"{what}: expected memory of {device}, this {_kind(array)} lies in {where}; {remedy}{numpy}")
    _require_here(ordinal, device, what)
    work = DEFAULT_STREAM if stream is None else stream
    try:
        try:
            capsule = array.__dlpack__(stream=work, max_version=(1, 0), copy=False)
        except TypeError:  # from before these arguments
            capsule = array.__dlpack__(stream=work)
    except (BufferError, RuntimeError, ValueError, AttributeError) as error:
        raise UsageError(f"{what}: this {_kind(array)} cannot be shared: {error}") from error
    address, shape, strides, (code, bits, lanes), _, read_only, owner = _capsules().take(capsule)
    if code not in _KINDS or lanes != 1 or bits % 8 or not bits:
        raise ShapeError(
            f"{what}: its elements (DLPack type code {code}, {bits} bits, {lanes} lanes) are none of NumPy's"
        )
    dtype = np.dtype(f"{_KINDS[code]}{bits // 8}")
    if strides is not None:
        _require_dense(shape, tuple(stride * dtype.itemsize for stride in strides), dtype, what)
    return View(address, shape, dtype, work, read_only, owner, stream is not None)


def _by_interface(array: Any, found: Any, device: Device, what: str, copied: bool) -> View:
    try:
        shape = tuple(int(length) for length in found["shape"])
        dtype = np.dtype(found["typestr"])
        address, read_only = found["data"]
        address = 0 if address is None and 0 in shape else index(address)
        strides, mask, stream = found.get("strides"), found.get("mask"), found.get("stream")
        stream = None if stream is None else index(stream)
        strides = None if strides is None else tuple(int(stride) for stride in strides)
    except (KeyError, TypeError, ValueError) as error:
        raise ShapeError(
            f"{what}: __cuda_array_interface__ of this {_kind(array)} is not as specified: {error!r}"
        ) from None
    if mask is not None:
        raise ShapeError(f"{what}: expected an array without a mask; put values where there are none")
    if stream == 0:
        raise UsageError(f"{what}: __cuda_array_interface__ names the stream 0, which may mean two; 1, 2 or a handle")
    if strides is not None:
        _require_dense(shape, strides, dtype, what)
    if 0 not in shape:
        _require_device_memory(address, device, array, what, copied)
    work = DEFAULT_STREAM if stream is None else stream
    return View(address, shape, dtype, work, bool(read_only), array, stream is not None)


def _require_device_memory(address: int, device: Device, array: Any, what: str, copied: bool) -> None:
    """The interface does not say where the memory lies; the driver does."""
    d = device._driver
    kinds = d.CUpointer_attribute
    with device:
        status, where = d.cuPointerGetAttribute(kinds.CU_POINTER_ATTRIBUTE_MEMORY_TYPE, address)
        if status != 0 or int(where) != int(d.CUmemorytype.CU_MEMORYTYPE_DEVICE):
            raise UsageError(
                f"{what}: expected memory of {device}, this {_kind(array)} lies in the host's memory; move it to "
                f"{device}{_OR_COPIED if copied else ''}"
            )
        managed = check(
            d.cuPointerGetAttribute(kinds.CU_POINTER_ATTRIBUTE_IS_MANAGED, address), "ask for the kind of memory"
        )
        if managed:
            raise UsageError(
                f"{what}: expected memory of {device}, this {_kind(array)} lies in managed memory; copy it to the "
                "GPU's own memory"
            )
        ordinal = check(
            d.cuPointerGetAttribute(kinds.CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL, address), "ask where memory lies"
        )
    _require_here(int(ordinal), device, what)


def _require_here(ordinal: int, device: Device, what: str) -> None:
    if ordinal != device.ordinal:
        raise UsageError(
            f"{what}: expected memory of {device}, it lies on cuda:{ordinal}; move it, or use a session on "
            f'that GPU (device="cuda:{ordinal}")'
        )


def _require_dense(shape: Shape, strides: Shape, dtype: Type, what: str) -> None:
    expected = dtype.itemsize
    if 0 in shape:
        return
    for length, stride in zip(reversed(shape), reversed(strides), strict=True):
        if length != 1 and stride != expected:
            raise UsageError(
                f"{what}: expected C-contiguous memory, got {dtype} {list(shape)} with strides of {list(strides)} "
                "bytes; make a contiguous copy (torch: x.contiguous(), CuPy: cupy.ascontiguousarray(x))"
            )
        expected *= length


def _torch_stream(array: Any, device: Device) -> int | None:
    """The stream that torch works on now, where the array is a tensor of torch; torch is not imported for it."""
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(array, torch.Tensor) or not array.is_cuda:
        return None
    return int(torch.cuda.current_stream(device.ordinal).cuda_stream) or DEFAULT_STREAM


def _checked_stream(stream: Any) -> int:
    if stream is None:
        return DEFAULT_STREAM
    if isinstance(stream, bool) or not isinstance(stream, int) or stream == 0 or stream < -1:
        raise BufferError(f"DLPack: a CUDA stream is -1, 1, 2 or a handle, not {stream!r}")
    return stream


def _kind(array: Any) -> str:
    return f"{type(array).__module__.partition('.')[0]} {type(array).__name__}"


def _capsules() -> Any:
    try:
        from binarynet._native import dlpack
    except ImportError as error:
        raise BackendUnavailableError(
            f"arrays cannot be shared by DLPack: the native extension cannot be loaded: {error}; reinstall binarynet"
        ) from None
    return dlpack
