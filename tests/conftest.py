"""What all tests share: everything random repeats exactly, whatever ran before and on how many processes."""

import os
import sys
import zlib
from contextlib import contextmanager

import pytest
from hypothesis import settings

settings.register_profile("binarynet", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("binarynet")


@pytest.fixture(autouse=True)
def _seeded(request):
    """torch's global generator starts from the test's name (initial weights are drawn from it)."""
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(zlib.crc32(request.node.nodeid.encode()))


@pytest.fixture
def not_root():
    """A context in which this process has no privileges, so that permissions count in a root container, too."""

    @contextmanager
    def unprivileged():
        if os.geteuid() != 0:
            yield
            return
        os.seteuid(65534)  # nobody
        try:
            yield
        finally:
            os.seteuid(0)

    return unprivileged
