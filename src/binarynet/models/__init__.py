"""Network architectures by name."""

from binarynet.models._registry import available, build, options, register
from binarynet.models.convnet import convnet
from binarynet.models.mlp import mlp

__all__ = ["available", "build", "convnet", "mlp", "options", "register"]
