"""Closed forms of NACA's updates for an artificial network, which the autograd path must agree with."""

from __future__ import annotations

from typing import Literal

from torch import Tensor


def _check(name: str, value: Tensor, shape: tuple[int, int]) -> None:
    if tuple(value.shape) != shape:
        raise ValueError(f"{name} must have shape {shape}, got {tuple(value.shape)}.")


def delta_rule(
    hidden: Tensor,
    output: Tensor,
    target: Tensor,
    *,
    learning_rate: float,
    output_activation: Literal["sigmoid", "identity"] = "sigmoid",
) -> Tensor:
    """The change of the output weights under squared error, ``ΔU = −η Σ_batch (o − y) o (1 − o) hᵀ``.

    Args:
        hidden: h, (batch, units), the input of the output layer (after the gate, where there is one).
        output: o, (batch, classes), after its activation.
        target: y, (batch, classes).
        learning_rate: η. Gradients are summed over the batch, not averaged.
        output_activation: ``"identity"`` leaves the factor ``o (1 − o)`` out.

    Returns:
        (classes, units), to be added to the weights.

    Raises:
        ValueError: the shapes do not fit, or the activation is unknown.

    Source: Zhang et al., Science Advances 9(34) eadi2947, 2023; Widrow & Hoff 1960.

    Example:
        >>> import torch
        >>> delta_rule(torch.tensor([[2.0]]), torch.tensor([[0.5]]), torch.tensor([[1.0]]), learning_rate=1.0)
        tensor([[0.2500]])
    """
    if output_activation not in ("sigmoid", "identity"):
        raise ValueError(f"output_activation must be 'sigmoid' or 'identity', got {output_activation!r}.")
    if hidden.dim() != 2 or output.dim() != 2 or len(hidden) != len(output):
        raise ValueError(
            f"hidden and output must be (batch, units) and (batch, classes), got {tuple(hidden.shape)} and "
            f"{tuple(output.shape)}."
        )
    _check("target", target, (output.shape[0], output.shape[1]))
    error = output - target
    if output_activation == "sigmoid":
        error = error * output * (1.0 - output)
    return -learning_rate * (error.T @ hidden)


def hidden_update(
    inputs: Tensor, hidden: Tensor, modulation: Tensor, *, learning_rate: float, gate: Tensor | None = None
) -> Tensor:
    """The change of logistic hidden weights, ``ΔW_ji = −η Σ_batch M_j(c) g_j σ′(a_j) x_i``.

    No error enters: the modulation M of the expected class takes its place.

    Args:
        inputs: x, (batch, inputs), the input of the layer.
        hidden: σ(a), (batch, units), its output *before* the gate.
        modulation: M, (batch, units), rows of `modulation_table` picked by the labels.
        learning_rate: η. Summed over the batch, not averaged.
        gate: g, (units,) or (batch, units); None is an open gate.

    Returns:
        (units, inputs), to be added to the weights.

    Raises:
        ValueError: the shapes do not fit.

    Source: Zhang et al. 2023.

    Example:
        >>> import torch
        >>> modulation = torch.tensor([[-1.2]])
        >>> hidden_update(torch.tensor([[2.0]]), torch.tensor([[0.5]]), modulation, learning_rate=1.0)
        tensor([[0.6000]])
    """
    if inputs.dim() != 2 or hidden.dim() != 2 or len(inputs) != len(hidden):
        raise ValueError(
            f"inputs and hidden must be (batch, inputs) and (batch, units), got {tuple(inputs.shape)} and "
            f"{tuple(hidden.shape)}."
        )
    batch, units = hidden.shape
    _check("modulation", modulation, (batch, units))
    if gate is not None:
        if tuple(gate.shape) not in ((units,), (batch, units)):
            raise ValueError(f"gate must have shape ({units},) or ({batch}, {units}), got {tuple(gate.shape)}.")
        modulation = modulation * gate
    return -learning_rate * ((modulation * hidden * (1.0 - hidden)).T @ inputs)
