"""Register fragments: the documents' formulas, and the simulator's instructions held against them."""

from __future__ import annotations

import fragment_layouts as fl
import numpy as np
import pytest
import tensor_ops

WGMMA_N = [8, 16, 24, 32, *range(48, 257, 16)]
BITS = [shape for shape in fl.SHAPES if fl.ELEMENT_BITS[shape[2]] == 1]
BYTES = [shape for shape in fl.SHAPES if fl.ELEMENT_BITS[shape[2]] == 8]
SIGNS = [(False, False), (False, True), (True, False), (True, True)]


@pytest.mark.parametrize("shape", fl.SHAPES)
def test_every_element_has_exactly_one_place(shape):
    m, n, k = shape
    assert fl.is_bijection(fl.mma_a(shape), m, k)
    assert fl.is_bijection(fl.mma_b(shape), k, n)
    assert fl.is_bijection(fl.mma_c(shape), m, n)


def test_wgmma_and_ldmatrix_have_one_place_for_every_element():
    assert fl.is_bijection(fl.wgmma_a(1), 64, 256)
    assert fl.is_bijection(fl.wgmma_a(8), 64, 32)
    for n in WGMMA_N:
        assert fl.is_bijection(fl.wgmma_d(n), 64, n)
    for transposed in (False, True):
        assert fl.is_bijection(fl.ldmatrix(transposed), 8, 8)


def test_a_layout_with_two_elements_in_one_place_is_noticed():
    layout = fl.mma_a((16, 8, 256))
    layout[3, 5] = layout[3, 6]
    assert not fl.is_bijection(layout, 16, 256)
    # The formula of m16n8k256 for columns as it stands in the document, without the mask of i: out of the matrix.
    literal = fl.mma_a((16, 8, 256))
    literal[:, 32:64, 1] += 32
    assert not fl.is_bijection(literal, 16, 256)


def words(rng, shape):
    return rng.integers(0, 1 << 32, shape, dtype=np.uint32)


def signed(values, is_signed):
    return values.astype(np.int8).astype(np.int64) if is_signed else values.astype(np.int64)


def wrapped(values):
    return (values & 0xFFFFFFFF).astype(np.uint32)


@pytest.mark.parametrize("xor", [False, True])
@pytest.mark.parametrize("shape", BITS)
def test_one_bit_mma(shape, xor):
    rng = np.random.default_rng(shape[2] + xor)
    m, n, k = shape
    a, b = rng.integers(0, 2, (m, k)), rng.integers(0, 2, (k, n))
    c = words(rng, (m, n))
    product = np.where(xor, a[:, :, None] ^ b[None], a[:, :, None] & b[None]).sum(axis=1)
    d = tensor_ops.mma(
        shape,
        1,
        fl.to_registers(fl.gather(a, fl.mma_a(shape)), 1),
        fl.to_registers(fl.gather(b, fl.mma_b(shape)), 1),
        fl.gather(c, fl.mma_c(shape)),
        xor=xor,
    )
    assert np.array_equal(fl.scatter(d, fl.mma_c(shape)), wrapped(c + product))


@pytest.mark.parametrize("signs", SIGNS)
@pytest.mark.parametrize("shape", BYTES)
def test_byte_mma(shape, signs):
    rng = np.random.default_rng(shape[2] + 7)
    m, n, k = shape
    a, b = rng.integers(0, 256, (m, k)), rng.integers(0, 256, (k, n))
    a[0], b[:, 0] = (128, 128)
    c = words(rng, (m, n))
    c[0, 0] = 0x7FFFFFFF
    exact = c.view(np.int32) + signed(a.astype(np.uint8), signs[0]) @ signed(b.astype(np.uint8), signs[1])
    operands = (
        fl.to_registers(fl.gather(a, fl.mma_a(shape)), 8),
        fl.to_registers(fl.gather(b, fl.mma_b(shape)), 8),
        fl.gather(c, fl.mma_c(shape)),
    )
    d = tensor_ops.mma(shape, 8, *operands, signed=signs)
    assert np.array_equal(fl.scatter(d, fl.mma_c(shape)), wrapped(exact))
    limits = np.iinfo(np.int32)
    d = tensor_ops.mma(shape, 8, *operands, signed=signs, satfinite=True)
    assert np.array_equal(fl.scatter(d, fl.mma_c(shape)), wrapped(exact.clip(limits.min, limits.max)))
    assert (exact > limits.max).any() == (signs[0] == signs[1])


def test_shapes_that_do_not_exist_are_refused():
    registers = np.zeros((32, 8), dtype=np.uint32)
    for shape, bits in (((16, 8, 64), 1), ((16, 8, 256), 8), ((8, 8, 256), 1), ((16, 16, 256), 1)):
        with pytest.raises(tensor_ops.TensorError, match=r"no mma\.sync shape"):
            tensor_ops.mma(shape, bits, registers, registers, registers)
    with pytest.raises(tensor_ops.TensorError, match="m64n40"):
        tensor_ops.wgmma("b1", np.zeros((64, 32), np.uint8), np.zeros((40, 32), np.uint8), np.zeros((128, 20), "u4"))
    rows = np.zeros((64, 32), np.uint8)
    with pytest.raises(tensor_ops.TensorError, match="satfinite"):
        tensor_ops.wgmma("b1", rows, rows[:8].copy(), np.zeros((128, 4), "u4"), satfinite=True)
    assert [n for n in range(-8, 300) if tensor_ops.library().ops_wgmma_n_valid(n)] == WGMMA_N


@pytest.mark.parametrize("n", WGMMA_N)
def test_one_bit_wgmma(n):
    rng = np.random.default_rng(n)
    a, b = rng.integers(0, 2, (64, 256)), rng.integers(0, 2, (n, 256))
    d = words(rng, (64, n))
    registers = fl.to_registers(fl.gather(a, fl.wgmma_a(1)), 1)
    rows = np.packbits(a.astype(np.uint8), axis=1, bitorder="little")
    assert np.array_equal(tensor_ops.wgmma_a_from_registers(registers), rows)
    columns = np.packbits(b.astype(np.uint8), axis=1, bitorder="little")
    layout = fl.wgmma_d(n)
    for scale_d in (False, True):
        result = tensor_ops.wgmma("b1", rows, columns, fl.gather(d, layout), scale_d=scale_d)
        assert np.array_equal(fl.scatter(result, layout), wrapped(a @ b.T + (d if scale_d else 0)))


@pytest.mark.parametrize("kind", ["u8u8", "u8s8", "s8u8", "s8s8"])
def test_byte_wgmma(kind):
    rng = np.random.default_rng(len(kind))
    n, layout = 24, fl.wgmma_d(24)
    a, b = rng.integers(0, 256, (64, 32), dtype=np.uint8), rng.integers(0, 256, (n, 32), dtype=np.uint8)
    d = words(rng, (64, n))
    registers = fl.to_registers(fl.gather(a, fl.wgmma_a(8)), 8)
    assert np.array_equal(tensor_ops.wgmma_a_from_registers(registers), a)
    exact = signed(a, kind[0] == "s") @ signed(b, kind[2] == "s").T + d.view(np.int32)
    result = tensor_ops.wgmma(kind, a, b, fl.gather(d, layout))
    assert np.array_equal(fl.scatter(result, layout), wrapped(exact))


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_ldmatrix_and_stmatrix(count, transposed):
    rng = np.random.default_rng(count)
    matrices = rng.integers(0, 1 << 16, (count, 8, 8), dtype=np.uint16)
    expected = np.stack([fl.gather(m, fl.ldmatrix(transposed)) for m in matrices], axis=1)  # [lanes, count, 2]
    registers = tensor_ops.ldmatrix(matrices.view(np.uint8), transposed)
    assert np.array_equal(registers, np.ascontiguousarray(expected).view(np.uint32)[..., 0])
    assert np.array_equal(tensor_ops.stmatrix(registers, transposed).view(np.uint16), matrices)


def test_an_operand_of_mma_can_come_from_ldmatrix():
    """Why kernels may load fragments of bits with ldmatrix .x4: its four 8x8 matrices of 16-bit elements are the four
    registers of A of m16n8k256, row for row and 128 bits by 128 bits."""
    bits = np.random.default_rng(0).integers(0, 2, (16, 256))
    rows = np.packbits(bits.astype(np.uint8), axis=1, bitorder="little")  # 16 rows of 32 bytes
    tiles = np.stack([rows[:8, :16], rows[8:, :16], rows[:8, 16:], rows[8:, 16:]])
    registers = fl.to_registers(fl.gather(bits, fl.mma_a((16, 8, 256))), 1)
    assert np.array_equal(tensor_ops.ldmatrix(tiles, False), registers)


def test_ldmatrix_refuses_other_counts():
    with pytest.raises(tensor_ops.TensorError, match="1, 2 or 4"):
        tensor_ops.ldmatrix(np.zeros((3, 8, 16), dtype=np.uint8), False)
