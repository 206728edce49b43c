"""Ratios of medians and scaling exponents, each with its interval."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

_RESAMPLES = 2000
_LEVEL = (2.5, 97.5)


def ratio_of_medians(
    subject: Sequence[float], baseline: Sequence[float], *, seed: int = 0
) -> tuple[float, float, float]:
    """The ratio of two medians with its 95 % bootstrap interval.

    Repeats are resampled in pairs: the two measurements of a pair were taken one after the other, so whatever disturbed
    the machine at that time affected both.

    Args:
        subject: one measurement per repeat.
        baseline: likewise.
        seed: of the resampling.

    Returns:
        Ratio, low, high.

    Raises:
        ValueError: fewer than two repeats, lists of different lengths, or a baseline of zero.

    Example:
        >>> ratio_of_medians([1.0, 1.0, 1.0], [2.0, 2.0, 2.0])
        (0.5, 0.5, 0.5)
    """
    if len(subject) != len(baseline) or len(subject) < 2:
        raise ValueError(
            f"expected the same number of repeats of both, at least two, got {len(subject)} and {len(baseline)}"
        )
    pairs = np.array([subject, baseline], dtype=float)
    if np.median(pairs[1]) <= 0:
        raise ValueError("the baseline's median is not positive, so there is nothing to compare with")
    chosen = np.random.default_rng(seed).integers(0, pairs.shape[1], (_RESAMPLES, pairs.shape[1]))
    medians = np.median(pairs[:, chosen], axis=2)
    low, high = np.percentile(medians[0] / np.maximum(medians[1], 1e-300), _LEVEL)
    ratio = float(np.median(pairs[0]) / np.median(pairs[1]))
    return ratio, float(low), float(high)


def scaling_exponent(
    values: Sequence[float], costs: Sequence[Sequence[float]], *, seed: int = 0
) -> tuple[float, float, float]:
    """The exponent k of ``cost ~ value^k`` by least squares on logarithms, with its 95 % bootstrap interval.

    Args:
        values: what was varied, at least two different positive numbers.
        costs: the repeated measurements at each value.
        seed: of the resampling.

    Returns:
        Exponent, low, high.

    Raises:
        ValueError: too few values, or one that is not positive.

    Example:
        >>> [round(k, 3) for k in scaling_exponent([1, 2, 4], [[3.0], [12.0], [48.0]])]
        [2.0, 2.0, 2.0]
    """
    if len(set(values)) < 2 or len(values) != len(costs) or min(values) <= 0:
        raise ValueError(f"expected at least two different positive values and costs for each, got {list(values)}")
    x = np.log(np.array(values, dtype=float))
    x -= x.mean()
    generator = np.random.default_rng(seed)

    def exponent(medians: np.ndarray) -> np.ndarray:
        return (x[:, None] * np.log(medians)).sum(0) / (x * x).sum()

    best = exponent(np.array([[np.median(c)] for c in costs]))
    resampled = np.array(
        [np.median(np.array(c)[generator.integers(0, len(c), (_RESAMPLES, len(c)))], axis=1) for c in costs]
    )
    low, high = np.percentile(exponent(resampled), _LEVEL)
    return float(best[0]), float(low), float(high)


def rounded(value: float, digits: int = 4) -> float:
    """Rounds to a number of significant digits, for readability and stable files.

    Example:
        >>> rounded(0.0123456)
        0.01235
    """
    return (
        value
        if value == 0 or not math.isfinite(value)
        else round(value, digits - 1 - math.floor(math.log10(abs(value))))
    )
