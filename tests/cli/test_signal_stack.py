"""Ctrl-C ends a benchmark also when OpenVINO has been there."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.skipif(sys.platform != "linux", reason="the stack is that of Linux")
def test_a_signal_after_openvino_is_an_exception():
    pytest.importorskip("openvino")
    code = (
        "import os, signal, sys\n"
        "import numpy as np, openvino\n"
        "from openvino import opset13\n"
        "from binarynet.cli._peers_openvino import compile_model\n"
        "x = opset13.parameter([1, 64], np.float32)\n"
        "ones = opset13.constant(np.ones((64, 64), np.float32))\n"
        "model = openvino.Model([opset13.matmul(x, ones, False, False)], [x])\n"
        "compiled = compile_model(openvino.Core(), model, 1, 1)\n"
        "compiled([np.ones((1, 64), np.float32)])\n"
        "signal.signal(signal.SIGUSR1, lambda *_: sys.exit(3))\n"
        "def deeper(n):\n"  # what is left of the stack that OpenVINO used
        "    return deeper(n - 1) if n else os.kill(os.getpid(), signal.SIGUSR1)\n"
        "deeper(200)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 3


def test_the_stack_is_put_back():
    import ctypes

    from binarynet.cli._signal_stack import _SignalStack, signal_stack_kept

    if sys.platform != "linux":
        pytest.skip("the stack is that of Linux")
    system = ctypes.CDLL(None)

    def current():
        stack = _SignalStack()
        system.sigaltstack(None, ctypes.byref(stack))
        return stack.address, stack.flags, stack.size

    before = current()
    memory = ctypes.create_string_buffer(4 * 65536)
    with signal_stack_kept():
        other = _SignalStack(ctypes.addressof(memory), 0, len(memory))
        assert system.sigaltstack(ctypes.byref(other), None) == 0
        assert current() != before
    assert current() == before
