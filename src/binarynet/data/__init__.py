"""Data sets and pictures as 8-bit NumPy arrays; never imports torch. One file per data set."""

from binarynet.data.dataset import Dataset, Split
from binarynet.data.images import ImagePolicy, read_image
from binarynet.data.registry import available, load, load_like, status
from binarynet.data.status import DatasetStatus, FileStatus

__all__ = [
    "Dataset",
    "DatasetStatus",
    "FileStatus",
    "ImagePolicy",
    "Split",
    "available",
    "load",
    "load_like",
    "read_image",
    "status",
]
