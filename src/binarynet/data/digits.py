"""The digits that scikit-learn brings along: 8 x 8 grey, 1,797 samples, split 1,200 / 237 / 360.

UCI "Optical Recognition of Handwritten Digits" (test part), E. Alpaydin, C. Kaynak; CC BY 4.0.
Pixel values v = 0..16 are mapped once to u = round(255 * v / 16) (8, the only half-way case, becomes 128).
"""

from __future__ import annotations

import hashlib
from os import PathLike

import numpy as np

from binarynet.data._splits import split_exactly
from binarynet.data.dataset import Dataset, Split
from binarynet.data.images import ImagePolicy
from binarynet.data.status import DatasetStatus
from binarynet.errors import INSTALL_TRAIN, DataError

SUMMARY = "handwritten digits, 8 x 8 grey, 10 classes, 1,200 / 237 / 360"
CLASSES = tuple("0123456789")
POLICY = ImagePolicy(height=8, width=8, channels=1, resize="pad", background=0)
SIZES = (1200, 237, 360)
SPLIT_SALT = "binarynet-digits-1"
CONTENT_SHA256 = "a19cb3d96bba7deace8ee5a513a6eb7bad0403d528f00bf4d351b6a7a55baa91"
"""Of the 1,797 x 64 pixel bytes u followed by the 1,797 label bytes, in scikit-learn's order."""

_REMEDY = f"the digits come with scikit-learn, which is not installed; {INSTALL_TRAIN}"


def load(data_dir: str | PathLike[str] | None = None) -> Dataset:
    """Load the digits; ``data_dir`` is not needed and not looked at.

    Raises:
        DataError: scikit-learn is not installed, or brings other data than the known ones.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise DataError(_REMEDY) from error
    values, targets = load_digits(return_X_y=True)
    images = np.rint(values * (255 / 16)).astype(np.uint8).reshape(-1, *POLICY.shape)
    labels = targets.astype(np.int64)
    sha256 = hashlib.sha256(images.tobytes() + labels.astype(np.uint8).tobytes()).hexdigest()
    if sha256 != CONTENT_SHA256:
        raise DataError(
            f"digits: the data of this scikit-learn differ from the known ones (sha256 {sha256[:16]}..., expected "
            f"{CONTENT_SHA256[:16]}...); install another version of scikit-learn"
        )
    parts = split_exactly(labels, [str(i) for i in range(len(labels))], SPLIT_SALT, SIZES)
    train, validation, test = (Split(images[part], labels[part]) for part in parts)
    return Dataset("digits", train, validation, test, CLASSES, POLICY)


def status(data_dir: str | PathLike[str] | None = None) -> DatasetStatus:
    """Whether scikit-learn is there (found without importing it)."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        where = f"scikit-learn {version('scikit-learn')}"
    except PackageNotFoundError:
        return DatasetStatus("digits", SUMMARY, False, "", INSTALL_TRAIN)
    return DatasetStatus("digits", SUMMARY, True, where, "checked against its checksum when loaded")
