"""Blocks of one fully connected layer, whose gradients are one matrix product: found in the graph, and made without it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

_aten = torch.ops.aten
# By the name of a node, how autograd makes the gradient of its input from that of its output and from the output.
_DERIVATIVES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "SigmoidBackward0": _aten.sigmoid_backward,
    "TanhBackward0": _aten.tanh_backward,
    "ReluBackward0": lambda error, result: _aten.threshold_backward(error, result, 0),
}
# By the name of a product's node, where it keeps the factor that is not the weight.
_FACTORS = {"MmBackward0": "_saved_self", "AddmmBackward0": "_saved_mat1"}


@dataclass(frozen=True)
class SimpleBlock:
    """``output = f(inputs @ weight.T + bias)`` with an elementwise f, or without one.

    What `torch.autograd.grad` gives, to the last bit, without its engine: the same kernels in the same order. Only where
    the result is written is the caller's to choose.

    Attributes:
        inputs: (batch, in features).
        result: of f, (batch, out features).
        derivative: of f, by the name of its node; empty where there is no f.
    """

    inputs: Tensor
    result: Tensor
    derivative: str

    def error(self, upstream: Tensor) -> Tensor:
        """The gradient of what goes into f from that of what comes out, both (batch, out features)."""
        return _DERIVATIVES[self.derivative](upstream, self.result) if self.derivative else upstream

    def weight_gradient(self, error: Tensor, out: Tensor) -> Tensor:
        """(out features, in features) from `error`, in the memory of ``out``."""
        return torch.mm(error.T, self.inputs, out=out)


def simple_block(layer: nn.Module, output: Tensor) -> SimpleBlock | None:
    """The block, where it consists of a fully connected layer and at most one activation.

    Args:
        layer: the layer that the block begins with.
        output: what the block gives.

    Returns:
        None where it is not certain: another layer or activation, anything more in the block, a weight that is used twice or
        that autocast or a parametrization changes, a compiled block, or hooks that look at gradients of a parameter, a module
        or the output. (A hook on the tensor between layer and activation cannot be seen from here; it is not called.)

    Raises:
        RuntimeError: the graph has been freed.

    Example:
        >>> layer, x = nn.Linear(4, 3), torch.rand(5, 4)
        >>> torch.equal(simple_block(layer, layer(x).sigmoid()).inputs, x)
        True
        >>> simple_block(layer, layer(x) + x @ layer.weight.T) is None
        True
    """
    own = layer._parameters
    weight, bias = own.get("weight"), own.get("bias")
    if type(layer).forward is not nn.Linear.forward or type(weight) is not nn.Parameter:
        return None
    if (
        layer._backward_hooks
        or layer._backward_pre_hooks
        or any(p is not None and p._backward_hooks for p in own.values())
    ):
        return None
    if output._backward_hooks or output.retains_grad:
        return None
    node: Any = output.grad_fn
    derivative, result = "", output
    if node is not None and node.name() in _DERIVATIVES:
        derivative, result = node.name(), node._saved_result
        node = node.next_functions[0][0]
    if node is None or node.name() not in _FACTORS:
        return None
    *others, (transposed, _) = node.next_functions
    if transposed is None or transposed.name() != "TBackward0":
        return None
    # What the product needs besides the weight: its other factor, which is cut off, and a bias.
    if any(other is not None and getattr(other, "variable", None) is not bias for other, _ in others):
        return None
    if getattr(transposed.next_functions[0][0], "variable", None) is not weight:
        return None
    if getattr(node, "_saved_alpha", 1) != 1 or getattr(node, "_saved_beta", 1) != 1:
        return None
    inputs = getattr(node, _FACTORS[node.name()], None)
    return SimpleBlock(inputs, result, derivative) if type(inputs) is type(result) is Tensor else None
