"""Layers that draw noise in training mode, and the key that says which."""

from __future__ import annotations

import itertools

import numpy as np
import torch
from torch import Tensor, nn

from binarynet.errors import UsageError
from binarynet.ops.noise import draw_noise_key, next_noise_key


class NoisyLayer(nn.Module):
    """Base of the layers that draw noise in training mode, see :func:`set_noise_key`."""

    noise_key: Tensor | None

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("noise_key", None, persistent=False)

    def next_noise_key(self, device: torch.device) -> Tensor:
        """A key that no other call gets: int64 ``[]`` on the device.

        It is drawn from torch's global generator, or, where the layer was given a key, counted on from that.
        """
        if self.noise_key is None:
            return draw_noise_key(device)
        if self.noise_key.device != device:
            self.noise_key = self.noise_key.to(device)
        return next_noise_key(self.noise_key)


def set_noise_key(model: nn.Module, key: int | None) -> None:
    """Say which noise the next forward passes draw: dropout, stochastic signs and stochastic weights.

    Give another key in each step (in each process: in each rank), derived from whatever the noise is to depend on.
    The same key at the same step gives the same noise again, on every device. Every layer draws its own, by its place
    in ``model.modules()``, and every call of a layer another. Nothing of it is part of ``state_dict``.

    Without a key, the noise depends on torch's global generator: ``torch.manual_seed`` repeats it. So it does under
    activation checkpointing, which repeats a forward pass with the generator's state, but knows nothing of keys.
    DistributedDataParallel sends buffers, keys among them, from rank 0 to all at the beginning of ``forward``: set the
    key within what it wraps, or build it with ``broadcast_buffers=False``.

    Args:
        model: the network, on its device.
        key: any non-negative integer; None goes back to torch's generator.

    Raises:
        UsageError: a negative key.
    """
    if key is not None and key < 0:
        raise UsageError(f"set_noise_key: expected a non-negative integer, got {key}")
    layers = [module for module in model.modules() if isinstance(module, NoisyLayer)]
    if key is None:
        for layer in layers:
            layer.noise_key = None
        return
    tensors = itertools.chain(model.parameters(), model.buffers())
    device = next((tensor.device for tensor in tensors), torch.device("cpu"))
    # uint64 as int64, the same bits
    numbers = np.random.SeedSequence(key).generate_state(max(1, len(layers)), np.uint64).view(np.int64).tolist()
    for layer, number in zip(layers, numbers, strict=False):
        if layer.noise_key is None:
            with torch.inference_mode(False):  # it is counted on outside, too
                layer.noise_key = torch.tensor(number, dtype=torch.int64, device=device)
        else:
            layer.noise_key.fill_(number)  # no copy from the host: an accelerator need not be waited for
