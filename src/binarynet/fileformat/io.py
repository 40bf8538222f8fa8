"""Reading and writing .bnn files (the format: SPEC.md)."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from safetensors.numpy import save

from binarynet.errors import FileFormatError, GraphError
from binarynet.fileformat.container import METADATA_KEY, Section, read_container, tensor_data
from binarynet.fileformat.content import PackedNetwork
from binarynet.fileformat.schema import describe, parse, tensors_of
from binarynet.files import write_whole


def to_bytes(network: PackedNetwork) -> bytes:
    """The file's content. The same network gives the same bytes, always.

    Raises:
        FileFormatError: the provenance or the image policy is not plain JSON.
    """
    tensors = tensors_of(network.graph)
    digest = hashlib.sha256(tensor_data(save(tensors))).hexdigest()
    try:
        metadata = json.dumps(describe(network, digest), sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise FileFormatError(f"image policy and provenance must be plain JSON values: {error}") from None
    return save(tensors, {METADATA_KEY: metadata})


def write(path: str | os.PathLike[str], network: PackedNetwork) -> int:
    """Write a .bnn file, whole or not at all; returns its size in bytes."""
    content = to_bytes(network)
    write_whole(path, content)
    return len(content)


def read(path: str | os.PathLike[str]) -> PackedNetwork:
    """Read a .bnn file; FileFormatError names what is wrong with it. Nothing in the file is ever executed."""
    return read_with_sections(path)[0]


def read_with_sections(path: str | os.PathLike[str]) -> tuple[PackedNetwork, tuple[Section, ...]]:
    """Like :func:`read`, with the runs of bytes that the file consists of (they add up to its size)."""
    container = read_container(Path(path))
    try:
        network = parse(container.metadata, container.tensors)
        if container.metadata["sha256"] != container.data_sha256:
            raise FileFormatError("damaged: the SHA-256 of the data is not the one in the header")
    except (FileFormatError, GraphError) as error:
        raise FileFormatError(f"{path}: {error}") from None
    return network, container.sections
