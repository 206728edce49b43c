"""What was learned at all: accuracy above chance."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

MARGIN = 0.05  # Above chance by less than this counts as chance: test sets are small, and no two experiences alike.


def chance_level(classes: Sequence[Sequence[int]]) -> Tensor:
    """Accuracy of guessing, on each experience: 1 / (its classes), or 1 / (all classes) where it has a single one.

    Args:
        classes: labels in each test experience.

    Returns:
        (experiences,), float64.

    Example:
        >>> chance_level([[0, 1], [2, 3]])
        tensor([0.5000, 0.5000], dtype=torch.float64)
        >>> chance_level([[0], [1], [2], [3]])
        tensor([0.2500, 0.2500, 0.2500, 0.2500], dtype=torch.float64)
    """
    everything = len({label for of_one in classes for label in of_one})
    return torch.tensor(
        [1 / (len(set(of_one)) if len(set(of_one)) > 1 else max(everything, 1)) for of_one in classes],
        dtype=torch.float64,
    )


def never_learned(learned: Tensor, chance: Tensor, *, margin: float = MARGIN) -> Tensor:
    """Whether an experience was at chance right after it was learned: R[j, j] <= chance[j] + margin.

    What was never learned cannot be forgotten, so that a small forgetting says nothing where this is true.

    Args:
        learned: accuracy on each experience right after it was learned, (experiences,).
        chance: of `chance_level`, (experiences,).
        margin: above chance that still counts as chance.

    Returns:
        (experiences,) of bool.

    Example:
        >>> never_learned(torch.tensor([1.0, 0.0, 0.29, 0.9]), chance_level([[0], [1], [2], [3]]))
        tensor([False,  True,  True, False])
    """
    return learned.double() <= chance.to(learned.device) + margin


def learned_little(never: Tensor) -> bool:
    """Whether more than half of the experiences were never learned, so that forgetting says nothing.

    Args:
        never: of `never_learned`, (experiences,) of bool.

    Example:
        >>> learned_little(torch.tensor([True, True, False])), learned_little(torch.tensor([True, False]))
        (True, False)
    """
    return bool(never.double().mean() > 0.5)
