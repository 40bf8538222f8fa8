"""Reading and writing .bnn files (the format: SPEC.md)."""

from __future__ import annotations

import hashlib
import json
import operator
import os

from safetensors.numpy import save

from binarynet.errors import FileFormatError, GraphError
from binarynet.fileformat.container import (
    MAX_DATA_BYTES,
    MAX_HEADER_BYTES,
    METADATA_KEY,
    Section,
    read_container,
    tensor_data,
)
from binarynet.fileformat.content import PackedNetwork
from binarynet.fileformat.schema import check_json, describe, parse, tensors_of
from binarynet.files import write_whole
from binarynet.zoo import resolve


def to_bytes(network: PackedNetwork) -> bytes:
    """The file's content. The same network gives the same bytes, always.

    Raises:
        FileFormatError: the provenance or the image policy is not plain JSON, or too large.
    """
    for label, value in (("image policy", network.image_policy), ("provenance", network.provenance)):
        check_json(value, label)
    tensors = tensors_of(network.graph)
    digest = hashlib.sha256(tensor_data(save(tensors))).hexdigest()
    fields = describe(network, digest)
    metadata = json.dumps(fields, sort_keys=True, separators=(",", ":"), allow_nan=False, default=operator.index)
    content = save(tensors, {METADATA_KEY: metadata})
    data = tensor_data(content)
    if len(content) - len(data) > MAX_HEADER_BYTES or len(data) > MAX_DATA_BYTES:
        raise FileFormatError(
            f"the file would have a header of {len(content) - len(data)} bytes (at most {MAX_HEADER_BYTES}) and "
            f"{len(data)} bytes of data (at most {MAX_DATA_BYTES}); shorten the provenance or the network"
        )
    return content


def write(path: str | os.PathLike[str], network: PackedNetwork) -> int:
    """Write a .bnn file, whole or not at all; returns its size in bytes."""
    content = to_bytes(network)
    write_whole(path, content)
    return len(content)


def read(path: str | os.PathLike[str]) -> PackedNetwork:
    """Read a .bnn file, or a network of the zoo (``zoo:NAME``). Nothing in the file is ever executed.

    Raises:
        FileFormatError: names what is wrong with the file.
        UsageError: the zoo has no such network.
    """
    return read_with_sections(path)[0]


def read_with_sections(path: str | os.PathLike[str]) -> tuple[PackedNetwork, tuple[Section, ...]]:
    """Like :func:`read`, with the runs of bytes that the file consists of (they add up to its size)."""
    container = read_container(resolve(path))
    try:
        network = parse(container.metadata, container.tensors)
        if container.metadata["sha256"] != container.data_sha256:
            raise FileFormatError("damaged: the SHA-256 of the data is not the one in the header")
    except (FileFormatError, GraphError) as error:
        raise FileFormatError(f"{path}: {error}") from None
    return network, container.sections
