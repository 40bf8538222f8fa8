"""From a torch module to a list of operations: a symbolic trace in which binarynet's layers are leaves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import fx, nn

from binarynet.errors import UnsupportedLayerError
from binarynet.layers import LEAVES


class _Tracer(fx.Tracer):
    def is_leaf_module(self, module: nn.Module, qualified_name: str) -> bool:
        # A subclass with a forward of its own computes something else than our layer: look into it.
        ours = isinstance(module, LEAVES) and type(module).forward.__module__.startswith("binarynet.layers.")
        return ours or super().is_leaf_module(module, qualified_name)


def trace(module: nn.Module) -> fx.GraphModule:
    """Trace ``module.forward`` as it is in eval mode; the module itself is left as it was.

    Raises:
        UnsupportedLayerError: forward depends on values (or does something else that cannot be traced), or a module
            has hooks, which could change its result unseen.
    """
    if isinstance(module, LEAVES):
        module = nn.Sequential(module)
    for name, child in module.named_modules():
        if child._forward_hooks or child._forward_pre_hooks:
            raise UnsupportedLayerError(
                f"{name or type(module).__name__} ({type(child).__name__}): has forward hooks, which may change its "
                "result; remove them before packing"
            )
    with eval_mode(module):
        try:
            graph = _Tracer().trace(module)
        except Exception as error:  # forward is the user's code, run on stand-ins for tensors
            raise UnsupportedLayerError(
                f"{type(module).__name__}: its forward cannot be traced: {error}. "
                "Use a fixed sequence of layers, without branches on values or shapes"
            ) from error
    return fx.GraphModule(module, graph)


def unwrap(module: nn.Module) -> nn.Module:
    """The network inside of ``torch.compile`` and of torch's data-parallel wrappers."""
    while True:
        if isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel):
            module = module.module
        elif isinstance(inner := getattr(module, "_orig_mod", None), nn.Module):
            module = inner
        else:
            return module


def one_input(traced: fx.GraphModule) -> fx.Node:
    """The network's input; UnsupportedLayerError if forward takes none or several."""
    inputs: list[fx.Node] = [node for node in traced.graph.nodes if node.op == "placeholder"]
    required = [node for node in inputs if not node.args]
    if len(required) != 1:
        names = ", ".join(node.name for node in inputs) or "nothing"
        raise UnsupportedLayerError(f"forward must take one tensor of images, it takes {names}")
    return required[0]


@contextmanager
def eval_mode(module: nn.Module) -> Iterator[None]:
    """Eval mode for the block; afterwards every submodule has its own mode back.

    Raises:
        UnsupportedLayerError: ``eval()`` does not put every submodule into eval mode.
    """
    modes = [(child, child.training) for child in module.modules()]
    try:
        module.eval()
        for name, child in module.named_modules():
            if child.training:
                raise UnsupportedLayerError(
                    f"{name or type(module).__name__} ({type(child).__name__}): stays in training mode after eval(); "
                    "a network is packed as it computes in eval mode"
                )
        yield
    finally:
        for child, training in modes:
            child.training = training
