"""What NVRTC makes of every kernel, for every architecture: one-bit tensor instructions where they should be, nothing
that imitates them, no spills, exactly two roundings, and as many blocks at a time as the launch bounds say."""

from __future__ import annotations

import machine_code as mc
import pytest
from launch_shapes import launches

from binarynet.cuda import compiler
from binarynet.errors import BackendUnavailableError

pytest.importorskip("cuda.bindings.nvrtc", reason="kernels are compiled with NVRTC (extra cuda)")


def cases():
    """Every variant on the architecture where it has most to show; on the others, one of each source, the first (which
    needs the most registers)."""
    seen = set()
    for variant in mc.variants():
        for capability in mc.meant_for(variant):
            is_most = capability == mc.most(variant)
            if is_most or (variant.source, capability) not in seen:
                seen.add((variant.source, capability))
                name = f"{mc.describe(variant)}-{mc.ARCHITECTURES[capability]}"
                yield pytest.param(variant, capability, id=name, marks=[] if is_most else pytest.mark.slow)


PRODUCTS = {"mma": r"BMMA\.168256\.AND\.POPC", "wgmma": r"BGMMA\..*AND\.POPC", "bytes_mma": r"IMMA\.16832\.U8\.S8"}
"""The instruction that each method is about."""

MMA = """
extern "C" __global__ void k(const unsigned* a, const unsigned* b, int* o) {
  int c[4] = {0, 0, 0, 0};
  asm volatile(
      "mma.sync.aligned.m16n8k256.row.col.s32.b1.b1.s32.%s.popc {%%0,%%1,%%2,%%3},{%%4,%%5,%%6,%%7},{%%8,%%9},"
      "{%%0,%%1,%%2,%%3};"
      : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  for (int i = 0; i < 4; i++) o[threadIdx.x * 4 + i] = c[i];
}
"""


@pytest.fixture
def compiled(tmp_path, monkeypatch):
    """Kernels of a text, read."""

    def compile_text(text, architecture):
        (tmp_path / "text.cu").write_text(text)
        monkeypatch.setattr(compiler, "SOURCES", tmp_path)
        cubin, ptx = (compiler.compile_source("text.cu", architecture, (), code) for code in ("cubin", "ptx"))
        return mc.read(cubin, ptx.decode())["k"]

    return compile_text


def module_of(variant):
    """Name of the module that asks for a variant."""
    (name,) = {module.__name__ for module in mc.modules() if variant in module.VARIANTS}
    return name


def test_every_source_is_compiled_by_some_variant():
    sources = {path.name for path in compiler.SOURCES.glob("*.cu")}
    assert sources == {variant.source for variant in mc.variants()}


@pytest.mark.parametrize("architecture", ["75", "80", "90a"])
def test_the_architectures_of_the_issue_are_among_those_compiled(architecture):
    assert any(mc.ARCHITECTURES[c] == architecture for v in mc.variants() for c in mc.meant_for(v))


@pytest.mark.parametrize(("variant", "capability"), list(cases()))
def test_machine_code(variant, capability):
    module = module_of(variant)
    method = module.rpartition(".")[2]
    found = mc.kernels(variant.source, mc.ARCHITECTURES[capability], variant.defines)
    assert found
    for kernel in found.values():
        fit = kernel.blocks(capability, kernel.max_threads)
        print(
            f"{kernel.name}: {len(kernel.opcodes)} instructions, {kernel.registers} registers,"
            f" {kernel.shared_bytes} bytes of static shared memory, {fit} blocks of {kernel.max_threads} threads"
        )
        assert not mc.spills(kernel), kernel.name
        assert fit >= kernel.min_blocks, kernel.name
        if kernel.name != "baseline_product":  # of float32 matrices, for comparison
            assert not kernel.count("FFMA|DFMA|DMUL|DADD"), f"{kernel.name}: a fused or double rounding"
        if kernel.one_bit_products:
            assert not mc.emulation(kernel), kernel.name
        assert not mc.serialized(kernel), kernel.name
        assert bool(kernel.count("FMUL")) == bool(kernel.count("FADD")), f"{kernel.name}: scores take one of each"
    for _, on, launch in launches():
        if (launch.source, launch.defines, on) == (variant.source, variant.defines, capability):
            kernel = found[launch.kernel]
            fit = kernel.blocks(capability, launch.threads, launch.shared_bytes)
            print(f"{kernel.name}: {fit} blocks of {launch.threads} threads with {launch.shared_bytes} bytes")
            assert fit >= (kernel.min_blocks if capability == (9, 0) else 1), (kernel.name, launch.shared_bytes)
    if method in PRODUCTS:
        assert any(kernel.count(PRODUCTS[method]) for kernel in found.values())
    else:
        assert not any(kernel.count("[A-Z]*MMA") for kernel in found.values())
    if ".methods." in module or method == "operations":
        assert any(kernel.count("FMUL") for kernel in found.values()), "all methods can give scores"


# ---- the checks can fail ----


def test_and_is_one_instruction_on_ampere_and_hopper(compiled):
    for architecture in ("80", "89", "90a"):
        kernel = compiled(MMA % "and", architecture)
        assert kernel.one_bit_products == 1
        assert not mc.emulation(kernel)
        assert sum(kernel.count("BMMA").values()) == 1


def test_xor_on_hopper_is_recognized_as_emulation(compiled):
    assert "XOR" in mc.emulation(compiled(MMA % "xor", "80"))  # an instruction there, but none that Hopper has
    kernel = compiled(MMA % "xor", "90a")
    assert "mma_bit_internal_xor" in mc.emulation(kernel)
    assert sum(kernel.count("BMMA").values()) == 2


@pytest.mark.parametrize("architecture", ["100a", "120"])
def test_bits_are_imitated_with_bytes_after_hopper(compiled, architecture):
    """Why the method mma refuses such GPUs."""
    kernel = compiled(MMA % "and", architecture)
    assert kernel.count("IMMA")
    assert not kernel.count("BMMA")
    assert "IMMA" in mc.emulation(kernel)


def test_and_needs_ampere(compiled):
    with pytest.raises(BackendUnavailableError, match="architecture 75"):
        compiled(MMA % "and", "75")


WGMMA = """
extern "C" __global__ void __launch_bounds__(128) k(const unsigned long long* descriptors, int* o) {
  int d[4] = {0, 0, 0, 0};
#define PRODUCT(i)                                                                                       \\
  asm volatile(                                                                                          \\
      "wgmma.mma_async.sync.aligned.m64n8k256.s32.b1.b1.and.popc {%%0, %%1, %%2, %%3}, %%4, %%5, 1;"          \\
      : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3]) : "l"(descriptors[2 * i]), "l"(descriptors[2 * i + 1]))
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
  PRODUCT(0);
  %s
  PRODUCT(1);
  asm volatile("wgmma.commit_group.sync.aligned;\\nwgmma.wait_group.sync.aligned 0;" ::: "memory");
  for (int i = 0; i < 4; i++) o[threadIdx.x * 4 + i] = d[i];
}
"""


def test_products_that_wait_for_each_other_are_noticed(compiled):
    apart = compiled(WGMMA % "", "90a")
    assert (apart.one_bit_products, apart.product_waits) == (2, 1)
    assert not mc.serialized(apart)
    assert not mc.emulation(apart)
    assert mc.serialized(compiled(WGMMA % "d[1] += threadIdx.x;", "90a"))


def test_local_memory_is_noticed(compiled):
    text = """
    extern "C" __global__ void k(int* o, int i) {
      int x[512];
      for (int j = 0; j < 512; j++) x[j] = o[j];
      o[0] = x[i];
    }"""
    kernel = compiled(text, "90a")
    assert kernel.stack_bytes == 2048
    assert "STL" in mc.spills(kernel)
    assert "2048 bytes" in mc.spills(kernel)


def test_spills_under_launch_bounds_are_noticed(compiled):
    text = """
    extern "C" __global__ __launch_bounds__(1024, 2) void k(int* o) {
      int x[64];
    #pragma unroll
      for (int j = 0; j < 64; j++) x[j] = o[j * 1024 + threadIdx.x];
      __syncthreads();
    #pragma unroll
      for (int j = 0; j < 64; j++) o[j * 1024 + threadIdx.x] = x[63 - j] * x[j];
    }"""
    kernel = compiled(text, "90a")
    assert kernel.registers <= 32
    assert (kernel.max_threads, kernel.min_blocks) == (1024, 2)
    assert mc.spills(kernel)


def test_a_fused_multiplication_is_noticed(compiled):
    text = 'extern "C" __global__ void k(float* o) { o[0] = %s; }'
    assert compiled(text % "__fmaf_rn(o[0], o[1], o[2])", "90a").count("FFMA")
    kernel = compiled(text % "__fadd_rn(__fmul_rn(o[0], o[1]), o[2])", "90a")
    assert not kernel.count("FFMA")
    assert kernel.count("FMUL")
    assert kernel.count("FADD")


def test_how_many_blocks_fit(compiled):
    text = """
    extern "C" __global__ __launch_bounds__(256) void k(int* o) {
      __shared__ int s[10000];
      s[threadIdx.x] = o[threadIdx.x];
      __syncthreads();
      o[threadIdx.x] = s[255 - threadIdx.x];
    }"""
    kernel = compiled(text, "90a")
    assert kernel.shared_bytes == 40000
    assert kernel.blocks((9, 0), 256) == 5  # by shared memory: 228 KiB in parts of 41024 bytes
    assert kernel.blocks((9, 0), 256, 190000) == 1
    assert kernel.blocks((9, 0), 256, 200000) == 0
    assert kernel.blocks((9, 0), 512) == 0
    many = mc.Kernel("k", (), (), 128, 0, 0, 256, 1, 0, 0)
    assert many.blocks((9, 0), 256) == 2  # by registers
    assert many.blocks((9, 0), 96) == 5
    assert mc.Kernel("k", (), (), 16, 0, 0, 1024, 1, 0, 0).blocks((8, 9), 1024) == 1  # by threads
    assert mc.Kernel("k", (), (), 16, 0, 0, 32, 1, 0, 0).blocks((7, 5), 32) == 16  # by blocks
