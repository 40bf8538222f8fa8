"""GPUs: which there are and why not, contexts, memory, launches, and what errors say."""

import multiprocessing
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from simulated_sessions import simulated_product

from binarynet import _native
from binarynet.cuda import compiler, driver
from binarynet.cuda.blocks import Launch, TensorMap
from binarynet.cuda.device import device, devices, find, ordinal
from binarynet.cuda.memory import in_bytes
from binarynet.cuda.streams import Copy, Event, Graph, Stream, identity, wait
from binarynet.errors import BackendUnavailableError, DeviceError, UsageError

SOURCES = {
    "arguments.cu": """
struct alignas(64) Map { unsigned long long words[16]; };
extern "C" __global__ void arguments(int* result, signed char a, long long b, short c, const __grid_constant__ Map map,
                                     float d, double e, unsigned char f) {
  result[0] = a; result[1] = (int)b; result[2] = c; result[3] = (int)d; result[4] = (int)e; result[5] = f;
  result[6] = (unsigned long long)&map % 64 == 0;
}
""",
    "shared.cu": """
extern __shared__ int room[];
extern "C" __global__ void shared(int* result, int count) {
  for (int i = threadIdx.x; i < count; i += blockDim.x) room[i] = i;
  __syncthreads();
  if (threadIdx.x == 0) result[0] = room[count - 1];
}
""",
    "wrong.cu": 'extern "C" __global__ void wrong(int* result) { result = nonsense; }',
}


@pytest.fixture
def gpu(monkeypatch, tmp_path):
    """The first simulated GPU, with sources of our own."""
    for name, text in SOURCES.items():
        (tmp_path / name).write_text(text)
    with simulated_product(schedule="late"):
        monkeypatch.setattr(compiler, "SOURCES", tmp_path)
        monkeypatch.setattr("binarynet.cuda.cache.SOURCES", tmp_path)
        yield device(0)


def test_there_are_devices(gpu):
    found = devices()
    assert [(str(each), each.capability, each.architecture) for each in found] == [
        ("cuda:0", (9, 0), "90a"),
        ("cuda:1", (8, 0), "80"),
        ("cuda:2", (7, 5), "75"),
    ]
    assert all(each.why_not == "" for each in found)
    assert device(0) is found[0]
    assert found[0].total_memory == 1 << 30
    assert repr(found[2]).endswith("capability 7.5>")


@pytest.mark.parametrize(("name", "number"), [("cpu", None), ("cuda", 0), ("cuda:0", 0), ("cuda:17", 17)])
def test_names_of_devices(name, number):
    assert ordinal(name) == number


@pytest.mark.parametrize(
    "name", ["", "gpu", "cuda:", "cuda:-1", "cuda:1.0", "CUDA", "cuda:0 ", "cuda:9999999999", 0, None]
)
def test_names_that_are_none(name):
    with pytest.raises(UsageError, match='expected "cpu", "cuda" or "cuda:N"'):
        ordinal(name)


def test_without_a_driver_there_are_no_devices(monkeypatch):
    monkeypatch.setattr(driver, "_LIBRARY", "libcuda-that-is-not-there.so.1")
    monkeypatch.setattr(driver, "_initialized_in", None)
    assert devices() == ()
    assert find("cuda") == (
        None,
        "no NVIDIA driver: libcuda-that-is-not-there.so.1 is not found; install the driver, release 580 or newer",
    )
    with pytest.raises(BackendUnavailableError, match="cuda:0 cannot be used here: no NVIDIA driver"):
        device(0)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "the NVIDIA driver cannot be loaded: .*file too short; install it anew, release 580 or"),
        (None, r"the NVIDIA driver \(.*\) does not say its version; install it anew"),
    ],
)
def test_a_library_that_is_no_driver(monkeypatch, tmp_path, content, text):
    library = tmp_path / "libcuda.so.1"
    library.write_bytes(Path(_native.__file__).read_bytes() if content is None else content)
    monkeypatch.setattr(driver, "_LIBRARY", str(library))
    monkeypatch.setattr(driver, "_initialized_in", None)
    assert re.match(text, find("cuda")[1])


def test_an_old_driver_says_what_was_found_and_what_is_needed(monkeypatch, tmp_path):
    release = tmp_path / "version"
    release.write_text("570.86.15\n")
    monkeypatch.setattr(driver, "_RELEASE", release)
    with simulated_product(driver_version=12080):
        assert driver.why_not() == (
            "the NVIDIA driver is too old: 570.86.15, for CUDA 12.8; needed is release 580 or newer, for CUDA 13.0: "
            "update the driver"
        )
        release.unlink()
        assert driver.why_not().startswith("the NVIDIA driver is too old: CUDA 12.8; needed is release 580")


def test_the_extra_may_be_missing(monkeypatch):
    with simulated_product():
        driver._module.cache_clear()
        monkeypatch.setitem(sys.modules, "cuda.bindings.driver", None)
        monkeypatch.setitem(sys.modules, "cuda.bindings", None)
        assert driver.why_not().endswith('; pip install "binarynet[cuda]" (in a checkout: pip install ".[cuda]")')
        assert "cuda.bindings" in driver.why_not()
    driver._module.cache_clear()


def test_the_visible_devices_are_named(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with simulated_product(devices=0):
        assert driver.why_not().endswith("; CUDA_VISIBLE_DEVICES is '': it decides which GPUs this process sees")


def test_an_architecture_that_the_compiler_does_not_know(gpu, monkeypatch):
    monkeypatch.setattr(compiler, "architectures", lambda: (75, 80))
    assert gpu.why_not.endswith(
        f"for which the installed NVRTC {compiler.version()} cannot compile (it knows 75, 80); install a newer one: "
        "pip install --upgrade nvidia-cuda-nvrtc"
    )
    with pytest.raises(BackendUnavailableError, match=r"has compute capability 9\.0, for which the installed NVRTC"):
        device(0)
    assert device(1).architecture == "80"


def _look(queue):
    queue.put((driver.why_not(), str(driver.failure(driver._module().CUresult(3), "use cuda:0"))))


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_process_is_told_so(gpu):
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    process = context.Process(target=_look, args=(queue,))
    process.start()
    reason, failure = queue.get(timeout=60)
    assert 'CUDA does not survive that; start processes with the method "spawn"' in reason
    assert failure.startswith("could not use cuda:0: CUDA_ERROR_NOT_INITIALIZED (")  # of a session from before the fork
    assert failure.endswith(reason)
    process.join()


IMPORTS = """
import sys
from binarynet.runtime import Session, engines
from random_graphs import image_graph
import numpy as np
engines()
Session(image_graph()).run(np.zeros((1, 6, 5, 3), np.uint8))
print([name for name in sys.modules if name.startswith(("cuda", "binarynet.cuda", "binarynet.runtime.cuda"))])
"""


def test_the_cpu_imports_nothing_of_it():
    tests = os.path.dirname(os.path.dirname(__file__))
    done = subprocess.run(
        [sys.executable, "-c", IMPORTS],
        env={**os.environ, "PYTHONPATH": tests},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


def test_the_callers_context_is_current_again(gpu):
    d = driver.binding()
    other = device(1)
    with other:
        before = int(d.cuCtxGetCurrent()[1])
        gpu.upload(np.arange(3), "a test")
        with gpu:
            assert int(d.cuCtxGetCurrent()[1]) != before
        assert int(d.cuCtxGetCurrent()[1]) == before
        with pytest.raises(DeviceError):
            gpu.allocate(1 << 60, "a test")
        assert int(d.cuCtxGetCurrent()[1]) == before


def test_arguments_arrive_as_they_are(gpu):
    """Of every size, in any order; a tensor map is aligned to 64 bytes."""
    result = gpu.allocate(28, "a test")
    data = gpu.upload(np.zeros((64, 64), np.uint8), "a test")
    tensor_map = TensorMap(data.address, 1, (64, 64), (64,), (16, 8))
    arguments = (
        np.uint64(result.address),
        np.int8(-5),
        np.int64(-6),
        np.int16(-7),
        tensor_map,
        np.float32(8),
        np.float64(-9),
    )
    launch = Launch("arguments.cu", "arguments", (*arguments, np.uint8(200)), (1, 1, 1), 1)
    gpu.launch(launch, 1)
    values = np.empty(7, np.int32)
    gpu.copy_to_host(values, result.address, "a test")
    assert values.tolist() == [-5, -6, -7, 8, -9, 200, 1]


def test_much_shared_memory_is_asked_for(gpu):
    result = gpu.allocate(4, "a test")

    def launch(count):
        gpu.launch(
            Launch("shared.cu", "shared", (np.uint64(result.address), np.int32(count)), (1, 1, 1), 32, 4 * count), 1
        )
        values = np.empty(1, np.int32)
        gpu.copy_to_host(values, result.address, "a test")
        return int(values[0])

    for count in (100, 20_000, 1000, 50_000):
        assert launch(count) == count - 1
    with pytest.raises(
        DeviceError, match=r"could not give 'shared' of shared.cu 400,000 bytes of shared memory per block on"
    ):
        launch(100_000)


def test_a_launch_that_the_driver_refuses_says_which(gpu):
    result = gpu.allocate(4, "a test")
    arguments = (np.uint64(result.address), np.int32(1))
    with pytest.raises(DeviceError) as error:
        gpu.launch(Launch("shared.cu", "shared", arguments, (2, 1, 1), 2048, 4), 1)
    text = "could not start the kernel 'shared' of shared.cu (grid 2 x 1 x 1, 2048 threads, 4 bytes of shared memory)"
    assert str(error.value).startswith(f"{text} on cuda:0: CUDA_ERROR_INVALID_VALUE (")


def test_kernels_that_are_not_there(gpu):
    with pytest.raises(DeviceError, match=r"could not find the kernel 'nothing' in shared.cu: CUDA_ERROR_NOT_FOUND"):
        gpu.prepare(Launch("shared.cu", "nothing", (), (1, 1, 1), 1))
    with pytest.raises(BackendUnavailableError, match=r"NVRTC: wrong.cu for architecture 90a: (?s:.)*nonsense"):
        gpu.prepare(Launch("wrong.cu", "wrong", (), (1, 1, 1), 1))


def test_a_tensor_map_that_is_refused(gpu):
    crooked = TensorMap(8, 1, (64, 64), (64,), (16, 8))
    with pytest.raises(
        DeviceError, match=r"could not describe TensorMap\(address=8, .* of the kernel 'arguments' to cuda:0"
    ):
        gpu.prepare(Launch("arguments.cu", "arguments", (crooked,), (1, 1, 1), 1))


def test_memory_that_does_not_suffice(gpu):
    with pytest.raises(DeviceError) as error:
        gpu.allocate(3 << 30, "the weights of 'dense1'")
    text = str(error.value)
    assert "is out of memory: asked for 3.0 GiB for the weights of 'dense1', " in text
    assert " are free of 1.0 GiB; run fewer images at a time" in text


def test_sticky_failures_say_that_the_process_is_lost(gpu):
    d = driver.binding()
    sticky = str(driver.failure(d.CUresult.CUDA_ERROR_ILLEGAL_ADDRESS, "finish a run"))
    assert sticky.startswith("could not finish a run: CUDA_ERROR_ILLEGAL_ADDRESS (")
    assert "this process cannot use the GPU any more: start it again" in sticky
    other = str(driver.failure(d.CUresult.CUDA_ERROR_INVALID_VALUE, "finish a run"))
    assert "start it again" not in other


def test_copies_events_and_graphs_in_order(gpu):
    stream, other = Stream(gpu), Stream(gpu)
    source, middle, target = (gpu.pinned(64, "a test"), gpu.allocate(64, "a test"), gpu.pinned(64, "a test"))
    operations = [
        Copy(gpu, "to the GPU", middle.address, source.address, 64),
        Copy(gpu, "from the GPU", target.address, middle.address, 64),
    ]
    source.bytes[:], target.bytes[:] = np.arange(64), 0
    event = Event(gpu)
    with gpu:
        operations[0].start(stream.handle)
        event.record(stream.handle)
        event.delay(other.handle)
        operations[1].start(other.handle)
        assert identity(gpu, stream.handle) != identity(gpu, other.handle)
    wait(gpu, other.handle, "finish a test")
    assert target.bytes.tolist() == list(range(64))
    graph = Graph(gpu, stream, lambda on: [each.start(on) for each in operations])
    source.bytes[:] = 7
    with gpu:
        graph.start(other.handle)
    wait(gpu, other.handle, "finish a test")
    assert target.bytes.tolist() == [7] * 64

    def failing(on):
        operations[0].start(on)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Graph(gpu, stream, failing)
    with gpu:
        operations[0].start(stream.handle)  # the stream is no longer recorded
    wait(gpu, stream.handle, "finish a test")


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0 bytes"), (1023, "1,023 bytes"), (1024, "1.0 KiB"), (3 << 29, "1.5 GiB"), (5 << 50, "5,120.0 TiB")],
)
def test_bytes_for_people(number, text):
    assert in_bytes(number) == text
