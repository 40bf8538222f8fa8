"""Nothing of the machine's own data or cache may leak into these tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

_REPOSITORY = Path(__file__).resolve().parents[2]
_NAMED = os.environ.get("BINARYNET_DATA")


@pytest.fixture(autouse=True)
def own_places(tmp_path, monkeypatch):
    monkeypatch.delenv("BINARYNET_DATA", raising=False)
    monkeypatch.setenv("BINARYNET_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def real_data() -> Path:
    """The folder with real data sets; skips the test where there is none."""
    directory = Path(_NAMED) if _NAMED else _REPOSITORY.parent / "shared" / "data"
    if not directory.is_dir():
        pytest.skip(f"no real data: {directory} does not exist (set BINARYNET_DATA)")
    return directory
