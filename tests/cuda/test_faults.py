"""Bad input and faults: one clear error that says what to do, the CPU unaffected, no failure silent, nothing left over.

On simulated GPUs, whose driver fails where it is told to.
"""

from __future__ import annotations

import gc
import subprocess
import sys
from unittest import mock

import numpy as np
import pytest
import simulated_gpu as gpu
from simulated_sessions import GpuArray, simulated_product

from binarynet.cuda import driver
from binarynet.errors import BackendUnavailableError, BinaryNetError, DeviceError, ShapeError, UsageError
from binarynet.graph import evaluate
from binarynet.runtime import Session, engines
from random_graphs import dense_graph, image_graph, random_images

GRAPH = image_graph(seed=100)  # with results that are different for any two images
IMAGES = random_images(np.random.default_rng(0), 5, GRAPH.input.shape)
EXPECTED = evaluate(GRAPH, IMAGES, [GRAPH.output])[GRAPH.output]
LASTING = ("contexts", "modules")
"""What a process keeps once it has used a GPU."""


def right(result):
    return np.asarray(result).tobytes() == EXPECTED.tobytes()


def cpu_works():
    return right(Session(GRAPH).run(IMAGES))


def left(control):
    """What is alive that should not be."""
    gc.collect()
    return {name: count for name, count in control.alive().items() if name not in LASTING}


def attempt(call):
    """What a call gave, or the error that it raised."""
    try:
        return call(), None
    except BinaryNetError as error:
        return None, error.with_traceback(None)


def in_words(error):
    """The message, which must be one line and no bare number or Python expression."""
    text = str(error.value)
    assert "\n" not in text
    assert "Traceback" not in text
    assert len(text) < 700
    return text


# --- no GPU, no driver, one that is too old or does not start ---


def test_no_driver():
    with (
        mock.patch.object(driver, "_LIBRARY", "libcuda-absent.so.1"),
        mock.patch.object(driver, "_initialized_in", None),
    ):
        with pytest.raises(BackendUnavailableError, match=r"no NVIDIA driver.*install") as error:
            Session(GRAPH, device="cuda")
        assert "libcuda-absent.so.1" in in_words(error)
        assert all("no NVIDIA driver" in engine.why_not for engine in engines("cuda"))
        assert cpu_works()


def test_no_gpu():
    with simulated_product(devices=0):
        with pytest.raises(BackendUnavailableError, match="the driver finds no GPU") as error:
            Session(GRAPH, device="cuda:0")
        in_words(error)
        assert not any(engine.available for engine in engines("cuda"))
        assert cpu_works()


def test_no_such_gpu():
    with simulated_product(devices=2):
        with pytest.raises(BackendUnavailableError, match=r"cuda:0.*cuda:1") as error:
            Session(GRAPH, device="cuda:2")
        assert "Simulated GPU" in in_words(error)
        for name in ("gpu", "cuda:", "cuda:-1", "cuda:x", "CUDA:0", ""):
            with pytest.raises(UsageError, match="unknown device"):
                Session(GRAPH, device=name)
        assert right(Session(GRAPH, device="cuda:1").run(IMAGES))


@pytest.mark.parametrize("version", [11040, 12080, 12090])
def test_a_driver_that_is_too_old(version):
    with simulated_product(driver_version=version) as control:
        with pytest.raises(BackendUnavailableError, match=r"too old.*update") as error:
            Session(GRAPH, device="cuda")
        assert f"{version // 1000}.{version % 1000 // 10}" in in_words(error)
        assert control.alive() == {}
        assert cpu_works()


@pytest.mark.parametrize("status", [gpu.SYSTEM_NOT_READY, 803, 804, 46, 999])
def test_a_driver_that_does_not_start(status):
    with simulated_product() as control:
        control.fault("cuInit", status)
        with pytest.raises(BackendUnavailableError, match=r"CUDA_ERROR_.*nvidia-smi") as error:
            Session(GRAPH, device="cuda")
        in_words(error)
        assert cpu_works()
        assert right(Session(GRAPH, device="cuda").run(IMAGES))  # it may have started since


def test_gpus_that_are_too_old_or_new():
    with simulated_product(capabilities=((7, 0), (10, 0), (12, 0))):
        with pytest.raises(BackendUnavailableError, match=r"7\.0; needed is 7\.5 or more") as error:
            Session(GRAPH, device="cuda")
        in_words(error)
        for name in ("cuda:1", "cuda:2"):  # where one-bit matrix products are slow
            session = Session(GRAPH, device=name)
            assert session.engine == "cuda_popcount"
            assert right(session.run(IMAGES))
            usable = {engine.name for engine in engines(name) if engine.available}
            assert usable == {"cuda_popcount", "cuda_baseline"}


def test_the_cpu_never_asks_for_a_driver():
    """In a process of its own: neither the bindings nor a driver are loaded for the CPU."""
    program = (
        "import sys, ctypes, numpy as np\n"
        "ctypes.CDLL = lambda name, *a, **k: (_ for _ in ()).throw(AssertionError(name))\n"
        "from random_graphs import image_graph\n"
        "from binarynet.runtime import Session, engines\n"
        "g = image_graph(); Session(g).run(np.zeros((1, *g.input.shape), np.uint8)); engines()\n"
        "assert not [name for name in sys.modules if name.split('.')[0] in ('cuda', 'torch')]\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd="tests")
    assert (done.returncode, done.stderr) == (0, "")


# --- memory ---


def test_weights_that_do_not_fit():
    graph = dense_graph()
    with simulated_product(memory_bytes=4096) as control:
        images = random_images(np.random.default_rng(0), 2, graph.input.shape)
        with pytest.raises(DeviceError, match="out of memory") as error:
            Session(graph, device="cuda").run(images)
        text = in_words(error)
        assert "free" in text
        assert "4.0 KiB" in text
        del error
        assert left(control) == {}
        control.configure("memory_bytes", 1 << 30)
        assert Session(graph, device="cuda").run(images).tobytes() == evaluate(graph, images)[graph.output].tobytes()


def test_every_allocation_may_fail():
    """Whichever allocation fails: one error, nothing left over, and the session works when there is memory again."""
    with simulated_product() as control:
        session = Session(GRAPH, device="cuda")
        failures = 0
        for after in range(100):
            unused = 0
            for pattern in ("cuMemAlloc*", "cuMemHostAlloc"):
                session = Session(GRAPH, device="cuda")
                control.fault(pattern, gpu.OUT_OF_MEMORY, after=after)
                result, error = attempt(lambda session=session: session.run(IMAGES))
                assert right(result) if error is None else "memory" in str(error)
                failures += error is not None
                unused += control.forget_faults()
                assert right(session.run(IMAGES))
            if unused == 2:
                break
        assert failures > 2
        assert unused == 2, "the sweep has not come to its end"
        del session
        assert left(control) == {}


# --- arrays ---


def test_an_array_of_another_gpu():
    with simulated_product() as control:
        there = GpuArray(IMAGES, 1)
        with pytest.raises(UsageError, match=r"images: .*cuda:0.*cuda:1.*device=\"cuda:1\"") as error:
            Session(GRAPH, device="cuda:0").run(there)
        in_words(error)
        result = Session(GRAPH, device="cuda:1").run(there)
        assert right(result)
        with pytest.raises(UsageError, match=r"cuda:0.*cuda:1"):
            Session(GRAPH, device="cuda:0").run(result)
        out = GpuArray(np.zeros_like(EXPECTED), 0)
        with pytest.raises(UsageError, match=r"out: .*cuda:1.*cuda:0"):
            Session(GRAPH, device="cuda:1").run(there, out=out)
        assert control.messages() == ""


def test_a_gpu_array_on_the_cpu():
    with simulated_product(), pytest.raises(BinaryNetError):
        Session(GRAPH).run(GpuArray(IMAGES))


def test_arrays_that_are_refused():
    with simulated_product() as control:
        session = Session(GRAPH, device="cuda")
        shape = list(IMAGES.shape)
        wrong_shape = (*IMAGES.shape[:2], IMAGES.shape[2] + 1, *IMAGES.shape[3:])
        for array, kind, text in (
            (GpuArray(IMAGES, stream=0), UsageError, "stream 0"),
            (GpuArray(IMAGES, mask=GpuArray(IMAGES)), UsageError, "mask"),
            (GpuArray(IMAGES, strides=(0,) * IMAGES.ndim), UsageError, "contiguous"),
            (GpuArray(IMAGES, data=(IMAGES.ctypes.data, False)), UsageError, "host's memory"),
            (GpuArray(IMAGES, data=None), UsageError, "__cuda_array_interface__"),
            (GpuArray(IMAGES, typestr="|x9"), UsageError, "__cuda_array_interface__"),
            (GpuArray(IMAGES.astype(np.int16)), ShapeError, "uint8"),
            (GpuArray(np.zeros(wrong_shape, np.uint8)), ShapeError, str(shape[1:])[1:-1]),
            (GpuArray(IMAGES[0]), ShapeError, "images"),
            ([1, 2], ShapeError, "list"),
            (None, ShapeError, "NoneType"),
        ):
            with pytest.raises(kind) as error:
                session.run(array)
            assert text in in_words(error), (text, str(error.value))
        for out, text in (
            (GpuArray(EXPECTED[:-1]), "out"),
            (GpuArray(EXPECTED.astype(np.float64)), "float64"),
            (GpuArray(EXPECTED, data=(EXPECTED.ctypes.data, False)), "host's memory"),
            (np.zeros_like(EXPECTED), "out"),
        ):
            with pytest.raises(UsageError) as error:
                session.run(GpuArray(IMAGES), out=out)
            assert text in in_words(error)
        read_only = GpuArray(EXPECTED)
        read_only.__cuda_array_interface__["data"] = (read_only.address, True)
        with pytest.raises(UsageError, match="read-only"):
            session.run(GpuArray(IMAGES), out=read_only)
        assert right(session.run(GpuArray(IMAGES)))
        assert control.messages() == ""


# --- failures while kernels run ---

STICKY = (gpu.LAUNCH_FAILED, gpu.ILLEGAL_ADDRESS, gpu.ECC_UNCORRECTABLE, 702, 715, 716)


@pytest.mark.parametrize("schedule", ["early", "late", 1])
@pytest.mark.parametrize("status", STICKY)
def test_a_kernel_that_fails_is_never_silent(status, schedule):
    with simulated_product(schedule=schedule) as control:
        session = Session(GRAPH, device="cuda")
        assert right(session.run(IMAGES))
        control.fault("execution", status, after=1)
        with pytest.raises(DeviceError, match="CUDA_ERROR_") as error:
            session.run(IMAGES)
        assert "start it again" in in_words(error)
        for _ in range(2):
            with pytest.raises(DeviceError, match="CUDA_ERROR_"):
                session.run(IMAGES)
        with pytest.raises(DeviceError, match="CUDA_ERROR_"):
            Session(GRAPH, device="cuda").run(IMAGES)
        assert right(Session(GRAPH, device="cuda:1").run(IMAGES))
        assert cpu_works()
        del session, error


@pytest.mark.parametrize("schedule", ["early", "late"])
def test_a_failure_shows_where_the_result_is_read(schedule):
    with simulated_product(schedule=schedule) as control:
        session = Session(GRAPH, device="cuda")
        images, out = GpuArray(IMAGES), GpuArray(np.zeros_like(EXPECTED))
        assert right(session.run(images))
        control.fault("execution", gpu.LAUNCH_FAILED)
        with pytest.raises(DeviceError, match="LAUNCH_FAILED"):
            session.run(images).numpy()
        with pytest.raises(DeviceError, match="LAUNCH_FAILED"):
            session.run(images, out=out)


def test_a_launch_that_is_refused():
    """The call itself fails: that run ends with an error, the next one works."""
    with simulated_product() as control:
        session = Session(GRAPH, device="cuda")
        for after in range(6):
            control.fault("cuLaunchKernel", gpu.LAUNCH_OUT_OF_RESOURCES, after=after)
            outcomes = [attempt(lambda: session.run(IMAGES)) for _ in range(3)]
            errors = [str(error) for _, error in outcomes if error is not None]
            assert all(right(result) for result, error in outcomes if error is None)
            assert len(errors) == 1 - control.forget_faults()
            assert all("could not start the kernel" in error for error in errors)
            assert right(session.run(IMAGES))


@pytest.mark.parametrize("status", [gpu.NO_BINARY_FOR_GPU, gpu.UNSUPPORTED_PTX_VERSION])
def test_modules_that_cannot_be_loaded(status):
    with simulated_product() as control:
        for _ in range(2):  # what is damaged in the cache is compiled again, once
            control.fault("cuModuleLoadData*", status)
        session = Session(GRAPH, device="cuda")
        with pytest.raises(DeviceError, match=r"load the kernels of .*CUDA_ERROR_") as error:
            session.run(IMAGES)
        in_words(error)
        control.forget_faults()
        assert right(session.run(IMAGES))


@pytest.mark.parametrize(
    ("what", "status"),
    [("run", 999), ("run again", gpu.OUT_OF_MEMORY), ("run from the GPU", 999), ("profile", gpu.INVALID_VALUE)],
)
def test_every_call_of_the_driver_may_fail(what, status):
    """Whichever call fails, first to last: an error or the right result; afterwards everything works."""
    with simulated_product() as control:
        images = GpuArray(IMAGES)
        errors = 0
        for after in range(400):
            session = Session(GRAPH, device="cuda")
            if what == "run again":
                session.run(IMAGES), session.run(IMAGES)
            elif what == "run from the GPU":
                session.run(images)
            control.fault("cu*", status, after=after)
            calls = {
                "run from the GPU": lambda session=session: session.run(images).numpy(),
                "profile": lambda session=session: session.profile(IMAGES, repeats=1) and EXPECTED,
            }
            result, error = attempt(calls.get(what, lambda session=session: session.run(IMAGES)))
            # What tells where an array lies may fail, too: then it is refused.
            assert right(result) if error is None else isinstance(error, DeviceError | UsageError)
            assert error is None or "CUDA_ERROR_" in str(error) or "memory" in str(error)
            errors += error is not None
            if control.forget_faults():
                break
            assert right(session.run(IMAGES))
        else:
            pytest.fail("the sweep has not come to its end")
        assert errors > 3
        assert control.messages() == ""
        assert right(Session(GRAPH, device="cuda").run(IMAGES))
