"""MNIST: 28 x 28 grey digits; 50,000 training, the last 10,000 of the training file validation, 10,000 test.

Y. LeCun, C. Cortes, C. J. C. Burges, "The MNIST database of handwritten digits"; CC BY-SA 3.0.
"""

from __future__ import annotations

from os import PathLike

from binarynet.data._files import PublishedFile
from binarynet.data._mnist_family import Family, family_status, load_family
from binarynet.data.dataset import Dataset
from binarynet.data.images import ImagePolicy
from binarynet.data.status import DatasetStatus

SUMMARY = "handwritten digits, 28 x 28 grey, 10 classes, 50,000 / 10,000 / 10,000"
CLASSES = tuple("0123456789")
POLICY = ImagePolicy(height=28, width=28, channels=1, resize="pad", background=0)

MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
FILES = (
    PublishedFile(
        name="train-images-idx3-ubyte.gz",
        size_bytes=9_912_422,
        md5="f68b3c2dcbeaaa9fbdd348bbdeb94873",
        sha256="440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        content_sha256="ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    ),
    PublishedFile(
        name="train-labels-idx1-ubyte.gz",
        size_bytes=28_881,
        md5="d53e105ee54ea40749a09fcbcd1e9432",
        sha256="3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        content_sha256="65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    ),
    PublishedFile(
        name="t10k-images-idx3-ubyte.gz",
        size_bytes=1_648_877,
        md5="9fb629c4189551a2d022fa330f9573f3",
        sha256="8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        content_sha256="0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    ),
    PublishedFile(
        name="t10k-labels-idx1-ubyte.gz",
        size_bytes=4_542,
        md5="ec29112dd5afa0611ce80d1b7f02629c",
        sha256="f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        content_sha256="ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
)
OTHERS = ("67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",)
"""The test labels of Fashion-MNIST, whose files have the same names."""


def load(data_dir: str | PathLike[str] | None = None) -> Dataset:
    """Load MNIST from ``data_dir``, ``BINARYNET_DATA`` or the cache, else download it into the cache.

    Files in the user's own folders may differ from the published ones, which then is a note of the data set;
    a differing file in the cache is fetched again.

    Raises:
        DataError: files missing and not to be downloaded, damaged, or of the wrong shape.
    """
    return load_family(_family(), data_dir)


def status(data_dir: str | PathLike[str] | None = None) -> DatasetStatus:
    """Where MNIST is on this machine and whether its files are the published ones; downloads nothing."""
    return family_status(_family(), data_dir)


def _family() -> Family:
    return Family("mnist", SUMMARY, CLASSES, POLICY, FILES, MIRRORS, OTHERS)
