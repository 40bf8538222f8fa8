"""The native core on 64-bit ARM: built by the cross compiler of the distribution, run under emulation (qemu-user).

``qemu-aarch64`` and ``aarch64-linux-gnu-g++`` come with the packages qemu-user and g++-aarch64-linux-gnu.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from aarch64_mutations import BITS, BYTES, MUTATIONS, NEON
from conformance_cases import CASES
from native_build import SOURCES, assert_no_inline_code, compile_again, compile_mutant, link_tests, run
from native_mutations import Mutation
from replay import write_cases

COMPILER = "aarch64-linux-gnu-g++"
EMULATOR = "qemu-aarch64"
PROCESSOR = "cortex-a53"  # the first of its kind: no instruction beyond ARMv8.0
SANITIZE = "-fsanitize=address,undefined"
MISSING = [name for name in (COMPILER, EMULATOR) if shutil.which(name) is None]

pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"tests for 64-bit ARM need {' and '.join(MISSING)}")


def emulate(program: Path, *arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return run([EMULATOR, "-cpu", PROCESSOR, "-L", "/usr/aarch64-linux-gnu", program, *arguments], **environment)


@pytest.mark.parametrize("suite", ["api", "kernels", "limits", "networks", "sessions", "threads", "training"])
def test_as_released(aarch64: Path, suite: str) -> None:
    result = emulate(aarch64 / "native/tests/binarynet_tests", suite, "--rounds", "400")
    assert result.returncode == 0, result.stdout + result.stderr
    assert f"{suite}: ok" in result.stdout


def test_neon_is_the_default(aarch64: Path) -> None:
    """The first one is what sessions take (the suite "api" checks that)."""
    assert emulate(aarch64 / "native/tests/binarynet_tests", "--list").stdout.split() == ["neon", "portable"]


def test_from_plain_c(aarch64: Path) -> None:
    result = emulate(aarch64 / "native/tests/binarynet_c_test")
    assert result.returncode == 0, result.stdout + result.stderr


def test_kernels_share_no_inline_code(aarch64: Path) -> None:
    assert_no_inline_code(aarch64, {"kernels": "*.o", "limits": "neon*.o"}, "aarch64-linux-gnu-nm")


def check_sanitized(program: Path) -> subprocess.CompletedProcess[str]:
    # leaks are looked for in a way that the emulator does not know
    return emulate(program, "kernels", "--rounds", "100", ASAN_OPTIONS="detect_leaks=0")


def test_sanitized(aarch64: Path, tmp_path: Path) -> None:
    """The kernels alone are instrumented; the memory that they work on is that of the sanitizer."""
    objects = [
        compile_again(aarch64, SOURCES / name, SOURCES / name, tmp_path / Path(name).with_suffix(".o").name, SANITIZE)
        for name in (BITS, BYTES)
    ]
    result = check_sanitized(link_tests(aarch64, objects, tmp_path / "sanitized", [COMPILER, SANITIZE]))
    assert result.returncode == 0, result.stdout + result.stderr


def test_sanitizers_are_on(aarch64: Path, tmp_path: Path) -> None:
    beyond = Mutation("a pixel too many", BITS, "pixel + i, call.num_pixels - 1", "pixel + i, call.num_pixels", NEON)
    result = check_sanitized(compile_mutant(aarch64, beyond, tmp_path, [COMPILER, SANITIZE], SANITIZE))
    assert result.returncode != 0
    assert "AddressSanitizer" in result.stderr


def test_conformance(aarch64: Path, tmp_path: Path) -> None:
    """Every conformance case, with the oracle's values, on the NEON kernels."""
    cases = tmp_path / "cases"
    write_cases(CASES, cases)
    result = emulate(aarch64 / "native/tests/binarynet_replay", cases, "neon")
    assert result.returncode == 0, result.stdout + result.stderr
    assert f"{len(CASES)} cases: ok" in result.stdout


def test_conformance_can_fail(aarch64: Path, tmp_path: Path) -> None:
    """One wrong bit in the last value of a case is noticed, and the case named."""
    cases = tmp_path / "cases"
    case = next(case for case in CASES if case.name == "mlp batch 7")
    write_cases([case], cases)
    data = bytearray(cases.read_bytes())
    data[-1] ^= 1
    cases.write_bytes(data)
    result = emulate(aarch64 / "native/tests/binarynet_replay", cases)
    assert result.returncode != 0
    assert case.name in result.stderr


def assert_noticed(build: Path, mutation: Mutation, directory: Path) -> None:
    program = compile_mutant(build, mutation, directory, [COMPILER, "-static"])
    result = emulate(program, "kernels", "networks", "--rounds", "150")
    assert result.returncode != 0, f"nothing noticed: {mutation.name}"


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_mutants_are_noticed(aarch64: Path, mutation: Mutation, tmp_path: Path) -> None:
    assert_noticed(aarch64, mutation, tmp_path)


def test_the_unbroken_program_passes(aarch64: Path, tmp_path: Path) -> None:
    """The way mutants are built is not what makes them fail."""
    same = "constexpr int64_t kTableBytes = 64;"
    mutation = Mutation("nothing", "kernels/neon_bytes.cc", same, same)
    with pytest.raises(AssertionError, match="nothing noticed"):
        assert_noticed(aarch64, mutation, tmp_path)
