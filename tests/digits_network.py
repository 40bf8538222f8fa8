"""A small packed network for the digits, made without torch."""

from __future__ import annotations

import numpy as np

from binarynet.data import load
from binarynet.encoding import pack_bits
from binarynet.fileformat import PackedNetwork
from binarynet.graph import Affine, Dense, Flatten, Graph, Input, Threshold


def digits_network(**changes: object) -> PackedNetwork:
    """An 8 x 8 grey network with ten classes and random weights, "trained" on digits."""
    rng = np.random.default_rng(0)
    graph = Graph(
        (
            Input("image", (8, 8, 1)),
            Flatten("pixels", "image"),
            Dense("dense1", "pixels", pack_bits(rng.random((70, 64)) < 0.5)),
            Threshold("sign1", "dense1", rng.integers(-900, 900, 70, dtype=np.int32), rng.random(70) < 0.5),
            Dense("dense2", "sign1", pack_bits(rng.random((10, 70)) < 0.5)),
            Affine("scores", "dense2", rng.random(10, dtype=np.float32), rng.random(10, dtype=np.float32)),
        ),
        "scores",
    )
    fields = {
        "classes": tuple("0123456789"),
        "image_policy": load("digits").policy.to_dict(),
        "provenance": {"dataset": "digits"},
    }
    return PackedNetwork(**({"graph": graph} | fields | changes))
