"""Figures of the paper that results are held against, in one place and with their sources.

N is the NIPS 2016 version ("Binarized Neural Networks", proceedings paper 6573), A is arXiv 1602.02830v3, Q is
arXiv 1609.07061v1 (same authors, with the details of the experiments), T is the published Theano program
(MatthieuCourbariaux/BinaryNet at d7d45ae), L the published Torch7 program (itayhubara/BinaryNet at c23b862).
Where a constant stands in a program only, or print and program differ, it is said so. Errors are in percent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Setting = Literal["theano", "torch7"]

SOURCES = {
    "N": "NIPS 2016, paper 6573",
    "A": "arXiv 1602.02830v3",
    "Q": "arXiv 1609.07061v1",
}

DATA_NAMES = {"mnist": "MNIST", "svhn": "SVHN", "cifar10": "CIFAR-10"}
"""Data sets of Table 1 by their name here, in the order of its columns."""
SETTING_NAMES: dict[Setting, str] = {"torch7": "BNN (Torch7)", "theano": "BNN (Theano)"}
"""The two settings by their name in Table 1, in the order of its rows."""


# Table 1 -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PublishedRow:
    """A row of Table 1.

    Attributes:
        block: what is binary in it, and when.
        method: as named there, with the year of what is quoted.
        errors: data set to (test error, spread) in percent; the spread is None where none is given.
        printed_in: keys of :data:`SOURCES`.
        setting: of the paper's own two rows, else None.
    """

    block: str
    method: str
    errors: Mapping[str, tuple[float, float | None]]
    printed_in: str
    setting: Setting | None = None


_BINARY = "Weights and activations binary"
_WEIGHTS = "Weights binary"
_TEST = "Binary in test only"
_TERNARY = "Ternary weights, in test only"
_FLOAT = "Nothing binary"

TABLE_1 = (
    PublishedRow(
        _BINARY,
        "BNN (Torch7)",
        {"mnist": (1.40, None), "svhn": (2.53, None), "cifar10": (10.15, None)},
        "NAQ",
        "torch7",
    ),
    PublishedRow(
        _BINARY,
        "BNN (Theano)",
        {"mnist": (0.96, None), "svhn": (2.80, None), "cifar10": (11.40, None)},
        "NAQ",
        "theano",
    ),
    PublishedRow(_BINARY, "Committee machines (2015)", {"mnist": (1.35, None)}, "NAQ"),
    PublishedRow(
        _WEIGHTS, "BinaryConnect (2015)", {"mnist": (1.29, 0.08), "svhn": (2.30, None), "cifar10": (9.90, None)}, "NAQ"
    ),
    PublishedRow(_TEST, "EBP (2015)", {"mnist": (2.2, 0.1)}, "NAQ"),
    PublishedRow(_TEST, "Bitwise DNNs (2016)", {"mnist": (1.33, None)}, "NAQ"),
    PublishedRow(_TERNARY, "Hwang & Sung (2014)", {"mnist": (1.45, None)}, "NAQ"),
    PublishedRow(
        _FLOAT, "No regularization", {"mnist": (1.3, 0.2), "svhn": (2.44, None), "cifar10": (10.94, None)}, "NQ"
    ),
    PublishedRow(
        _FLOAT, "Maxout (2013)", {"mnist": (0.94, None), "svhn": (2.47, None), "cifar10": (11.68, None)}, "AQ"
    ),
    PublishedRow(_FLOAT, "Network in Network (2013)", {"svhn": (2.35, None), "cifar10": (10.41, None)}, "A"),
    PublishedRow(_FLOAT, "Gated pooling (2015)", {"svhn": (1.69, None), "cifar10": (7.62, None)}, "NAQ"),
)
"""The paper's own rows are single runs: no spread is given for them."""


# The six experiments -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Experiment:
    """How one cell of the BNN rows was trained.

    Attributes:
        data, setting: the cell.
        recipe: name of the recipe that states it here.
        sizes: images for training, validation and test.
        constants: dotted key of a recipe to the values that count as the paper's; the first is what is followed, the
            others are printed or programmed elsewhere. A key that is not named here must have its neutral value.
        weights: binary weights of the network (own count; arXiv 1609.07061, Table 7).
        assumed: keys whose value stands in neither print nor program and was chosen here.
        remarks: where print, program and this package differ, in ways that no key of a recipe tells.
    """

    data: str
    setting: Setting
    recipe: str
    sizes: Mapping[str, int]
    constants: Mapping[str, tuple[Any, ...]]
    weights: int
    remarks: tuple[str, ...] = ()
    assumed: frozenset[str] = frozenset()

    @property
    def test_error(self) -> float:
        """In percent, from :data:`TABLE_1`."""
        (row,) = (row for row in TABLE_1 if row.setting == self.setting)
        return row.errors[self.data][0]

    @property
    def epochs(self) -> int:
        return int(self.constants["training.epochs"][0])


_MNIST_SIZES = {"train": 50_000, "validation": 10_000, "test": 10_000}
_CIFAR10_SIZES = {"train": 45_000, "validation": 5_000, "test": 10_000}
_SVHN_SIZES = {"train": 598_388, "validation": 6_000, "test": 26_032}

_BOTH: dict[str, tuple[Any, ...]] = {
    "augmentation.crop_fill": (128,),  # without a meaning as long as nothing is cropped
    "model.weights": ("sign",),
    "optimizer.glorot_scaling": (True,),
}
_THEANO: dict[str, tuple[Any, ...]] = {
    **_BOTH,
    "model.activation": ("sign",),
    "model.normalization": ("batch",),
    "optimizer.name": ("adam",),
    "optimizer.schedule": ("exponential",),
    "optimizer.glorot_power_of_two": (False,),
    "optimizer.beta1": (0.9,),
    "optimizer.beta2": (0.999,),
    "optimizer.eps": (1e-8,),
    "training.drop_last": (True,),
}
_TORCH7: dict[str, tuple[Any, ...]] = {
    **_BOTH,
    "model.activation": ("stochastic_sign",),
    "model.normalization": ("shift",),
    "optimizer.name": ("adamax_shift",),
    "optimizer.schedule": ("halving",),
    "optimizer.beta1": (0.9, 0.875),  # L, and as printed in A
    "optimizer.beta2": (0.999, 1 - 2.0**-10),  # L, and as printed in A
    "optimizer.eps": (2.0**-27,),  # L
    "training.drop_last": (True, False),
}
_CONVNET: dict[str, tuple[Any, ...]] = {
    "model.dense": ([1024, 1024],),
    "model.kernel_size": (3,),
    "model.dropout_in": (0.0,),
    "model.dropout_hidden": (0.0,),
}
_CIFAR10 = {**_CONVNET, "model.blocks": ([[128, 128], [256, 256], [512, 512]],)}
_SVHN = {**_CONVNET, "dataset.options.extra": (True,), "model.blocks": ([[64, 64], [128, 128], [256, 256]],)}

_PROGRAM = "the authors' Torch7 program"
_SELECTION = f"{_PROGRAM} selects no epoch; here, as in the paper's text, the best validation error does"

EXPERIMENTS = (
    Experiment(
        "mnist",
        "theano",
        "mnist-theano",
        _MNIST_SIZES,
        {
            **_THEANO,
            "model.hidden": ([4096, 4096, 4096],),
            "model.dropout_in": (0.2,),  # T
            "model.dropout_hidden": (0.5,),  # T
            "optimizer.learning_rate": (3e-3,),  # T
            "optimizer.final_learning_rate": (3e-7,),  # T
            "training.epochs": (1000,),
            "training.batch_size": (100,),
        },
        36_806_656,
    ),
    Experiment(
        "mnist",
        "torch7",
        "mnist-torch7",
        _MNIST_SIZES,
        {
            **_TORCH7,
            "model.hidden": ([2048, 2048, 2048],),
            "model.dropout_in": (0.0,),
            "model.dropout_hidden": (0.0,),
            "optimizer.learning_rate": (2.0**-6, 2.0**-10),  # L, and alpha as printed in A
            "optimizer.halve_every": (10, 20),  # A, and L
            "optimizer.glorot_power_of_two": (False,),
            "training.epochs": (100,),
            "training.batch_size": (100,),
        },
        10_014_720,
        (
            f"the paper states no epochs, {_PROGRAM} trains without end; in the 100 of here the rate falls by 2^9",
            f"{_PROGRAM} shifts and scales its input by the global mean and deviation; here it is 2u - 255",
            _SELECTION,
        ),
        assumed=frozenset({"training.epochs"}),
    ),
    Experiment(
        "cifar10",
        "theano",
        "cifar10-theano",
        _CIFAR10_SIZES,
        {
            **_THEANO,
            **_CIFAR10,
            "optimizer.learning_rate": (1e-3,),  # T
            "optimizer.final_learning_rate": (3e-7,),  # T
            "training.epochs": (500,),
            "training.batch_size": (50,),
        },
        14_022_016,
    ),
    Experiment(
        "cifar10",
        "torch7",
        "cifar10-torch7",
        _CIFAR10_SIZES,
        {
            **_TORCH7,
            **_CIFAR10,
            "optimizer.learning_rate": (2.0**-6, 2.0**-10),
            "optimizer.halve_every": (50,),
            "optimizer.glorot_power_of_two": (True,),  # L
            "training.epochs": (500,),
            "training.batch_size": (200,),
        },
        14_022_016,
        (
            f"{_PROGRAM} trains without end; 500 epochs are what the paper's Figure 1 shows",
            f"{_PROGRAM} whitens its input (as cifar10-torch7-zca does), which the paper does not say",
            _SELECTION,
        ),
    ),
    Experiment(
        "svhn",
        "theano",
        "svhn-theano",
        _SVHN_SIZES,
        {
            **_THEANO,
            **_SVHN,
            "optimizer.learning_rate": (1e-3,),  # T
            "optimizer.final_learning_rate": (1e-6,),  # T
            "training.epochs": (200,),
            "training.batch_size": (50,),  # T
        },
        6_397_632,
        ("the authors' Theano program leaves out the last, incomplete test batch, 32 images; here all are counted",),
    ),
    Experiment(
        "svhn",
        "torch7",
        "svhn-torch7",
        _SVHN_SIZES,
        {
            **_TORCH7,
            **_SVHN,
            "optimizer.learning_rate": (2.0**-7, 2.0**-10),
            "optimizer.halve_every": (50, 20),  # A ("as for CIFAR-10"), and L
            "optimizer.glorot_power_of_two": (True,),  # L
            "training.epochs": (200,),
            "training.batch_size": (200,),  # L
        },
        6_397_632,
        (
            f"{_PROGRAM} normalizes contrast (as svhn-torch7-lcn does), which the paper does not say",
            _SELECTION,
        ),
    ),
)


# Figure 1 ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ReadOff:
    """A point read from the picture of Figure 1 (CIFAR-10), within 0.3 units of its axis.

    Attributes:
        epoch: of the point.
        validation: validation error in percent; None beyond the axis or where the curve is hidden.
        cost: training cost in units of the same axis: the figure gives no scale of its own for it.
    """

    epoch: int
    validation: float | None
    cost: float | None


FIGURE_1 = {
    "baseline": (
        ReadOff(10, 14.0, 1.4),
        ReadOff(50, 11.9, 0.0),
        ReadOff(60, 11.5, 0.0),
        ReadOff(105, 11.2, None),
        ReadOff(155, 10.6, None),
        ReadOff(205, 10.4, None),
        ReadOff(305, 10.1, None),
        ReadOff(395, 10.2, None),
        ReadOff(498, 10.1, None),
    ),
    "theano": (
        ReadOff(10, None, 17.6),
        ReadOff(50, 24.0, 11.1),
        ReadOff(60, 23.2, 9.7),
        ReadOff(105, 19.1, 4.2),
        ReadOff(155, 14.9, 1.2),
        ReadOff(205, 12.2, 0.4),
        ReadOff(305, 11.5, 0.1),
        ReadOff(395, 11.0, None),
        ReadOff(498, 11.0, None),
    ),
    "torch7": (
        ReadOff(10, 22.5, None),
        ReadOff(50, 18.6, 16.2),
        ReadOff(60, 14.2, 12.9),
        ReadOff(105, 12.4, 8.3),
        ReadOff(155, 11.5, 4.8),
        ReadOff(205, 11.2, 3.1),
        ReadOff(305, 10.7, 2.3),
        ReadOff(395, 10.9, 1.9),
        ReadOff(450, 10.6, 1.7),
        ReadOff(498, 10.6, 1.7),
    ),
}
"""The baseline is a 32-bit network whose configuration the paper does not describe."""
READ_OFF_ACCURACY = 0.3


# Energy, memory, operations, filters (A, sections 3 and 4) ----------------------------------------------------------

MULTIPLY_PJ = {"int8": 0.2, "int32": 3.1, "float16": 1.1, "float32": 3.7}
"""Picojoules of one multiplication; A, Table 2 (Horowitz 2014, 45 nm)."""
ADD_PJ = {"int8": 0.03, "int32": 0.1, "float16": 0.4, "float32": 0.9}
"""Picojoules of one addition; A, Table 2."""
CACHE_PJ = ((8 << 10, 10.0), (32 << 10, 20.0), (1 << 20, 100.0))
"""Size in bytes of a memory, and picojoules of one 64-bit access to it; A, Table 3."""
DRAM_PJ = (1300.0, 2600.0)
"""Picojoules of one 64-bit access to DRAM, least and most; A, Table 3."""

MEMORY_RATIO = 32
"""Times less memory, and fewer accesses to it, than with 32-bit weights (A, section 3.1)."""

LANES = 32
"""Connections that one 32-bit word holds (A, section 4.1)."""
CYCLES = {"xnor": 1, "popcount": 4, "accumulate": 1}
"""Cycles of the three instructions for one such word on the paper's graphics processors (A, section 4.1)."""

UNIQUE_FILTERS = 0.42
"""Share of distinct 3x3 filters "per layer" of the CIFAR-10 network, the measure not being defined (A, section 3.2)."""
XNOR_REDUCTION = 3
"""Times fewer XNOR-popcounts for it, as printed; 1 / 0.42 would be 2.4 (A, section 3.2)."""


# Figure 3: run time on a GTX 750 (A, section 4.2) ---------------------------------------------------------------------

PRODUCT_SIZE = 8192
"""Rows, columns and length of the dot products of its matrix product."""
PRODUCT_SPEEDUP = {"baseline": 23.0, "blas": 3.4}
"""Times faster than its own plain kernel, and than cuBLAS, the XNOR kernel is; packing both operands included."""
MLP_SPEEDUP = {"baseline": 7.0}
"""The same for the MNIST network over the whole test set, whose first layer is always computed by the plain kernel."""
