"""Nothing of the machine's own data or cache may leak into these tests."""

from __future__ import annotations

import http.server
import os
import threading
from pathlib import Path

import pytest

_REPOSITORY = Path(__file__).resolve().parents[2]
_NAMED = os.environ.get("BINARYNET_DATA")


def pytest_make_parametrize_id(val):
    """File contents make no names: they may hold a time, and processes must agree on the names of tests."""
    return f"{len(val)} bytes" if isinstance(val, bytes) else None


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


@pytest.fixture
def web(tmp_path):
    """A web server on this machine: its folder and its address."""
    root = tmp_path / "www"
    root.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: object) -> None:
            super().__init__(*args, directory=str(root))

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield root, f"http://127.0.0.1:{httpd.server_port}/"
        httpd.shutdown()
        thread.join()
