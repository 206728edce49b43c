"""Spiking networks of leaky integrate-and-fire neurons: fully connected and convolutional."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from torch import Tensor, nn

from lit_meta.networks._build import (
    Pooling,
    WeightFactory,
    class_count,
    image_shape,
    make_pooling,
    positive,
    widths,
)
from lit_meta.networks.ann import conv_layers
from lit_meta.networks.gates import GateKind, GateOptions, InputGate
from lit_meta.networks.spiking import SpikingNetwork
from lit_meta.networks.spiking_options import Encoding, EncodingKind, LIFParameters
from lit_meta.utils.options import grouped


class LIFMLP(SpikingNetwork):
    """A fully connected spiking network, by default that of the class-continual experiments.

    ``V_t = 0.2 · V_{t−1} (1 − S_{t−1}) + σ(W x_t)``, ``S_t = [V_t > 0.5]`` in every layer, T = 20.

    Args:
        inputs: values in a sample; samples of any layout are flattened.
        hidden: width of each hidden layer; may be empty.
        classes: outputs, at least 2.
        neuron: `LIFParameters`, or a mapping of the fields that differ from the defaults.
        encoding: `Encoding`, a mapping of its fields, or a name.
        gate: `GateOptions`, a mapping of its fields, or a name.
        bias: whether layers have biases.
        output_bias: whether the output layer has a bias; None is as `bias`. The published code has one there and no other.
        weight_gain: initial weights are uniform on ± this over √fan-in.
        seed: of the initial weights, leaving the global random state alone; None draws them from the global
            one.
        **flat: fields of the three above, as ``steps=5, encoding_seed=1, gate_margin=0.1``.

    Raises:
        KeyError: an unknown name for an option.
        ValueError: a value out of range, or an option without effect.
        TypeError: a size that is not a whole number.

    Source: Zhang et al., Science Advances 9(34) eadi2947, 2023. Unlike in the code published with it, by default the
    membrane is detached between steps, reset and surrogate see the spike before the gate, the output layer has no bias, and
    input thresholds do not depend on the batch. `LIFParameters` has the options that follow the code.

    Example:
        >>> import torch
        >>> network = LIFMLP(784, [100], 10, neuron=LIFParameters(steps=5), gate="sample", seed=0).eval()
        >>> network(torch.rand(2, 1, 28, 28)).shape
        torch.Size([2, 10])
    """

    @grouped(neuron="", encoding="", gate="gate_")
    def __init__(
        self,
        inputs: int,
        hidden: Sequence[int],
        classes: int,
        *,
        neuron: LIFParameters = LIFParameters(),
        encoding: Encoding | EncodingKind = Encoding(),
        gate: GateOptions | GateKind = GateOptions(),
        bias: bool = False,
        output_bias: bool | None = None,
        weight_gain: float = 1.0,
        seed: int | None = None,
        **flat: Any,
    ) -> None:
        sizes = [positive("inputs", inputs), *widths("hidden", hidden), class_count(classes)]
        make = WeightFactory(seed, bias=bias, gain=weight_gain)
        super().__init__(
            layers=nn.ModuleList(
                make.linear(*pair, bias=output_bias if i == len(hidden) else None)
                for i, pair in enumerate(pairwise(sizes))
            ),
            gate=InputGate(gate, inputs=inputs, units=sizes[1:-1]),
            neuron=neuron,
            encoding=encoding,
        )
        self.input_shape: tuple[int, ...] = (inputs,)
        self.classes = classes


class LIFConvNet(SpikingNetwork):
    """A convolutional spiking network, by default that of the classification experiments.

    Every convolution is followed by LIF neurons and pooling that halves the map; fully connected layers
    follow.

    Args:
        input_shape: (channels, height, width).
        channels: of each convolution.
        kernel: side of the square kernels; the input is padded by ``kernel // 2``.
        hidden: width of each fully connected hidden layer; may be empty.
        classes: outputs, at least 2.
        neuron: as in `LIFMLP`; by default there is no logistic around the current here.
        encoding: as in `LIFMLP`.
        pooling: ``"average"``, or ``"max"``, which keeps spikes at 0 and 1.
        bias: whether layers have biases.
        weight_gain: initial weights are uniform on ± this over √fan-in. With 1 the potentials of the deeper
            layers stay below the threshold until biases have grown; they soon do, and NACA learns far faster than from
            wider weights, with which every layer fires from the start (docs/classification.md has the measurement).
        seed: of the initial weights, leaving the global random state alone; None draws them from the global
            one.
        **flat: fields of `LIFParameters` and `Encoding`, as ``steps=5``.

    Raises:
        KeyError: an unknown name for an option.
        ValueError: a value out of range, or an option without effect.
        TypeError: a size that is not a whole number.

    Source: Zhang et al. 2023 (conv64-pool-conv128-pool-FC1000-FC10, 5 x 5, lens 0.5).

    Example:
        >>> import torch
        >>> network = LIFConvNet((1, 28, 28), channels=(4, 8), hidden=(32,), steps=5, seed=0).eval()
        >>> network(torch.rand(2, 1, 28, 28)).shape
        torch.Size([2, 10])
    """

    @grouped(neuron="", encoding="")
    def __init__(
        self,
        input_shape: Sequence[int],
        channels: Sequence[int] = (64, 128),
        kernel: int = 5,
        hidden: Sequence[int] = (1000,),
        classes: int = 10,
        *,
        neuron: LIFParameters = LIFParameters(lens=0.5, current="identity", steps_at_once=4),
        encoding: Encoding | EncodingKind = Encoding(),
        pooling: Pooling = "average",
        bias: bool = True,
        weight_gain: float = 1.0,
        seed: int | None = None,
        **flat: Any,
    ) -> None:
        shape = image_shape(input_shape)
        layers = conv_layers(
            shape,
            channels,
            kernel,
            hidden,
            class_count(classes),
            WeightFactory(seed, bias=bias, gain=weight_gain),
        )
        super().__init__(layers=layers, gate=InputGate("none", inputs=1, units=()), neuron=neuron, encoding=encoding)
        self.pooling = make_pooling(pooling)
        self.input_shape: tuple[int, ...] = shape
        self.classes = classes

    def _before(self, layer: int, signal: Tensor) -> Tensor:
        if layer > 0 and isinstance(self.layers[layer - 1], nn.Conv2d):
            signal = self.pooling(signal)
        return signal if isinstance(self.layers[layer], nn.Conv2d) else signal.flatten(1)
