"""Single PTX instructions against Python integers and NumPy floats (PTX ISA, section "Instructions")."""

import numpy as np
import pytest
from machine import Machine
from snippets import BITS, one_instruction

THREADS = 96
DTYPES = {"u16": np.uint16, "s16": np.int16, "b16": np.uint16, "u32": np.uint32, "s32": np.int32, "b32": np.uint32,
          "u64": np.uint64, "s64": np.int64, "b64": np.uint64, "f32": np.float32, "f64": np.float64}  # fmt: skip


def values(kind, seed, small=0):
    """Every edge of a type, and random numbers; ``small``: at most so large."""
    rng = np.random.default_rng(seed)
    dtype = DTYPES[kind]
    if small:
        return rng.integers(0, small, THREADS).astype(dtype)
    if kind in ("f32", "f64"):
        edges = [0.0, -0.0, 1.0, -1.5, 2.5, 3.5, np.inf, -np.inf, np.nan, 1e-40, 3e9, -3e9, 1e20, 0.5]
        return rng.permutation(np.concatenate([edges, rng.normal(0, 1000, THREADS - len(edges))])).astype(dtype)
    info = np.iinfo(dtype)
    edges = [0, 1, info.max, info.min, info.max - 1]
    random = rng.integers(info.min, info.max, THREADS - len(edges), dtype=dtype, endpoint=True)
    near = rng.integers(0, 40, THREADS // 3).astype(dtype)
    random[: len(near)] = near
    return rng.permutation(np.concatenate([np.array(edges, dtype), random]))


def run(text, result, operands, arrays):
    machine = Machine((7, 5))
    addresses = [np.uint64(machine.upload(array)) for array in arrays]
    out = machine.allocate(THREADS * BITS[result] // 8)
    machine.run_ptx(one_instruction(text, result, operands), "k", (1, 1, 1), THREADS, 0, (np.uint64(out), *addresses))
    return machine.download(out, THREADS, DTYPES[result])


def wrap(value, kind):
    value &= (1 << BITS[kind]) - 1
    return value - (1 << BITS[kind]) if kind[0] == "s" and value >> (BITS[kind] - 1) else value


def truncated(a, b):
    """Quotient rounded towards zero, as machines divide."""
    quotient = abs(a) // abs(b)
    return quotient if (a < 0) == (b < 0) else -quotient


def divide(a, b):
    return -1 if b == 0 else truncated(a, b)


def remainder(a, b):
    return a if b == 0 else a - b * truncated(a, b)


def reverse(value, bits):
    return int(format(value, f"0{bits}b")[::-1], 2)


def leading(value, kind):
    """Position of the highest bit that is not sign, or all ones."""
    if kind[0] == "s" and value < 0:
        value = ~value
    return value.bit_length() - 1 if value else 0xFFFFFFFF


def field(value, position, length, kind):
    bits = BITS[kind]
    position, length = position & 255, length & 255
    top = min(position + length - 1, bits - 1)
    sign = kind[0] == "s" and length and value >> top & 1
    kept = max(0, min(length, bits - position))
    found = (value >> position) & ((1 << kept) - 1)
    return found | (((1 << bits) - 1) & ~((1 << kept) - 1) if sign else 0)


def insert(a, b, position, length, bits):
    mask = (((1 << min(length & 255, bits)) - 1) << (position & 255)) & ((1 << bits) - 1)
    return (b & ~mask) | ((a << (position & 255)) & mask)


def permute(a, b, selector):
    source = (a | b << 32).to_bytes(8, "little")
    result = 0
    for i in range(4):
        nibble = selector >> (4 * i) & 15
        byte = source[nibble & 7]
        result |= ((255 if byte & 128 else 0) if nibble & 8 else byte) << (8 * i)
    return result


def bytes_of(value, signed):
    return [int.from_bytes(bytes([byte]), "little", signed=signed) for byte in value.to_bytes(4, "little")]


INTEGER = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul.lo": lambda a, b: a * b,
    "div": divide,
    "rem": remainder,
    "min": min,
    "max": max,
}


@pytest.mark.parametrize("kind", ["u16", "s16", "u32", "s32", "u64", "s64"])
@pytest.mark.parametrize("name", INTEGER)
def test_integer(name, kind):
    a, b = values(kind, 1), values(kind, 2)
    found = run(f"{name}.{kind} %d, %a, %b;", kind, (kind, kind), (a, b))
    assert found.tolist() == [wrap(INTEGER[name](int(x), int(y)), kind) for x, y in zip(a, b, strict=True)]


@pytest.mark.parametrize("kind", ["u16", "s16", "u32", "s32", "u64", "s64"])
def test_products(kind):
    a, b, c = values(kind, 3), values(kind, 4), values(kind, 5)
    rows = [tuple(int(v) for v in row) for row in zip(a, b, c, strict=True)]
    high = run(f"mul.hi.{kind} %d, %a, %b;", kind, (kind, kind), (a, b))
    assert high.tolist() == [wrap(x * y >> BITS[kind], kind) for x, y, _ in rows]
    added = run(f"mad.lo.{kind} %d, %a, %b, %c;", kind, (kind,) * 3, (a, b, c))
    assert added.tolist() == [wrap(x * y + z, kind) for x, y, z in rows]
    if BITS[kind] < 64:
        wide = f"{kind[0]}{2 * BITS[kind]}"
        found = run(f"mul.wide.{kind} %d, %a, %b;", wide, (kind, kind), (a, b))
        assert found.tolist() == [x * y for x, y, _ in rows]
        c = values(wide, 6)
        found = run(f"mad.wide.{kind} %d, %a, %b, %c;", wide, (kind, kind, wide), (a, b, c))
        assert found.tolist() == [wrap(x * y + int(z), wide) for (x, y, _), z in zip(rows, c, strict=True)]


@pytest.mark.parametrize("kind", ["b16", "b32", "b64"])
def test_logic(kind):
    a, b = values(kind, 7), values(kind, 8)
    for name, function in (("and", np.bitwise_and), ("or", np.bitwise_or), ("xor", np.bitwise_xor)):
        assert run(f"{name}.{kind} %d, %a, %b;", kind, (kind, kind), (a, b)).tolist() == function(a, b).tolist()
    assert run(f"not.{kind} %d, %a;", kind, (kind,), (a,)).tolist() == (~a).tolist()


@pytest.mark.parametrize("kind", ["u16", "s16", "u32", "s32", "u64", "s64"])
def test_shifts(kind):
    a, by = values(kind, 9), values("u32", 10)
    by[:70] = np.arange(70)
    rows = [(int(x), min(int(n), 200)) for x, n in zip(a, by, strict=True)]
    plain = f"b{BITS[kind]}"
    assert run(f"shl.{plain} %d, %a, %b;", kind, (kind, "u32"), (a, by)).tolist() == [
        wrap(x << n, kind) for x, n in rows
    ]
    assert run(f"shr.{kind} %d, %a, %b;", kind, (kind, "u32"), (a, by)).tolist() == [x >> n for x, n in rows]


@pytest.mark.parametrize("kind", ["b32", "b64"])
def test_bits(kind):
    bits = BITS[kind]
    a = values(kind, 11)
    numbers = [int(x) for x in a]
    assert run(f"popc.{kind} %d, %a;", "u32", (kind,), (a,)).tolist() == [x.bit_count() for x in numbers]
    assert run(f"clz.{kind} %d, %a;", "u32", (kind,), (a,)).tolist() == [bits - x.bit_length() for x in numbers]
    assert run(f"brev.{kind} %d, %a;", kind, (kind,), (a,)).tolist() == [reverse(x, bits) for x in numbers]
    b, at, length = values(kind, 12), values("u32", 13, bits), values("u32", 14, bits + 1)
    found = run(f"bfi.{kind} %d, %a, %b, %c, %e;", kind, (kind, kind, "u32", "u32"), (a, b, at, length))
    rows = zip(a, b, at, length, strict=True)
    assert found.tolist() == [insert(int(x), int(y), int(p), int(n), bits) for x, y, p, n in rows]
    for kind in (f"u{bits}", f"s{bits}"):
        a = values(kind, 15)
        numbers = [int(x) for x in a]
        assert run(f"bfind.{kind} %d, %a;", "u32", (kind,), (a,)).tolist() == [leading(x, kind) for x in numbers]
        expected = [
            bits - 1 - leading(x, kind) if x not in (0, -1) or (kind[0] == "u" and x) else 0xFFFFFFFF for x in numbers
        ]
        assert run(f"bfind.shiftamt.{kind} %d, %a;", "u32", (kind,), (a,)).tolist() == expected
        at, length = values("u32", 16, bits + 5), values("u32", 17, bits + 5)
        found = run(f"bfe.{kind} %d, %a, %b, %c;", f"b{bits}", (kind, "u32", "u32"), (a, at, length))
        rows = zip(numbers, at, length, strict=True)
        assert found.tolist() == [field(x & ((1 << bits) - 1), int(p), int(n), kind) for x, p, n in rows]


def test_words_of_several():
    a, b, c = values("b32", 18), values("b32", 19), values("b32", 20)
    rows = [tuple(int(v) for v in row) for row in zip(a, b, c, strict=True)]
    kinds = ("b32",) * 3
    assert run("prmt.b32 %d, %a, %b, %c;", "b32", kinds, (a, b, c)).tolist() == [permute(*row) for row in rows]
    for table in (0x96, 0xE8, 0x40, 0x1B):
        expected = [
            sum((table >> ((x >> i & 1) << 2 | (y >> i & 1) << 1 | (z >> i & 1)) & 1) << i for i in range(32))
            for x, y, z in rows
        ]
        assert run(f"lop3.b32 %d, %a, %b, %c, {table};", "b32", kinds, (a, b, c)).tolist() == expected
    by = np.arange(THREADS, dtype=np.uint32)
    pairs = [(x | y << 32, int(n)) for (x, y, _), n in zip(rows, by, strict=True)]
    for mode, amount in (("wrap", lambda n: n & 31), ("clamp", lambda n: min(n, 32))):
        left = [(p << amount(n) >> 32) & 0xFFFFFFFF for p, n in pairs]
        right = [p >> amount(n) & 0xFFFFFFFF for p, n in pairs]
        assert run(f"shf.l.{mode}.b32 %d, %a, %b, %c;", "b32", kinds, (a, b, by)).tolist() == left
        assert run(f"shf.r.{mode}.b32 %d, %a, %b, %c;", "b32", kinds, (a, b, by)).tolist() == right


@pytest.mark.parametrize("a_kind", ["u32", "s32"])
@pytest.mark.parametrize("b_kind", ["u32", "s32"])
def test_dot_products(a_kind, b_kind):
    a, b, c = values("u32", 21), values("u32", 22), values("u32", 23)
    rows = [tuple(int(v) for v in row) for row in zip(a, b, c, strict=True)]
    signs = (a_kind[0] == "s", b_kind[0] == "s")
    kinds = ("u32",) * 3
    expected = [
        (sum(p * q for p, q in zip(bytes_of(x, signs[0]), bytes_of(y, signs[1]), strict=True)) + z) & 0xFFFFFFFF
        for x, y, z in rows
    ]
    assert run(f"dp4a.{a_kind}.{b_kind} %d, %a, %b, %c;", "u32", kinds, (a, b, c)).tolist() == expected
    for half, first in (("lo", 0), ("hi", 2)):
        expected = [
            (z + sum(wrap(x >> (16 * i), f"{a_kind[0]}16") * bytes_of(y, signs[1])[first + i] for i in range(2)))
            & 0xFFFFFFFF
            for x, y, z in rows
        ]
        assert run(f"dp2a.{half}.{a_kind}.{b_kind} %d, %a, %b, %c;", "u32", kinds, (a, b, c)).tolist() == expected


def test_wide_sums():
    a, b = values("u64", 24), values("u64", 25)
    text = """{ .reg .b32 %l, %h, %m, %n; mov.b64 {%l, %h}, %a; mov.b64 {%m, %n}, %b;
        add.cc.u32 %l, %l, %m; addc.u32 %h, %h, %n; mov.b64 %d, {%l, %h}; }"""
    assert run(text, "u64", ("u64", "u64"), (a, b)).tolist() == (a + b).tolist()
    text = text.replace("add.cc", "sub.cc").replace("addc", "subc")
    assert run(text, "u64", ("u64", "u64"), (a, b)).tolist() == (a - b).tolist()


COMPARE = {"eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal, "gt": np.greater,
           "ge": np.greater_equal}  # fmt: skip


@pytest.mark.parametrize("kind", ["u16", "s16", "u32", "s32", "u64", "s64", "f32", "f64"])
def test_comparisons(kind):
    a, b = values(kind, 27), values(kind, 28)
    b[::3] = a[::3]
    one = "mov.u32 %d, 0; @%p mov.u32 %d, 1;"
    for name, function in COMPARE.items():
        expected = function(a, b)
        if kind[0] == "f":
            ordered = ~(np.isnan(a) | np.isnan(b))
            expected &= ordered
            found = run(f"setp.{name}u.{kind} %p, %a, %b; {one}", "u32", (kind, kind), (a, b))
            assert found.astype(bool).tolist() == (expected | ~ordered).tolist()
        found = run(f"setp.{name}.{kind} %p, %a, %b; {one}", "u32", (kind, kind), (a, b))
        assert found.astype(bool).tolist() == expected.tolist()


@pytest.mark.parametrize(
    ("name", "function"), [("and", np.logical_and), ("or", np.logical_or), ("xor", np.logical_xor)]
)
def test_comparisons_with_predicates(name, function):
    a, b = values("s32", 29), values("s32", 30)
    text = f"""setp.gt.s32 %r, %b, 7; setp.lt.{name}.s32 %p|%r, %a, %b, !%r;
        selp.u32 %d, 1, 0, %p; @%r add.u32 %d, %d, 2;"""
    found = run(text, "u32", ("s32", "s32"), (a, b))
    other = ~(b > 7)
    assert found.tolist() == (function(a < b, other) + 2 * function(~(a < b), other)).tolist()


INTEGERS = ["u16", "s16", "u32", "s32", "u64", "s64"]


@pytest.mark.parametrize("source", INTEGERS)
@pytest.mark.parametrize("target", ["u8", "s8", *INTEGERS])
def test_integer_conversions(source, target):
    a = values(source, 31)
    held = target if target[1:] != "8" else f"{target[0]}16"
    narrow = {"u8": np.uint8, "s8": np.int8}.get(target, DTYPES.get(target))
    found = run(f"cvt.{target}.{source} %d, %a;", held, (source,), (a,))
    assert found.tolist() == a.astype(narrow).astype(DTYPES[held]).tolist()
    found = run(f"cvt.sat.{target}.{source} %d, %a;", held, (source,), (a,))
    info = np.iinfo(narrow)
    assert found.tolist() == [min(max(int(x), info.min), info.max) for x in a]


@pytest.mark.parametrize("kind", ["u32", "s32", "u64", "s64"])
@pytest.mark.parametrize("real", ["f32", "f64"])
def test_conversions_of_floats(kind, real):
    a = values(kind, 32)
    assert run(f"cvt.rn.{real}.{kind} %d, %a;", real, (kind,), (a,)).tolist() == a.astype(DTYPES[real]).tolist()
    a = values(real, 33)
    a = a[np.isfinite(a)][:80]
    a = np.concatenate([a, np.zeros(THREADS - len(a), a.dtype)])
    info = np.iinfo(DTYPES[kind])
    for mode, function in (("rni", np.rint), ("rzi", np.trunc), ("rmi", np.floor), ("rpi", np.ceil)):
        expected = [min(max(int(x), info.min), info.max) for x in function(a)]
        assert run(f"cvt.{mode}.{kind}.{real} %d, %a;", kind, (real,), (a,)).tolist() == expected


@pytest.mark.parametrize("kind", ["f32", "f64"])
@pytest.mark.filterwarnings("ignore:.*encountered:RuntimeWarning")
def test_floats(kind):
    a, b, c = values(kind, 34), values(kind, 35), values(kind, 36)
    pair = (kind, kind)
    for name, function in (("add", np.add), ("sub", np.subtract), ("mul", np.multiply), ("div", np.divide)):
        found = run(f"{name}.rn.{kind} %d, %a, %b;", kind, pair, (a, b))
        np.testing.assert_array_equal(found, function(a, b))
    np.testing.assert_array_equal(run(f"rcp.rn.{kind} %d, %a;", kind, (kind,), (a,)), 1 / a)
    np.testing.assert_array_equal(run(f"sqrt.rn.{kind} %d, %a;", kind, (kind,), (a,)), np.sqrt(a))
    np.testing.assert_array_equal(run(f"neg.{kind} %d, %a;", kind, (kind,), (a,)), -a)
    np.testing.assert_array_equal(run(f"min.{kind} %d, %a, %b;", kind, pair, (a, b)), np.fmin(a, b))
    np.testing.assert_array_equal(run(f"max.{kind} %d, %a, %b;", kind, pair, (a, b)), np.fmax(a, b))
    if kind == "f32":  # a product of two float32 is exact in float64, and so is most of the sum
        a, b, c = (np.round(x[np.isfinite(x)][:80] * 8) for x in (a, b, c))
        a, b, c = (np.concatenate([x, np.zeros(THREADS - len(x), np.float32)]).clip(-1e6, 1e6) for x in (a, b, c))
        exact = (a.astype(np.float64) * b + c).astype(np.float32)
        np.testing.assert_array_equal(run(f"fma.rn.{kind} %d, %a, %b, %c;", kind, (kind,) * 3, (a, b, c)), exact)
        two = (a * b).astype(np.float32) + c
        text = f"mul.rn.{kind} %d, %a, %b; add.rn.{kind} %d, %d, %c;"
        np.testing.assert_array_equal(run(text, kind, (kind,) * 3, (a, b, c)), two)
        assert (exact != two).any()


def test_nth_set_bit():
    a = values("b32", 37)
    base, n = values("u32", 38, 32), (values("u32", 39, 9).astype(np.int32) - 4)
    found = run("fns.b32 %d, %a, %b, %c;", "b32", ("b32", "u32", "s32"), (a, base, n))
    expected = []
    for x, start, count in zip(a.tolist(), base.tolist(), n.tolist(), strict=True):
        step = -1 if count < 0 else 1
        places = [i for i in range(start, 32 if step > 0 else -1, step) if x >> i & 1]
        if count == 0:
            places = [start] if x >> start & 1 else []
        index = max(abs(count), 1) - 1
        expected.append(places[index] if index < len(places) else 0xFFFFFFFF)
    assert found.tolist() == expected
