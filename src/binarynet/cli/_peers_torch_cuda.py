"""torch on a GPU as a peer: float32 (TF32 off, and on), bfloat16, compiled with CUDA graphs, and int8 products.

Everything is on torch's current device and stream. Calls return before the GPU is done; whoever times them waits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from binarynet.cli import _peers_torch
from binarynet.cli._float_network import FloatNetwork
from binarynet.cli._peers_common import Array, Kind, Loaded
from binarynet.errors import BackendUnavailableError

if TYPE_CHECKING:
    import torch

DEVICE = "cuda"
FLOAT, TF32, BF16, INT_MM = "torch float32", "torch float32, TF32", "torch bf16", "torch int8, int32 sums"
CHANNELS_LAST = "torch bf16, channels last"
COMPILED, AUTOTUNED = "torch bf16 compiled, CUDA graphs", "torch bf16 compiled, max-autotune"
MODES = {COMPILED: "reduce-overhead", AUTOTUNED: "max-autotune"}
"""Compiled peers, and torch.compile's mode for each; both replay CUDA graphs. Images are channels last there."""


def version() -> str:
    import torch

    if DEVICE == "cuda" and not torch.cuda.is_available():
        raise BackendUnavailableError(
            f"torch {torch.__version__} finds no CUDA device; install a build for CUDA: https://pytorch.org"
        )
    return _peers_torch.version()


def names(network: FloatNetwork) -> dict[str, Kind]:
    """The peers that torch has for a network."""
    kinds = {step.kind for step in network.steps}
    found: dict[str, Kind] = {FLOAT: "float32", TF32: "tf32", BF16: "bf16"}
    if "convolution" in kinds:
        found[CHANNELS_LAST] = "bf16"
    found |= dict.fromkeys(MODES, "bf16")
    if network.is_layer and "dense" in kinds:
        found[INT_MM] = "int8"
    return found


def save(name: str, network: FloatNetwork, folder: Path) -> Array:
    """Write the model's file; returns the peer's input, as 8-bit codes for int8."""
    return _peers_torch.save(_peers_torch.INT_MM if name == INT_MM else _peers_torch.FLOAT, network, folder)


def load(name: str, folder: Path, inputs: Array, num_threads: int) -> Loaded:
    """The network on the GPU, with its input there."""
    import torch

    steps = torch.load(folder / "model.pt", weights_only=True)["steps"]
    x = torch.from_numpy(inputs).to(DEVICE)
    if name == INT_MM:
        return _peers_torch.exact_product(steps[0], x)
    dtype = torch.float32 if name in (FLOAT, TF32) else torch.bfloat16
    last = x.ndim == 4 and name not in (FLOAT, TF32, BF16)
    layout = torch.channels_last if last else torch.contiguous_format
    x = x.to(dtype).contiguous(memory_format=layout if x.ndim == 4 else torch.contiguous_format)
    module: Callable[[torch.Tensor], torch.Tensor] = _peers_torch.network(steps, layout).to(DEVICE, dtype)
    if name in MODES:
        module = torch.compile(module, mode=MODES[name], fullgraph=True, dynamic=False)
    allow = name == TF32

    def run() -> torch.Tensor:
        allow_tf32(allow)
        with torch.inference_mode():
            return module(x)

    return Loaded(run, lambda scores: scores.float().cpu().numpy())


def allow_tf32(allowed: bool) -> None:
    """Whether float32 products and convolutions may round their operands to TF32.

    By torch's older settings: its compiler asks for them, and refuses to answer where only the newer ones were set.
    """
    import torch

    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed


@contextmanager
def on_device(ordinal: int) -> Iterator[None]:
    """torch's current device and precision for a while; does nothing where torch is absent, or finds no GPU.

    What was compiled before is dropped: torch keeps few compiled forms of one function.
    """
    try:
        import torch
    except ImportError:
        yield
        return
    if not torch.cuda.is_available():
        yield
        return
    torch._dynamo.reset()
    backends: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [backend.allow_tf32 for backend in backends]
    try:
        with torch.cuda.device(ordinal):
            yield
    finally:
        for backend, value in zip(backends, before, strict=True):
            backend.allow_tf32 = value
