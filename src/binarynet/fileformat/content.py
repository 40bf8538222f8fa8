"""What a .bnn file holds besides the graph: everything that prediction and provenance need."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass, field
from typing import Any

from binarynet.errors import DataError, FileFormatError
from binarynet.graph import Graph

FORMAT_VERSION = 1
MAX_CLASS_NAME = 1024


@dataclass(frozen=True)
class PackedNetwork:
    """A graph with what belongs to it.

    Attributes:
        graph: the network.
        classes: one name per score, or empty where the network has no class names.
        image_policy: how a picture becomes the network's input (``data.ImagePolicy.to_dict()``; its height, width and
            channels are the input's, 1, 1 and k for k features), or None.
        provenance: where the network comes from (recipe, data set, test error ...): JSON values only.

    Raises:
        FileFormatError: class names or an image policy that are not what they should be, or do not fit the graph; a
            graph whose input is packed bits, which format version 1 does not know.
    """

    graph: Graph
    classes: tuple[str, ...] = ()
    image_policy: dict[str, Any] | None = None
    provenance: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        given = self.graph.input
        if given.kind != "u8":
            raise FileFormatError(
                f"the input {given.name!r} is packed bits: a .bnn file holds whole networks, over 8-bit inputs; a part "
                "of one runs as a graph, with binarynet.runtime.Session(graph)"
            )
        output = self.graph.output_type
        if self.classes and (output.kind != "f32" or len(output.shape) != 1 or len(self.classes) != output.channels):
            raise FileFormatError(
                f"{len(self.classes)} class names for an output of {output}; expected one name per score"
            )
        for name in self.classes:
            if not isinstance(name, str) or not 0 < len(name) <= MAX_CLASS_NAME:
                raise FileFormatError(f"class name {str(name)[:80]!r} must be text of 1 to {MAX_CLASS_NAME} characters")
            if any(unicodedata.category(character) in ("Cc", "Cs") for character in name):
                raise FileFormatError(f"class name {name[:80]!r} has control characters")
        if len(set(self.classes)) != len(self.classes):
            raise FileFormatError("class names are not distinct")
        if self.image_policy is not None:
            check_image_policy(self.image_policy, self.graph.input.shape)


def check_image_policy(policy: Any, input_shape: tuple[int, ...]) -> None:
    """FileFormatError unless a policy is complete, and gives images of the network's input shape."""
    from binarynet.data.images import ImagePolicy

    if not isinstance(policy, dict):
        raise FileFormatError(
            f"image policy: expected an object as ImagePolicy.to_dict() gives it, got {type(policy).__name__}"
        )
    try:
        given = ImagePolicy.from_dict(policy).shape
    except DataError as error:
        raise FileFormatError(str(error)) from None
    taken = input_shape if len(input_shape) == 3 else (1, 1, *input_shape)
    if given != taken:
        raise FileFormatError(
            f"image policy: it gives images of {list(given)} (height, width, channels), the network takes {list(taken)}"
        )
