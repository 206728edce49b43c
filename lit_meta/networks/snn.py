"""Spiking networks of leaky integrate-and-fire neurons: fully connected and convolutional."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

from torch import Tensor, nn

from lit_meta.functional.spiking import Surrogate
from lit_meta.networks._build import (
    OutputActivation,
    Pooling,
    WeightFactory,
    class_count,
    image_shape,
    make_pooling,
    positive,
    widths,
)
from lit_meta.networks.ann import conv_layers
from lit_meta.networks.gates import GateKind, InputGate
from lit_meta.networks.spiking import Encoding, Learning, SpikingNetwork


class LIFMLP(SpikingNetwork):
    """A fully connected spiking network, by default that of the class-continual experiments.

    ``V_t = 0.2 · V_{t−1} (1 − S_{t−1}) + σ(W x_t)``, ``S_t = [V_t > 0.5]`` in every layer, T = 20.

    Args:
        inputs: values in a sample; samples of any layout are flattened.
        hidden: width of each hidden layer; may be empty.
        classes: outputs, at least 2.
        gate: as in `MLP`, with `gate_margin`, `gate_threshold`, `gate_slope` and `gate_active_units`.
        bias: whether layers have biases.
        weight_gain: initial weights are uniform on ± this over √fan-in.
        seed: of the initial weights, leaving the global random state alone; None draws them from the global
            one.

    The other options are described at `SpikingNetwork`.

    Raises:
        KeyError: an unknown name for an option.
        ValueError: a value out of range, or an option without effect.
        TypeError: a size that is not a whole number.

    Source: Zhang et al., Science Advances 9(34) eadi2947, 2023. Unlike the code published with it, the
    membrane is detached between steps, the reset sees the spike before the gate, and input thresholds do not
    depend on the batch.

    Example:
        >>> import torch
        >>> network = LIFMLP(784, [100], 10, steps=5, seed=0).eval()
        >>> network(torch.rand(2, 1, 28, 28)).shape
        torch.Size([2, 10])
    """

    def __init__(
        self,
        inputs: int,
        hidden: Sequence[int],
        classes: int,
        *,
        steps: int = 20,
        decay: float = 0.2,
        threshold: float = 0.5,
        surrogate: Surrogate = "stdp",
        lens: float = 0.2,
        current: OutputActivation = "sigmoid",
        encoding: Encoding = "bernoulli",
        input_low: float = 0.0,
        input_high: float = 1.0,
        input_range: Literal["fixed", "batch"] = "fixed",
        encoding_seed: int = 0,
        learning: Learning = "last_step",
        steps_at_once: int = 5,
        gate: GateKind = "none",
        gate_margin: float | None = None,
        gate_threshold: float | None = None,
        gate_slope: float | None = None,
        gate_active_units: int | None = None,
        bias: bool = False,
        weight_gain: float = 1.0,
        seed: int | None = None,
    ) -> None:
        sizes = [positive("inputs", inputs), *widths("hidden", hidden), class_count(classes)]
        make = WeightFactory(seed, bias=bias, gain=weight_gain)
        super().__init__(
            layers=nn.ModuleList(make.linear(*pair) for pair in pairwise(sizes)),
            gate=InputGate(
                gate,
                inputs=inputs,
                units=sizes[1:-1],
                margin=gate_margin,
                threshold=gate_threshold,
                slope=gate_slope,
                active_units=gate_active_units,
            ),
            steps=steps,
            decay=decay,
            threshold=threshold,
            surrogate=surrogate,
            lens=lens,
            current=current,
            encoding=encoding,
            input_low=input_low,
            input_high=input_high,
            input_range=input_range,
            encoding_seed=encoding_seed,
            learning=learning,
            steps_at_once=steps_at_once,
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
        pooling: ``"average"``, or ``"max"``, which keeps spikes at 0 and 1.
        bias: whether layers have biases.
        weight_gain: initial weights are uniform on ± this over √fan-in. With 1 the potentials of the deeper
            layers stay below the threshold until biases have grown; they soon do, and NACA learns far faster than from
            wider weights, with which every layer fires from the start (docs/classification.md has the measurement).
        seed: of the initial weights, leaving the global random state alone; None draws them from the global
            one.

    The other options are described at `SpikingNetwork`; there is no logistic around the current here.

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

    def __init__(
        self,
        input_shape: Sequence[int],
        channels: Sequence[int] = (64, 128),
        kernel: int = 5,
        hidden: Sequence[int] = (1000,),
        classes: int = 10,
        *,
        steps: int = 20,
        decay: float = 0.2,
        threshold: float = 0.5,
        surrogate: Surrogate = "stdp",
        lens: float = 0.5,
        current: OutputActivation = "identity",
        encoding: Encoding = "bernoulli",
        input_low: float = 0.0,
        input_high: float = 1.0,
        input_range: Literal["fixed", "batch"] = "fixed",
        encoding_seed: int = 0,
        learning: Learning = "last_step",
        steps_at_once: int = 4,
        pooling: Pooling = "average",
        bias: bool = True,
        weight_gain: float = 1.0,
        seed: int | None = None,
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
        super().__init__(
            layers=layers,
            gate=InputGate("none", inputs=1, units=()),
            steps=steps,
            decay=decay,
            threshold=threshold,
            surrogate=surrogate,
            lens=lens,
            current=current,
            encoding=encoding,
            input_low=input_low,
            input_high=input_high,
            input_range=input_range,
            encoding_seed=encoding_seed,
            learning=learning,
            steps_at_once=steps_at_once,
        )
        self.pooling = make_pooling(pooling)
        self.input_shape: tuple[int, ...] = shape
        self.classes = classes

    def _before(self, layer: int, signal: Tensor) -> Tensor:
        if layer > 0 and isinstance(self.layers[layer - 1], nn.Conv2d):
            signal = self.pooling(signal)
        return signal if isinstance(self.layers[layer], nn.Conv2d) else signal.flatten(1)
