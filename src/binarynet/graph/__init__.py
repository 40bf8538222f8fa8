"""The typed graph of a packed network, its validation and its reference evaluator. Works without torch."""

from binarynet.graph.ir import (
    Affine,
    Convolution,
    Dense,
    Flatten,
    Graph,
    GraphBuilder,
    Input,
    MaxPool,
    Node,
    Threshold,
    ValueType,
    Window,
    num_taps,
)
from binarynet.graph.reference import check_images, evaluate

__all__ = [
    "Affine",
    "Convolution",
    "Dense",
    "Flatten",
    "Graph",
    "GraphBuilder",
    "Input",
    "MaxPool",
    "Node",
    "Threshold",
    "ValueType",
    "Window",
    "check_images",
    "evaluate",
    "num_taps",
]
