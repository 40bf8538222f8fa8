"""Random damage to good files: every outcome is data or a one-line DataError, never another exception."""

from __future__ import annotations

import gzip
import io
import random
import warnings
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from binarynet.data import ImagePolicy, load, read_image
from binarynet.data._arrays import read_npy_file
from binarynet.data._idx import read_idx
from binarynet.errors import DataError

ROUNDS = 200
RNG = np.random.default_rng(0)
X, Y = RNG.integers(0, 256, (20, 4, 6), dtype=np.uint8), np.arange(20) % 2
PICTURE = Image.fromarray(RNG.integers(0, 256, (16, 16, 3), dtype=np.uint8))
EXIF = Image.Exif()
EXIF[0x0112] = 6


def written(write: Callable[[io.BytesIO], object]) -> bytes:
    buffer = io.BytesIO()
    write(buffer)
    return buffer.getvalue()


IDX = bytes((0, 0, 8, 3)) + b"".join(extent.to_bytes(4, "big") for extent in X.shape) + X.tobytes()
CASES = {
    "stored.npz": (written(lambda b: np.savez(b, x=X, y=Y, classes=np.array(["a", "b"]))), load),
    "deflated.npz": (written(lambda b: np.savez_compressed(b, x=X, y=Y)), load),
    "x.npy": (written(lambda b: np.save(b, X)), read_npy_file),
    "plain.idx": (IDX, lambda path: read_idx(path, 3)),
    "gzip.idx": (gzip.compress(IDX, mtime=0), lambda path: read_idx(path, 3)),
    "rgb.png": (written(lambda b: PICTURE.save(b, "PNG", exif=EXIF)), None),
    "rgb.jpg": (written(lambda b: PICTURE.save(b, "JPEG", exif=EXIF)), None),
    "cmyk.jpg": (written(lambda b: PICTURE.convert("CMYK").save(b, "JPEG")), None),
    "palette.png": (written(lambda b: PICTURE.convert("P").save(b, "PNG", transparency=3)), None),
    "deep.png": (written(lambda b: Image.fromarray(X[0].astype(np.uint16) * 200).save(b, "PNG")), None),
}


def mutated(content: bytes, rng: random.Random) -> bytes:
    if rng.random() < 0.15:
        return content[: rng.randrange(len(content))]
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 4, 20))):
        i = rng.randrange(len(changed))
        changed[i] = rng.choice((0, 255, 127, 128, rng.randrange(256), changed[i] ^ (1 << rng.randrange(8))))
    if rng.random() < 0.1:
        i = rng.randrange(len(changed))
        changed[i:i] = rng.randbytes(rng.randrange(9))
    return bytes(changed)


@pytest.mark.parametrize("name", CASES)
def test_damaged_files_never_crash(tmp_path, name):
    content, read = CASES[name]
    read = read or (lambda path: read_image(path, ImagePolicy(5, 7, 3, resize="pad")))
    path = tmp_path / name
    path.write_bytes(content)
    read(path)
    rng, messages = random.Random(name), []
    for _ in range(ROUNDS):
        path.write_bytes(mutated(content, rng))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # NumPy's about headers of Python 2
                read(path)
        except DataError as error:
            messages.append(str(error))
    assert len(messages) > ROUNDS // 20
    assert all(str(path) in message and "\n" not in message for message in messages)
