"""Faults planted in kernels: each is found, named, and said where; the same kernel without it passes."""

import numpy as np
import pytest
from machine import Machine, SimulationError
from snippets import one_instruction, ptx
from test_machine import PIPELINE, SCHEDULES, WGMMA, run_pipeline, run_wgmma

SEEDS = range(1, 9)


def run(source, schedule="early", threads=64, grid=1, inputs=256, capability=(9, 0), shared=0, **options):
    """Kernel ``k(const int* in, int* out)``: 64 numbers in, 256 bytes out."""
    machine = Machine(capability, schedule, **options)
    in_, out = machine.upload(np.arange(inputs // 4, dtype=np.int32)), machine.allocate(256)
    architecture = {(9, 0): "90a", (8, 0): "80"}[capability]
    arguments = (np.uint64(in_), np.uint64(out))
    machine.run_ptx(ptx(source, architecture), "k", (grid, 1, 1), threads, shared, arguments)
    return machine.download(out, 64, np.int32, uninitialized=True)


def kernel(body):
    return f"KERNEL k(const int* in, int* out) {{ int t = threadIdx.x; {body} }}"


MEMORY = [
    ("out[t] = in[t + 1];", "illegal address", "reads 4 bytes of global .* past the end of a buffer of 256 bytes"),
    ("out[t - 1] = in[t];", "illegal address", "writes 4 bytes of global .* 4 bytes before a buffer of 256 bytes"),
    ("out[t] = *(int*)(u64)(8 * t);", "illegal address", "lies in no buffer"),
    ("out[t] = *(const int*)((const char*)in + 2);", "misaligned address", "no multiple of 4"),
    ("*(u64*)(out + 1) = t;", "misaligned address", "no multiple of 8"),
    ("__shared__ int s[64]; s[t] = 1; out[t] = *(volatile int*)((char*)s + t);", "misaligned address", "shared memory"),
    ("if (t < 32) out[t] = 1; else out[t] = out[t] + 1;", "uninitialized", "offset 128 of a buffer of 256 bytes"),
    ("__shared__ int s[64]; if (t) s[t] = 1; __syncthreads(); out[t] = s[t];", "uninitialized", "reads shared memory"),
    ("extern __shared__ int s[]; s[t * 5] = 1; __syncthreads(); out[t] = s[t];", "illegal address", "shared memory"),
    ("int a[4] = {t, 1, 2, 3}; a[in[0] + t] = 5; out[t] = a[t % 4];", "illegal address", "local memory"),
    ("__trap();", "trap", "trap"),
]


@pytest.mark.parametrize(("body", "kind", "text"), MEMORY)
def test_memory(body, kind, text):
    with pytest.raises(SimulationError, match=text) as caught:
        run(kernel(body), shared=1024)
    assert caught.value.kind == kind
    assert "kernel k, block (0, 0, 0), thread (" in str(caught.value)
    assert "PTX line " in str(caught.value)


def test_constants_cannot_be_written():
    text = one_instruction("cvta.const.u64 %q, table; st.u32 [%q], 1; mov.u32 %d, 0;", "u32", ())
    text = text.replace(".visible", ".const .u32 table = 7;\n.visible")
    machine = Machine()
    with pytest.raises(SimulationError, match="constant memory"):
        machine.run_ptx(text, "k", (1, 1, 1), 1, 0, (np.uint64(machine.allocate(4)),))


def test_freed_memory():
    machine = Machine()
    in_, out = machine.upload(np.zeros(64, np.int32)), machine.allocate(256)
    machine.free(in_)
    with pytest.raises(SimulationError, match="lies in a buffer that was freed"):
        machine.run_ptx(ptx(kernel("out[t] = in[t];")), "k", (1, 1, 1), 64, 0, (np.uint64(in_), np.uint64(out)))


RACES = [
    # a store and a load of other warps; the barrier mends it
    ("__shared__ int s[64]; s[t] = in[t]; BARRIER; out[t] = s[63 - t];", "shared memory"),
    # a load and then a store
    ("__shared__ int s[64]; s[t] = in[t]; __syncthreads(); int x = s[63 - t]; BARRIER; s[t] = x + 100; out[t] = x;",
     "race in shared memory"),
    # two stores
    ("__shared__ int s[64]; s[t] = in[t]; BARRIER; s[63 - t] = in[t] + 70; __syncthreads(); out[t] = s[t];",
     "race in shared memory"),
    # the second turn of a loop overwrites what the first one reads
    ("__shared__ int s[64]; int x = 0; for (int k = 0; k < 3; k++) { s[t] = in[t] + k; __syncthreads(); x += s[63 - t];"
     " BARRIER; } out[t] = x;", "race in shared memory"),
    # global memory: another value from another warp
    ("out[t] = t; BARRIER; out[63 - t] = t + 1;", "race in global memory"),
]  # fmt: skip


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(("body", "text"), RACES)
def test_missing_barriers(body, text, schedule):
    run(kernel(body.replace("BARRIER", "__syncthreads()")), schedule)
    with pytest.raises(SimulationError, match=text) as caught:
        run(kernel(body.replace("BARRIER", "")), schedule)
    assert caught.value.kind in ("race", "uninitialized")


def test_races_without_a_remedy():
    with pytest.raises(SimulationError, match="two threads of a warp write different values in one instruction"):
        run(kernel("__shared__ int s[2]; s[0] = in[t]; __syncthreads(); out[t] = s[0];"), threads=32)
    run(kernel("__shared__ int s[2]; s[0] = 5; __syncthreads(); out[t] = s[0];"))
    with pytest.raises(SimulationError, match=r"race in global memory .* what thread 0 of block number 0 wrote"):
        run(kernel("out[t] = t + 3 * blockIdx.x;"), grid=2, threads=64)
    run(kernel("out[t] = t;"), grid=2)
    run(kernel("if (blockIdx.x == 0) out[t] = 0; atomicMax(out + t, t);").replace("if", "out[t] = 0; if"), grid=1)


def test_lanes_that_do_not_run_in_step():
    """A barrier of the warp is missing: only schedules by a seed let lanes run apart."""
    body = "__shared__ int s[32]; s[t] = in[t]; BARRIER; for (int k = 0; k < 9; k++) { int x = s[31 - t]; BARRIER;"
    body += " s[t] = x + t; BARRIER; } out[t] = s[t];"
    expected = run(kernel(body.replace("BARRIER", "__syncwarp()")), threads=32)[:32]
    found = set()
    for seed in range(30):
        assert (run(kernel(body.replace("BARRIER", "__syncwarp()")), seed, 32)[:32] == expected).all()
        try:
            found.add((run(kernel(body.replace("BARRIER", "")), seed, 32)[:32] == expected).all())
        except SimulationError:
            found.add(False)
    assert False in found


SYNCHRONIZATION = [
    ("if (t < 16) __syncthreads(); else out[t] = in[t]; __syncthreads();", "synchronization", "other lanes"),
    ("if (t % 2) { if (in[t]) __syncthreads(); } else out[0] = __shfl_sync(~0u, t, 3);", "synchronization", "lanes"),
    ('asm volatile("bar.sync 1, 96;" ::: "memory"); out[t] = 1;', "deadlock", "never happens"),
    ('asm volatile("bar.sync 1, 40;" ::: "memory"); out[t] = 1;', "synchronization", "multiple of 32"),
    ('asm volatile("bar.sync %0, 64;" :: "r"(16 + in[0]) : "memory"); out[t] = 1;', "synchronization", "no barrier 16"),
    ('if (t < 32) asm volatile("bar.sync 1, 64;" ::: "memory"); else asm volatile("bar.sync 1, 96;" ::: "memory");',
     "synchronization", "with 96 and with 64|with 64 and with 96"),
    ('if (t < 32) __syncthreads(); else asm volatile("bar.sync 1;" ::: "memory");', "deadlock", "never happens"),
    ("if (t < 8) out[t] = __shfl_sync(0xff00, t, 0);", "synchronization", "does not name the lane"),
    ("if (t % 32 < 8) out[t] = __shfl_sync(0x1ff, t, 0); else while (in[0] == 0) out[t] = 1;", "budget", "PTX line"),
    ("while (in[0] == 0) out[t] = 1;", "budget", "more than 100000 instructions"),
]  # fmt: skip


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(("body", "kind", "text"), SYNCHRONIZATION)
def test_synchronization(body, kind, text, schedule):
    with pytest.raises(SimulationError, match=text) as caught:
        run(kernel(body), schedule, budget=100000)
    assert caught.value.kind == kind


MBARRIER = kernel("""__shared__ u64 bar; u32 at = shared_at(&bar);
  if (t == 0) asm volatile("mbarrier.init.shared::cta.b64 [%0], 64;" :: "r"(at) : "memory");
  __syncthreads();
  asm volatile("{ .reg .pred p; mbarrier.arrive.shared::cta.b64 _, [%0];"
               " AGAIN: mbarrier.try_wait.parity.shared::cta.b64 p, [%0], 0; @!p bra AGAIN; }" :: "r"(at) : "memory");
  out[t] = t;""")


def test_mbarriers():
    for schedule in SCHEDULES:
        assert (run(MBARRIER, schedule) == np.arange(64)).all()
        with pytest.raises(
            SimulationError, match=r"never happens \(the mbarrier: phase parity 0, 1 of 65 .*\)\n.*try_wait"
        ):
            run(MBARRIER.replace("[%0], 64;", "[%0], 65;"), schedule)
    with pytest.raises(SimulationError, match=r"reads shared memory .* which nothing has written"):
        run(MBARRIER.replace("  __syncthreads();\n", ""), "late")


def fails(function, schedules):
    """The kinds of errors, and "wrong" for wrong results, that come up under some schedule."""
    kinds = set()
    for schedule in schedules:
        try:
            found, expected = function(schedule)
            if (found != expected).any():
                kinds.add("wrong")
        except SimulationError as error:
            kinds.add(error.kind)
    return kinds


def test_missing_wait_for_lane_copies():
    body = """__shared__ __align__(16) int s[64];
      asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" :: "r"(shared_at(s + t)),
                   "l"(__cvta_generic_to_global(in + t)) : "memory");
      asm volatile("cp.async.commit_group;" ::: "memory");
      asm volatile("cp.async.wait_group 0;" ::: "memory");
      __syncthreads(); out[t] = s[63 - t];"""
    for schedule in SCHEDULES:
        assert (run(kernel(body), schedule) == np.arange(64)[::-1]).all()
    for pending in (1, 7):
        broken = kernel(body.replace("wait_group 0", f"wait_group {pending}"))
        with pytest.raises(SimulationError, match=r"reads shared memory .* which nothing has written"):
            run(broken, "late")
    with pytest.raises(SimulationError, match=r"race|nothing has written"):
        run(kernel(body.replace("__syncthreads();", "")), "early")


REPLACEMENTS = [
    # the consumer does not wait for the copy
    ("wait(f + 8 * (k % 2), k / 2 % 2);", ""),
    # ... or for the one before
    ("wait(f + 8 * (k % 2), k / 2 % 2);", "wait(f + 8 * (k % 2), k / 2 % 2 ^ 1);"),
    # the producer does not wait for the consumer
    ("wait(e + 8 * (k % 2), k / 2 % 2 ^ 1);", ""),
    # too few bytes are expected
    ("_, [%0], 4096;", "_, [%0], 2048;"),
    # too many
    ("_, [%0], 4096;", "_, [%0], 8192;"),
    # the consumer gives the stage back before it reads
    ("    u32 row[16];\n", '    if (t % 32 == 0) asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" :: '
     '"r"(e + 8 * (k % 2)) : "memory");\n    u32 row[16];\n'),
    # lane 0 gives it back while the others may still read
    ("    __syncwarp();\n", ""),
    # barriers are used before they are made
    ("  __syncthreads();\n  if (t >= 64)", "  if (t >= 64)"),
    # what is under way to global memory is overwritten
    ("wait_group.read 0", "wait_group.read 1"),
    # ... or has not been written by all
    ('fence.proxy.async.shared::cta;" ::: "memory");\n    asm volatile("bar.sync 1, 64;" ::: "memory");',
     'fence.proxy.async.shared::cta;" ::: "memory");'),
    # ... or is not visible to the copy engine
    ('asm volatile("fence.proxy.async.shared::cta;" ::: "memory");', ""),
    # the block ends before its last copy is done
    ('if (t == 0) asm volatile("cp.async.bulk.wait_group 0;" ::: "memory");', ""),
    # the copy goes beyond its memory
    ("s + 4096 * (k % 2)), \"l\"(&from)", "s + 8192 + 4096 * (k % 2)), \"l\"(&from)"),
    # misaligned
    ("s + 4096 * (k % 2)), \"l\"(&from)", "s + 8 + 4096 * (k % 2)), \"l\"(&from)"),
    # the wrong number of dimensions
    ("bulk.tensor.2d.shared", "bulk.tensor.1d.shared"),
]  # fmt: skip


@pytest.mark.parametrize(("right", "wrong"), REPLACEMENTS)
def test_bulk_copies(right, wrong):
    assert right in PIPELINE
    source = PIPELINE.replace(right, wrong, 1)
    if "1d" in wrong:
        source = source.replace("{%2, %3}], [%4]", "{%3}], [%4]", 1)
    kinds = fails(lambda schedule: run_pipeline(source, schedule), ["early", "late", *range(1, 20)])
    assert kinds, "no schedule showed the fault"


WGMMA_REPLACEMENTS = [
    ('asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");', "", {"synchronization"}),
    ("wgmma.wait_group.sync.aligned 0;", "wgmma.wait_group.sync.aligned 1;", {"synchronization"}),
    ('asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");', "", {"synchronization"}),
    ('asm volatile("wgmma.fence.sync.aligned;" ::: "memory");', "", {"synchronization"}),
    ('asm volatile("fence.proxy.async.shared::cta;" ::: "memory");', "", {"race"}),
    ("  __syncthreads();\n", "", {"race", "uninitialized"}),
    # the operands are overwritten while the product reads them
    ('  asm volatile("wgmma.wait_group', '  tile[1][t] = 0;\n  asm volatile("wgmma.wait_group', {"race"}),
    # one warp does not take part
    ("  int d[4] = {1, 2, 3, 4};", "  int d[4] = {1, 2, 3, 4};\n  if (t >= 96) return;", {"deadlock"}),
    # half a warp does not
    ("  int d[4] = {1, 2, 3, 4};", "  int d[4] = {1, 2, 3, 4};\n  if (t >= 112) return;", {"synchronization"}),
]  # fmt: skip


@pytest.mark.parametrize(("right", "wrong", "kinds"), WGMMA_REPLACEMENTS)
def test_products_of_warpgroups(right, wrong, kinds):
    assert right in WGMMA
    found = fails(lambda schedule: run_wgmma(WGMMA.replace(right, wrong), schedule), ["early", "late", *range(1, 9)])
    assert found
    assert found <= kinds


def test_unknown_instructions():
    text = one_instruction("tanh.approx.f32 %d, %a;", "f32", ("f32",))
    machine = Machine()
    with pytest.raises(SimulationError, match=r"tanh\.approx\.f32 is not simulated") as caught:
        machine.run_ptx(text, "k", (1, 1, 1), 1, 0, (np.uint64(machine.allocate(4)), np.uint64(machine.zeros(4))))
    assert caught.value.kind == "illegal instruction"
    text = text.replace("tanh.approx.f32 %d, %a", "add.ftz.f32 %d, %a, %a")
    with pytest.raises(SimulationError, match=r"add with \.ftz is not simulated"):
        machine.run_ptx(text, "k", (1, 1, 1), 1, 0, (np.uint64(machine.allocate(4)), np.uint64(machine.zeros(4))))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (("add.s64", "add.s64 %q,"), "PTX line"),
        (("%tid.x", "%nobody"), "special register %nobody"),
        ((".reg .b32 %t;", ".reg .b32 %t"), "PTX line"),
        (("[p1]", "[p7]"), "p7 is not declared"),
        ((".address_size 64", ".address_size 32"), "64-bit"),
    ],
)
def test_broken_ptx(change, text):
    source = one_instruction("mov.u32 %d, %a;", "u32", ("u32",))
    assert change[0] in source
    machine = Machine()
    with pytest.raises(SimulationError, match=text):
        machine.run_ptx(
            source.replace(*change, 1),
            "k",
            (1, 1, 1),
            1,
            0,
            (np.uint64(machine.allocate(4)), np.uint64(machine.zeros(4))),
        )


def test_launches():
    machine = Machine((8, 0))
    source = ptx("KERNEL k(int* out, short n) { extern __shared__ int s[]; s[threadIdx.x] = n; out[0] = s[0]; }", "80")
    good = {"grid": (1, 1, 1), "threads": 1, "shared_bytes": 4, "arguments": (np.uint64(machine.zeros(4)), np.int16(3))}
    machine.run_ptx(source, "k", **good)
    for change, text in (
        ({"threads": 1025}, "1025 threads"),
        ({"threads": 0}, "0 threads"),
        ({"grid": (1, 65536, 1)}, "65536"),
        ({"shared_bytes": 163 * 1024 + 1}, "shared memory"),
        ({"arguments": good["arguments"][:1]}, "2 parameters, not 1"),
        ({"arguments": (good["arguments"][0], np.int32(3))}, "argument 1 of kernel k has 4 bytes, its parameter 2"),
    ):
        with pytest.raises(SimulationError, match=text):
            machine.run_ptx(source, "k", **{**good, **change})
    with pytest.raises(SimulationError, match="no kernel other"):
        machine.run_ptx(source, "other", **good)
    with pytest.raises(SimulationError, match=r"sm_90a does not run on a GPU of compute capability 8\.0"):
        machine.run_ptx(ptx(WGMMA), "products", **good)
    with pytest.raises(TypeError, match="not int"):
        machine.run_ptx(source, "k", (1, 1, 1), 1, 0, (1, np.int16(3)))
