"""Binarised networks: weights and activations of +1 and -1, learned through full-precision hidden weights."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lit_meta.functional.binary import binary_sign
from lit_meta.networks._build import class_count, one_of, positive, samples, widths

Normalization = Literal["batch", "layer", "scale", "test-batch"]
Initial = Literal["normal", "uniform"]


class BinaryLinear(nn.Linear):
    """A Linear layer that computes with the signs of its weights.

    ``y = sign(Wʰ) x + b``. The parameter ``weight`` is the hidden weight Wʰ; the gradient with respect to the sign is
    passed straight through to it.

    Args: as of `torch.nn.Linear`; without a bias by default.

    Source:
        Laborieux et al., Nature Communications 12, 2549, 2021; Courbariaux et al. 2016.

    Example:
        >>> layer = BinaryLinear(2, 1)
        >>> with torch.no_grad(): _ = layer.weight.copy_(torch.tensor([[0.2, -3.0]]))
        >>> layer(torch.tensor([[1.0, 1.0], [1.0, -1.0]])).tolist()
        [[0.0], [2.0]]
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = False, **options: Any) -> None:
        super().__init__(in_features, out_features, bias, **options)

    def forward(self, input: Tensor) -> Tensor:
        """(..., in_features) -> (..., out_features)."""
        return F.linear(input, binary_sign(self.weight), self.bias)


class BinaryConv2d(nn.Conv2d):
    """A two-dimensional convolution that computes with the signs of its weights; see `BinaryLinear`.

    Args: as of `torch.nn.Conv2d`; without a bias by default.

    Example:
        >>> layer = BinaryConv2d(1, 1, 2)
        >>> with torch.no_grad(): _ = layer.weight.fill_(-0.01)
        >>> layer(torch.ones(1, 1, 2, 2)).item()
        -4.0
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        bias: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, bias=bias, **options)

    def forward(self, input: Tensor) -> Tensor:
        """(batch, in_channels, height, width) -> (batch, out_channels, height', width')."""
        return self._conv_forward(input, binary_sign(self.weight), self.bias)


class SignActivation(nn.Module):
    """The sign as an activation, with the derivative of the hard tanh.

    Example:
        >>> SignActivation()(torch.tensor([-0.1, 2.0]))
        tensor([-1.,  1.])
    """

    def forward(self, x: Tensor) -> Tensor:
        """Any shape -> the same shape, +1 and -1."""
        return binary_sign(x, reach=1.0)


class BinaryMLP(nn.Module):
    """A multilayer perceptron with binary weights and binary hidden activations.

    ``h_k = sign(N(sign(Wʰ_k) h_{k−1}))``, ``o = N(sign(Wʰ) h)``; inputs are not binarised.

    Args:
        inputs: values in a sample; samples of any layout are flattened.
        hidden: width of each hidden layer; empty gives a binary linear network.
        classes: outputs, at least 2.
        normalization: N, after every layer including the last: ``"batch"`` is batch normalisation with trained scale
            and shift and running statistics; ``"layer"`` normalises each sample over the layer's units, without
            parameters; ``"scale"`` divides by √fan-in; ``"test-batch"`` is batch normalisation by the statistics of the
            present batch in testing too, as in the published code. Where a test batch holds one task its statistics tell the
            network which: it is there to reproduce published numbers, and `lit_meta.audit` finds it out. Running
            statistics follow the latest experience: they are forgotten as weights are, and no rule protects them. ``"layer"``
            and ``"scale"`` have nothing to forget.
        initial: distribution of the initial hidden weights, ``"normal"`` or ``"uniform"``.
        initial_width: their standard deviation, or half the width of the uniform distribution.
        seed: of the initial weights, drawn without touching the global random state; None draws them from it.

    Raises:
        KeyError: an unknown normalization.
        ValueError: a size out of range.
        TypeError: a size that is not a whole number.

    Source:
        Laborieux et al., Nature Communications 12, 2549, 2021 (two hidden layers of 4096, normal weights of width
        0.01, batch normalisation). The code published with it normalises test batches by their own statistics
        (``track_running_stats=False``) or by statistics kept for each task, and so has access to the task of a test
        batch; of these, ``"test-batch"`` is the first. Its weights begin uniform on ± 0.05 (``initial_width=0.05``).

    Example:
        >>> network = BinaryMLP(784, [100], 10, seed=0).eval()
        >>> network(torch.rand(3, 1, 28, 28)).shape
        torch.Size([3, 10])
    """

    def __init__(
        self,
        inputs: int,
        hidden: Sequence[int],
        classes: int,
        *,
        normalization: Normalization = "batch",
        initial: Initial = "normal",
        initial_width: float = 0.01,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        one_of("normalization", normalization, Normalization)
        one_of("initial", initial, Initial)
        if not initial_width > 0:
            raise ValueError(f"initial_width must be positive, got {initial_width}.")
        self.inputs, self.classes = positive("inputs", inputs), class_count(classes)
        self.hidden = tuple(widths("hidden", hidden))
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        sizes = [inputs, *self.hidden, classes]
        self.layers = nn.ModuleList(BinaryLinear(*pair) for pair in pairwise(sizes))
        self.normalizations = nn.ModuleList(_normalization(normalization, *pair) for pair in pairwise(sizes))
        self.activation = SignActivation()
        with torch.no_grad():
            for layer in self.layers:
                assert isinstance(layer, BinaryLinear)
                if initial == "normal":
                    layer.weight.normal_(0.0, initial_width, generator=generator)
                else:
                    layer.weight.uniform_(-initial_width, initial_width, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, ...) with `inputs` values per sample -> (batch, classes), logits."""
        x = samples(x, (self.inputs,))
        last = len(self.layers) - 1
        for i, (layer, normalize) in enumerate(zip(self.layers, self.normalizations, strict=True)):
            x = normalize(layer(x))
            if i < last:
                x = self.activation(x)
        return x


class _BatchStatistics(nn.BatchNorm1d):
    """Batch normalisation by the statistics of the present batch, in testing too; a sample alone has no deviation from it."""

    def __init__(self, units: int) -> None:
        super().__init__(units, track_running_stats=False)

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) if len(input) > 1 else self.bias.expand_as(input)


class _Scale(nn.Module):
    def __init__(self, fan_in: int) -> None:
        super().__init__()
        self.factor = fan_in**-0.5

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


def _normalization(kind: str, fan_in: int, units: int) -> nn.Module:
    if kind == "batch":
        return nn.BatchNorm1d(units)
    if kind == "test-batch":
        return _BatchStatistics(units)
    return nn.LayerNorm(units, elementwise_affine=False) if kind == "layer" else _Scale(fan_in)
