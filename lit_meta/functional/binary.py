"""Binary values in a network trained by gradients: the sign, with straight-through derivatives."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class _Sign(torch.autograd.Function):
    """The sign with 0 counted as +1; its derivative is 1 within ± ``reach`` and 0 outside."""

    generate_vmap_rule = True

    @staticmethod
    def forward(values: Tensor, reach: float) -> Tensor:
        return torch.where(values >= 0, 1.0, -1.0).to(values.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, float], output: Tensor) -> None:
        values, reach = inputs
        ctx.everywhere = reach == float("inf")
        if not ctx.everywhere:
            ctx.save_for_backward(values.abs() <= reach)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        if ctx.everywhere:
            return gradient, None
        (within,) = ctx.saved_tensors
        return gradient * within, None


def binary_sign(values: Tensor, *, reach: float = float("inf")) -> Tensor:
    """+1 or -1 by sign (+1 for 0), with a straight-through derivative.

    Args:
        values: of any shape, floating point.
        reach: the derivative is 1 where \\|value\\| is at most this, and 0 beyond: 1 for activations (the derivative of
            the hard tanh), infinity for weights.

    Returns:
        As ``values``, each exactly +1 or -1.

    Raises:
        ValueError: a reach not above 0.

    Source:
        Courbariaux et al. 2016 (arXiv 1602.02830); as used by Laborieux et al., Nature Communications 12, 2549, 2021.

    Example:
        >>> x = torch.tensor([-2.0, -0.5, 0.0, 0.5], requires_grad=True)
        >>> y = binary_sign(x, reach=1.0); y.sum().backward()
        >>> y.tolist(), x.grad.tolist()
        ([-1.0, -1.0, 1.0, 1.0], [0.0, 1.0, 1.0, 1.0])
    """
    if not reach > 0:
        raise ValueError(f"reach must be above 0, got {reach}")
    return _Sign.apply(values, float(reach))


def shrinking_step_factor(hidden: Tensor, step: Tensor, *, metaplasticity: float) -> Tensor:
    r"""Fraction of a step that hidden weights take: all of it, except where the step would bring a weight nearer to 0.

    .. math:: f = 1 - \tanh^2(m |W^h|) \quad \text{where } step · W^h < 0, \qquad f = 1 \text{ elsewhere}

    Args:
        hidden: Wʰ before the step, any shape.
        step: the proposed change of Wʰ.
        metaplasticity: m, at least 0.

    Returns:
        f in [0, 1], of the same shape.

    Source:
        Laborieux et al. 2021, algorithm 1 and the function f_meta.

    Example:
        >>> shrinking_step_factor(torch.tensor([1.0, 1.0, -1.0]), torch.tensor([-0.1, 0.1, 0.1]), metaplasticity=1.0)
        tensor([0.4200, 1.0000, 0.4200])
    """
    shrinks = step * hidden < 0
    # In single precision 1 - tanh² cancels to 0 beyond m|W| = 9; 1/cosh² does not.
    resistance = torch.cosh((metaplasticity * hidden).clamp(-40.0, 40.0)).square_().reciprocal_()
    return torch.where(shrinks, resistance, torch.ones_like(resistance))
