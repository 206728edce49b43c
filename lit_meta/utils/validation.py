"""Checks of arguments and labels, with one-sentence error messages."""

from __future__ import annotations

import cmath

import torch
from torch import Tensor

from lit_meta.utils.arguments import require_count as require_count
from lit_meta.utils.arguments import require_in as require_in
from lit_meta.utils.arguments import require_one_of as require_one_of


def all_finite(values: Tensor) -> bool:
    """Whether a tensor contains neither NaN nor infinity.

    A sum is one cheap pass, and finite only if all its terms are. It is computed at least in single precision, since sums of
    half-precision numbers overflow; if it overflows nevertheless, the elements themselves are checked.

    Args:
        values: any shape and dtype.

    Example:
        >>> all_finite(torch.full((1000,), 6e4, dtype=torch.float16)), all_finite(torch.tensor([1.0, float("nan")]))
        (True, False)
    """
    if not values.is_floating_point() and not values.is_complex():
        return True
    values = values.detach()
    half = values.dtype in (torch.float16, torch.bfloat16)
    total = values.sum(dtype=torch.float32) if half else values.sum()
    # In every step of training, so of a plain number, which takes a quarter of the time.
    return cmath.isfinite(total.item()) or bool(torch.isfinite(values).all())


def extremes(values: Tensor) -> tuple[float, float]:
    """The smallest and the largest of some numbers, waiting for a GPU once and not twice.

    Args:
        values: any shape, not empty.

    Example:
        >>> extremes(torch.tensor([3, 1, 2]))
        (1, 3)
    """
    bounds = torch.aminmax(values)
    low, high = torch.stack(tuple(bounds)).tolist() if values.is_cuda else (bound.item() for bound in bounds)
    return low, high


def check_class_labels(targets: Tensor, classes: int, rule: str) -> None:
    """Checks that ``targets`` are integer labels in ``range(classes)``.

    Args:
        targets: the batch's targets; valid are (batch,) integers.
        classes: number of classes.
        rule: the rule's name, for the message.

    Raises:
        TypeError: soft or one-hot labels.
        ValueError: a label outside the range, or not one label a sample.

    Example:
        >>> check_class_labels(torch.tensor([0, 2]), 2, "NACA")
        Traceback (most recent call last):
        ...
        ValueError: NACA got the label 2, but the head has 2 outputs: labels go from 0 to 1
    """
    if targets.is_floating_point() or targets.dtype == torch.bool:
        raise TypeError(f"{rule} needs integer class labels, got {targets.dtype}: soft labels are not supported")
    if targets.dim() != 1:
        raise ValueError(f"{rule} needs one label a sample, a tensor of shape (batch,), got {tuple(targets.shape)}")
    if targets.numel() == 0:
        raise ValueError(f"{rule} got an empty batch")
    low, high = extremes(targets)
    if low < 0 or high >= classes:
        invalid = low if low < 0 else high
        raise ValueError(
            f"{rule} got the label {invalid}, but the head has {classes} outputs: labels go from 0 to {classes - 1}"
        )
