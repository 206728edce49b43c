"""What the estimator learns from: labels, and features whose products can be summed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from torch import Tensor, nn

from lit_meta.rules._readout_head import check_size

# Squares of the eigenvalues of a scatter do not vanish yet.
_SMALLEST = 1e-60


def check_labels(parts: Iterable[Any]) -> None:
    """Checks that labels are all numbers or all text, as they were given: NumPy makes text of the numbers beside text.

    Args:
        parts: arrays, tensors, lists or series of labels; None is left to those who need labels.

    Raises:
        ValueError: numbers and text, or a label that is NaN or None.

    Example:
        >>> check_labels([[0, 1], ["a"]])
        Traceback (most recent call last):
        ...
        ValueError: labels must be all numbers or all text, and some of these are numbers and some text
    """
    are_text = set()
    for part in parts:
        kind = getattr(getattr(part, "dtype", None), "kind", "O")
        if part is None or isinstance(part, Tensor) or kind not in "OUSf":
            are_text |= {False} if part is not None and len(part) else set()
            continue
        for label in part if isinstance(part, (list, tuple)) else np.asarray(part).flat:
            if label is None or (isinstance(label, (float, np.floating)) and np.isnan(label)):
                raise ValueError(f"a label is {'None' if label is None else 'NaN'}")
            are_text.add(isinstance(label, (str, bytes)))
    if len(are_text) > 1:
        raise ValueError("labels must be all numbers or all text, and some of these are numbers and some text")


def united(parts: Sequence[np.ndarray]) -> np.ndarray:
    """All labels of some arrays, in order.

    Raises:
        ValueError: whole numbers too large for the type that NumPy finds for all of them.

    Example:
        >>> united([np.array([2, 1]), np.array([1.5])])
        array([1. , 1.5, 2. ])
    """
    labels = np.unique(np.concatenate(parts))
    known = set(labels.tolist())
    for label in (label for part in parts for label in np.unique(part).tolist()):
        if label not in known:
            raise ValueError(f"the label {label!r} cannot be kept as {labels.dtype}: give all labels one type")
    return labels


def rows(output: object, samples: Tensor, backbone: nn.Module) -> Tensor:
    """The output of a backbone for a batch as features in float64, (samples, features)."""
    needed = f"a backbone must give a tensor of ({len(samples)}, ...) for {len(samples)} samples"
    name = type(backbone).__name__
    if not isinstance(output, Tensor):
        raise TypeError(
            f"{needed}, and {name} gives a {type(output).__name__}: wrap it in a module that returns its features"
        )
    if output.dim() < 2 or len(output) != len(samples):
        raise ValueError(f"{needed}, and {name} gives one of {tuple(output.shape)}")
    return output.flatten(1).double().cpu()


def check_products(features: Tensor, shift: Tensor) -> None:
    """Checks that sums of products of features neither overflow nor vanish."""
    check_size(features, "a feature")
    spread = float((features - shift).abs().max())
    if 0.0 < spread < _SMALLEST:
        raise ValueError(
            f"the features differ by {spread:.1e} at most, and squares of their products vanish: normalise them; nothing was "
            "learned from this batch"
        )
