"""Streams in which the classes stay and the images change."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from lit_meta.data._building import described, loaded, parts_of
from lit_meta.data.lazy import LazyBenchmark, LazyStream
from lit_meta.data.sources.base import Source
from lit_meta.data.view import TensorView
from lit_meta.utils.arguments import require_count, require_in
from lit_meta.utils.registry import unknown
from lit_meta.utils.specs import Specification

_PATTERNS = 997  # Of noise, a prime: neighbouring samples never share one.


def rotate(x: Tensor, degrees: Tensor) -> Tensor:
    """Images turned anticlockwise about their centre, bilinearly; what comes in from outside is 0.

    Args:
        x: images, (samples, channels, height, width).
        degrees: one angle for each, (samples,), or one for all, ().

    Example:
        >>> image = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
        >>> rotate(image, torch.tensor(90.0)).round().tolist()
        [[[[2.0, 4.0], [1.0, 3.0]]]]
    """
    angle = torch.deg2rad(degrees.to(x).expand(len(x)))
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    height, width = x.shape[-2:]
    rows = [torch.stack([cos, -sin * height / width, zero], 1), torch.stack([sin * width / height, cos, zero], 1)]
    grid = F.affine_grid(torch.stack(rows, 1), list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, align_corners=False)


def rotated(
    source: Specification | Source,
    *,
    experiences: int = 5,
    largest: float = 180.0,
    seed: int = 0,
    validation: float = 0.0,
    root: str | Path | None = None,
) -> Any:
    """All classes of a source in every experience, the images turned: by 0, and then by equal steps up to below an angle.

    Domain-incremental.

    Args:
        source: a source of images, or its spec; see `load_source`.
        experiences: length of the stream.
        largest: the angle that the next experience would have, in degrees.
        seed: determines the validation samples.
        validation: as of `split`; every experience has the same images.
        root: the folder that holds the data sets, see `load_source`.

    Returns:
        The benchmark; see `scenario`.

    Raises:
        ValueError: samples that are not images, or an argument out of range.

    Source: Lopez-Paz & Ranzato, Gradient episodic memory for continual learning, NIPS 2017 (there random angles, and a part of
        the samples for each).
    """
    require_in("largest", largest, 0.0, 360.0, open_low=True)
    length = require_count("experiences", experiences)
    data = _images(source, root, validation, "rotated")
    changes = [_rotation(largest * i / length) for i in range(length)]
    return _in_domains(data, changes, f"rotated-{data.name}", validation, seed)


def corrupted(
    source: Specification | Source,
    *,
    corruptions: Sequence[str] = ("none", "noise", "blur", "contrast", "brightness", "occlusion"),
    severity: int = 3,
    seed: int = 0,
    validation: float = 0.0,
    root: str | Path | None = None,
) -> Any:
    """All classes of a source in every experience, under a corruption of its own.

    Domain-incremental. At severity s, from 1 to 5: Gaussian noise of standard deviation 0.08 s; a mean over (2 s' + 1) squared
    pixels, s' = (s + 1) // 2; contrast times 1 - 0.18 s; brightness plus 0.1 s; a square of s / 10 of the image's height set
    to 0 at its centre. Values stay in [0, 1].

    Args:
        source: a source of images, or its spec; see `load_source`.
        corruptions: of each experience, among ``none``, ``noise``, ``blur``, ``contrast``, ``brightness`` and ``occlusion``.
        severity: s.
        seed: determines the noise and the validation samples.
        validation: as of `split`; every experience has the same images.
        root: the folder that holds the data sets, see `load_source`.

    Returns:
        The benchmark; see `scenario`.

    Raises:
        KeyError: an unknown corruption; the nearest is named.
        ValueError: samples that are not images, or an argument out of range.

    Source: in the manner of Hendrycks & Dietterich, Benchmarking neural network robustness to common corruptions and
        perturbations, ICLR 2019; the corruptions and their strengths are ours.
    """
    if not isinstance(severity, int) or not 1 <= severity <= 5:
        raise ValueError(f"severity must be a whole number from 1 to 5, got {severity!r}")
    if not corruptions:
        raise ValueError("corruptions must name at least one")
    for name in corruptions:
        if name not in CORRUPTIONS:
            raise unknown("corruption", name, CORRUPTIONS)
    data = _images(source, root, validation, "corrupted")
    changes = [CORRUPTIONS[name](severity, data.input_shape, seed) for name in corruptions]
    return _in_domains(data, changes, f"corrupted-{data.name}", validation, seed)


def gradual(
    source: Specification | Source,
    *,
    experiences: int = 100,
    largest: float = 90.0,
    domains: int = 4,
    seed: int = 0,
    root: str | Path | None = None,
) -> LazyBenchmark:
    """Every sample once, in random order, each turned a little further than the one before: a domain without boundaries.

    Args:
        source: a source of images, or its spec; see `load_source`.
        experiences: number of equal parts in which the stream is delivered; they mean nothing.
        largest: the angle of the last sample, in degrees.
        domains: number of test experiences: all test images at equally spaced angles, from 0 to the largest.
        seed: determines the order of the samples.
        root: the folder that holds the data sets, see `load_source`.

    Returns:
        A lazy benchmark, with ``boundaries`` false; see `lit_meta.data.lazy`.

    Raises:
        ValueError: samples that are not images, or an argument out of range.
    """
    require_in("largest", largest, 0.0, 360.0, open_low=True)
    length, tests = require_count("experiences", experiences), require_count("domains", domains)
    data = _images(source, root, 0.0, "gradual")
    if length > len(data.train_y):
        raise ValueError(f"gradual-{data.name} has {len(data.train_y)} samples, too few for {length} experiences")
    order = torch.randperm(len(data.train_y), generator=torch.Generator().manual_seed(seed))
    angles = torch.empty(len(order))
    angles[order] = torch.linspace(0.0, largest, len(order))
    bounds = [round(i * len(order) / length) for i in range(length + 1)]
    steps = torch.linspace(0.0, largest, tests).tolist() if tests > 1 else [0.0]

    def turned(x: Tensor, index: Tensor) -> Tensor:
        return rotate(x, angles[index])

    def train(position: int) -> TensorView:
        return TensorView(data.train_x, data.train_y, order[bounds[position] : bounds[position + 1]], change=turned)

    def test(position: int) -> TensorView:
        index = torch.arange(len(data.test_y))
        return TensorView(data.test_x, data.test_y, index, change=_rotation(steps[position]))

    return LazyBenchmark(
        LazyStream(length, train),
        LazyStream(tests, test),
        name=f"gradual-{data.name}",
        form="domain",
        classes=len(data.classes),
        class_names=data.classes,
        class_order=tuple(range(len(data.classes))),
        input_shape=data.input_shape,
    )


Change = Callable[[Tensor, Tensor], Tensor]


def _rotation(degrees: float) -> Change | None:
    return None if degrees == 0 else lambda x, _: rotate(x, torch.tensor(degrees))


def _none(severity: int, shape: tuple[int, ...], seed: int) -> None:
    return None


def _noise(severity: int, shape: tuple[int, ...], seed: int) -> Change:
    patterns = torch.randn(_PATTERNS, *shape, generator=torch.Generator().manual_seed(seed))
    return lambda x, index: (x + 0.08 * severity * patterns[index % _PATTERNS]).clamp(0, 1)


def _blur(severity: int, shape: tuple[int, ...], seed: int) -> Change:
    reach = (severity + 1) // 2
    return lambda x, _: F.avg_pool2d(x, 2 * reach + 1, stride=1, padding=reach, count_include_pad=False)


def _contrast(severity: int, shape: tuple[int, ...], seed: int) -> Change:
    def change(x: Tensor, _: Tensor) -> Tensor:
        mean = x.mean((1, 2, 3), keepdim=True)
        return mean + (1 - 0.18 * severity) * (x - mean)

    return change


def _brightness(severity: int, shape: tuple[int, ...], seed: int) -> Change:
    return lambda x, _: (x + 0.1 * severity).clamp(0, 1)


def _occlusion(severity: int, shape: tuple[int, ...], seed: int) -> Change:
    height, width = shape[-2:]
    side = max(1, round(height * severity / 10))
    top, left = (height - side) // 2, max(0, (width - side) // 2)
    open_ = torch.ones(shape)
    open_[..., top : top + side, left : left + side] = 0
    return lambda x, _: x * open_


CORRUPTIONS: dict[str, Callable[[int, tuple[int, ...], int], Change | None]] = {
    "none": _none,
    "noise": _noise,
    "blur": _blur,
    "contrast": _contrast,
    "brightness": _brightness,
    "occlusion": _occlusion,
}


def _images(source: Specification | Source, root: str | Path | None, validation: float, kind: str) -> Source:
    data = loaded(source, root, validation)
    if len(data.input_shape) != 3:
        raise ValueError(
            f"{kind} needs images (channels, height, width), and {data.name} has samples {data.input_shape}"
        )
    return data


def _in_domains(data: Source, changes: Sequence[Change | None], name: str, validation: float, seed: int) -> Any:
    streams = {
        stream: [TensorView(x, y, index, change=change) for change in changes]
        for stream, (x, y, index) in parts_of(data, validation, seed).items()
    }
    return described(streams, name, "domain", data.classes, tuple(range(len(data.classes))), data)
