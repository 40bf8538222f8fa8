"""All pictures of a reproduction."""

from __future__ import annotations

import re
from collections.abc import Iterator

from binarynet.analysis.pictures import costs, curves, filters, repetition, table
from binarynet.analysis.pictures._style import Picture, style
from binarynet.analysis.reproduction import Reproduction, Subject


def pictures(found: Reproduction, *, all_filters: bool = False) -> Iterator[Picture]:
    """What there is to see, one after the other.

    Args:
        found: results, curves, networks.
        all_filters: also every distinct first-layer filter with the number of its copies.
    """
    with style():
        yield Picture("table1", table.draw(found.results))
        for data in dict.fromkeys(curve.data for curve in found.curves):
            chosen = [curve for curve in found.curves if curve.data == data]
            yield Picture(f"figure1-{_file_name(data)}", curves.draw(chosen, data))
        for subject in found.subjects:
            yield from _of_network(subject, all_filters)


def _of_network(subject: Subject, all_filters: bool) -> Iterator[Picture]:
    name = _file_name(subject.label)
    layer = subject.first_layer
    if layer is not None and layer.bits.shape[1] <= filters.MOST_CHANNELS:
        yield Picture(f"figure2-{name}", filters.draw_sample(layer, subject.label))
        if all_filters and layer.kind == "convolution":
            yield Picture(f"figure2-all-{name}", filters.draw_distinct(layer, subject.label))
    if subject.account is not None:
        yield Picture(f"costs-{name}", costs.draw(subject.account, subject.instructions, subject.label))
        if subject.account.repetition:
            yield Picture(f"repetition-{name}", repetition.draw(subject.account.repetition, subject.label))


def _file_name(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "_", text)
