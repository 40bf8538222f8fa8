"""Latent weights as bits."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from binarynet.errors import NonFiniteError, UnsupportedLayerError
from binarynet.layers import BinaryLayer
from binarynet.lowering.trace import eval_mode


def weight_bits(name: str, layer: BinaryLayer) -> npt.NDArray[np.bool_]:
    """Signs of latent weights; NonFiniteError, naming layer and place, if one is NaN or infinite."""
    values = layer.weight.detach().cpu().numpy()
    finite = np.isfinite(values)
    if not finite.all():
        place = tuple(int(i) for i in np.argwhere(~finite)[0])
        raise NonFiniteError(
            f"{name}: weight {list(place)} is {values[place]}, expected a finite number: the training has diverged; "
            "use an earlier checkpoint or a smaller learning rate"
        )
    with eval_mode(layer):  # weights that are drawn while training are signs then
        binary = layer.binary_weight().detach().cpu().numpy()
    if not (np.abs(binary) == 1).all():
        raise UnsupportedLayerError(f"{name} ({type(layer).__name__}): binary_weight() must give +1 and -1 only")
    bits: npt.NDArray[np.bool_] = binary > 0
    return bits
