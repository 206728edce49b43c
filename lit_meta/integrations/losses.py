"""The losses of `MetaplasticModule`, by name."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from lit_meta.utils.validation import extremes

Loss = Callable[[Tensor, Tensor], Tensor]


def check_labels(outputs: Tensor, targets: Tensor) -> None:
    """Checks that integer labels fit the width of the head.

    Args:
        outputs: (batch, classes).
        targets: (batch,).

    Raises:
        ValueError: outputs that are not (batch, classes), or a label outside ``range(classes)``.
    """
    if outputs.dim() != 2 or targets.shape != outputs.shape[:1]:
        raise ValueError(
            f"a classification loss takes outputs (batch, classes) and labels (batch,), got {tuple(outputs.shape)} "
            f"and {tuple(targets.shape)}"
        )
    low, high = extremes(targets)
    if low < 0 or high >= outputs.shape[1]:
        raise ValueError(
            f"got the label {low if low < 0 else high}, but the head has {outputs.shape[1]} outputs: labels go from 0 to "
            f"{outputs.shape[1] - 1}"
        )


def one_hot(outputs: Tensor, targets: Tensor) -> Tensor:
    """Labels (batch,) as targets of the shape and type of ``outputs`` (batch, classes)."""
    return torch.zeros_like(outputs).scatter_(1, targets.unsqueeze(1), 1.0)


def cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy of logits."""
    return F.cross_entropy(outputs, targets)


def mse(outputs: Tensor, targets: Tensor) -> Tensor:
    """Squared distance to the one-hot label: half its sum over the classes, averaged over the batch.

    Example:
        >>> mse(torch.tensor([[1.0, 1.0]]), torch.tensor([0]))
        tensor(0.5000)
    """
    return 0.5 * (outputs - one_hot(outputs, targets)).square().sum() / outputs.shape[0]


def summed_mse(outputs: Tensor, targets: Tensor) -> Tensor:
    """As `mse`, but summed over the batch: the output rule of NACA as published (see `lit_meta.rules.NACA`)."""
    return 0.5 * (outputs - one_hot(outputs, targets)).square().sum()


LOSSES: dict[str, Loss] = {"cross_entropy": cross_entropy, "mse": mse, "summed_mse": summed_mse}
