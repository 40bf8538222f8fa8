"""The paper's figures, written down a second time."""

from __future__ import annotations

import pytest

from binarynet.analysis import paper, random_convnet, random_mlp
from binarynet.analysis.layers import layers

TABLE_1 = """
BNN (Torch7)               | 1.40      | 2.53 | 10.15 | NAQ
BNN (Theano)               | 0.96      | 2.80 | 11.40 | NAQ
Committee machines (2015)  | 1.35      |      |       | NAQ
BinaryConnect (2015)       | 1.29 0.08 | 2.30 | 9.90  | NAQ
EBP (2015)                 | 2.2 0.1   |      |       | NAQ
Bitwise DNNs (2016)        | 1.33      |      |       | NAQ
Hwang & Sung (2014)        | 1.45      |      |       | NAQ
No regularization          | 1.3 0.2   | 2.44 | 10.94 | NQ
Maxout (2013)              | 0.94      | 2.47 | 11.68 | AQ
Network in Network (2013)  |           | 2.35 | 10.41 | A
Gated pooling (2015)       |           | 1.69 | 7.62  | NAQ
"""

# epoch: 32-bit validation, cost | Theano validation, cost | Torch7 validation, cost; - is off the axis or hidden
FIGURE_1 = """
10   14.0 1.4   -    17.6   22.5 -
50   11.9 0.0   24   11.1   18.6 16.2
60   11.5 0.0   23.2 9.7    14.2 12.9
105  11.2 -     19.1 4.2    12.4 8.3
155  10.6 -     14.9 1.2    11.5 4.8
205  10.4 -     12.2 0.4    11.2 3.1
305  10.1 -     11.5 0.1    10.7 2.3
395  10.2 -     11.0 -      10.9 1.9
498  10.1 -     11.0 -      10.6 1.7
"""


def numbers(text: str) -> tuple[float, float | None] | None:
    parts = [float(part) for part in text.split()]
    return (parts[0], parts[1] if len(parts) > 1 else None) if parts else None


def test_table_1():
    assert len(paper.TABLE_1) == len(TABLE_1.split("\n")[1:-1])
    for row, line in zip(paper.TABLE_1, TABLE_1.split("\n")[1:-1], strict=True):
        method, mnist, svhn, cifar10, printed_in = (cell.strip() for cell in line.split("|"))
        assert row.method == method
        assert row.printed_in == printed_in
        expected = {"mnist": numbers(mnist), "svhn": numbers(svhn), "cifar10": numbers(cifar10)}
        assert row.errors == {data: error for data, error in expected.items() if error is not None}
    assert [row.setting for row in paper.TABLE_1[:3]] == ["torch7", "theano", None]
    assert all(set(row.printed_in) <= set(paper.SOURCES) for row in paper.TABLE_1)


def test_figure_1():
    expected: dict[str, list[tuple]] = {"baseline": [], "theano": [], "torch7": []}
    for line in FIGURE_1.strip().split("\n"):
        epoch, *cells = (None if cell == "-" else float(cell) for cell in line.split())
        for name, start in (("baseline", 0), ("theano", 2), ("torch7", 4)):
            expected[name].append((epoch, cells[start], cells[start + 1]))
    expected["torch7"].insert(-1, (450, 10.6, 1.7))
    for name, points in paper.FIGURE_1.items():
        assert [(point.epoch, point.validation, point.cost) for point in points] == expected[name]


def test_energy_memory_and_operations():
    assert paper.MULTIPLY_PJ == {"int8": 0.2, "int32": 3.1, "float16": 1.1, "float32": 3.7}
    assert paper.ADD_PJ == {"int8": 0.03, "int32": 0.1, "float16": 0.4, "float32": 0.9}
    assert paper.CACHE_PJ == ((8192, 10), (32768, 20), (1048576, 100))
    assert paper.DRAM_PJ == (1300, 2600)
    assert sum(paper.CYCLES.values()) == 6
    assert paper.LANES / sum(paper.CYCLES.values()) == pytest.approx(5.3, abs=0.05)
    assert (paper.MEMORY_RATIO, paper.UNIQUE_FILTERS, paper.XNOR_REDUCTION) == (32, 0.42, 3)


CELLS = {
    # test error, epochs, batch, first rate, weights, images
    "mnist-theano": (0.96, 1000, 100, 3e-3, 36_806_656, (50_000, 10_000, 10_000)),
    "mnist-torch7": (1.40, 100, 100, 2**-6, 10_014_720, (50_000, 10_000, 10_000)),
    "cifar10-theano": (11.40, 500, 50, 1e-3, 14_022_016, (45_000, 5_000, 10_000)),
    "cifar10-torch7": (10.15, 500, 200, 2**-6, 14_022_016, (45_000, 5_000, 10_000)),
    "svhn-theano": (2.80, 200, 50, 1e-3, 6_397_632, (598_388, 6_000, 26_032)),
    "svhn-torch7": (2.53, 200, 200, 2**-7, 6_397_632, (598_388, 6_000, 26_032)),
}


def test_the_six_experiments():
    assert {experiment.recipe for experiment in paper.EXPERIMENTS} == set(CELLS)
    for experiment in paper.EXPERIMENTS:
        constants = experiment.constants
        assert experiment.recipe == f"{experiment.data}-{experiment.setting}"
        assert CELLS[experiment.recipe] == (
            experiment.test_error,
            experiment.epochs,
            constants["training.batch_size"][0],
            constants["optimizer.learning_rate"][0],
            experiment.weights,
            tuple(experiment.sizes.values()),
        )


@pytest.mark.parametrize("experiment", paper.EXPERIMENTS, ids=lambda experiment: experiment.recipe)
def test_the_weights_are_those_of_the_widths(experiment):
    (hidden,) = experiment.constants.get("model.hidden", (None,))
    if hidden is not None:
        graph = random_mlp(784, hidden)
    else:
        (blocks,), (dense,) = experiment.constants["model.blocks"], experiment.constants["model.dense"]
        graph = random_convnet((32, 32, 3), blocks, dense)
    assert sum(layer.weights for layer in layers(graph)) == experiment.weights
