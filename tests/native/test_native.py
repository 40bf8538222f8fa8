"""The native core under its own tests: as released, under sanitizers, and broken on purpose."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from native_build import REPOSITORY, assert_no_inline_code, compile_mutant, compiler, run
from native_mutations import MUTATIONS, Mutation

SUITES = ("api", "kernels", "limits", "networks", "sessions", "threads", "training")


@pytest.mark.parametrize("suite", SUITES)
def test_as_released(optimized: Path, suite: str) -> None:
    result = run([optimized / "native/tests/binarynet_tests", suite])
    assert result.returncode == 0, result.stdout + result.stderr
    assert f"{suite}: ok" in result.stdout


def test_seeds_differ(optimized: Path) -> None:
    """Another seed is another set of cases, and they hold too."""
    result = run([optimized / "native/tests/binarynet_tests", "kernels", "networks", "--seed", "2"])
    assert result.returncode == 0, result.stdout + result.stderr


def test_from_plain_c(optimized: Path) -> None:
    result = run([optimized / "native/tests/binarynet_c_test"])
    assert result.returncode == 0, result.stdout + result.stderr


def test_kernels_share_no_inline_code(optimized: Path) -> None:
    assert_no_inline_code(optimized, {"kernels": "*.o", "training": "avx*.o"}, "nm")


@pytest.mark.parametrize("suite", SUITES)
def test_sanitized(sanitized: Path, suite: str) -> None:
    result = run([sanitized / "native/tests/binarynet_tests", suite])
    assert result.returncode == 0, result.stdout + result.stderr


def test_sanitizers_are_on(sanitized: Path, tmp_path: Path) -> None:
    """The sanitized build sees a heap overflow: an output that is too small."""
    source = tmp_path / "overflow.cc"
    source.write_text(OVERFLOW)
    program = tmp_path / "overflow"
    library = sanitized / "native/libbinarynet.a"
    built = run(
        [
            *(*shlex.split(compiler()), "-fsanitize=address,undefined", "-g", "-I", REPOSITORY / "native/include"),
            *(source, library, "-o", program, "-pthread"),
        ]
    )
    assert built.returncode == 0, built.stderr
    result = run([program])
    assert result.returncode != 0
    assert "heap-buffer-overflow" in result.stderr


OVERFLOW = """
#include <cstdint>
#include <cstdlib>
#include "binarynet.h"
int main() {
  binarynet_graph* graph;
  binarynet_session* session;
  binarynet_value value;
  const binarynet_window window = {1, 1, 1, 1, 0, 0};
  const uint64_t weights[2] = {1, 0};
  const uint8_t images[3] = {1, 2, 3};
  void* sums = std::malloc(5 * sizeof(int32_t)); /* 3 images of 2 sums would need 6 */
  binarynet_graph_create(&graph);
  binarynet_graph_add_input(graph, 1, 1, 1, &value);
  binarynet_graph_add_convolution(graph, value, &window, 2, weights, 2, &value);
  const binarynet_session_options options = {"portable", 1, &value, 1};
  binarynet_session_create(graph, &options, &session);
  return binarynet_session_run(session, images, 3, &sums);
}
"""


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_mutants_are_noticed(optimized: Path, mutation: Mutation, tmp_path: Path) -> None:
    usable = run([optimized / "native/tests/binarynet_tests", "--list"]).stdout.split()
    if mutation.isa not in usable:
        pytest.skip(f"this machine or build has no {mutation.isa}")
    program = compile_mutant(optimized, mutation, tmp_path, shlex.split(compiler()))
    result = run([program])
    assert result.returncode != 0, f"nothing noticed: {mutation.name}"


def test_the_unbroken_program_passes(optimized: Path, tmp_path: Path) -> None:
    """The way mutants are built is not what makes them fail."""
    same = "constexpr int64_t kGroup = 8;"
    mutation = Mutation("nothing", "kernels/portable.cc", same, same)
    program = compile_mutant(optimized, mutation, tmp_path, shlex.split(compiler()))
    result = run([program])
    assert result.returncode == 0, result.stdout + result.stderr
