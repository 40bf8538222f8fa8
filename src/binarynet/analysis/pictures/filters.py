"""Figure 2: binary filters of the first layer, white +1 and black -1."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from binarynet.analysis.filters import Bits, FirstLayer, distinct
from binarynet.analysis.pictures._style import new_figure

SHOWN = 16
GRID = 4
MOST_CHANNELS = 4
"""More channels than this are no picture."""
_GROUND = 0.82
_TILE = 90
"""Pixels of the sheet that a small filter is enlarged to."""
_BETWEEN_CHANNELS, _BETWEEN_FILTERS, _BETWEEN_GREY_FILTERS, _COUNT_HEIGHT = 8, 26, 10, 50
_CHANNELS = {1: ("",), 3: ("R", "G", "B")}


def draw_sample(layer: FirstLayer, label: str) -> Figure:
    """Sixteen filters in a 4 x 4 grid, evenly spread over the layer; the channels of one stand side by side."""
    chosen = layer.sample(SHOWN)
    _, channels, rows, columns = layer.bits.shape
    zoom = max(1, _TILE // columns)
    width = zoom * columns
    tiles = [_side_by_side(layer.bits[index].repeat(zoom, axis=1).repeat(zoom, axis=2)) for index in chosen]
    gap = _BETWEEN_FILTERS if channels > 1 else _BETWEEN_GREY_FILTERS
    sheet = _sheet(tiles, GRID, gap)
    figure = new_figure(8, 0.8 + 8 * sheet.shape[0] / sheet.shape[1])
    axes = figure.subplots()
    _show(axes, sheet)
    names = _CHANNELS.get(channels, tuple(str(number) for number in range(1, channels + 1)))
    for place in range(min(GRID, len(tiles))):
        left = gap + place * (tiles[0].shape[1] + gap)
        for channel, name in enumerate(names):
            x = left + channel * (width + _BETWEEN_CHANNELS) + width / 2 - 0.5
            axes.text(x, gap / 2, name, ha="center", va="center", fontsize=9, color="0.3")
    what = f"filters ({rows} x {columns})" if layer.kind == "convolution" else "units' weights"
    axes.set_title(f"{label}: {len(tiles)} of the {len(layer.bits)} {what} of {layer.name}")
    axes.set_xlabel("white +1, black \N{MINUS SIGN}1" + (", per colour channel" if channels == 3 else ""))
    return figure


def draw_distinct(layer: FirstLayer, label: str) -> Figure:
    """Every distinct two-dimensional filter with the number of its copies, the most frequent first."""
    patterns, counts = distinct(layer.bits)
    columns = max(8, math.ceil(math.sqrt(2 * len(patterns))))
    zoom = max(1, _TILE // patterns.shape[2])
    tiles = [_side_by_side(pattern[np.newaxis].repeat(zoom, axis=1).repeat(zoom, axis=2)) for pattern in patterns]
    sheet = _sheet(tiles, columns, _BETWEEN_FILTERS, below=_COUNT_HEIGHT)
    figure = new_figure(12, 0.9 + 12 * sheet.shape[0] / sheet.shape[1])
    axes = figure.subplots()
    _show(axes, sheet)
    height, width = tiles[0].shape
    size = min(12, 12 * 72 * 0.6 * _COUNT_HEIGHT / sheet.shape[1])
    for number, count in enumerate(counts):
        x = _BETWEEN_FILTERS + number % columns * (width + _BETWEEN_FILTERS) + width / 2
        y = _BETWEEN_FILTERS + number // columns * (height + _BETWEEN_FILTERS + _COUNT_HEIGHT) + height
        axes.text(x, y + _COUNT_HEIGHT / 2, str(count), ha="center", va="center", fontsize=size)
    total = int(counts.sum())
    axes.set_title(f"{label}: {len(patterns)} distinct of {total} two-dimensional filters of {layer.name}")
    axes.set_xlabel("white +1, black \N{MINUS SIGN}1; below each: number of its copies")
    return figure


def _side_by_side(channels: Bits) -> npt.NDArray[np.float64]:
    """``[channels, rows, columns]`` in a row."""
    parts: list[npt.NDArray[np.float64]] = []
    for plane in channels:
        if parts:
            parts.append(np.full((plane.shape[0], _BETWEEN_CHANNELS), _GROUND))
        parts.append(plane.astype(np.float64))
    return np.hstack(parts)


def _sheet(tiles: list[npt.NDArray[np.float64]], columns: int, gap: int, below: int = 0) -> npt.NDArray[np.float64]:
    """Tiles in rows, with a gap around each and so many pixels more below it."""
    height, width = tiles[0].shape
    columns = min(columns, len(tiles))
    rows = math.ceil(len(tiles) / columns)
    sheet = np.full((rows * (height + gap + below) + gap, columns * (width + gap) + gap), _GROUND)
    for number, tile in enumerate(tiles):
        top, left = gap + number // columns * (height + gap + below), gap + number % columns * (width + gap)
        sheet[top : top + height, left : left + width] = tile
    return sheet


def _show(axes: Axes, picture: npt.NDArray[np.float64]) -> None:
    axes.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
