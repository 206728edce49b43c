"""What is left when samples are subtracted from sums, and whether they can have been in them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from lit_meta.functional.scatter import Scatter

# Directions in which a residual is tested for negative variance.
_DIRECTIONS = 64


class Residual(NamedTuple):
    """What is left after some samples were forgotten.

    Attributes:
        samples: how many are left.
        digits: decimal digits to which the sums are those of the samples left, had the others never been seen; infinite where
            nothing was subtracted.
    """

    samples: float
    digits: float


def check_counted(
    blocks: list[tuple[Tensor, Scatter]],
    class_sums: Tensor,
    class_counts: Tensor,
    features: Tensor,
    targets: Tensor,
    left: Tensor,
    *,
    tolerance: float,
) -> None:
    """Checks that samples can have been among those counted: no count, class sum or variance that is left may be impossible.

    Sums cannot tell more: samples like those counted pass.

    Args:
        blocks: features of each block, and their second moment about the shift.
        class_sums: about the shift, (classes, features).
        class_counts: (classes,).
        features: of the samples to forget, about the shift, (samples, features), float64.
        targets: (samples,).
        left: counts of each class without them.
        tolerance: relative rounding of the sums.

    Raises:
        ValueError: they cannot.
    """
    for label in (left < 0).nonzero().flatten().tolist():
        raise ValueError(
            f"{int((targets == label).sum())} samples of class {label} are to be forgotten, and "
            f"{int(class_counts[label])} were counted: nothing was changed"
        )
    one_hot = F.one_hot(targets, len(left)).double()
    gone, samples = one_hot.T @ features, float(left.sum())
    size = one_hot.T @ features.abs()
    class_left = class_sums - gone
    known = bool((class_left.abs() <= tolerance * (size + size.mean()))[left == 0].all())
    total = class_left.sum(0)
    differences = (gone / one_hot.sum(0).clamp(min=1.0).unsqueeze(1))[one_hot.any(0)]
    directions = torch.cat([features[:_DIRECTIONS], differences])
    for own, scatter in blocks:
        part, total_part = features[:, own], total[own]
        spread = scatter.diagonal()
        variance = spread - part.square().sum(0) - (total_part.square() / samples if samples else 0.0)
        known = known and bool((variance >= -tolerance * (spread + spread.mean())).all())
        if not samples:
            known = known and bool((variance <= tolerance * (spread + spread.mean())).all())
            continue
        across = directions[:, own].T
        spread = (across * scatter.product(across)).sum(0)
        variance = spread - (part @ across).square().sum(0) - (total_part @ across).square() / samples
        known = known and bool((variance >= -tolerance * (spread + spread.mean())).all())
    if not known:
        raise ValueError(
            "these samples were never counted: without them the sums would have a negative variance, or a class without "
            "samples would have a mean; nothing was changed"
        )
