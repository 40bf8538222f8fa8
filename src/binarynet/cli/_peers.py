"""The peers of a benchmark: found, built, checked.

Each writes its model's files into a folder of its own first, and is then loaded from there: what is timed is what
another process would load, too (:func:`build`).
"""

from __future__ import annotations

import importlib
import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from binarynet.cli import _peers_openvino_binary, _peers_torch, _peers_torch_cuda
from binarynet.cli._float_network import ZERO, FloatNetwork, evaluate, float_layer, float_network
from binarynet.cli._peers_common import Absence, Array, Kind, LayerShape, Loaded, OnGpu, Peer
from binarynet.errors import BackendUnavailableError, BinaryNetError, UsageError, VerificationError
from binarynet.graph import Graph

REMEDY = "pip install 'binarynet[bench]'"
ORDINARY = {
    "torch": "binarynet.cli._peers_torch",
    "numpy": "binarynet.cli._peers_numpy",
    "onnxruntime": "binarynet.cli._peers_onnxruntime",
    "openvino": "binarynet.cli._peers_openvino",
}
"""The libraries that run ordinary networks: name to module."""
ON_GPU = {"torch": "binarynet.cli._peers_torch_cuda"}
"""The same on a GPU."""

Expected = Callable[[str, Kind, Array], None]
"""Called with a peer's name, kind and values; VerificationError where they are not what they should be."""

FLOAT32_TOLERANCE = 1e-4
"""Largest difference of a float32 peer from float64, relative to the largest magnitude; with bfloat16 it is 5e-3.
A dense layer's sums must be exact: its operands are integers."""
BF16_STEP = 2**-7
"""The same of a bfloat16 layer, whose exact sums are rounded to eight bits."""
ROUNDED_TOLERANCE = {"int8": 0.1, "bf16": 0.1, "tf32": 0.01}
"""Largest difference of a network's scores from float64, root mean square relative to that of the scores."""
INT8_STEPS = 0.51
"""Largest difference of an int8 layer's codes from the exact sums of its own operands, in steps of the codes."""
NUM_CHECKED = 3
"""Images of a batch that are compared: the first, the last, one between."""


@contextmanager
def network_peers(
    graph: Graph, images: npt.NDArray[np.uint8], num_threads: int, gpu: OnGpu | None = None
) -> Iterator[tuple[list[Peer], list[Absence]]]:
    """Peers for a network that this machine has, ready to run and checked; those that it has not, with the reason.

    Args:
        graph: the network, a chain of layers.
        images: uint8 ``[n, *input shape]``: the batch that peers run.
        num_threads: for each of them.
        gpu: take those that compute on a GPU.
    """
    with _open(num_threads, gpu) as collected:
        collected.add_ordinary(lambda: float_network(graph, images))
        if gpu is None:
            collected.add_binary(_peers_openvino_binary.BinaryNetwork(graph, images))
        yield collected.found, collected.absent


@contextmanager
def layer_peers(
    layer: LayerShape, batch: int, num_threads: int, gpu: OnGpu | None = None
) -> Iterator[tuple[list[Peer], list[Absence]]]:
    """The same for a single layer, on a random batch (:func:`layer_input`)."""
    inputs = layer_input(layer, batch)
    with _open(num_threads, gpu) as collected:
        collected.add_ordinary(lambda: float_layer(layer, inputs))
        if gpu is None:
            collected.add_binary(_peers_openvino_binary.BinaryLayer(layer, inputs))
        yield collected.found, collected.absent


def layer_input(layer: LayerShape, batch: int) -> npt.NDArray[np.integer[Any]]:
    """The input that the peers of a layer get, always the same: ``[batch, h, w, c]``, uint8 u or int8 +1 / -1."""
    rng = np.random.default_rng(batch)
    shape = (batch, layer.in_h, layer.in_w, layer.in_c)
    if layer.first:
        return rng.integers(0, 256, shape, dtype=np.uint8)
    return 2 * rng.integers(0, 2, shape, dtype=np.int8) - 1


def build(folder: Path) -> Callable[[], Any]:
    """Load a peer from its folder (``Peer.folder``) and return its call; for another process, while peers are open."""
    about = json.loads((folder / "peer.json").read_text())
    loaded: Loaded = importlib.import_module(about["module"]).load(
        about["name"], folder / "model", np.load(folder / "inputs.npy"), about["threads"]
    )
    return loaded.run


@contextmanager
def _open(num_threads: int, gpu: OnGpu | None) -> Iterator[_Collected]:
    place = nullcontext() if gpu is None else _peers_torch_cuda.on_device(gpu.ordinal)
    with tempfile.TemporaryDirectory(prefix="binarynet-peers-") as folder, threads(num_threads), place:
        yield _Collected(Path(folder), num_threads, gpu)


@contextmanager
def threads(num_threads: int) -> Iterator[None]:
    """Limit torch's threads, and those of NumPy's BLAS where threadpoolctl is installed, for a while."""
    with _peers_torch.threads(num_threads):
        try:
            import threadpoolctl
        except ImportError:
            yield
            return
        with threadpoolctl.threadpool_limits(num_threads):
            yield


class _Collected:
    """The peers found so far, and those that are absent."""

    def __init__(self, folder: Path, num_threads: int, gpu: OnGpu | None) -> None:
        self.found: list[Peer] = []
        self.absent: list[Absence] = []
        self._folder, self._num_threads, self._gpu = folder, num_threads, gpu

    def add_ordinary(self, make: Callable[[], FloatNetwork]) -> None:
        """Peers with real weights for the network that ``make`` gives."""
        try:
            network = make()
        except UsageError as error:
            self.absent.append(Absence("float32 and int8", str(error)))
            return
        expected = _Expected(network)
        for library, module in (ORDINARY if self._gpu is None else ON_GPU).items():
            self._add(library, importlib.import_module(module), network, lambda: expected)

    def add_binary(self, subject: _peers_openvino_binary.BinaryNetwork | _peers_openvino_binary.BinaryLayer) -> None:
        """Peers that compute the same network."""
        module = _peers_openvino_binary
        self._add(module.BINARY, module, subject, lambda: module.expected(subject))

    def _add(self, library: str, module: ModuleType, subject: Any, expected: Callable[[], Expected]) -> None:
        try:
            version = module.version()
        except ImportError as error:
            self.absent.append(Absence(library, f"not installed ({error.name or error}): {REMEDY}"))
            return
        except BackendUnavailableError as error:
            self.absent.append(Absence(library, str(error)))
            return
        for name, kind in module.names(subject).items():
            if name == _peers_torch_cuda.AUTOTUNED and not (self._gpu and self._gpu.autotune):
                continue
            folder = self._folder / str(len(self.found) + len(self.absent))
            try:
                loaded = self._loaded(module, name, subject, folder)
                values = loaded.values(loaded.run())
            except UsageError as error:
                self.absent.append(Absence(name, str(error)))
                continue
            except (BinaryNetError, AssertionError, OSError, MemoryError):
                raise  # our own failures, a full disk, no memory
            except Exception as error:  # whatever a library may raise that cannot do it here
                self.absent.append(failed(name, error))
                continue
            compare = expected()
            try:
                compare(name, kind, values)
            except VerificationError as error:
                how = "too inexact" if kind in ROUNDED_TOLERANCE else "wrong"
                self.absent.append(Absence(name, f"{how} here: {str(error).removeprefix(f'{name}: ')}"))
                continue
            model_bytes = sum(path.stat().st_size for path in (folder / "model").iterdir())
            self.found.append(
                Peer(
                    name,
                    version,
                    kind,
                    loaded.run,
                    model_bytes // loaded.layers,
                    loaded.details,
                    folder,
                    loaded.layers,
                )
            )

    def _loaded(self, module: ModuleType, name: str, subject: Any, folder: Path) -> Loaded:
        """Write the files, load them."""
        model = folder / "model"
        model.mkdir(parents=True, exist_ok=True)
        inputs = module.save(name, subject, model)
        np.save(folder / "inputs.npy", inputs)
        about = {"module": module.__name__, "name": name, "threads": self._num_threads}
        (folder / "peer.json").write_text(json.dumps(about))
        loaded: Loaded = module.load(name, model, inputs, self._num_threads)
        return loaded


def failed(name: str, error: Exception) -> Absence:
    """With the first line of what the library says."""
    first = (str(error).strip().splitlines() or ["no message"])[0]
    return Absence(name, f"fails here: {type(error).__name__}: {first}")


@dataclass
class _Expected:
    """What ordinary peers should give for a few images of the batch; called with what one gave, it compares."""

    network: FloatNetwork

    def __post_init__(self) -> None:
        count = len(self.network.inputs)
        self.images = sorted({0, count // 2, count - 1})[:NUM_CHECKED]
        self.exact = evaluate(self.network.steps, self.network.inputs[self.images])
        self.codes = None
        if self.network.is_layer:
            sums = evaluate(self.network.steps, self.network.quantized_inputs[self.images])
            self.sums = sums
            step = self.network.activation_step
            self.codes = step * (np.clip(sums / step + ZERO, 0, 255) - ZERO)

    def __call__(self, name: str, kind: Kind, values: Array) -> None:
        if values.shape != (len(self.network.inputs), *self.exact.shape[1:]) or not np.isfinite(values).all():
            raise VerificationError(
                f"{name}: expected finite values {[len(self.network.inputs), *self.exact.shape[1:]]}, got "
                f"{list(values.shape)}, {np.count_nonzero(~np.isfinite(values))} of them not finite"
            )
        given = values[self.images].astype(np.float64)
        if kind == "float32" or (self.network.is_layer and kind != "int8"):
            error, limit = np.abs(given - self.exact).max() / np.abs(self.exact).max(), self._tolerance(kind)
        elif self.codes is None:
            difference = np.sqrt(np.mean((given - self.exact) ** 2))
            error, limit = difference / np.sqrt(np.mean(self.exact**2)), ROUNDED_TOLERANCE[kind]
        elif np.array_equal(given, self.sums):
            return
        else:
            error, limit = np.abs(given - self.codes).max() / self.network.activation_step, INT8_STEPS
        if error > limit:
            raise VerificationError(f"{name}: differs from the same network in float64 by {error:.3g}, over {limit}")

    def _tolerance(self, kind: Kind) -> float:
        if kind == "bf16":
            return BF16_STEP
        return 0.0 if self.network.is_layer and self.network.steps[0].kind == "dense" else FLOAT32_TOLERANCE
