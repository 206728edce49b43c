"""Other scales for the samples of a source, which all have values in [0, 1]."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from math import isfinite
from typing import Literal

import torch
from torch import Tensor

from lit_meta.data.lazy_samples import LazySamples
from lit_meta.data.sources.base import Source

_PART = 256  # Samples on the disk that are read at a time.

Standardize = Literal["train"] | Mapping[str, float | Sequence[float]]


def rescaled(source: Source, input_range: Sequence[float]) -> Source:
    """The source with 0 and 1 moved to the two numbers of ``input_range``, values between them in proportion.

    Raises:
        ValueError: not two finite numbers, the smaller first.
    """
    try:
        low, high = (float(bound) for bound in input_range)
    except (TypeError, ValueError):
        raise ValueError(f"input_range must be two numbers, got {input_range!r}") from None
    if not (isfinite(low) and isfinite(high) and low < high):
        raise ValueError(f"input_range must be two finite numbers, the smaller first, got {input_range!r}")
    return _affine(source, (high - low,), (low,))


def standardized(source: Source, standardize: Standardize) -> Source:
    """The source with a mean taken off each channel and divided by a standard deviation.

    Args:
        source: with samples ``(samples, channels, ...)``; samples without channels have one.
        standardize: ``"train"``, the mean and standard deviation of each channel over the training samples; or
            ``{"mean": ..., "std": ...}``, one number or one for each channel, on the scale of the samples.

    Raises:
        ValueError: another form, numbers that do not fit the channels, or a standard deviation of 0.
    """
    channels = source.input_shape[0] if len(source.input_shape) > 1 else 1
    if standardize == "train":
        mean, std = _statistics(source.train_x, channels)
    elif isinstance(standardize, Mapping) and standardize.keys() == {"mean", "std"}:
        mean, std = (_numbers(name, standardize[name], channels) for name in ("mean", "std"))
    else:
        raise ValueError(f"standardize must be 'train' or {{mean: ..., std: ...}}, got {standardize!r}")
    if not all(isfinite(m) and isfinite(s) and s > 0 for m, s in zip(mean, std, strict=True)):
        raise ValueError(f"standardize needs finite means and standard deviations above 0, got {mean} and {std}")
    factors = tuple(1 / s for s in std)
    return _affine(source, factors, tuple(-m * factor for m, factor in zip(mean, factors, strict=True)))


def _statistics(x: Tensor, channels: int) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel."""
    if isinstance(x, LazySamples):
        total, squares = torch.zeros(2, channels, dtype=torch.float64)
        for start in range(0, len(x), _PART):
            part = x[start : start + _PART].double()
            flat = part.transpose(0, 1).flatten(1) if channels > 1 else part.reshape(1, -1)
            total, squares = total + flat.sum(1), squares + flat.square().sum(1)
        count = x.shape.numel() / channels
        mean = total / count
        return mean.tolist(), (squares / count - mean.square()).clamp(min=0).sqrt().tolist()
    samples = x.transpose(0, 1).flatten(1) if channels > 1 else x.reshape(1, -1)
    return samples.double().mean(1).tolist(), samples.double().std(1, correction=0).tolist()


def _numbers(name: str, values: float | Sequence[float], channels: int) -> list[float]:
    try:
        numbers = [float(v) for v in values] if isinstance(values, Sequence) else [float(values)] * channels
    except (TypeError, ValueError):
        raise ValueError(f"standardize: {name} must be numbers, got {values!r}") from None
    if len(numbers) != channels:
        raise ValueError(f"standardize: {name} must be one number or {channels}, one a channel, got {values!r}")
    return numbers


@lru_cache(maxsize=1)
def _affine(source: Source, factors: tuple[float, ...], offsets: tuple[float, ...]) -> Source:
    """A copy, shared by the benchmarks of all seeds; factors and offsets are of each channel."""
    shape = (-1, *(1 for _ in source.input_shape[1:])) if len(factors) > 1 else ()
    factor, offset = (torch.tensor(v).reshape(shape) if shape else v[0] for v in (factors, offsets))
    # Which test samples were held out of training is asked of the source alone, never of a benchmark.
    return replace(
        source,
        train_x=source.train_x * factor + offset,
        test_x=source.test_x * factor + offset,
        held_out_x=None,
        held_out_y=None,
    )
