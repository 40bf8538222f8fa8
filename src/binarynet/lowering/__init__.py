"""From torch to the integer graph: the only room that sees both."""

from binarynet.lowering.lower import Lowered, lower
from binarynet.lowering.packing import lower_checked, pack, probe
from binarynet.lowering.thresholds import fold_thresholds
from binarynet.lowering.torch_values import torch_source

__all__ = ["Lowered", "fold_thresholds", "lower", "lower_checked", "pack", "probe", "torch_source"]
