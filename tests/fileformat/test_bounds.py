"""Hostile files cost neither memory nor time beyond their own size; proved in a process with little of both."""

import json
import struct
import subprocess
import sys

import pytest
from bnn_files import dense_network, edited, split, with_header

from binarynet.fileformat import to_bytes
from binarynet.fileformat.container import MAX_HEADER_BYTES

HEADROOM = 400 << 20
"""Bytes of address space above what the imports took. A 4 MiB header makes Python objects of some 100 MiB."""

READ = """
import resource, sys, time
from binarynet.errors import FileFormatError
from binarynet.fileformat import read
import numpy
pages = int(open("/proc/self/statm").read().split()[0])
limit = pages * resource.getpagesize() + int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
for path in sys.argv[2:]:
    start = time.process_time()
    try:
        read(path)
        print("read")
    except FileFormatError as error:
        print("refused", round(time.process_time() - start, 2), str(error)[:300].replace("\\n", " "))
"""


def full_header(item, count=None, prefix='{"__metadata__":{"binarynet":"{}"}', suffix="}", data=b""):
    """A header filled up to the limit with ``,item`` (``%d`` in it: its number)."""
    room = MAX_HEADER_BYTES - len(prefix) - len(suffix)
    parts, length, i = [], 0, 0
    while count is None or i < count:
        part = "," + (item % i if "%" in item else item)
        if length + len(part) > room:
            break
        parts.append(part)
        length += len(part)
        i += 1
    return with_header(prefix + "".join(parts) + suffix, data)


def metadata_text(**fields):
    _, metadata, data = split(to_bytes(dense_network()))
    return json.dumps({"__metadata__": {"binarynet": json.dumps(metadata | fields)}}), data


def claimed(**fields):
    return edited(dense_network(), lambda header, metadata, data: metadata["graph"]["nodes"][1].update(fields))


HOSTILE = {
    "header of 2^63 bytes": struct.pack("<Q", 1 << 63) + b"{}",
    "header of 4 GiB": struct.pack("<Q", 1 << 32) + b"{}",
    "tensor of 2^40 bytes": edited(
        dense_network(), lambda h, m, d: h["dense1.weights"].update(shape=[1 << 40], data_offsets=[0, 1 << 40])
    ),
    "2^31 channels out": claimed(channels_out=1 << 31),
    "2^62 weights": claimed(channels_in=1 << 31, channels_out=1 << 31),
    "an image of 2^62 pixels": edited(
        dense_network(), lambda h, m, d: m["graph"]["nodes"][0].update(shape=[1 << 31, 1 << 31, 1])
    ),
    "4 MiB of open brackets": with_header('{"a":' + "[" * (MAX_HEADER_BYTES - 5), b""),
    "4 MiB of nested objects": with_header('{"a":' * (MAX_HEADER_BYTES // 5), b""),
    "4 MiB of digits": with_header('{"a":' + "9" * (MAX_HEADER_BYTES - 6) + "}", b""),
    "4 MiB of numbers": full_header("0", prefix='{"a":[0', suffix="]}"),
    "4 MiB of keys, the last one twice": full_header('"%d":0', suffix=',"last":0,"last":0}'),
    "4 MiB of empty tensors": full_header('"%d":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}'),
    "4 MiB of nodes": with_header(metadata_text(graph={"nodes": [{}] * 900_000, "output": "x"})[0], b""),
    "4 MiB of one name": with_header(metadata_text(format="x" * 4_000_000)[0], b""),
    "4 MiB of escapes": with_header('{"a":"' + "\\u0041" * 690_000 + '"}', b""),
}


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc and RLIMIT_AS")
def test_hostile_files_in_little_memory(tmp_path):
    paths = []
    for i, content in enumerate(HOSTILE.values()):
        assert len(content) <= MAX_HEADER_BYTES + (1 << 20)
        paths.append(tmp_path / f"{i}.bnn")
        paths[-1].write_bytes(content)
    good = tmp_path / "good.bnn"
    good.write_bytes(to_bytes(dense_network()))
    done = subprocess.run(
        [sys.executable, "-c", READ, str(HEADROOM), *map(str, paths), str(good)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    *refusals, last = done.stdout.splitlines()
    assert last == "read"  # the limit leaves room for what is sound
    assert len(refusals) == len(HOSTILE)
    for name, line in zip(HOSTILE, refusals, strict=True):
        word, seconds, message = line.split(" ", 2)
        assert word == "refused", name
        assert float(seconds) < 5, f"{name} took {seconds} s"
        assert "MemoryError" not in message
