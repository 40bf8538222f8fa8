"""Pickles read as data: nothing is imported, nothing is called, so a pickle from a stranger can run no code.

A pickle is a program for a stack machine. This one knows only the instructions that plain data need (dictionaries with
text keys, lists, tuples, integers, text, bytes) and those by which NumPy stores an array of unsigned bytes, whose names
are compared, never looked up. It reads what Python 2 wrote (protocol 2, as the CIFAR files) and protocols 3 and 4 of
Python 3. Memory stays in proportion to the length of the pickle: an instruction makes at most one object.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from binarynet.errors import DataError

_RECONSTRUCT = ("numpy.core.multiarray _reconstruct", "numpy._core.multiarray _reconstruct")
_KNOWN_NAMES = (*_RECONSTRUCT, "numpy ndarray", "numpy dtype")
_BYTE_TYPES = ("u1", "|u1", "uint8")
_MAX_AXES = 4
_MARK = object()


class _Name:
    """A global by its name only."""

    def __init__(self, text: str) -> None:
        self.text = text


class _ByteType:
    """NumPy's dtype of unsigned bytes."""


class _Array:
    """An array whose content comes with the BUILD instruction."""

    content: npt.NDArray[np.uint8] | None = None


class _Refused(Exception):
    """Why a pickle is not taken; becomes a DataError with the file's name."""


def read_plain_pickle(content: bytes, what: str) -> Any:
    """The value of a pickle of plain data and uint8 arrays.

    Args:
        content: the whole pickle.
        what: names it in errors.

    Returns:
        dict, list, tuple, int, bool, None, str (``bytes`` for strings of Python 2) or uint8 arrays of these.

    Raises:
        DataError: damaged, or it needs more than plain data, which could run code.
    """
    machine = _Machine(content)
    try:
        return _finished(machine.run())
    except _Refused as error:
        raise DataError(f"{what}: {error}") from error
    except (IndexError, TypeError, ValueError, OverflowError) as error:  # ValueError: also text that is not UTF-8
        raise DataError(f"{what}: not a pickle, or truncated or damaged (near byte {machine.position:,})") from error


def _finished(value: Any) -> Any:
    if isinstance(value, _Array):
        if value.content is None:
            raise _Refused("an array without content")
        return value.content
    if isinstance(value, dict):
        return {key: item.content if isinstance(item, _Array) else item for key, item in value.items()}
    return value


class _Machine:
    def __init__(self, content: bytes) -> None:
        self.content = content
        self.position = 0
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        if self.take(1) != b"\x80" or self.number(1) not in (2, 3, 4):
            raise _Refused("not a pickle of protocol 2, 3 or 4; save it with pickle.dump(value, file, protocol=4)")
        while True:
            code = self.take(1)
            if code == b".":
                value = self.pop()
                if self.stack:
                    raise ValueError("values left over")
                if self.position != len(self.content):
                    raise _Refused(f"{len(self.content) - self.position:,} trailing bytes after the pickle")
                return value
            step = _STEPS.get(code)
            if step is None:
                raise _Refused(
                    f"holds the pickle instruction 0x{code.hex()}, which plain data and byte arrays do not need and "
                    f"which could run code: refused"
                )
            step(self)

    def take(self, count: int) -> bytes:
        piece = self.content[self.position : self.position + count]
        if len(piece) != count:
            raise ValueError("truncated")
        self.position += count
        return piece

    def skip(self, count: int) -> None:
        self.take(count)

    def number(self, size: int, *, signed: bool = False) -> int:
        return int.from_bytes(self.take(size), "little", signed=signed)

    def line(self) -> str:
        end = self.content.index(b"\n", self.position)
        return self.take(end + 1 - self.position)[:-1].decode()

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self) -> Any:
        if self.stack[-1] is _MARK:
            raise ValueError("a mark where a value is needed")
        return self.stack.pop()

    def top(self) -> Any:
        return self.stack[-1]

    def to_mark(self) -> list[Any]:
        start = len(self.stack) - 1
        while self.stack[start] is not _MARK:
            start -= 1
            if start < 0:
                raise ValueError("no mark")
        items = self.stack[start + 1 :]
        del self.stack[start:]
        return items

    def tuple_of(self, count: int) -> None:
        items = [self.pop() for _ in range(count)]
        self.push(tuple(reversed(items)))

    def append(self, items: list[Any]) -> None:
        target = self.top()
        if not isinstance(target, list):
            raise ValueError("no list")
        target.extend(items)

    def set_items(self, items: list[Any]) -> None:
        target = self.top()
        if not isinstance(target, dict) or len(items) % 2:
            raise ValueError("no dictionary")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, (str, bytes)):
                raise _Refused(f"a dictionary key is of type {type(key).__name__}, expected text")
            text = key.decode() if isinstance(key, bytes) else key
            if text in target:
                raise _Refused(f"the key {text[:40]!r} twice")
            target[text] = value

    def name(self, module: Any, attribute: Any) -> None:
        if not isinstance(module, str) or not isinstance(attribute, str):
            raise ValueError("no name")
        text = f"{module} {attribute}"
        if text not in _KNOWN_NAMES:
            shown = text.replace(" ", ".")[:60]
            raise _Refused(f"calls for {shown!r}, which could run code: refused; only uint8 arrays and plain data")
        self.push(_Name(text))

    def reduce(self) -> None:
        arguments, called = self.pop(), self.pop()
        if not isinstance(called, _Name) or not isinstance(arguments, tuple):
            raise ValueError("no name to call")
        if called.text in _RECONSTRUCT:
            if not (arguments and isinstance(arguments[0], _Name) and arguments[0].text == "numpy ndarray"):
                raise ValueError("not an array")
            self.push(_Array())
        elif called.text == "numpy dtype":
            kind = arguments[0].decode() if isinstance(arguments[0], bytes) else arguments[0]
            if not isinstance(kind, str):
                raise ValueError("no type")
            if kind not in _BYTE_TYPES:
                raise _Refused(f"holds an array of type {kind[:20]!r}, expected uint8")
            self.push(_ByteType())
        else:
            raise ValueError("not to be called")

    def build(self) -> None:
        state, target = self.pop(), self.top()
        if isinstance(target, _ByteType):
            return  # byte order and alignment, which mean nothing for single bytes
        if not isinstance(target, _Array):
            raise _Refused("sets the state of something that is not an array: refused")
        _, shape, dtype, fortran_order, content = state
        if not isinstance(dtype, _ByteType) or fortran_order not in (False, 0) or not isinstance(content, bytes):
            raise _Refused("holds an array that is not row-major uint8")
        if (
            not isinstance(shape, tuple)
            or len(shape) > _MAX_AXES
            or any(type(extent) is not int or extent < 0 for extent in shape)
        ):
            raise ValueError("no shape")
        if math.prod(shape) != len(content):
            raise _Refused(f"holds an array of shape {list(shape)} with {len(content):,} bytes of content")
        target.content = np.frombuffer(content, dtype=np.uint8).reshape(shape)

    def stack_global(self) -> None:
        attribute, module = self.pop(), self.pop()
        self.name(module, attribute)

    def set_item(self) -> None:
        value, key = self.pop(), self.pop()
        self.set_items([key, value])

    def remember(self, index: int) -> None:
        self.memo[index] = self.top()

    def recall(self, index: int) -> None:
        if index not in self.memo:
            raise ValueError("nothing remembered")
        self.push(self.memo[index])


_STEPS: dict[bytes, Callable[[_Machine], None]] = {
    b"}": lambda m: m.push({}),
    b"]": lambda m: m.push([]),
    b")": lambda m: m.push(()),
    b"(": lambda m: m.push(_MARK),
    b"N": lambda m: m.push(None),
    b"\x88": lambda m: m.push(True),
    b"\x89": lambda m: m.push(False),
    b"J": lambda m: m.push(m.number(4, signed=True)),
    b"K": lambda m: m.push(m.number(1)),
    b"M": lambda m: m.push(m.number(2)),
    b"U": lambda m: m.push(m.take(m.number(1))),
    b"T": lambda m: m.push(m.take(m.number(4))),
    b"C": lambda m: m.push(m.take(m.number(1))),
    b"B": lambda m: m.push(m.take(m.number(4))),
    b"\x8c": lambda m: m.push(m.take(m.number(1)).decode()),
    b"X": lambda m: m.push(m.take(m.number(4)).decode()),
    b"t": lambda m: m.push(tuple(m.to_mark())),
    b"\x85": lambda m: m.tuple_of(1),
    b"\x86": lambda m: m.tuple_of(2),
    b"\x87": lambda m: m.tuple_of(3),
    b"a": lambda m: m.append([m.pop()]),
    b"e": lambda m: m.append(m.to_mark()),
    b"s": lambda m: m.set_item(),
    b"u": lambda m: m.set_items(m.to_mark()),
    b"c": lambda m: m.name(m.line(), m.line()),
    b"\x93": lambda m: m.stack_global(),
    b"R": lambda m: m.reduce(),
    b"b": lambda m: m.build(),
    b"q": lambda m: m.remember(m.number(1)),
    b"r": lambda m: m.remember(m.number(4)),
    b"\x94": lambda m: m.remember(len(m.memo)),
    b"h": lambda m: m.recall(m.number(1)),
    b"j": lambda m: m.recall(m.number(4)),
    b"\x95": lambda m: m.skip(8),
}
