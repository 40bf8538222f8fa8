"""Swizzles, matrix descriptors and boxes: two readings of the documents held against each other."""

from __future__ import annotations

import fragment_layouts as fl
import numpy as np
import pytest
import shared_layouts as sl
import tensor_ops

SWIZZLES = [0, 32, 64, 128]
BASE = 1 << 40  # of device memory


def run_load(map_, memory, coordinates, shared, size):
    """Shared memory of `size` bytes after a load; 0xEE where nothing was written."""
    result = np.full(size, 0xEE, dtype=np.uint8)
    pieces, counted = map_.copy(coordinates, shared)
    for at, to, length, is_zero in pieces:
        result[to : to + length] = 0 if is_zero else memory[at - BASE : at - BASE + length]
    assert pieces[:, 2].sum() == counted
    return result


def run_store(map_, memory, coordinates, shared, source):
    result = memory.copy()
    for at, start, length, is_zero in map_.copy(coordinates, shared, load=False)[0]:
        assert not is_zero
        result[at - BASE : at - BASE + length] = source[start : start + length]
    return result


@pytest.mark.parametrize("swizzle", SWIZZLES)
def test_patterns_are_permutations_of_every_line(swizzle):
    at = sl.pattern(swizzle)
    assert np.array_equal(np.sort(at, axis=1), np.tile(np.arange(8), (8, 1)))
    assert np.array_equal(at[0], np.arange(8))
    # Rows of the swizzle's own length: one piece of eight rows lies in as many different columns as there are.
    data = np.arange(1024, dtype=np.uint16)
    assert np.array_equal(np.sort(sl.placed(data, swizzle)), data)


def test_a_swizzled_column_has_no_bank_conflicts():
    """The reason for the swizzles: the same 16-byte piece of eight rows, as ldmatrix and wgmma read, uses all banks."""
    for swizzle in (32, 64, 128):
        offsets = sl.canonical(8, swizzle)[:, 0]
        assert len(set(offsets // 16 % 8)) == 8
    plain = np.arange(8) * 128
    assert sl.banks(plain, 16) == 8
    assert sl.banks(sl.canonical(8, 128)[:, 0], 16) == 1


def test_banks_counts_wavefronts():
    lanes = np.arange(32)
    assert sl.banks(lanes * 4, 4) == 1
    assert sl.banks(lanes * 8, 4) == 2
    assert sl.banks(lanes * 128, 4) == 32
    assert sl.banks(lanes * 0, 4) == 1
    assert sl.banks(lanes * 8, 8) == 2
    assert sl.banks(lanes * 16, 16) == 4
    assert sl.banks(lanes * 32, 16) == 8


@pytest.mark.parametrize("swizzle", SWIZZLES)
@pytest.mark.parametrize("rows", [8, 24, 64, 256])
def test_descriptors_are_the_canonical_layouts(rows, swizzle):
    stride, leading = (256, 128) if swizzle == 0 else (8 * swizzle, 0)
    start = 3 * 1024
    value = sl.descriptor(start, swizzle, leading=leading, stride=stride)
    expected = sl.canonical(rows, swizzle, leading=leading, stride=stride)
    assert np.array_equal(tensor_ops.wgmma_operand(value, rows), start + expected)
    assert len(np.unique(expected)) == 2 * rows


@pytest.mark.parametrize("swizzle", [32, 64, 128])
@pytest.mark.parametrize("rows", [64, 96])
def test_what_a_tensor_copy_brings_is_what_a_descriptor_reads(rows, swizzle):
    """A tile of rows as long as the swizzle, loaded by a tensor copy; every 32 bytes of K are one operand, reached by
    adding to the start address."""
    data = np.random.default_rng(rows).integers(0, 256, (rows, swizzle), dtype=np.uint8)
    map_ = tensor_ops.Map(BASE, 1, (swizzle, rows), (swizzle,), (swizzle, rows), swizzle=swizzle)
    shared = run_load(map_, data.ravel(), (0, 0), 1024, 1024 + (rows * swizzle + 1023) // 1024 * 1024)
    assert np.array_equal(shared[1024 : 1024 + rows * swizzle], sl.placed(data.ravel(), swizzle)[: rows * swizzle])
    for k in range(0, swizzle, 32):
        value = sl.descriptor(1024 + k, swizzle, leading=16, stride=8 * swizzle)
        pieces = tensor_ops.wgmma_operand(value, rows)
        operand = shared[pieces[..., None] + np.arange(16)].reshape(rows, 32)
        assert np.array_equal(operand, data[:, k : k + 32])


def test_a_whole_product_through_copies_and_descriptors():
    rng = np.random.default_rng(5)
    a, b = rng.integers(0, 2, (64, 1024)), rng.integers(0, 2, (48, 1024))
    tiles = []
    for matrix in (a, b):
        rows = np.packbits(matrix.astype(np.uint8), axis=1, bitorder="little")
        words = tensor_ops.Map(BASE, 4, (32, len(rows)), (128,), (32, len(rows)), swizzle=128)
        tiles.append(run_load(words, rows.ravel(), (0, 0), 0, 128 * len(rows)))
    d = np.zeros((128, 24), dtype=np.uint32)
    for k in range(0, 128, 32):
        operands = []
        for tile, rows in zip(tiles, (64, 48), strict=True):
            pieces = tensor_ops.wgmma_operand(sl.descriptor(k, 128, stride=1024), rows)
            operands.append(np.ascontiguousarray(tile[pieces[..., None] + np.arange(16)].reshape(rows, 32)))
        d = tensor_ops.wgmma("b1", *operands, d, scale_d=k > 0)
    assert np.array_equal(fl.scatter(d, fl.wgmma_d(48)), a @ b.T)


@pytest.mark.parametrize(
    ("value", "rows", "text"),
    [
        (sl.descriptor(0, 128, stride=1024) | 1 << 14, 64, "no field"),
        (sl.descriptor(0, 128, stride=1024) | 1 << 46, 64, "no field"),
        (sl.descriptor(0, 128, stride=1024, base=1), 64, "base offset"),
        (sl.descriptor(128, 128, stride=1024), 64, "inside of a swizzle pattern"),
        (sl.descriptor(256 + 32, 32, stride=256), 64, "inside of a swizzle pattern"),
        (sl.descriptor(0, 128, stride=512), 64, "stride"),
        (sl.descriptor(112, 128, stride=1024), 64, "less than 32 bytes"),
    ],
)
def test_descriptors_that_mean_nothing_sure_are_refused(value, rows, text):
    with pytest.raises(tensor_ops.TensorError, match=text):
        tensor_ops.wgmma_operand(value, rows)


# ---- boxes ----


def random_map(rng, swizzle):
    rank = int(rng.integers(1, 6))
    element = int(rng.choice([1, 2, 4, 8]))
    inner = swizzle // element if swizzle else int(rng.integers(1, 5)) * 16 // element
    box = [inner, *(int(rng.integers(1, 6)) for _ in range(rank - 1))]
    sizes = [int(rng.integers(1, 2 * b + 3)) for b in box]
    steps = [1, *(int(rng.integers(1, 4)) for _ in range(rank - 1))]
    pitch = -(-sizes[0] * element // 16) * 16 + 16 * int(rng.integers(0, 3))
    strides = []
    for size in sizes[1:]:
        strides.append(pitch)
        pitch *= size
    return tensor_ops.Map(BASE, element, tuple(sizes), tuple(strides), tuple(box), tuple(steps), swizzle), pitch


@pytest.mark.parametrize("swizzle", SWIZZLES)
@pytest.mark.parametrize("seed", range(25))
def test_boxes_at_any_place(seed, swizzle):
    """Loads and stores of random boxes, hanging over every side, against slices of padded arrays."""
    rng = np.random.default_rng((seed, swizzle))
    map_, size = random_map(rng, swizzle)
    memory = rng.integers(1, 256, size, dtype=np.uint8)
    dtype = np.dtype(f"u{map_.element_bytes}")
    strides = (*map_.strides[::-1], map_.element_bytes)
    array = np.lib.stride_tricks.as_strided(memory.view(dtype), map_.sizes[::-1], strides)
    coordinates = [int(rng.integers(-b - 1, s + 2)) for b, s in zip(map_.box, map_.sizes, strict=True)]
    expected = sl.box(array, coordinates[::-1], map_.box[::-1], map_.steps[::-1])
    flat = expected.ravel().view(np.uint8)

    shared = run_load(map_, memory, coordinates, 1024, 1024 + -(-len(flat) // 1024) * 1024)
    lying = sl.placed(flat, swizzle)
    assert (shared[:1024] == 0xEE).all()
    written = sl.placed(np.ones(len(flat), dtype=np.uint8), swizzle).astype(bool)
    assert np.array_equal(shared[1024:][written], lying[written])
    assert (shared[1024:][~written] == 0xEE).all()
    assert map_.copy(coordinates, 1024)[1] == len(flat)

    new = rng.integers(1, 256, len(flat), dtype=np.uint8)
    source = np.concatenate([np.zeros(1024, np.uint8), sl.placed(new, swizzle)])
    stored = run_store(map_, memory, coordinates, 1024, source)
    changed = memory.copy()
    view = np.lib.stride_tricks.as_strided(changed.view(dtype), map_.sizes[::-1], strides)
    for place in np.ndindex(expected.shape):
        at = [c + i * s for c, i, s in zip(coordinates[::-1], place, map_.steps[::-1], strict=True)]
        if all(0 <= x < n for x, n in zip(at, view.shape, strict=True)):
            view[tuple(at)] = new.view(dtype).reshape(expected.shape)[place]
    assert np.array_equal(stored, changed)


@pytest.mark.parametrize("swizzle", [32, 64, 128])
def test_the_pattern_belongs_to_the_address(swizzle):
    """A destination that does not begin at a multiple of the pattern gets the pattern from its middle on."""
    rows = 16
    data = np.random.default_rng(1).integers(0, 256, rows * swizzle, dtype=np.uint8)
    map_ = tensor_ops.Map(BASE, 1, (swizzle, rows), (swizzle,), (swizzle, rows), swizzle=swizzle)
    shared = run_load(map_, data, (0, 0), 384, 384 + rows * swizzle)
    padded = np.concatenate([np.zeros(384, np.uint8), data])
    assert np.array_equal(shared[384:], sl.placed(padded, swizzle)[384 : 384 + len(data)])


GOOD = {"address": BASE, "element_bytes": 4, "sizes": (64, 8), "strides": (256,), "box": (32, 8), "swizzle": 128}


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"address": BASE + 8}, "no multiple of 16"),
        ({"address": 0}, "no multiple of 16"),
        ({"element_bytes": 3}, "elements of 3 bytes"),
        ({"sizes": (0, 8)}, "size 0 of dimension 0"),
        ({"sizes": (64, (1 << 32) + 1)}, "size 4294967297"),
        ({"strides": (264,)}, "stride 264"),
        ({"strides": (1 << 40,)}, "stride 1099511627776"),
        ({"box": (257, 8), "swizzle": 0}, "box 257"),
        ({"box": (32, 0)}, "box 0 of dimension 1"),
        ({"box": (33, 8), "swizzle": 0}, "no multiple of 16"),
        ({"box": (36, 8)}, "more than the swizzle"),
        ({"swizzle": 96}, "swizzle of 96"),
        ({"steps": (1, 9)}, "element stride 9"),
        ({"sizes": (4,) * 6, "strides": (16,) * 5, "box": (4,) * 5}, "rank of 6"),
    ],
)
def test_maps_that_a_driver_refuses(change, text):
    tensor_ops.Map(**GOOD)
    with pytest.raises(tensor_ops.TensorError, match=text):
        tensor_ops.Map(**(GOOD | change))


def test_copies_that_mean_nothing_are_refused():
    map_ = tensor_ops.Map(**GOOD)
    with pytest.raises(tensor_ops.TensorError, match="multiple of 128"):
        map_.copy((0, 0), 64)
    with pytest.raises(tensor_ops.TensorError, match="make them equal"):
        tensor_ops.Map(**(GOOD | {"box": (16, 8)})).copy((0, 0), 0)
    map_.encoded[0] ^= 1
    with pytest.raises(tensor_ops.TensorError, match="no tensor map"):
        map_.copy((0, 0), 0)
    map_ = tensor_ops.Map(**GOOD)
    map_.encoded[8] = 1  # the address
    with pytest.raises(tensor_ops.TensorError, match="overwritten"):
        map_.copy((0, 0), 0)
    for arguments in ((BASE + 8, 0, 16), (BASE, 8, 16), (BASE, 0, 8)):
        with pytest.raises(tensor_ops.TensorError, match="multiples of 16"):
            tensor_ops.bulk_copy(*arguments)
    tensor_ops.bulk_copy(BASE + 16, 32, 48)
