"""One file per way to compute a block; :mod:`binarynet.cuda.blocks` says what a method is."""

from binarynet.cuda.blocks import Method
from binarynet.cuda.methods.baseline import Baseline
from binarynet.cuda.methods.bytes_dp4a import BytesDp4a
from binarynet.cuda.methods.bytes_mma import BytesMma
from binarynet.cuda.methods.mma import Mma
from binarynet.cuda.methods.popcount import Popcount
from binarynet.cuda.methods.wgmma import Wgmma

METHODS: dict[str, Method] = {
    method.name: method for method in (Wgmma(), Mma(), Popcount(), BytesMma(), BytesDp4a(), Baseline())
}
"""All methods by name, in order of preference where several can compute a block."""

__all__ = ["METHODS"]
