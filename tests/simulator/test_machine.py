"""What compilers make of CUDA C++, run by the simulator: results against NumPy, under every schedule."""

import numpy as np
import pytest
from machine import Machine, SimulationError
from snippets import ptx

from binarynet.cuda.blocks import TensorMap

SCHEDULES = ["early", "late", 1, 2]
WAYS = [((7, 5), "75"), ((8, 0), "80"), ((9, 0), "90a")]


def popcounts(words):
    """Over the last axis."""
    return np.unpackbits(words.view(np.uint8), axis=-1).sum(-1, dtype=np.int64)


def u64(address):
    return np.uint64(address)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(("capability", "architecture"), WAYS)
def test_threads_and_blocks_of_three_dimensions(capability, architecture, schedule):
    source = """
    KERNEL places(int* out) {
      int thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
      int block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
      out[block * blockDim.x * blockDim.y * blockDim.z + thread] =
          threadIdx.x + 100 * threadIdx.y + 10000 * threadIdx.z + 1000000 * blockIdx.y + 10000000 * blockIdx.z;
    }"""
    machine = Machine(capability, schedule)
    out = machine.allocate(4 * 3 * 2 * 2 * 5 * 3 * 2)
    machine.run_ptx(ptx(source, architecture), "places", (3, 2, 2), (5, 3, 2), 0, (u64(out),))
    found = machine.download(out, (2, 2, 3, 2, 3, 5), np.int32)
    z, y, _, tz, ty, tx = np.indices(found.shape)
    np.testing.assert_array_equal(found, tx + 100 * ty + 10000 * tz + 1000000 * y + 10000000 * z)
    assert machine.counts[1] > machine.counts[0] > 0


def test_parameters_and_variables():
    source = """
    struct Mixed { char a; short b[3]; double c; };
    __constant__ int table[4] = {5, 6, 7};
    __device__ long long counter = 40;
    __device__ int* where[2];
    __device__ __noinline__ int tripled(int x, Mixed m) { return 3 * x + m.b[2]; }
    KERNEL mixed(u8 first, Mixed m, short second, const __grid_constant__ Mixed by_address, long long* out) {
      const Mixed* p = &by_address;
      out[0] = first + 2 * second;
      out[1] = m.a + m.b[1] + (int)m.c;
      out[2] = p->b[threadIdx.x] + table[threadIdx.x + 1];
      out[3] = tripled((int)out[0], m) + tripled(1, *p);
      out[4] = counter + (where[1] == nullptr) + table[3];
      counter += 1;
    }"""
    mixed = np.dtype([("a", "i1"), ("pad", "u1"), ("b", "<i2", 3), ("c", "<f8")])
    one = np.array([(3, 0, (10, 20, 30), 7.9)], mixed).tobytes()
    two = np.array([(4, 0, (11, 21, 31), 0)], mixed).tobytes()
    machine = Machine()
    out = machine.allocate(40)
    for launch in range(2):
        machine.run_ptx(ptx(source), "mixed", (1, 1, 1), 1, 0, (np.uint8(250), one, np.int16(-4), two, u64(out)))
        assert machine.download(out, 5, np.int64).tolist() == [242, 30, 17, 726 + 30 + 3 + 31, 41 + launch]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_divergence(schedule):
    source = """
    KERNEL diverge(const int* in, int* out) {
      int i = threadIdx.x, n = in[i], steps = 0;
      while (n != 1) { n = n % 2 ? 3 * n + 1 : n / 2; steps++; if (steps > 90) break; }
      int local[6];
      for (int k = 0; k < 6; k++) local[k] = k * i;
      switch (i % 6) {
        case 0: steps += 1000; break;
        case 1: steps *= 3; break;
        case 2: steps -= n; break;
        case 3: steps ^= 85; break;
        case 4: if (i > 40) return; steps = -steps; break;
        default: steps += local[(n + i) % 6];
      }
      unsigned active = __activemask();
      __syncwarp(active);
      out[i] = steps + (int)__reduce_add_sync(active, 1u);
    }"""
    numbers = np.arange(1, 65, dtype=np.int32)
    machine = Machine((9, 0), schedule)
    out = machine.zeros(256)
    machine.run_ptx(ptx(source), "diverge", (1, 1, 1), 64, 0, (u64(machine.upload(numbers)), u64(out)))

    def expected(i):
        n, steps = int(numbers[i]), 0
        while n != 1:
            n = 3 * n + 1 if n % 2 else n // 2
            steps += 1
            if steps > 90:
                break
        if i % 6 == 4 and i > 40:
            return 0
        return [steps + 1000, steps * 3, steps - n, steps ^ 85, -steps, steps + (n + i) % 6 * i][i % 6]

    found = machine.download(out, 64, np.int32)
    ran = np.array([not (i % 6 == 4 and i > 40) for i in range(64)])
    group = found - np.array([expected(i) for i in range(64)])
    # How many lanes are together is the machine's business; a group has at least itself.
    assert (group[ran] >= 1).all()
    assert (group[ran] <= 32).all()
    assert (found[~ran] == 0).all()


def test_lanes_talk():
    source = """
    KERNEL talk(const int* in, int* out) {
      int i = threadIdx.x, x = in[i];
      out[i] = __shfl_up_sync(~0u, x, 3);
      out[32 + i] = __shfl_down_sync(~0u, x, 5, 16);
      out[64 + i] = __shfl_xor_sync(~0u, x, 9);
      out[96 + i] = __shfl_sync(~0u, x, i * 7, 8);
      out[128 + i] = __ballot_sync(~0u, x & 1);
      out[160 + i] = __any_sync(~0u, x == in[3]) + 2 * __all_sync(~0u, x > 0);
      out[192 + i] = __match_any_sync(~0u, x & 3);
      if (i % 3 == 0) out[224 + i] = __shfl_sync(0x49249249, x, 30) + __reduce_max_sync(0x49249249, x);
      else out[224 + i] = __popc(__ballot_sync(~0x49249249, x & 2));
    }"""
    x = np.random.default_rng(0).integers(-99, 99, 32).astype(np.int32)
    machine = Machine((8, 0), "late")
    out = machine.allocate(4 * 256)
    machine.run_ptx(ptx(source, "80"), "talk", (1, 1, 1), 32, 0, (u64(machine.upload(x)), u64(out)))
    found = machine.download(out, (8, 32), np.int32)
    i = np.arange(32)
    np.testing.assert_array_equal(found[0], x[np.where(i < 3, i, i - 3)])
    np.testing.assert_array_equal(found[1], x[np.where(i % 16 + 5 < 16, np.minimum(i + 5, 31), i)])
    np.testing.assert_array_equal(found[2], x[i ^ 9])
    np.testing.assert_array_equal(found[3], x[i // 8 * 8 + i * 7 % 8])
    assert set(found[4].view(np.uint32)) == {sum(1 << lane for lane in range(32) if x[lane] & 1)}
    assert set(found[5]) == {1 + 2 * (x > 0).all()}
    same = [sum(1 << lane for lane in range(32) if x[lane] & 3 == x[k] & 3) for k in range(32)]
    assert found[6].view(np.uint32).tolist() == same
    thirds = i % 3 == 0
    expected = np.where(thirds, x[30] + x[thirds].max(), (x[~thirds] & 2 != 0).sum())
    np.testing.assert_array_equal(found[7], expected)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_atomics_and_shared_memory(schedule):
    source = """
    KERNEL histogram(const u8* in, int n, int* bins, u64* total, int* largest, float* sum, u32* last) {
      __shared__ int local[16];
      extern __shared__ int stage[];
      if (threadIdx.x < 16) local[threadIdx.x] = 0;
      __syncthreads();
      for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) {
        atomicAdd(&local[in[i] & 15], 1);
        atomicMax(largest, (int)in[i]);
        atomicAdd(total, (u64)in[i] << 30);
        atomicAdd(sum, 0.5f);
      }
      stage[threadIdx.x] = threadIdx.x;
      bool any = __syncthreads_or(threadIdx.x == 70);
      if (threadIdx.x < 16) atomicAdd(&bins[threadIdx.x], local[threadIdx.x] + stage[127 - threadIdx.x] * any);
      __syncthreads();
      if (threadIdx.x == 0 && atomicInc(last, gridDim.x - 1) == gridDim.x - 1) bins[16] = atomicCAS(&bins[17], 5, 6);
    }"""
    data = np.random.default_rng(1).integers(0, 255, 1000).astype(np.uint8)
    machine = Machine((8, 0), schedule)
    bins = machine.upload(np.array([0] * 17 + [5], np.int32))
    rest = [machine.zeros(8) for _ in range(4)]
    arguments = (u64(machine.upload(data)), np.int32(1000), u64(bins), *(u64(address) for address in rest))
    machine.run_ptx(ptx(source, "80"), "histogram", (3, 1, 1), 128, 512, arguments)
    expected = np.bincount(data & 15, minlength=16) + 3 * (127 - np.arange(16))
    assert machine.download(bins, 18, np.int32).tolist() == [*expected.tolist(), 5, 6]
    assert machine.download(rest[0], 1, np.uint64)[0] == int(data.sum()) << 30
    assert machine.download(rest[1], 1, np.int32)[0] == data.max()
    assert machine.download(rest[2], 1, np.float32)[0] == 500
    assert machine.download(rest[3], 1, np.int32)[0] == 0


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_named_barriers(schedule):
    source = """
    KERNEL relay(int* out) {
      __shared__ int box[2][64];
      int t = threadIdx.x % 64;
      if (threadIdx.x < 64) {
        for (int k = 0; k < 6; k++) {
          if (k >= 2) asm volatile("bar.sync %0, 128;" :: "r"(3 + k % 2) : "memory");
          box[k % 2][t] = 10 * k + t;
          asm volatile("bar.arrive %0, 128;" :: "r"(1 + k % 2) : "memory");
        }
      } else {
        int sum = 0;
        for (int k = 0; k < 6; k++) {
          asm volatile("bar.sync %0, 128;" :: "r"(1 + k % 2) : "memory");
          sum = 3 * sum + box[k % 2][63 - t];
          if (k < 4) asm volatile("bar.arrive %0, 128;" :: "r"(3 + k % 2) : "memory");
        }
        out[t] = sum;
      }
    }"""
    machine = Machine((9, 0), schedule)
    out = machine.allocate(256)
    machine.run_ptx(ptx(source), "relay", (1, 1, 1), 128, 0, (u64(out),))
    t = np.arange(64)
    expected = sum(3 ** (5 - k) * (10 * k + 63 - t) for k in range(6))
    np.testing.assert_array_equal(machine.download(out, 64, np.int32), expected)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_lane_copies(schedule):
    source = """
    KERNEL copies(const uint4* in, const u32* words, uint4* out) {
      __shared__ __align__(16) uint4 s[3][32];
      __shared__ u32 w[32];
      int t = threadIdx.x;
      for (int k = 0; k < 3; k++) {
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" :: "r"(shared_at(&s[k][t])),
                     "l"(__cvta_generic_to_global(in + 32 * k + t)), "r"(t < 30 ? 16 : t == 30 ? 5 : 0) : "memory");
        asm volatile("cp.async.commit_group;" ::: "memory");
      }
      asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" :: "r"(shared_at(w + t)),
                   "l"(__cvta_generic_to_global(words + t)) : "memory");
      for (int k = 0; k < 3; k++) {
        if (k == 0) asm volatile("cp.async.wait_group 2;" ::: "memory");
        if (k == 1) asm volatile("cp.async.wait_group 1;" ::: "memory");
        if (k == 2) asm volatile("cp.async.wait_all;" ::: "memory");
        __syncwarp();
        out[32 * k + t] = s[k][31 - t];
      }
      out[t].x += w[t];
    }"""
    rng = np.random.default_rng(2)
    data, words = (rng.integers(0, 2**30, shape).astype(np.uint32) for shape in ((3, 32, 4), 32))
    machine = Machine((8, 0), schedule)
    out = machine.allocate(data.nbytes)
    arguments = (u64(machine.upload(data)), u64(machine.upload(words)), u64(out))
    machine.run_ptx(ptx(source, "80"), "copies", (1, 1, 1), 32, 0, arguments)
    expected = data.copy()
    expected[:, 30:] = 0
    expected[:, 30, :2] = data[:, 30, :2] & [0xFFFFFFFF, 0xFF]
    expected = expected[:, ::-1].copy()
    expected[0, :, 0] += words
    np.testing.assert_array_equal(machine.download(out, data.shape, np.uint32), expected)


PIPELINE = """
struct alignas(64) Map { u64 opaque[16]; };
static __device__ void wait(u32 barrier, u32 parity) {
  u32 over;
  do asm volatile("{ .reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2; selp.u32 %0, 1, 0, p; }"
                  : "=r"(over) : "r"(barrier), "r"(parity) : "memory");
  while (!over);
}
KERNEL pipeline(const __grid_constant__ Map from, const __grid_constant__ Map to, int tiles) {
  extern __shared__ __align__(1024) u8 stage[];   // 2 x 4096 read, 4096 written
  __shared__ __align__(8) u64 full[2], empty[2];
  int t = threadIdx.x;
  u32 s = shared_at(stage), f = shared_at(full), e = shared_at(empty);
  if (t == 0) {
    for (int k = 0; k < 2; k++) {
      asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" :: "r"(f + 8 * k) : "memory");
      asm volatile("mbarrier.init.shared::cta.b64 [%0], 2;" :: "r"(e + 8 * k) : "memory");
    }
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  }
  __syncthreads();
  if (t >= 64) {
    if (t == 64)
      for (int k = 0; k < tiles; k++) {
        wait(e + 8 * (k % 2), k / 2 % 2 ^ 1);
        asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], 4096;" :: "r"(f + 8 * (k % 2)) : "memory");
        asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], "
                     "[%1, {%2, %3}], [%4];" :: "r"(s + 4096 * (k % 2)), "l"(&from), "r"(0), "r"(32 * k),
                     "r"(f + 8 * (k % 2)) : "memory");
      }
    return;
  }
  u32* result = (u32*)(stage + 8192);
  for (int k = 0; k < tiles; k++) {
    wait(f + 8 * (k % 2), k / 2 % 2);
    const u32* in = (const u32*)(stage + 4096 * (k % 2));
    u32 row[16];
    for (int i = 0; i < 16; i++) row[i] = in[t * 16 + i] + k;
    __syncwarp();
    if (t % 32 == 0) asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" :: "r"(e + 8 * (k % 2)) : "memory");
    if (t == 0) asm volatile("cp.async.bulk.wait_group.read 0;" ::: "memory");
    asm volatile("bar.sync 1, 64;" ::: "memory");
    for (int i = 0; i < 16; i++) result[t * 16 + i] = row[i];
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
    asm volatile("bar.sync 1, 64;" ::: "memory");
    if (t == 0) {
      asm volatile("cp.async.bulk.tensor.2d.global.shared::cta.tile.bulk_group [%0, {%1, %2}], [%3];" :: "l"(&to),
                   "r"(0), "r"(32 * k), "r"(s + 8192) : "memory");
      asm volatile("cp.async.bulk.commit_group;" ::: "memory");
    }
  }
  if (t == 0) asm volatile("cp.async.bulk.wait_group 0;" ::: "memory");
}
"""


def tile_map(address, rows):
    return TensorMap(address, 4, (32, rows), (128,), (32, 32), 128)


def run_pipeline(source, schedule, tiles=5):
    data = np.random.default_rng(3).integers(0, 2**31, (32 * tiles, 32)).astype(np.uint32)
    machine = Machine((9, 0), schedule)
    out = machine.allocate(data.nbytes)
    maps = (tile_map(machine.upload(data), 32 * tiles), tile_map(out, 32 * tiles))
    machine.run_ptx(ptx(source), "pipeline", (1, 1, 1), 96, 12288, (*maps, np.int32(tiles)))
    expected = data + np.repeat(np.arange(tiles, dtype=np.uint32), 32)[:, None]
    return machine.download(out, data.shape, np.uint32), expected


@pytest.mark.parametrize("schedule", [*SCHEDULES, *range(3, 13)])
def test_bulk_tensor_pipeline(schedule):
    found, expected = run_pipeline(PIPELINE, schedule)
    np.testing.assert_array_equal(found, expected)


WGMMA = """
KERNEL products(const u32* a, const u32* b, int* out) {
  __shared__ __align__(128) u32 tile[2][64 * 8 + 8 * 8];
  int t = threadIdx.x;
  for (int k = 0; k < 2; k++) {
    for (int i = t; i < 512; i += 128) tile[k][i / 8 % 8 * 4 + i / 64 * 64 + i / 4 % 2 * 32 + i % 4] = a[512 * k + i];
    if (t < 64) tile[k][512 + t / 8 * 4 + t / 4 % 2 * 32 + t % 4] = b[64 * k + t];
  }
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
  __syncthreads();
  int d[4] = {1, 2, 3, 4};
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
  for (int k = 0; k < 2; k++) {
    u64 left = (shared_at(tile[k]) & 0x3ffff) >> 4 | (u64)(128 >> 4) << 16 | (u64)(256 >> 4) << 32;
    u64 right = (shared_at(tile[k] + 512) & 0x3ffff) >> 4 | (u64)(128 >> 4) << 16 | (u64)(256 >> 4) << 32;
    asm volatile("{ .reg .pred p; setp.ne.b32 p, %6, 0; "
                 "wgmma.mma_async.sync.aligned.m64n8k256.s32.b1.b1.and.popc {%0, %1, %2, %3}, %4, %5, p; }"
                 : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3]) : "l"(left), "l"(right), "r"(k));
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
  }
  asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
  for (int i = 0; i < 4; i++) {
    asm volatile("" : "+r"(d[i]) :: "memory");
    out[(16 * (t / 32) + t % 32 / 4 + i / 2 * 8) * 8 + t % 4 * 2 + i % 2] = d[i];
  }
}
"""


def run_wgmma(source, schedule):
    rng = np.random.default_rng(4)
    a, b = (rng.integers(0, 2**32, (2, rows, 8), dtype=np.uint32) for rows in (64, 8))
    machine = Machine((9, 0), schedule)
    out = machine.allocate(4 * 64 * 8)
    machine.run_ptx(
        ptx(source), "products", (1, 1, 1), 128, 0, (u64(machine.upload(a)), u64(machine.upload(b)), u64(out))
    )
    expected = popcounts(a[:, :, None] & b[:, None]).sum(0)
    return machine.download(out, (64, 8), np.int32), expected


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_products_of_a_warpgroup(schedule):
    found, expected = run_wgmma(WGMMA, schedule)
    np.testing.assert_array_equal(found, expected)


MMA = """
KERNEL products(const u32* a, const u32* b, int* out) {
  __shared__ __align__(16) u32 tile[16 * 8];
  int t = threadIdx.x;
  for (int i = t; i < 128; i += 32) tile[i] = a[i];
  __syncwarp();
  u32 r[4];
  int d[4];
  u32 row = shared_at(tile) + (t % 16) * 32 + t / 16 * 16;
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(row) : "memory");
  asm volatile("mma.sync.aligned.INSTRUCTION {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%10, %10, %10, %10};"
               : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3])
               : "r"(r[0]), "r"(r[1]), "r"(r[2]), "r"(r[3]), "r"(b[t / 4 * 8 + t % 4]), "r"(b[t / 4 * 8 + 4 + t % 4]),
                 "r"(7));
  for (int i = 0; i < 4; i++) out[(t / 4 + i / 2 * 8) * 8 + t % 4 * 2 + i % 2] = d[i];
}
"""


@pytest.mark.parametrize("what", ["bits", "bytes"])
def test_products_of_a_warp(what):
    rng = np.random.default_rng(5)
    a, b = (rng.integers(0, 2**32, (rows, 8), dtype=np.uint32) for rows in (16, 8))
    if what == "bits":
        instruction = "m16n8k256.row.col.s32.b1.b1.s32.and.popc"
        expected = popcounts(a[:, None] & b[None]) + 7
    else:
        instruction = "m16n8k32.row.col.s32.u8.s8.s32"
        expected = a.view(np.uint8).astype(int) @ b.view(np.int8).astype(int).T + 7
    machine = Machine((8, 0), "late")
    out = machine.allocate(4 * 16 * 8)
    arguments = (u64(machine.upload(a)), u64(machine.upload(b)), u64(out))
    machine.run_ptx(ptx(MMA.replace("INSTRUCTION", instruction), "80"), "products", (1, 1, 1), 32, 0, arguments)
    np.testing.assert_array_equal(machine.download(out, (16, 8), np.int32), expected)


def test_memory():
    machine = Machine(memory_bytes=1000)
    array = np.arange(200, dtype=np.uint8)
    address = machine.upload(array)
    assert address % 256 == 0
    np.testing.assert_array_equal(machine.download(address + 10, 50, np.uint8), array[10:60])
    other = machine.allocate(700)
    with pytest.raises(SimulationError, match="out of memory: 101 bytes asked for, 100 free"):
        machine.allocate(101)
    with pytest.raises(SimulationError, match="uninitialized"):
        machine.download(other, 1, np.uint8)
    assert machine.download(other, 1, np.uint8, uninitialized=True).shape == (1,)
    machine.free(other)
    with pytest.raises(SimulationError, match="freed"):
        machine.free(other)
    with pytest.raises(SimulationError, match="illegal address"):
        machine.download(address + 1, 200, np.uint8)
    with pytest.raises(SimulationError, match="0 bytes"):
        machine.allocate(0)
