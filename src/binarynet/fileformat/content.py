"""What a .bnn file holds besides the graph: everything that prediction and provenance need."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass, field
from typing import Any

from binarynet.errors import FileFormatError
from binarynet.graph import Graph

FORMAT_VERSION = 1
MAX_CLASS_NAME = 1024


@dataclass(frozen=True)
class PackedNetwork:
    """A graph with what belongs to it.

    Attributes:
        graph: the network.
        classes: one name per score, or empty where the network has no class names.
        image_policy: how a picture becomes the network's input (``data.images.ImagePolicy.to_dict()``), or None.
        provenance: where the network comes from (recipe, data set, test error ...): JSON values only.
    """

    graph: Graph
    classes: tuple[str, ...] = ()
    image_policy: dict[str, Any] | None = None
    provenance: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
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
