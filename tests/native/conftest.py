"""Builds of the native tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from native_build import REPOSITORY, build


@pytest.fixture(scope="session")
def shared_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One temporary directory for all processes of this test run."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session")
def optimized(shared_directory: Path) -> Path:
    """Build directory of the native tests, as released."""
    return build(shared_directory / "native-release")


@pytest.fixture(scope="session")
def sanitized(shared_directory: Path) -> Path:
    """The same with AddressSanitizer and UndefinedBehaviorSanitizer."""
    return build(
        shared_directory / "native-sanitized",
        "-DBINARYNET_SANITIZE=address,undefined",
        "-DCMAKE_BUILD_TYPE=Debug",
        "-DCMAKE_CXX_FLAGS_DEBUG=-O1",
    )


@pytest.fixture(scope="session")
def aarch64(shared_directory: Path) -> Path:
    """For 64-bit ARM, by the cross compiler."""
    return build(
        shared_directory / "native-aarch64",
        *("--toolchain", str(REPOSITORY / "native/cmake/aarch64-linux-gnu.cmake"), "-DBINARYNET_WERROR=ON"),
    )
