"""Commands that are told to end clean up first, and end as the signal says."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from binarynet.cli._ending import SIGNALS, cleaned_up

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="needs POSIX signals")


CAUGHT = """
import os, signal, sys, tempfile, time
from binarynet.cli._ending import cleaned_up

number, before = int(sys.argv[1]), sys.argv[2]
handlers = {"default": signal.SIG_DFL, "ignored": signal.SIG_IGN}
handlers["handled"] = lambda *_: print("handled, left behind:", os.listdir(tempfile.gettempdir()))
signal.signal(number, handlers[before])

@cleaned_up
def command():
    with tempfile.TemporaryDirectory():
        os.kill(os.getpid(), number)
        time.sleep(0.1)
        print("not ended")

command()
"""
"""In a process of its own: what has been loaded into the tests' own one may have changed how it takes signals."""


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize(
    ("before", "printed"), [("default", ""), ("handled", "handled, left behind: []\n"), ("ignored", "not ended\n")]
)
def test_folders_go_before_the_signal_does_what_it_did(number, before, printed, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", CAUGHT, str(int(number)), before],
        env=os.environ | {"TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stderr == ""
    assert done.stdout == printed
    assert done.returncode == {"default": -number, "handled": 128 + number, "ignored": 0}[before]
    assert list(tmp_path.iterdir()) == []


def test_nothing_changes_in_other_threads():
    results = []
    thread = threading.Thread(target=lambda: results.append(cleaned_up(lambda: "done")()))
    thread.start()
    thread.join()
    assert results == ["done"]


def test_bench_leaves_nothing_behind(tmp_path):
    command = [sys.executable, "-m", "binarynet", "bench", "gemm", "--sizes", "16", "--seconds", "60"]
    process = subprocess.Popen(
        command, env=os.environ | {"TMPDIR": str(tmp_path)}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob("binarynet-peers-*")):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.terminate()
        assert process.wait(60) == -signal.SIGTERM
    finally:
        process.kill()
        process.wait()
    assert list(tmp_path.glob("binarynet-*")) == []
