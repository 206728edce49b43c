"""Artificial networks: a gated multilayer perceptron and a small convolutional network."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from torch import Tensor, nn

from lit_meta.networks._build import (
    Activation,
    OutputActivation,
    Pooling,
    WeightFactory,
    class_count,
    image_shape,
    make_activation,
    make_output_activation,
    make_pooling,
    pooled_size,
    positive,
    samples,
    widths,
)
from lit_meta.networks.gates import GateKind, GateOptions, InputGate
from lit_meta.networks.selective import SelectiveLinear, open_units
from lit_meta.utils.options import grouped


class MLP(nn.Module):
    """A multilayer perceptron, by default the logistic network of the class-continual experiments.

    ``h_k = g_k ⊙ f(W_k h_{k−1})``, ``o = f_o(U h)``, the gates g from the raw input.

    Args:
        inputs: values in a sample; samples of any layout are flattened.
        hidden: width of each hidden layer; empty makes a linear network.
        classes: outputs, at least 2.
        activation: f, one of ``"sigmoid"``, ``"relu"``, ``"tanh"``.
        output: f_o, ``"sigmoid"`` (for squared error) or ``"identity"`` (logits).
        gate: `GateOptions`, a mapping of its fields, or the name of a gate with its options beside it
            (``gate="sample", gate_margin=0.1``). With ``"batch"``, the published gate, a prediction depends on the other
            samples of its batch.
        skip_closed: compute only units that the gate has opened for some sample of the batch, where these are at most half.
            The result is the same; it is faster where the gate opens few units and the same ones for most samples, as
            ``"batch"`` does.
        bias: whether layers have biases.
        weight_gain: initial weights are uniform on ± this over √fan-in.
        seed: of the initial weights, leaving the global random state alone; None draws them from the global
            one.
        **flat: fields of `GateOptions`, as ``gate_margin``.

    Raises:
        KeyError: an unknown activation, output or gate.
        ValueError: a size out of range, or an option the gate does not have.
        TypeError: a size that is not a whole number.

    Source: Zhang et al., Science Advances 9(34) eadi2947, 2023.

    Example:
        >>> import torch
        >>> network = MLP(784, [1000], 10, gate="sample", seed=0)
        >>> network(torch.rand(32, 1, 28, 28)).shape
        torch.Size([32, 10])
    """

    @grouped(gate="gate_")
    def __init__(
        self,
        inputs: int,
        hidden: Sequence[int],
        classes: int,
        *,
        activation: Activation = "sigmoid",
        output: OutputActivation = "sigmoid",
        gate: GateOptions | GateKind = GateOptions(),
        skip_closed: bool = False,
        bias: bool = False,
        weight_gain: float = 1.0,
        seed: int | None = None,
        **flat: Any,
    ) -> None:
        super().__init__()
        self.inputs, self.classes = positive("inputs", inputs), class_count(classes)
        self.hidden = tuple(widths("hidden", hidden))
        self.activation = make_activation(activation)
        self.output_activation = make_output_activation(output)
        self.gate = InputGate(gate, inputs=inputs, units=self.hidden)
        if skip_closed and self.gate.kind == "none":
            raise ValueError("skip_closed=True has no effect without a gate: choose one, or leave it out.")
        self.skip_closed = skip_closed
        make = WeightFactory(seed, bias=bias, gain=weight_gain)
        kind = SelectiveLinear if skip_closed else nn.Linear
        self.layers = nn.ModuleList(make.linear(*sizes, kind) for sizes in pairwise([inputs, *self.hidden, classes]))

    def forward(self, x: Tensor) -> Tensor:
        """(batch, ...) of `inputs` values a sample -> (batch, classes)."""
        x = samples(x, (self.inputs,))
        masks = self.gate(x)
        if self.skip_closed:
            return self._selective(x, masks)
        for i, mask in enumerate(masks):
            x = self.activation(self.layers[i](x))
            if mask is not None:
                x = x * mask
        return self.output_activation(self.layers[-1](x))

    def _selective(self, x: Tensor, masks: list[Tensor | None]) -> Tensor:
        before: Tensor | None = None
        for layer, mask in zip(self.layers[:-1], masks, strict=True):
            assert mask is not None  # There is a gate.
            units = open_units(mask)
            h = self.activation(layer(x, units, before))
            if units is None:
                x = h * mask
            else:
                # Whole rows again: a rule counts units by their position in the layer.
                x = h.new_zeros(len(h), mask.shape[-1]).index_copy(1, units, h * mask.index_select(-1, units))
            before = units
        return self.output_activation(self.layers[-1](x, None, before))


class ConvNet(nn.Module):
    """Convolution and pooling, twice by default, then full layers: the paper's classification network.

    Args:
        input_shape: (channels, height, width).
        channels: of each convolution; every one is followed by the activation and pooling that halves the
            map.
        kernel: side of the square kernels; the input is padded by ``kernel // 2``.
        hidden: width of each fully connected hidden layer; may be empty.
        classes: outputs, at least 2.
        activation: ``"tanh"``, ``"relu"`` or ``"sigmoid"``.
        output: ``"identity"`` (logits) or ``"sigmoid"`` (for squared error).
        pooling: ``"average"`` or ``"max"``.
        bias: whether layers have biases.
        seed: of the initial weights, leaving the global random state alone; None draws them from the global
            one.

    Raises:
        KeyError: an unknown activation, output or pooling.
        ValueError: a size out of range, or an input too small for the stages.
        TypeError: a size that is not a whole number.

    Source: Zhang et al. 2023 (conv64-pool-conv128-pool-FC1000-FC10, 5 x 5, tanh).

    Example:
        >>> import torch
        >>> network = ConvNet((1, 28, 28), channels=(4, 8), hidden=(32,), seed=0)
        >>> network(torch.rand(2, 1, 28, 28)).shape
        torch.Size([2, 10])
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        channels: Sequence[int] = (64, 128),
        kernel: int = 5,
        hidden: Sequence[int] = (1000,),
        classes: int = 10,
        *,
        activation: Activation = "tanh",
        output: OutputActivation = "identity",
        pooling: Pooling = "average",
        bias: bool = True,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        self.input_shape = image_shape(input_shape)
        self.classes = class_count(classes)
        self.activation = make_activation(activation)
        self.output_activation = make_output_activation(output)
        self.pooling = make_pooling(pooling)
        self.layers = conv_layers(self.input_shape, channels, kernel, hidden, classes, WeightFactory(seed, bias=bias))

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, height, width) -> (batch, classes)."""
        x = samples(x, self.input_shape)
        for layer in self.layers[:-1]:
            if isinstance(layer, nn.Conv2d):
                x = self.pooling(self.activation(layer(x)))
            else:
                x = self.activation(layer(x.flatten(1)))
        return self.output_activation(self.layers[-1](x.flatten(1)))


def conv_layers(
    input_shape: tuple[int, int, int],
    channels: Sequence[int],
    kernel: int,
    hidden: Sequence[int],
    classes: int,
    make: WeightFactory,
) -> nn.ModuleList:
    """The weight layers of a convolutional network, in order: convolutions, then fully connected ones."""
    positive("kernel", kernel)
    maps = [input_shape[0], *widths("channels", channels)]
    stages = len(maps) - 1
    features = maps[-1] * pooled_size(input_shape[1], kernel, stages) * pooled_size(input_shape[2], kernel, stages)
    convolutions = [make.conv(*sizes, kernel) for sizes in pairwise(maps)]
    full = [make.linear(*sizes) for sizes in pairwise([features, *widths("hidden", hidden), classes])]
    return nn.ModuleList([*convolutions, *full])
