"""Shared by the networks: checked sizes, named activations, weight layers drawn from their own seed."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init

from lit_meta.utils.registry import unknown

Activation = Literal["sigmoid", "relu", "tanh"]
OutputActivation = Literal["sigmoid", "identity"]
Pooling = Literal["average", "max"]

ACTIVATIONS: dict[str, type[nn.Module]] = {"sigmoid": nn.Sigmoid, "relu": nn.ReLU, "tanh": nn.Tanh}
OUTPUTS: dict[str, type[nn.Module]] = {"sigmoid": nn.Sigmoid, "identity": nn.Identity}
POOLINGS: dict[str, Callable[[int], nn.Module]] = {"average": nn.AvgPool2d, "max": nn.MaxPool2d}


def one_of(kind: str, name: str, literal: Any) -> None:
    """Checks that a name is one of those that a `Literal` lists."""
    if name not in get_args(literal):
        raise unknown(kind, name, get_args(literal))


def make_activation(name: str) -> nn.Module:
    if name not in ACTIVATIONS:
        raise unknown("activation", name, ACTIVATIONS)
    return ACTIVATIONS[name]()


def make_output_activation(name: str) -> nn.Module:
    if name not in OUTPUTS:
        raise unknown("output", name, OUTPUTS)
    return OUTPUTS[name]()


def make_pooling(name: str) -> nn.Module:
    if name not in POOLINGS:
        raise unknown("pooling", name, POOLINGS)
    return POOLINGS[name](2)


def positive(name: str, value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be a whole number, got {value!r}.")
    if value < 1:
        raise ValueError(f"{name} must be at least 1, got {value}.")
    return value


def widths(name: str, values: Sequence[int]) -> list[int]:
    if isinstance(values, (str, int)):
        raise TypeError(f"{name} must be a sequence of whole numbers, such as [1000], got {values!r}.")
    return [positive(f"{name}[{i}]", value) for i, value in enumerate(values)]


def class_count(classes: int) -> int:
    if positive("classes", classes) < 2:
        raise ValueError(f"classes must be at least 2, got {classes}.")
    return classes


def image_shape(shape: Sequence[int]) -> tuple[int, int, int]:
    sizes = widths("input_shape", shape)
    if len(sizes) != 3:
        raise ValueError(f"input_shape must be (channels, height, width), got {tuple(shape)}.")
    return sizes[0], sizes[1], sizes[2]


def samples(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The batch as (batch, *shape); any layout with the right number of values per sample is accepted."""
    if x.dim() < 2 or math.prod(x.shape[1:]) != math.prod(shape):
        raise ValueError(
            f"expected a batch of samples of {math.prod(shape)} values (batch, *{shape}), got {tuple(x.shape)}."
        )
    return x.reshape(x.shape[0], *shape)


class WeightFactory:
    """Creates weight layers; with a seed, torch's global random state is left alone.

    Biases are uniform on ± 1/√fan-in, as in torch's own layers, and weights on `gain` times that range.
    """

    def __init__(self, seed: int | None, *, bias: bool, gain: float = 1.0) -> None:
        if not gain > 0:
            raise ValueError(f"weight_gain must be positive, got {gain}.")
        self._generator = None if seed is None else torch.Generator().manual_seed(seed)
        self._bias, self._gain = bias, gain

    def _fill(self, layer: nn.Linear | nn.Conv2d) -> None:
        bound = 1.0 / math.sqrt(layer.weight[0].numel())
        with torch.no_grad():
            layer.weight.uniform_(-self._gain * bound, self._gain * bound, generator=self._generator)
            if layer.bias is not None:
                layer.bias.uniform_(-bound, bound, generator=self._generator)

    def linear(
        self, inputs: int, outputs: int, kind: type[nn.Linear] = nn.Linear, *, bias: bool | None = None
    ) -> nn.Linear:
        layer = skip_init(kind, inputs, outputs, bias=self._bias if bias is None else bias)
        assert isinstance(layer, nn.Linear)
        self._fill(layer)
        return layer

    def conv(self, inputs: int, outputs: int, kernel: int) -> nn.Conv2d:
        layer = skip_init(nn.Conv2d, inputs, outputs, kernel, padding=kernel // 2, bias=self._bias)
        assert isinstance(layer, nn.Conv2d)
        self._fill(layer)
        return layer


def pooled_size(size: int, kernel: int, stages: int) -> int:
    """Height or width after `stages` of a padded convolution followed by pooling that halves it."""
    for stage in range(stages):
        size = (size + 2 * (kernel // 2) - kernel + 1) // 2
        if size < 1:
            raise ValueError(
                f"the input is too small for {stages} stages of convolution and pooling: nothing is left "
                f"after stage {stage + 1}. Use fewer channels or a larger input."
            )
    return size
