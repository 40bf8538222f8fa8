"""IDX files (MNIST and its relatives): a 4-byte magic, big-endian extents, then bytes; gzip or not.

The magic is 0, 0, 8 (unsigned bytes), number of axes.
"""

from __future__ import annotations

import hashlib
import math
from io import BufferedIOBase
from pathlib import Path

import numpy as np
import numpy.typing as npt

from binarynet.data._files import expansion_limit, open_maybe_gzip
from binarynet.errors import DataError

_UNSIGNED_BYTE = 0x08


def read_idx(file: Path, num_axes: int) -> tuple[npt.NDArray[np.uint8], str]:
    """Read an IDX file of unsigned bytes.

    Args:
        file: the file, compressed or not (its content decides).
        num_axes: axes that it must have: 1 for labels, 3 for images.

    Returns:
        uint8 array, and the sha256 of the decompressed content.

    Raises:
        DataError: missing, damaged, truncated, wrong magic, trailing bytes, or a claim out of proportion.
    """
    with open_maybe_gzip(file) as stream:
        try:
            return _read(stream, file, num_axes)
        except EOFError as error:
            raise DataError(f"{file}: truncated (its compressed content ends early); fetch it again") from error
        except OSError as error:
            raise DataError(f"{file}: damaged ({error}); fetch it again") from error
        except Exception as error:
            if type(error).__module__ == "zlib":
                raise DataError(f"{file}: damaged ({error}); fetch it again") from error
            raise


def _read(stream: BufferedIOBase, file: Path, num_axes: int) -> tuple[npt.NDArray[np.uint8], str]:
    header = stream.read(4 + 4 * num_axes)
    magic = bytes((0, 0, _UNSIGNED_BYTE, num_axes))
    if len(header) >= 4 and header[:4] != magic:
        raise DataError(
            f"{file}: not an IDX file of unsigned bytes with {num_axes} ax{'is' if num_axes == 1 else 'es'}: "
            f"magic is {header[:4].hex()}, expected {magic.hex()}"
        )
    if len(header) < 4 + 4 * num_axes:
        raise DataError(f"{file}: truncated: {len(header)} bytes, not even a whole header")
    shape = tuple(int.from_bytes(header[i : i + 4], "big") for i in range(4, len(header), 4))
    num_bytes = math.prod(shape)
    limit = expansion_limit(file.stat().st_size)
    if num_bytes > limit:
        raise DataError(
            f"{file}: claims {num_bytes:,} bytes of content (shape {list(shape)}), more than its "
            f"{file.stat().st_size:,} bytes can honestly hold: damaged, or a decompression bomb"
        )
    content = np.empty(num_bytes, dtype=np.uint8)
    view, filled = content.data, 0
    while filled < num_bytes:
        count = stream.readinto(view[filled:])
        if not count:
            raise DataError(f"{file}: truncated: {filled:,} bytes of content, its header says {num_bytes:,}")
        filled += count
    if stream.read(1):
        raise DataError(f"{file}: trailing bytes after the {num_bytes:,} that its header says")
    digest = hashlib.sha256(header)
    digest.update(content.data)
    return content.reshape(shape), digest.hexdigest()
