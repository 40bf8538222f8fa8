"""What to use instead of the common things that have no exact integer form."""

from __future__ import annotations

from torch import nn

from binarynet.layers import Preprocessing

FUNCTION_HINT = (
    "has no exact integer form. Known functions: binarynet.ops.sign, flatten, "
    "view/reshape(x.size(0), -1), max_pool2d, dropout, hardtanh before a sign"
)
_MODULE_HINTS: dict[type[nn.Module], str] = {
    nn.Linear: "real-valued weights; use binarynet.layers.BinaryLinear",
    nn.Conv2d: "real-valued weights; use binarynet.layers.BinaryConv2d",
    nn.BatchNorm1d: "its eval mode differs in the last bit from an affine map; use binarynet.layers.BatchNorm1d",
    nn.BatchNorm2d: "its eval mode differs in the last bit from an affine map; use binarynet.layers.BatchNorm2d",
    nn.ReLU: "real-valued activation; use binarynet.layers.Sign",
    nn.AvgPool2d: "averages are not integers; use torch.nn.MaxPool2d",
    nn.AdaptiveAvgPool2d: "averages are not integers; use torch.nn.MaxPool2d",
    nn.Softmax: "scores leave the network as they are; take the softmax outside",
    Preprocessing: (
        "real-valued preprocessing has no exact 8-bit form; train on the bytes themselves: without it, the first layer "
        'with first=True (in recipes model.preprocessing = "none", as in cifar10-torch7 and svhn-torch7)'
    ),
    nn.LogSoftmax: "scores leave the network as they are; take the softmax outside",
}


def module_hint(module: nn.Module) -> str | None:
    """Why a well-known module has no packed form, and what to use instead; None where it is not a well-known one."""
    return next((hint for kind, hint in _MODULE_HINTS.items() if isinstance(module, kind)), None)
