"""Blocks of one fully connected layer: recognised in the autograd graph, their gradients computed by one matrix product."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

_aten = torch.ops.aten
# By node name, autograd's gradient of an activation's input, given the gradient of its output and the output.
_DERIVATIVES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "SigmoidBackward0": _aten.sigmoid_backward,
    "TanhBackward0": _aten.tanh_backward,
    "ReluBackward0": lambda error, result: _aten.threshold_backward(error, result, 0),
}
# By the name of a product's node, the attribute that stores the factor other than the weight.
_FACTORS = {"MmBackward0": "_saved_self", "AddmmBackward0": "_saved_mat1"}


@dataclass(frozen=True)
class SimpleBlock:
    """``output = f(inputs @ weight.T + bias)`` with an elementwise f, or without one.

    Its gradients equal those of `torch.autograd.grad` to the last bit, without the overhead of the engine: the same kernels in
    the same order. The caller chooses only the memory that the result is written to.

    Attributes:
        inputs: (batch, in features).
        result: the output of f, (batch, out features).
        derivative: the node name of f, which selects its derivative; empty without an f.
    """

    inputs: Tensor
    result: Tensor
    derivative: str

    def error(self, upstream: Tensor) -> Tensor:
        """The gradient of f's input given that of its output, both (batch, out features)."""
        return _DERIVATIVES[self.derivative](upstream, self.result) if self.derivative else upstream

    def weight_gradient(self, error: Tensor, out: Tensor) -> Tensor:
        """The weight's gradient, (out features, in features), from `error`; written to ``out``."""
        return torch.mm(error.T, self.inputs, out=out)


def simple_block(layer: nn.Module, output: Tensor) -> SimpleBlock | None:
    """The block, if it consists of a fully connected layer and at most one activation.

    Args:
        layer: the layer that the block begins with.
        output: the block's output.

    Returns:
        None if that is not certain: another layer or activation, further operations in the block, a weight that is used twice
        or that autocast or a parametrization changes, a compiled block, or hooks on gradients of a parameter, a module or the
        output. (A hook on the tensor between layer and activation cannot be detected here; it is not called.)

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
    derivative = ""
    result: Any = output
    if node is not None and node.name() in _DERIVATIVES:
        derivative, result = node.name(), getattr(node, "_saved_result", None)
        node = node.next_functions[0][0]
    if node is None or node.name() not in _FACTORS:
        return None
    *others, (transposed, _) = node.next_functions
    if transposed is None or transposed.name() != "TBackward0":
        return None
    # The product's other inputs must be its other factor, which is detached, and the bias.
    if any(other is not None and getattr(other, "variable", None) is not bias for other, _ in others):
        return None
    if getattr(transposed.next_functions[0][0], "variable", None) is not weight:
        return None
    if getattr(node, "_saved_alpha", 1) != 1 or getattr(node, "_saved_beta", 1) != 1:
        return None
    inputs = getattr(node, _FACTORS[node.name()], None)
    return SimpleBlock(inputs, result, derivative) if type(inputs) is type(result) is Tensor else None
