"""What the scenarios have in common: how a source is loaded, divided, and described as a benchmark."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lit_meta.data._scaling import Standardize, rescaled, standardized
from lit_meta.data.sources import load_source
from lit_meta.data.sources.base import Source, stratified_split
from lit_meta.data.tensors import benchmark_of, describe
from lit_meta.data.view import TensorView
from lit_meta.utils.specs import Specification


def loaded(
    source: Specification | Source,
    root: str | Path | None,
    validation: float = 0.0,
    input_range: Sequence[float] | None = None,
    standardize: Standardize | None = None,
) -> Source:
    """The source at the scale that was asked for; arguments as of `lit_meta.data.scenarios.split`.

    Raises:
        ValueError: an argument out of range.
    """
    if not 0 <= validation < 1:
        raise ValueError(f"expected a validation fraction of at least 0 and below 1, got {validation}")
    if input_range is not None and standardize is not None:
        raise ValueError("input_range and standardize both set the scale of the samples: pass only one of them")
    data = load_source(source, root)
    if standardize is not None:
        return standardized(data, standardize)
    return data if input_range is None else rescaled(data, input_range)


def parts_of(data: Source, validation: float, seed: int) -> dict[str, tuple[Tensor, Tensor, Tensor]]:
    """For each stream: the source's samples, their labels, and the indices of those in the stream."""
    train = torch.arange(len(data.train_y))
    parts = {"train": (data.train_x, data.train_y, train)}
    if validation:
        # A separate generator: the order of classes must be the same with and without validation.
        generator = torch.Generator().manual_seed(seed)
        train, held_out = stratified_split(data.train_y, validation, generator, classes=data.classes)
        parts["train"] = (data.train_x, data.train_y, train)
        parts["validation"] = (data.train_x, data.train_y, held_out)
    parts["test"] = (data.test_x, data.test_y, torch.arange(len(data.test_y)))
    return parts


def described(
    streams: dict[str, list[Any]],
    name: str,
    form: str,
    class_names: tuple[str, ...],
    order: tuple[int, ...],
    data: Source,
) -> Any:
    """An Avalanche benchmark of `TensorView`s with the attributes that `lit_meta.scenario` promises."""
    return describe(
        benchmark_of(streams),
        name=name,
        form=form,
        class_names=class_names,
        class_order=order,
        input_shape=data.input_shape,
    )


def class_order_of(source: Source, class_order: Sequence[int] | None, generator: torch.Generator) -> tuple[int, ...]:
    """The order of the classes: a given one, or a random one.

    Raises:
        ValueError: a given one that does not hold each class once.
    """
    number = len(source.classes)
    if class_order is None:
        return tuple(torch.randperm(number, generator=generator).tolist())
    order = tuple(int(label) for label in class_order)
    if sorted(order) != list(range(number)):
        raise ValueError(f"expected class_order to hold each of 0..{number - 1} once, got {order}")
    return order


def groups_of(x: Tensor, y: Tensor, home: Tensor, length: int) -> list[TensorView]:
    """The samples of the classes that belong to each experience."""
    return [TensorView(x, y, (home[y] == position).nonzero().flatten()) for position in range(length)]
