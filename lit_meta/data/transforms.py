"""Changes to every sample of a source: torchvision's transforms by name, or any function."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor

from lit_meta.data.lazy_samples import LazySamples
from lit_meta.data.sources.base import Source
from lit_meta.utils.registry import Registry
from lit_meta.utils.specs import Specification, build

Change = Callable[[Tensor], Tensor]

TRANSFORMS: Registry[Callable[..., Change]] = Registry(
    "transform",
    {
        "center-crop": "torchvision.transforms.v2:CenterCrop",
        "grayscale": "torchvision.transforms.v2:Grayscale",
        "normalize": "torchvision.transforms.v2:Normalize",
        "pad": "torchvision.transforms.v2:Pad",
        "resize": "torchvision.transforms.v2:Resize",
    },
    group="lit_meta.transforms",
)


def transformed(source: Source, transform: Specification | Sequence[Specification] | Change) -> Source:
    """The source with every sample changed, in training and in testing.

    It must not draw random numbers: samples are changed once. Random augmentation belongs into the training loop.

    Args:
        source: the source.
        transform: a function of one sample ``(*shape)``, a spec of one (a name in `TRANSFORMS`, ``{"name": "resize", "size":
            32}``, or a class path such as ``torchvision.transforms.v2.CenterCrop``), or a list of specs, applied in order.

    Raises:
        ValueError: it is random, does not return a tensor, or fails on a sample.

    Example:
        >>> from lit_meta.data import load_source
        >>> transformed(load_source("digits"), lambda x: x[:, 2:6]).input_shape
        (1, 4, 8)
    """
    changes = _changes(transform)

    def change(sample: Tensor) -> Tensor:
        for step in changes:
            sample = step(sample)
        if not isinstance(sample, Tensor):
            raise ValueError(
                f"the transform of source {source.name!r} returned a {type(sample).__name__}, not a tensor"
            )
        return sample

    try:
        with torch.random.fork_rng(devices=[]):
            once, again = (change(source.train_x[0].clone()) for _ in range(2))
    except (RuntimeError, TypeError, IndexError, KeyError) as error:
        raise ValueError(
            f"the transform of source {source.name!r} fails on a sample of the shape {source.input_shape}: {error}"
        ) from error
    if once.shape != again.shape or not torch.equal(once, again):
        raise ValueError(
            f"the transform of source {source.name!r} is random: samples are changed once, so augment in the training loop"
        )
    return replace(
        source,
        train_x=_mapped(source.train_x, change),
        test_x=_mapped(source.test_x, change),
        held_out_x=None,
        held_out_y=None,
    )


def _changes(transform: Any) -> list[Change]:
    specs = transform if isinstance(transform, Sequence) and not isinstance(transform, str) else [transform]
    if not specs:
        raise ValueError("transform must be a function, a spec or a list of specs, got an empty list")
    return [spec if callable(spec) else build(spec, TRANSFORMS) for spec in specs]


def _mapped(samples: Tensor, change: Change) -> Tensor:
    if isinstance(samples, LazySamples):
        return cast(Tensor, samples.with_change(change))
    return torch.stack([change(sample) for sample in samples]).contiguous()
