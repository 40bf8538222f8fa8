"""Network architectures, and the paper's networks, by name."""

from binarynet.models._registry import available, build, options, register, register_network
from binarynet.models.convnet import convnet
from binarynet.models.mlp import mlp

# The paper's networks (arXiv 1602.02830, sections 2.1 to 2.4), for 10 classes. Names stand for sizes alone: activation,
# normalization and dropout are options, for the paper trained them in two settings.

# 784-3x4096-10 (Theano) and 784-3x2048-10 (Torch7): 36,806,656 and 10,014,720 binary weights on 28 x 28 x 1 inputs.
register_network("mnist-mlp-4096", "mlp", hidden=(4096, 4096, 4096))
register_network("mnist-mlp-2048", "mlp", hidden=(2048, 2048, 2048))

# On 32 x 32 x 3 inputs 14,022,016, and with half the channels in the convolutions 6,397,632.
register_network("cifar10-convnet", "convnet", blocks=((128, 128), (256, 256), (512, 512)), dense=(1024, 1024))
register_network("svhn-convnet", "convnet", blocks=((64, 64), (128, 128), (256, 256)), dense=(1024, 1024))

__all__ = ["available", "build", "convnet", "mlp", "options", "register", "register_network"]
