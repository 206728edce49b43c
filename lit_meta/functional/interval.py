"""Confidence intervals over seeds."""

from __future__ import annotations

import math

from torch import Tensor


def t_interval(values: Tensor, *, confidence: float = 0.95) -> tuple[Tensor, Tensor]:
    """Student's interval of the mean over seeds: ``mean ± t(n - 1) · s / √n``.

    Exact for normal values: with five seeds it covers the true mean in 95 % of cases, where a percentile bootstrap covers it in
    about 83 %. With two or three seeds it is wide, because so few numbers say little of the spread. It may reach beyond the
    range of the values (an accuracy above 1).

    Args:
        values: ``(seeds, ...)``; further dimensions are treated independently.
        confidence: probability of covering the true mean, above 0 and below 1.

    Returns:
        ``(low, high)``, each of the shape of ``values[0]``; of a single seed, which has no spread, the value itself.

    Raises:
        ValueError: no values, NaN, or a confidence out of range.

    Source: Student, The probable error of a mean, Biometrika 6(1), 1908.

    Example:
        >>> import torch
        >>> low, high = t_interval(torch.tensor([0.5, 0.6, 0.7]))
        >>> round(float(low), 3), round(float(high), 3)
        (0.352, 0.848)
        >>> t_interval(torch.tensor([0.4]))
        (tensor(0.4000), tensor(0.4000))
    """
    if values.ndim == 0 or len(values) == 0 or not values.is_floating_point():
        raise ValueError(
            f"expected floating-point values (seeds, ...), got {values.dtype} of shape {tuple(values.shape)}"
        )
    if values.isnan().any():
        raise ValueError(
            f"{int(values.isnan().sum())} of {values.numel()} values are NaN: leave out seeds without a value"
        )
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be above 0 and below 1, got {confidence}")
    mean = values.mean(0)
    if len(values) == 1:
        return mean.clone(), mean.clone()
    # The quantile alone: scipy.stats takes a second to import.
    from scipy.special import stdtrit

    quantile = float(stdtrit(len(values) - 1, (1 + confidence) / 2))
    half = quantile * values.std(0) / math.sqrt(len(values))
    return mean - half, mean + half


__all__ = ["t_interval"]
