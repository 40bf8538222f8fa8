"""The .bnn file: a strict reader and a deterministic writer. Works without torch. The format: SPEC.md."""

from binarynet.fileformat.container import Section
from binarynet.fileformat.content import FORMAT_VERSION, PackedNetwork
from binarynet.fileformat.io import read, read_with_sections, to_bytes, write

__all__ = ["FORMAT_VERSION", "PackedNetwork", "Section", "read", "read_with_sections", "to_bytes", "write"]
