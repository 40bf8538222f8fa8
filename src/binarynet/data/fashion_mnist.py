"""Fashion-MNIST: 28 x 28 grey pictures of clothes, in the form of MNIST; 50,000 training, the last 10,000 of the
training file validation, 10,000 test.

H. Xiao, K. Rasul, R. Vollgraf, "Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning Algorithms",
2017 (arXiv 1708.07747); MIT licence, Zalando SE. Checksums are published for the compressed files, so unpacked ones are
taken with a note that they could not be compared.
"""

from __future__ import annotations

from os import PathLike

from binarynet.data import mnist
from binarynet.data._files import PublishedFile
from binarynet.data._mnist_family import Family, family_status, load_family
from binarynet.data.dataset import Dataset
from binarynet.data.images import ImagePolicy
from binarynet.data.status import DatasetStatus

SUMMARY = "clothes, 28 x 28 grey, 10 classes, 50,000 / 10,000 / 10,000"
CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
POLICY = ImagePolicy(height=28, width=28, channels=1, resize="pad", background=0)

MIRRORS = (
    "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
)
FILES = (
    PublishedFile(
        name="train-images-idx3-ubyte.gz",
        size_bytes=26_421_880,
        md5="8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        sha256="3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
    ),
    PublishedFile(
        name="train-labels-idx1-ubyte.gz",
        size_bytes=29_515,
        md5="25c81989df183df01b3e8a0aad5dffbe",
        sha256="a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
    ),
    PublishedFile(
        name="t10k-images-idx3-ubyte.gz",
        size_bytes=4_422_102,
        md5="bef4ecab320f06d8554ea6380940ec79",
        sha256="346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
    ),
    PublishedFile(
        name="t10k-labels-idx1-ubyte.gz",
        size_bytes=5_148,
        md5="bb300cfdad3c16e7a12a480ee83cd310",
        sha256="67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
    ),
)


def load(data_dir: str | PathLike[str] | None = None) -> Dataset:
    """Load Fashion-MNIST from ``data_dir``, ``BINARYNET_DATA`` or the cache, else download it into the cache.

    A folder with the files of MNIST, which have the same names, is passed over. Files in the user's own folders may
    differ from the published ones, which then is a note of the data set.

    Raises:
        DataError: files missing and not to be downloaded, damaged, or of the wrong shape.
    """
    return load_family(_family(), data_dir)


def status(data_dir: str | PathLike[str] | None = None) -> DatasetStatus:
    """Where Fashion-MNIST is on this machine and whether its files are the published ones; downloads nothing."""
    return family_status(_family(), data_dir)


def _family() -> Family:
    others = (mnist.FILES[3].content_sha256,)
    return Family("fashion-mnist", SUMMARY, CLASSES, POLICY, FILES, MIRRORS, others)
