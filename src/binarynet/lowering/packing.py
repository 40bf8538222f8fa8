"""From a trained torch network to a packed model, proved on the way."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from binarynet.data import ImagePolicy
from binarynet.errors import UnsupportedLayerError, UsageError
from binarynet.fileformat import PackedNetwork
from binarynet.lowering.lower import Lowered, lower
from binarynet.lowering.torch_values import torch_source
from binarynet.runtime import Model, Verification, verify

_NUM_PROBES = 17  # in one batch: torch has other kernels for small ones


def pack(
    module: nn.Module,
    input_shape: Sequence[int],
    classes: Sequence[str] | None = None,
    *,
    image_policy: ImagePolicy | Mapping[str, Any] | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> Model:
    """Lower a trained network, pack its bits, and prove on probe images that nothing changed.

    The network may come from any training loop: a ``Sequential`` or a module with a forward of its own, made of
    binarynet's layers. It is packed as it computes in eval mode; the module itself is left as it is.

    Args:
        module: the network; takes uint8 ``[n, channels, rows, columns]`` (or ``[n, features]``).
        input_shape: ``(rows, columns, channels)`` or ``(features,)``.
        classes: one name per score; stored in the file.
        image_policy: how pictures become inputs, as an ``ImagePolicy`` or its ``to_dict()``; stored in the file.
        provenance: JSON values that say where the network comes from; stored in the file.

    Returns:
        the packed model: ``.save(path)``, ``.predict(images)``.

    Raises:
        UsageError: ``module``, ``input_shape`` or ``classes`` is not what it should be.
        UnsupportedLayerError: names what has no exact form, why, and what to use instead.
        NonFiniteError: a weight or statistic is NaN or infinite.
        VerificationError: the packed network differs from torch on a probe image (a layer with unusual behaviour).
    """
    if isinstance(classes, str) or not isinstance(classes, Iterable | None):
        raise UsageError(f"classes must be a list with one name per score, got {classes!r}")
    policy = image_policy.to_dict() if isinstance(image_policy, ImagePolicy) else image_policy
    for name, value in (("image_policy", policy), ("provenance", provenance)):
        if not isinstance(value, Mapping | None):
            raise UsageError(f"{name} must be a mapping of names to JSON values, got {value!r}")
    lowered = lower_checked(module, input_shape)
    probe(lowered).require_exact()
    network = PackedNetwork(
        lowered.graph,
        tuple(str(name) for name in (() if classes is None else classes)),
        dict(policy) if policy is not None else None,
        dict(provenance or {}),
    )
    return Model(network)


def lower_checked(module: nn.Module, input_shape: Sequence[int]) -> Lowered:
    """:func:`lower`, for a module on any device; refuses parameters that are not float32."""
    if not isinstance(module, nn.Module):
        raise UsageError(f"expected a torch module, got {type(module).__name__}")
    for name, tensor in module.named_parameters():
        if tensor.is_floating_point() and str(tensor.dtype) != "torch.float32":
            raise UnsupportedLayerError(
                f"{name}: is {tensor.dtype}; packing keeps the float32 expressions of eval mode: call module.float()"
            )
    devices = {tensor.device.type for tensor in module.state_dict().values()}
    if "meta" in devices:
        raise UsageError("the network is on the meta device: it has shapes but no weights; build it on the CPU")
    if np.float32(1e-40) * np.float32(0.5) == 0:
        raise UsageError(
            "this thread flushes small floats to zero; call torch.set_flush_denormal(False) before packing"
        )
    if devices - {"cpu"}:
        module = copy.deepcopy(module).cpu()
    return lower(module, input_shape)


def probe(lowered: Lowered) -> Verification:
    """Random, all-black, all-white and mid-grey images through torch and every engine of this machine's CPU."""
    shape = (_NUM_PROBES, *lowered.graph.input.shape)
    images: npt.NDArray[np.uint8] = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    for i, level in enumerate((0, 255, 128)):
        images[i] = level
    return verify(lowered.graph, images, extra={"torch": torch_source(lowered)}, device="cpu")
